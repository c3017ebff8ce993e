/*
 * What stands around the maps: the choice of layers above, the legend below, the values of the spot under the pointer.
 */

const STOPS = 24;

/** Fill the frames of all maps and keep them up to date. */
function makeLegends() {
  state.shown.forEach((_, index) => {
    byId(`layers-${index}`).append(...layerChoices(index));
    drawLegend(index);
  });
  showGene();
  showPointed();
  onChange((changed) => {
    if (changed.has("gene")) showGene();
    if (["gene", "palette", "shown"].some((name) => changed.has(name))) state.shown.forEach((_, i) => drawLegend(i));
    if (["gene", "pointed", "spot", "shown"].some((name) => changed.has(name))) showPointed();
  });
}

function layerChoices(index) {
  return Object.keys(LAYERS).filter(hasLayer).map((layer) => {
    const choice = make("input", {
      type: "radio",
      name: `layer-${index}`,
      value: layer,
      checked: state.shown[index] === layer,
      onchange: () => showLayer(index, layer).catch(showFailure),
    });
    return make("label", { title: EXPLAINED[layer] }, choice, make("span", {}, LAYERS[layer]));
  });
}

function showGene() {
  byId("gene-trust").textContent = trustText(state.gene);
}

function drawLegend(index) {
  const view = viewOf(state.shown[index]);
  byId(`legend-${index}`).replaceChildren(...legendParts(view), ...ringLegend(state.shown[index]));
  byId(`map-${index}`).setAttribute(
    "aria-label",
    `Map: ${view.title}. Arrow keys walk from spot to spot, Enter chooses a spot, plus and minus zoom, 0 shows all.`,
  );
}

/** What the rings are, where there are any. */
function ringLegend(layer) {
  if (unknown.size === 0 || !RINGED.has(layer)) return [];
  return [make("span", { class: "rings" }, make("span", { class: "swatch unknown", "aria-hidden": "true" }), unknownText())];
}

function legendParts(view) {
  if (view.kind === "none") return [make("span", { class: "unit" }, "The slide without its spots")];
  if (view.kind === "classes") {
    return view.names.map((name, code) => {
      const patch = make("span", { class: "swatch", "aria-hidden": "true" });
      patch.style.background = view.colours[code];
      return make("span", { class: "class" }, patch, `${name} `, make("small", {}, `(${counted(view.counts[code])})`));
    });
  }
  const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("span", { class: "needle", hidden: true }));
  const stops = Array.from({ length: STOPS }, (_, i) => colourOn({ ...view, low: 0, high: STOPS - 1 }, i));
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  const [low, high] = scaleEnds(view);
  return [
    make("span", { class: "scale" }, make("span", {}, low), bar, make("span", {}, high)),
    make("span", { class: "unit" }, view.label),
  ];
}

/** Values of the spot under the pointer, else of the chosen one, in words and on the legends. */
function showPointed() {
  const spot = state.pointed >= 0 ? state.pointed : state.spot;
  byId("readout").textContent = spot >= 0 ? spotText(spot) : "Point at a spot for its values; click it for its references.";
  state.shown.forEach((layer, index) => {
    const needle = byId(`legend-${index}`).querySelector(".needle");
    if (needle === null) return;
    const value = spot >= 0 ? valueAt(layer, state.gene, spot) : NaN;
    needle.hidden = Number.isNaN(value);
    needle.style.left = `${100 * clamped(shareOf(viewOf(layer), value), 0, 1)}%`;
  });
}

/**
 * A spot and its values in words.
 * @param {number} spot
 * @param {string} [first] Layer to name first.
 */
function spotText(spot, first) {
  const parts = spotValues(spot).map(([name, value]) => `${name.toLowerCase()} ${value}`);
  parts.sort((a, b) => Number(b.startsWith(first)) - Number(a.startsWith(first)));
  const caution = unknown.has(spot) ? " (it looks like nothing on the references: do not read its prediction)" : "";
  return `Spot ${content.spots[spot]}: ${parts.join(", ")}${caution}`;
}

/**
 * Values of a spot by their names.
 * @param {number} spot
 * @returns {Array<[string, string]>}
 */
function spotValues(spot) {
  const values = [];
  for (const layer of ["measured", "predicted", "spread", "support"]) {
    if (!hasLayer(layer) || !(layer in arrays)) continue;
    values.push([LAYERS[layer], formatted(valueAt(layer, state.gene, spot))]);
  }
  if (hasLayer("domains")) values.push(["Domain", domainAt(spot) ?? NO_VALUE]);
  return values;
}
