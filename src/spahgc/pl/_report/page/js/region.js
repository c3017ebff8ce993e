/*
 * The chosen region: which spots lie in it, what their genes have in common, and as CSV.
 */

/**
 * @typedef {Object} Region
 * @property {string} name
 * @property {Array<Array<[number, number]>>} rings Its outline, x and y; a point within an odd number of rings is inside.
 * @property {number[]} spots Those whose centre lies inside.
 */

/** Genes that are named as highest, and as many as lowest. */
const MOST_DIFFERENT = 5;
const MICRONS_PER_MM = 1000;

/** Keep the part about the region up to date. */
function makeRegionPart() {
  drawing.from = -1;
  drawRegion();
  onChange((changed) => {
    if (changed.has("region") || (changed.has("gene") && state.region !== null)) drawRegion();
  });
  listen(byId("clear-region"), "click", () => update({ region: null }));
  listen(byId("save-region-genes"), "click", saveRegionGenes);
  listen(byId("save-region-spots"), "click", () => saveRegionSpots().catch(showFailure));
}

/** Choose the spots within some rings. */
function chooseRegion(name, rings) {
  const spots = [];
  for (let spot = 0; spot < content.nSpots; spot += 1) {
    if (isInside(arrays.places[2 * spot], arrays.places[2 * spot + 1], rings)) spots.push(spot);
  }
  update({ region: { name, rings, spots } });
  announce(`${name}: ${counted(spots.length)} spots`);
}

/** Whether a point lies within an odd number of rings. */
function isInside(x, y, rings) {
  let inside = false;
  for (const ring of rings) {
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
      const [[x0, y0], [x1, y1]] = [ring[i], ring[j]];
      if (y0 > y !== y1 > y && x < ((x1 - x0) * (y - y0)) / (y1 - y0) + x0) inside = !inside;
    }
  }
  return inside;
}

/**
 * Mean of a gene inside and elsewhere, and its deviation inside; a prediction without the spots that look like nothing on
 * the references.
 */
function statistics(layer, gene, within) {
  const table = Array.from({ length: MISSING + 1 }, (_, code) => decoded(layer, gene, code));
  const codes = codesOf(layer, gene);
  const [n, sum, squares] = [[0, 0], [0, 0], [0, 0]];
  for (let spot = 0; spot < codes.length; spot += 1) {
    const value = table[codes[spot]];
    if (Number.isNaN(value) || isRinged(layer, spot)) continue;
    const side = within[spot];
    n[side] += 1;
    sum[side] += value;
    squares[side] += value * value;
  }
  const mean = n[1] > 0 ? sum[1] / n[1] : NaN;
  const variance = n[1] > 1 ? Math.max(squares[1] - n[1] * mean * mean, 0) / (n[1] - 1) : NaN;
  return { n: n[1], mean, deviation: Math.sqrt(variance), elsewhere: n[0] > 0 ? sum[0] / n[0] : NaN };
}

function membership({ spots }) {
  const within = new Uint8Array(content.nSpots);
  for (const spot of spots) within[spot] = 1;
  return within;
}

function drawRegion() {
  const { region } = state;
  showOutline(region === null ? null : region.rings);
  byId("region").hidden = region === null;
  if (region === null) return;
  const within = membership(region);
  byId("region-title").textContent = `Region: ${region.name}`;
  byId("region-body").replaceChildren(
    make("p", {}, regionText(region)),
    regionTable(within),
    ...(region.spots.length > 0 ? differences(within) : []),
    make("p", { class: "quiet" }, "Means of the spots whose centre lies inside. How well such a mean is known spahgc.tl.regions says."),
  );
}

/** How large the region is, and what is left out of its means. */
function regionText({ rings, spots }) {
  const parts = [`${counted(spots.length)} ${spots.length === 1 ? "spot" : "spots"}`];
  if (content.microns !== null) parts.push(`${formatted(areaOf(rings) * (content.microns / MICRONS_PER_MM) ** 2, 3)} mm\u00b2`);
  const lost = spots.filter((spot) => unknown.has(spot)).length;
  if (lost > 0) parts.push(`${counted(lost)} of them look like nothing on the references and are left out of predicted means`);
  if (hasLayer("domains")) parts.push(`domains: ${domainShares(spots)}`);
  return `${parts.join("; ")}.`;
}

/** Area within the rings, holes taken off. */
function areaOf(rings) {
  const areas = rings.map((ring) =>
    Math.abs(ring.reduce((sum, [x, y], i) => sum + x * ring.at(i - 1)[1] - ring.at(i - 1)[0] * y, 0) / 2),
  );
  return rings.reduce((sum, ring, i) => {
    const isHole = rings.filter((other) => other !== ring && isInside(...ring[0], [other])).length % 2 === 1;
    return sum + (isHole ? -areas[i] : areas[i]);
  }, 0);
}

function domainShares(spots) {
  const shown = spots.filter((spot) => !unknown.has(spot) && arrays.domains[spot] >= 0);
  const counts = content.domains.names.map((name, code) => [name, shown.filter((spot) => arrays.domains[spot] === code).length]);
  const found = counts.filter(([, n]) => n > 0).sort((a, b) => b[1] - a[1]);
  return found.length === 0 ? NO_VALUE : found.map(([name, n]) => `${name} ${Math.round((100 * n) / shown.length)} %`).join(", ");
}

/** Measured and predicted means of the shown gene. */
function regionTable(within) {
  const head = ["", "Spots", "Mean inside", "Deviation", "Mean elsewhere"].map((text) => make("th", { scope: "col" }, text));
  const rows = ["measured", "predicted"].filter(hasLayer).map((layer) => {
    const { n, mean, deviation, elsewhere } = statistics(layer, state.gene, within);
    const cells = [counted(n), ...[mean, deviation, elsewhere].map((value) => formatted(value))];
    const name = `${content.genes[state.gene]}, ${LAYERS[layer].toLowerCase()}`;
    return make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((text) => make("td", { class: "number" }, text)));
  });
  return make("table", { class: "means" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}

/** Genes that are predicted highest and lowest inside, as against elsewhere, on the scale of their deviation. */
function differences(within) {
  const found = content.genes.map((name, gene) => {
    const { mean, deviation, elsewhere } = statistics("predicted", gene, within);
    return { name, gene, difference: mean - elsewhere, size: (mean - elsewhere) / (deviation || 1) };
  });
  const known = found.filter(({ size }) => isNumber(size)).sort((a, b) => b.size - a.size);
  const lists = [
    ["Higher inside: ", known.slice(0, MOST_DIFFERENT).filter(({ difference }) => difference > 0)],
    ["Lower inside: ", known.slice(-MOST_DIFFERENT).reverse().filter(({ difference }) => difference < 0)],
  ];
  return lists.filter(([, genes]) => genes.length > 0).map(([title, genes]) =>
    make("p", { class: "different" }, title, ...genes.flatMap(({ name, gene, difference }) => [
      make("button", { type: "button", onclick: () => update({ gene }) }, `${name} (${signed(difference)})`), " ",
    ])),
  );
}

/** A row a gene: means inside and elsewhere. */
function saveRegionGenes() {
  const within = membership(state.region);
  const layers = ["measured", "predicted"].filter(hasLayer);
  const head = ["gene", ...layers.flatMap((layer) => [`n_spots_${layer}`, `mean_${layer}`, `sd_${layer}`, `mean_${layer}_elsewhere`])];
  if (content.trust !== null) head.push("held_out_pcc");
  const rows = content.genes.map((name, gene) => {
    const row = [cell(name)];
    for (const layer of layers) {
      const { n, mean, deviation, elsewhere } = statistics(layer, gene, within);
      row.push(String(n), ...[mean, deviation, elsewhere].map(shortNumber));
    }
    if (content.trust !== null) row.push(numberCell(content.trust.pcc[gene]));
    return row;
  });
  saveCsv([head, ...rows], `${content.slide}_${state.region.name}_genes.csv`);
}

/** A row a spot: where it lies, in pixels of the full-resolution image, and its values; no prediction where it is a ring. */
async function saveRegionSpots() {
  const layers = ["measured", "predicted"].filter(hasLayer);
  const { scale, x, y } = content.toPixels;
  const head = ["spot", "x", "y"];
  if (hasLayer("support")) head.push("support", "looks_like_references");
  if (hasLayer("domains")) head.push("domain");
  head.push(...layers.flatMap((layer) => content.genes.map((name) => cell(`${layer}_${name}`))));
  const rows = state.region.spots.map((spot) => {
    const place = [arrays.places[2 * spot] * scale + x, arrays.places[2 * spot + 1] * scale + y];
    const row = [cell(content.spots[spot]), ...place.map(shortNumber)];
    if (hasLayer("support")) row.push(shortNumber(arrays.support[spot]), String(!unknown.has(spot)));
    if (hasLayer("domains")) row.push(unknown.has(spot) ? "" : cell(domainAt(spot) ?? ""));
    for (const layer of layers) {
      for (let gene = 0; gene < content.genes.length; gene += 1) row.push(isRinged(layer, spot) ? "" : shortNumber(valueAt(layer, gene, spot)));
    }
    return row;
  });
  saveCsv([head, ...rows], `${content.slide}_${state.region.name}_spots.csv`);
}

function shortNumber(value) {
  return isNumber(value) ? String(Number(value.toPrecision(6))) : "";
}
