/*
 * What the reader has chosen. Every part of the page draws from this one object and listens to its changes.
 */

/**
 * @typedef {Object} State
 * @property {number} gene Shown gene, by its place in content.genes.
 * @property {number} spot Chosen spot, or -1.
 * @property {number} pointed Spot under the pointer or the arrow keys, or -1.
 * @property {number} second Gene that is shown beside it, or -1.
 * @property {"side"|"blend"} pair How the two are shown: a map each, or mixed on every map.
 * @property {number} set Shown gene set, or -1 for all genes.
 * @property {string[]} shown Layer of each map.
 * @property {"shared"|"own"} scale Whether measured and predicted values of a gene have one colour scale.
 * @property {number} least Where the colours begin, as a share of the scale.
 * @property {number} most Where they end.
 * @property {?Region} region Chosen region, see region.js.
 * @property {"move"|"rectangle"|"lasso"} drawing What the pointer does on a map.
 * @property {boolean} annotated Whether annotations are seen.
 * @property {string} palette Colours of expression.
 * @property {number} opacity Of the spots, 0 to 1.
 */

/** @type {State} */
const state = {
  gene: 0,
  second: -1,
  pair: "side",
  set: -1,
  spot: -1,
  pointed: -1,
  shown: firstLayers(),
  scale: "shared",
  least: 0,
  most: 1,
  palette: "viridis",
  opacity: 0.9,
  region: null,
  drawing: "move",
  annotated: true,
};

const listeners = [];

/**
 * Be called with the names of what has changed.
 * @param {function(Set<string>): void} listener
 */
function onChange(listener) {
  listeners.push(listener);
}

/** Tell nobody any more. */
function forgetListeners() {
  listeners.length = 0;
}

/**
 * Change the state and tell every listener.
 * @param {Partial<State>} changes
 */
function update(changes) {
  const changed = new Set(Object.keys(changes).filter((name) => state[name] !== changes[name]));
  if (changed.size === 0) return;
  Object.assign(state, changes);
  for (const listener of listeners) listener(changed);
}

/** Measured beside predicted; where nothing was measured, the prediction beside where it can be trusted. */
function firstLayers() {
  if (hasLayer("measured")) return ["measured", "predicted"];
  const beside = ["support", "spread", "domains"].find(hasLayer);
  return beside === undefined ? ["predicted"] : ["predicted", beside];
}

/**
 * Show a layer on a map. Its numbers are read first where they have not been needed before.
 * @param {number} index
 * @param {string} layer
 */
async function showLayer(index, layer) {
  await readBlock(layer);
  update({ shown: state.shown.map((old, i) => (i === index ? layer : old)) });
}
