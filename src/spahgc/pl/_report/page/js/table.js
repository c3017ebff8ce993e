/*
 * The gene table: a row a gene, how far each can be trusted, sorted by any column.
 */

const GLYPH = { width: 84, height: 16, room: 4 };

/**
 * @typedef {Object} Column
 * @property {string} id
 * @property {string} title
 * @property {string} explained
 * @property {function(number): (number|string|null)} value By which genes are sorted.
 * @property {boolean} falling Whether the first press sorts from high to low.
 */

/** @type {Column[]} */
const COLUMNS = [
  { id: "gene", title: "Gene", explained: "Name of the gene", value: (gene) => content.genes[gene], falling: false },
  {
    id: "trust",
    title: "PCC, held out",
    explained: "Mean correlation (PCC) on references held out in turn, with its 95 % interval",
    value: (gene) => content.trust.pcc[gene],
    falling: true,
  },
  {
    id: "achieved",
    title: "PCC, here",
    explained: "Correlation (PCC) with the measurement of this slide",
    value: (gene) => content.achieved[gene],
    falling: true,
  },
];

const table = { rows: [], order: [], sorted: "", falling: true, marked: null };

/** The columns for which the page has numbers. */
function columnsHere() {
  return COLUMNS.filter(({ id }) => id === "gene" || content[id] !== null);
}

/** Fill the table. Genes come in the order of trust. */
function makeTable() {
  const columns = columnsHere();
  byId("gene-head").replaceChildren(...columns.map(headCell));
  table.rows = content.genes.map((_, gene) => geneRow(gene, columns));
  table.order = content.genes.map((_, gene) => gene);
  [table.axis, table.sorted] = [undefined, ""];
  const first = columns.find(({ id }) => id !== "gene");
  if (first !== undefined) [table.sorted, table.falling] = [first.id, true];
  placeRows();
  markSorted();
  listen(byId("gene-rows"), "keydown", onTableKey);
  markShown();
  onChange((changed) => {
    if (changed.has("set")) placeRows();
    if (changed.has("gene") || changed.has("set")) markShown();
  });
}

function headCell({ id, title, explained }) {
  const button = make("button", { type: "button", title: explained, onclick: () => sortBy(id) }, title);
  // A browser does not repeat buttons at the head of each printed page, but it repeats text.
  return make("th", { scope: "col", id: `head-${id}`, "data-title": title }, button);
}

function geneRow(gene, columns) {
  const name = make("button", { type: "button", tabindex: -1, "data-gene": gene, title: content.genes[gene] }, content.genes[gene]);
  const row = make("tr", { onclick: () => update({ gene }) }, make("th", { scope: "row" }, name));
  for (const { id } of columns) {
    if (id === "trust") row.append(trustCell(gene));
    if (id === "achieved") row.append(make("td", { class: "number" }, formatted(content.achieved[gene])));
  }
  return row;
}

function trustCell(gene) {
  const { pcc, low, high } = content.trust;
  if (!isNumber(pcc[gene])) return make("td", { class: "number" }, NO_VALUE);
  return make(
    "td",
    { class: "trust" },
    make("span", { class: "number" }, formatted(pcc[gene])),
    intervalGlyph(pcc[gene], low[gene], high[gene]),
    make("small", { class: "number" }, `${formatted(low[gene])} to ${formatted(high[gene])}`),
  );
}

/** Ends of the axis of all intervals; zero is on it. */
function axisEnds() {
  const { low, high } = content.trust;
  return [Math.min(0, ...low.filter(isNumber)), Math.max(0, ...high.filter(isNumber))];
}

function intervalGlyph(pcc, low, high) {
  const [least, most] = (table.axis ??= axisEnds());
  const x = (value) => GLYPH.room + ((value - least) / (most - least || 1)) * (GLYPH.width - 2 * GLYPH.room);
  const middle = GLYPH.height / 2;
  const zero = { x1: x(0), x2: x(0), y1: 1, y2: GLYPH.height - 1, class: "zero" };
  const line = { x1: x(low), x2: x(high), y1: middle, y2: middle, class: "interval" };
  const size = { width: GLYPH.width, height: GLYPH.height, viewBox: `0 0 ${GLYPH.width} ${GLYPH.height}` };
  return makeSvg(
    "svg",
    { ...size, class: "glyph", "aria-hidden": "true" },
    makeSvg("line", zero),
    makeSvg("line", line),
    makeSvg("circle", { cx: x(pcc), cy: middle, r: 3 }),
  );
}

function sortBy(id) {
  const column = COLUMNS.find((one) => one.id === id);
  table.falling = table.sorted === id ? !table.falling : column.falling;
  table.sorted = id;
  const sign = table.falling ? -1 : 1;
  // Genes without a number come last, whichever way the others are sorted.
  const missing = (value) => typeof value !== "string" && !isNumber(value);
  table.order.sort((a, b) => {
    const [first, second] = [column.value(a), column.value(b)];
    if (missing(first) || missing(second)) return missing(first) - missing(second) || a - b;
    return sign * (typeof first === "string" ? first.localeCompare(second, "en", { numeric: true }) : first - second) || a - b;
  });
  placeRows();
  markSorted();
  markShown();
  announce(`Genes sorted by ${column.title}, ${table.falling ? "falling" : "rising"}`);
}

/** Genes of the table from the first row to the last. */
function shownOrder() {
  return table.order.filter(isInSet);
}

function placeRows() {
  byId("gene-rows").replaceChildren(...shownOrder().map((gene) => table.rows[gene]));
}

function markSorted() {
  for (const { id } of columnsHere()) {
    const sort = id !== table.sorted ? "none" : table.falling ? "descending" : "ascending";
    byId(`head-${id}`).setAttribute("aria-sort", sort);
  }
}

/** Mark the shown gene and bring it into sight; it is also the one row that the Tab key reaches. */
function markShown() {
  table.marked?.removeAttribute("aria-current");
  table.marked?.querySelector("button").setAttribute("tabindex", "-1");
  table.marked = table.rows[state.gene];
  table.marked.setAttribute("aria-current", "true");
  table.marked.querySelector("button").setAttribute("tabindex", "0");
  if (isInSet(state.gene)) scrollInto(byId("gene-list"), table.marked);
  else table.rows[shownOrder()[0]]?.querySelector("button").setAttribute("tabindex", "0");
}

function onTableKey(event) {
  const gene = Number(event.target.dataset?.gene ?? NaN);
  const order = shownOrder();
  const place = order.indexOf(gene);
  const last = order.length - 1;
  const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: last }[event.key];
  if (place < 0 || to === undefined) return;
  event.preventDefault();
  table.rows[order[clamped(to, 0, last)]].querySelector("button").focus();
}
