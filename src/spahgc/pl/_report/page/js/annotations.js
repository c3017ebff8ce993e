/*
 * Regions that somebody drew elsewhere, over the maps; each can be chosen as a region of the page.
 */

/** Draw the annotations and their names. */
function makeAnnotations() {
  const { annotations } = content;
  byId("annotations").hidden = annotations.length === 0;
  byId("annotated").checked = state.annotated;
  listen(byId("annotated"), "change", ({ target }) => update({ annotated: target.checked }));
  byId("annotation-names").replaceChildren(...annotations.map(annotationButton));
  const overlays = panels.map(({ map }) => L.layerGroup(annotations.flatMap(outlinesOfAnnotation)).addTo(map));
  const show = () => panels.forEach(({ map }, i) => (state.annotated ? overlays[i].addTo(map) : overlays[i].remove()));
  show();
  onChange((changed) => {
    if (changed.has("annotated")) show();
  });
}

function annotationButton(annotation) {
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = annotation.colour;
  const title = `Choose the spots in ${annotation.name}`;
  return make("button", { type: "button", title, onclick: () => chooseRegion(annotation.name, annotation.rings) }, swatch, annotation.name);
}

/** A dark line below a coloured one is seen on any tissue. */
function outlinesOfAnnotation({ colour, rings }) {
  const corners = rings.map((ring) => ring.map(([x, y]) => [-y, x]));
  const lines = [["#111111", 4.5], [colour, 2.5]];
  const style = { pane: "marks", fill: false, interactive: false, className: "annotation" };
  return lines.map(([color, weight]) => L.polygon(corners, { ...style, color, weight }));
}

/** Trace the annotations on a canvas. */
function drawSheetAnnotations(ink, map) {
  if (!state.annotated) return;
  for (const { colour, rings } of content.annotations) {
    for (const [stroke, width] of [["#111111", 4.5], [colour, 2.5]]) {
      [ink.strokeStyle, ink.lineWidth] = [stroke, width];
      for (const ring of rings) traceRing(ink, map, ring);
    }
  }
}

function traceRing(ink, map, ring) {
  ink.beginPath();
  for (const [x, y] of ring) {
    const point = map.latLngToContainerPoint([-y, x]);
    ink.lineTo(point.x, point.y);
  }
  ink.closePath();
  ink.stroke();
}
