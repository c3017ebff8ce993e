/*
 * What stands around the maps: the choice of layers above, the legend below, the values of the spot under the pointer.
 */

const STOPS = 24;
const BLEND_SQUARE_PX = 60;

/** What changes the colours of the spots. */
const RECOLOURING = ["gene", "second", "pair", "palette", "shown", "scale", "least", "most"];

/** Fill the frames of all maps and keep them up to date. */
function makeLegends() {
  state.shown.forEach((_, index) => {
    byId(`layers-${index}`).replaceChildren(...layerChoices(index));
    drawLegend(index);
  });
  showGene();
  showPointed();
  onChange((changed) => {
    if (changed.has("gene") || changed.has("second")) showGene();
    if (changed.has("shown")) checkLayers();
    if (RECOLOURING.some((name) => changed.has(name))) state.shown.forEach((_, i) => drawLegend(i));
    if ([...RECOLOURING, "pointed", "spot"].some((name) => changed.has(name))) showPointed();
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

/** Layers change by more than their buttons: two genes are compared in the same layer. */
function checkLayers() {
  state.shown.forEach((layer, index) => {
    for (const choice of byId(`layers-${index}`).querySelectorAll("input")) choice.checked = choice.value === layer;
  });
}

function showGene() {
  byId("gene-trust").replaceChildren(...trustLines().map((line) => make("span", {}, line)));
}

function drawLegend(index) {
  const layer = state.shown[index];
  const parts = isBlended(layer) ? blendLegend(layer) : legendParts(viewOf(layer, geneOf(index)));
  byId(`legend-${index}`).replaceChildren(...parts, ...ringLegend(layer));
  byId(`map-${index}`).setAttribute(
    "aria-label",
    `Map: ${titleOf(index)}. Arrow keys walk from spot to spot, Enter chooses a spot, R marks the corners of a rectangle, ` +
      "plus and minus zoom, 0 shows all.",
  );
}

/** What the rings are, where there are any. */
function ringLegend(layer) {
  if (unknown.size === 0 || !RINGED.has(layer)) return [];
  return [make("span", { class: "rings" }, make("span", { class: "swatch unknown", "aria-hidden": "true" }), unknownText())];
}

function blendLegend(layer) {
  const lines = [...blendTexts(layer), `White: both low; dark: both high. ${content.units}`];
  return [blendSquare(BLEND_SQUARE_PX), make("span", { class: "blend-texts" }, ...lines.map((line) => make("span", {}, line)))];
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
    make("span", { class: "unit" }, `${view.title}: ${view.label}`),
  ];
}

/** Values of the spot under the pointer, else of the chosen one, in words and on the legends. */
function showPointed() {
  const spot = state.pointed >= 0 ? state.pointed : state.spot;
  byId("readout").textContent = spot >= 0 ? spotText(spot) : "Point at a spot for its values; click it for its references.";
  state.shown.forEach((layer, index) => {
    const needle = byId(`legend-${index}`).querySelector(".needle");
    if (needle === null) return;
    const gene = geneOf(index);
    const value = spot >= 0 && !isRinged(layer, spot) ? valueAt(layer, gene, spot) : NaN;
    needle.hidden = Number.isNaN(value);
    needle.style.left = `${100 * clamped(shareOf(viewOf(layer, gene), value), 0, 1)}%`;
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
  const caution = unknown.has(spot) ? " (it looks like nothing on the references, so its prediction is not shown)" : "";
  const second = state.second >= 0 && !unknown.has(spot) ? `; ${content.genes[state.second]} predicted ${formatted(valueAt("predicted", state.second, spot))}` : "";
  return `Spot ${content.spots[spot]}: ${parts.join(", ")}${caution}${second}`;
}

/**
 * Values of a spot by their names; a dash where nobody knows what a value is worth.
 * @param {number} spot
 * @returns {Array<[string, string]>}
 */
function spotValues(spot) {
  const values = [];
  for (const layer of ["measured", "predicted", "spread", "support"]) {
    if (!hasLayer(layer) || !(layer in arrays)) continue;
    values.push([LAYERS[layer], isRinged(layer, spot) ? NO_VALUE : formatted(valueAt(layer, state.gene, spot))]);
  }
  if (hasLayer("domains")) values.push(["Domain", unknown.has(spot) ? NO_VALUE : (domainAt(spot) ?? NO_VALUE)]);
  return values;
}
