/*
 * From layers to colours: what a map, its legend and a saved picture show of a layer.
 */

const LAYERS = {
  measured: "Measured",
  predicted: "Predicted",
  spread: "Spread",
  support: "Support",
  domains: "Domains",
  image: "Image",
};

const EXPLAINED = {
  spread: "standard deviation of what a predicted value may be off by",
  support: "how well the references cover what a spot looks like",
};

/** Layers in which spots that look like nothing on the references have no colour, but a ring. */
const RINGED = new Set(["predicted", "spread", "domains"]);

/** Ring of such a spot: its colour, and its width in pixels. */
const UNKNOWN = { colour: "#777777", width: 1.2 };

let unknown = new Set(content.unknown);

/** Whether a layer shows a spot as a ring. */
function isRinged(layer, spot) {
  return RINGED.has(layer) && unknown.has(spot);
}

/** What is said of these spots. */
function unknownText() {
  const look = unknown.size === 1 ? "spot looks" : "spots look";
  return `${counted(unknown.size)} ${look} like nothing on the references`;
}

const PALETTES = { viridis: "Viridis", magma: "Magma", cividis: "Cividis" };

/** Colours of a palette from low to high, as "#rrggbb". */
const palettes = Object.fromEntries(
  Object.entries(content.palettes).map(([name, digits]) => [name, digits.match(/.{6}/g).map((one) => `#${one}`)]),
);

/**
 * @typedef {Object} View
 * @property {"scale"|"classes"|"none"} kind
 * @property {string} title
 * @property {string} [label] Unit of a scale.
 * @property {number} [low]
 * @property {number} [high]
 * @property {boolean} [below] Whether there are values below the scale.
 * @property {boolean} [above]
 * @property {string[]} [colours] Of the scale from low to high, or of the classes.
 * @property {string[]} [names] Of the classes.
 * @property {number[]} [counts] Spots of each class.
 */

/** Gene that a map shows: the second one on the second map where two are shown side by side. */
function geneOf(index) {
  return index === 1 && state.second >= 0 && state.pair === "side" ? state.second : state.gene;
}

/**
 * What a layer shows of a gene.
 * @param {string} layer
 * @param {number} [shownGene]
 * @returns {View}
 */
function viewOf(layer, shownGene = state.gene) {
  if (layer === "image") return { kind: "none", title: "Image" };
  if (layer === "domains") {
    return { kind: "classes", title: "Domains by predicted expression", ...content.domains };
  }
  if (layer === "support") {
    const scale = { low: 0, high: 1, below: false, above: false };
    return { kind: "scale", title: "Support", label: EXPLAINED.support, colours: palettes.cividis, ...scale };
  }
  const title = `${content.genes[shownGene]}, ${LAYERS[layer].toLowerCase()}`;
  const scale = narrowed(limitsOf(layer, shownGene));
  if (layer === "spread") {
    const colours = palettes[state.palette === "magma" ? "viridis" : "magma"];
    return { kind: "scale", title, label: `standard deviation, ${content.units}`, ...scale, colours };
  }
  return { kind: "scale", title, label: content.units, ...scale, colours: palettes[state.palette] };
}

/** Ends of the colour scale of a layer before the reader changes the contrast. */
function limitsOf(layer, gene) {
  const isShared = layer !== "spread" && state.scale === "shared";
  return isShared ? content.limits[gene] : content.layers[layer].limits[gene];
}

/** The part of a scale to which the reader has drawn the contrast. */
function narrowed([low, high, below, above]) {
  const at = (share) => low + share * (high - low);
  return { low: at(state.least), high: at(state.most), below: below || state.least > 0, above: above || state.most < 1 };
}

/**
 * Colour of every spot, or null where it stays blank.
 * @param {string} layer
 * @param {number} index Of the map.
 * @returns {Array<?string>}
 */
function spotColours(layer, index) {
  const colours = isBlended(layer) ? blendedColours(layer) : allColours(layer, geneOf(index));
  return colours.map((colour, spot) => (isRinged(layer, spot) ? null : colour));
}

function allColours(layer, gene) {
  const n = content.nSpots;
  if (layer === "image") return new Array(n).fill(null);
  if (layer === "domains") return Array.from(arrays.domains, (code) => content.domains.colours[code] ?? null);
  const view = viewOf(layer, gene);
  if (layer === "support") return Array.from(arrays.support, (value) => colourOn(view, value));
  // A gene has 255 codes and a slide thousands of spots.
  const table = Array.from({ length: MISSING + 1 }, (_, code) => colourOn(view, decoded(layer, gene, code)));
  return Array.from(codesOf(layer, gene), (code) => table[code]);
}

/** Colour of a value on a scale; null for NaN. */
function colourOn(view, value) {
  if (!Number.isFinite(value)) return null;
  const last = view.colours.length - 1;
  return view.colours[Math.round(clamped(shareOf(view, value), 0, 1) * last)];
}

/** Where a value lies on a scale, 0 to 1. */
function shareOf(view, value) {
  return (value - view.low) / (view.high - view.low || 1);
}

/** Numbers at the two ends of a scale; a sign says that there are values beyond. */
function scaleEnds(view) {
  const low = `${view.below ? "\u2264 " : ""}${formatted(view.low)}`;
  return [low, `${view.above ? "\u2265 " : ""}${formatted(view.high)}`];
}

/** How well the shown genes are predicted, a line each. */
function trustLines() {
  if (state.second < 0) return [trustText(state.gene)];
  return [state.gene, state.second].map((gene) => `${content.genes[gene]}: ${trustText(gene)}`);
}

/** How well a gene is predicted, in words. */
function trustText(gene) {
  const { trust, achieved } = content;
  const parts = [];
  if (trust !== null) {
    const interval = `${formatted(trust.low[gene])} to ${formatted(trust.high[gene])}`;
    parts.push(
      isNumber(trust.pcc[gene])
        ? `PCC ${formatted(trust.pcc[gene])} (95 % interval ${interval}) on references held out in turn, for ${content.forWhom}`
        : "no PCC is defined on the references",
    );
  }
  if (content.warning !== null && trust !== null) parts.push("not for this slide, most of which looks like nothing on them");
  if (achieved !== null) parts.push(`PCC ${formatted(achieved[gene])} on this slide`);
  return parts.join("; ");
}
