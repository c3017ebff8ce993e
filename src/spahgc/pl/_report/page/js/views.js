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

const unknown = new Set(content.unknown);

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

/**
 * What a layer shows of the chosen gene.
 * @param {string} layer
 * @returns {View}
 */
function viewOf(layer) {
  if (layer === "image") return { kind: "none", title: "Image" };
  if (layer === "domains") {
    return { kind: "classes", title: "Domains by predicted expression", ...content.domains };
  }
  if (layer === "support") {
    const scale = { low: 0, high: 1, below: false, above: false };
    return { kind: "scale", title: "Support", label: EXPLAINED.support, colours: palettes.cividis, ...scale };
  }
  const gene = content.genes[state.gene];
  if (layer === "spread") {
    const [low, high, below, above] = content.layers.spread.limits[state.gene];
    const colours = palettes[state.palette === "magma" ? "viridis" : "magma"];
    const label = `standard deviation, ${content.units}`;
    return { kind: "scale", title: `${gene}, spread`, label, low, high, below, above, colours };
  }
  const [low, high, below, above] = content.limits[state.gene];
  const title = `${gene}, ${LAYERS[layer].toLowerCase()}`;
  return { kind: "scale", title, label: content.units, low, high, below, above, colours: palettes[state.palette] };
}

/**
 * Colour of every spot, or null where it stays blank.
 * @param {string} layer
 * @returns {Array<?string>}
 */
function spotColours(layer) {
  return allColours(layer).map((colour, spot) => (isRinged(layer, spot) ? null : colour));
}

function allColours(layer) {
  const n = content.nSpots;
  if (layer === "image") return new Array(n).fill(null);
  if (layer === "domains") return Array.from(arrays.domains, (code) => content.domains.colours[code] ?? null);
  const view = viewOf(layer);
  if (layer === "support") return Array.from(arrays.support, (value) => colourOn(view, value));
  // A gene has 255 codes and a slide thousands of spots.
  const table = Array.from({ length: MISSING + 1 }, (_, code) => colourOn(view, decoded(layer, state.gene, code)));
  return Array.from(codesOf(layer, state.gene), (code) => table[code]);
}

/** Colour of a value on a scale; null for NaN. */
function colourOn(view, value) {
  if (!Number.isFinite(value)) return null;
  const last = view.colours.length - 1;
  return view.colours[Math.round(clamped(shareOf(view, value), 0, 1) * last)];
}

/** Where a value lies on a scale, 0 to 1. */
function shareOf(view, value) {
  return (value - view.low) / (view.high - view.low);
}

/** Numbers at the two ends of a scale; a sign says that there are values beyond. */
function scaleEnds(view) {
  const low = `${view.below ? "\u2264 " : ""}${formatted(view.low)}`;
  return [low, `${view.above ? "\u2265 " : ""}${formatted(view.high)}`];
}

/** How well the shown gene is predicted, in words. */
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
  if (achieved !== null) parts.push(`PCC ${formatted(achieved[gene])} on this slide`);
  return parts.join("; ");
}
