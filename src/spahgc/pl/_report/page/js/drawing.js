/*
 * Drawing a region on a map: a rectangle from corner to corner, or a lasso around it.
 */

/** Pixels of the screen between two corners of a lasso. */
const LASSO_STEP_PX = 4;
/** A click of the mouse follows its release; one that ends a drawing chooses no spot. */
const AFTER_DRAWING_MS = 60;

const drawing = { corners: [], outlines: [], isDone: false, from: -1 };

/** Make the buttons and the pointer draw. */
function makeDrawing() {
  for (const kind of ["rectangle", "lasso"]) {
    listen(byId(kind), "click", () => update({ drawing: state.drawing === kind ? "move" : kind }));
  }
  for (const { map } of panels) listenToDrawing(map);
  showDrawing();
  onChange((changed) => {
    if (changed.has("drawing")) showDrawing();
  });
}

function showDrawing() {
  for (const kind of ["rectangle", "lasso"]) byId(kind).setAttribute("aria-pressed", String(state.drawing === kind));
  for (const { map } of panels) {
    if (state.drawing === "move") map.dragging.enable();
    else map.dragging.disable();
    map.getContainer().classList.toggle("drawing", state.drawing !== "move");
  }
}

function listenToDrawing(map) {
  const container = map.getContainer();
  const placed = (event) => {
    const { lat, lng } = map.mouseEventToLatLng(event);
    return [lng, -lat];
  };
  listen(container, "pointerdown", (event) => {
    if (state.drawing === "move" || event.button !== 0 || event.target.closest(".zoom-buttons")) return;
    container.setPointerCapture(event.pointerId);
    drawing.corners = [placed(event)];
  });
  listen(container, "pointermove", (event) => {
    if (drawing.corners.length === 0) return;
    const step = LASSO_STEP_PX / map.getZoomScale(map.getZoom(), 0);
    const [[x, y], [lastX, lastY]] = [placed(event), drawing.corners.at(-1)];
    if (state.drawing === "rectangle") drawing.corners = rectangleOf(drawing.corners[0], [x, y]);
    else if (Math.hypot(x - lastX, y - lastY) >= step) drawing.corners.push([x, y]);
    showOutline(drawing.corners);
  });
  listen(container, "pointerup", () => {
    if (drawing.corners.length === 0) return;
    const { corners } = drawing;
    drawing.corners = [];
    drawing.isDone = true;
    setTimeout(() => (drawing.isDone = false), AFTER_DRAWING_MS);
    const kind = state.drawing;
    update({ drawing: "move" });
    if (corners.length < 3) showOutline(null);
    else chooseRegion(kind === "lasso" ? "Lasso" : "Rectangle", [corners]);
  });
  listen(container, "pointercancel", () => {
    drawing.corners = [];
    showOutline(null);
  });
}

function rectangleOf([x0, y0], [x1, y1]) {
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
}

/** A rectangle without a mouse: from the spot of the first press to that of the second, both within. */
function markCorner() {
  if (state.pointed < 0) return;
  if (drawing.from < 0) {
    drawing.from = state.pointed;
    announce(`Rectangle from spot ${content.spots[state.pointed]}; go to the opposite corner and press R again`);
    return;
  }
  const ends = [drawing.from, state.pointed].map((spot) => [arrays.places[2 * spot], arrays.places[2 * spot + 1]]);
  const room = content.diameter / 2;
  const [least, most] = [0, 1].map((far) => [0, 1].map((axis) => (far ? Math.max : Math.min)(ends[0][axis], ends[1][axis]) + (far ? room : -room)));
  drawing.from = -1;
  chooseRegion("Rectangle", [rectangleOf(least, most)]);
}

/**
 * Show what is drawn on all maps.
 * @param {?Array<[number, number]>|Array<Array<[number, number]>>} corners One ring or several; nothing takes it away.
 */
function showOutline(corners) {
  for (const outline of drawing.outlines.splice(0)) outline.remove();
  if (corners === null) return;
  const rings = Array.isArray(corners[0][0]) ? corners : [corners];
  const places = rings.map((ring) => ring.map(([x, y]) => [-y, x]));
  for (const { map } of panels) {
    for (const style of [{ color: "#ffffff", weight: 4 }, { color: "#111111", weight: 2, dashArray: "6 5" }]) {
      drawing.outlines.push(L.polygon(places, { ...style, pane: "marks", fill: false, interactive: false, className: "region-outline" }).addTo(map));
    }
  }
}
