/*
 * What the page holds: a description in JSON, and blocks of numbers and pictures in base64.
 */

const MISSING = 255;
const STEPS = 254;

/** Everything but the large numbers, a slide each; written by Python, see _page.py. */
const contents = Array.from(document.querySelectorAll('script[type="application/json"]'), (one) => JSON.parse(one.textContent));

/** Arrays of each slide by name of the block, as far as they have been read. */
const held = contents.map(() => ({}));

/** Where the patches of each slide begin, and their addresses. */
const cut = contents.map(() => ({ starts: [0], urls: {} }));

/** What is shown: number of the slide, its description, arrays and patches. */
let [shownSlide, content, arrays, patches] = [0, contents[0], held[0], cut[0]];

/** Show another slide from here on; what hangs on it is made anew by build(). */
function takeSlide(number) {
  [shownSlide, content, arrays, patches] = [number, contents[number], held[number], cut[number]];
  unknown = new Set(content.unknown);
}

const KINDS = { u1: Uint8Array, i2: Int16Array, i4: Int32Array, f4: Float32Array };

/**
 * Read a block, once.
 * @param {string} name
 * @returns {Promise<?TypedArray>} Nothing where the page has no such block.
 */
async function readBlock(name) {
  const own = arrays;
  if (name in own) return own[name];
  const element = byId(shownSlide === 0 ? `block-${name}` : `block-${name}-${shownSlide}`);
  if (element === null) return null;
  let bytes = fromBase64(element.textContent);
  if (element.dataset.packed === "deflate") bytes = await inflated(bytes);
  own[name] = new KINDS[element.dataset.kind](bytes.buffer);
  element.remove();
  return own[name];
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i += 1) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Codes of a gene's spots: 0 to 254 between the least and the greatest value of the gene, 255 where there is none.
 * @param {"measured"|"predicted"|"spread"} layer
 * @param {number} gene
 * @returns {Uint8Array} One a spot.
 */
function codesOf(layer, gene) {
  const n = content.nSpots;
  return arrays[layer].subarray(gene * n, (gene + 1) * n);
}

/** Value that a code stands for. */
function decoded(layer, gene, code) {
  if (code === MISSING) return NaN;
  const { low, high } = content.layers[layer];
  return low[gene] + (code * (high[gene] - low[gene])) / STEPS;
}

/**
 * Value of a layer at a spot; NaN where there is none.
 * @param {"measured"|"predicted"|"spread"|"support"} layer
 */
function valueAt(layer, gene, spot) {
  if (layer === "support") return arrays.support[spot];
  return decoded(layer, gene, codesOf(layer, gene)[spot]);
}

/** Name of a spot's domain, or nothing. */
function domainAt(spot) {
  return content.domains.names[arrays.domains[spot]] ?? null;
}

/** Whether the page holds a layer. */
function hasLayer(layer) {
  if (layer === "support") return content.hasSupport;
  if (layer === "domains") return content.domains !== null;
  if (layer === "image") return content.picture !== null;
  return layer in content.layers;
}

/** Place of a spot on the map: y runs downwards on a slide and upwards on a map. */
function placeOf(spot) {
  return [-arrays.places[2 * spot + 1], arrays.places[2 * spot]];
}

/**
 * The reference spots behind a spot, most attention first.
 * @returns {Array<{reference: number, similarity: number, attention: number}>}
 */
function retrievedFor(spot) {
  const { k } = content.retrieved;
  const found = [];
  for (let i = spot * k; i < (spot + 1) * k; i += 1) {
    if (arrays.edges[i] < 0) break;
    found.push({ reference: arrays.edges[i], similarity: arrays.similarity[i], attention: arrays.attention[i] });
  }
  return found;
}

/**
 * What is added to the prediction of a gene at a spot, or nothing where the page does not say it.
 * @returns {?{spots: Array<{reference: number, value: number}>, slides: Array<{slide: string, value: number}>,
 *   mean: number, rest: number}} Spots and slides that add most first.
 */
function addedFor(spot, gene) {
  const place = content.added === null ? -1 : content.added.genes.indexOf(gene);
  if (place < 0) return null;
  const { k, slides, mean } = content.added;
  const at = place * content.nSpots + spot;
  if (arrays.adding[at * k] < 0) return null;
  const spots = [];
  for (let i = at * k; i < (at + 1) * k; i += 1) spots.push({ reference: arrays.adding[i], value: arrays.added[i] });
  const sums = slides.map((slide, i) => ({ slide, value: arrays.sums[at * slides.length + i] }));
  sums.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  return { spots, slides: sums, mean: mean[place], rest: arrays.rest[at] };
}

/**
 * Address of a reference spot's patch, or nothing where the page has none.
 * @param {number} reference
 */
function patchUrl(reference) {
  const { starts, urls } = patches;
  if (starts[reference] === starts[reference + 1]) return null;
  urls[reference] ??= URL.createObjectURL(
    new Blob([arrays.patches.subarray(starts[reference], starts[reference + 1])], { type: "image/jpeg" }),
  );
  return urls[reference];
}

/** Read all that the first view needs; the rest is read when it is asked for. */
async function readFirst() {
  const names = ["places", "predicted", "measured", "support", "domains", "vertices", "starts"];
  if (content.retrieved !== null) names.push("edges", "similarity", "attention", "patches");
  if (content.added !== null) names.push("adding", "added", "sums", "rest");
  await Promise.all(names.map(readBlock));
  patches.starts.length = 1;
  for (const length of content.retrieved?.patchBytes ?? []) patches.starts.push(patches.starts.at(-1) + length);
}
