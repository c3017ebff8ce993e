/*
 * Fields in which a gene is searched: they type ahead (the combobox of the WAI-ARIA authoring practices).
 */

const MOST_OPTIONS = 60;

/**
 * @typedef {Object} GeneField
 * @property {HTMLInputElement} field
 * @property {HTMLElement} list
 * @property {function(): string} current Name of the gene that is chosen.
 * @property {function(number): void} choose
 * @property {function(): void} [clear] What an empty field means; without it a gene is always chosen.
 */

/**
 * @typedef {Object} Found
 * @property {number} gene
 * @property {string} [alias] Name by which it was found.
 */

/** Make the field of the first gene work. */
function makeSearch() {
  makeGeneField({
    field: byId("search"),
    list: byId("options"),
    current: () => content.genes[state.gene],
    choose: (gene) => update({ gene }),
  });
}

/**
 * Make a field work.
 * @param {GeneField} parts
 */
function makeGeneField(parts) {
  const { field, list, current } = parts;
  const search = { ...parts, found: [], active: -1 };
  field.value = current();
  listen(field, "focus", () => field.select());
  listen(field, "input", () => openOptions(search, field.value));
  listen(field, "mousedown", (event) => {
    // A press would put the cursor into the name that was chosen before, in some browsers only after the click; what is typed is
    // to take its place.
    if (!list.hidden) return;
    event.preventDefault();
    field.focus();
  });
  listen(field, "click", () => {
    if (!list.hidden) return;
    field.select();
    openOptions(search, "");
  });
  listen(field, "keydown", (event) => onSearchKey(search, event));
  listen(field, "blur", () => {
    if (search.clear !== undefined && field.value.trim() === "") search.clear();
    closeOptions(search);
  });
  // A press on the list must not take the focus away, or the list would close before the click.
  listen(list, "mousedown", (event) => event.preventDefault());
  onChange(() => {
    if (document.activeElement !== field || list.hidden) field.value = current();
  });
}

/**
 * Genes that fit: those that are called so, have it as another name, begin so, then contain it; within each the most
 * trusted first.
 * @param {string} typed
 * @returns {Found[]}
 */
function fittingGenes(typed) {
  const wanted = typed.trim().toLocaleLowerCase();
  const ranks = [[], [], [], [], []];
  content.genes.forEach((gene, index) => {
    const at = gene.toLocaleLowerCase().indexOf(wanted);
    if (at < 0) return;
    if (gene.length === wanted.length) ranks[0].push({ gene: index });
    else ranks[at === 0 ? 2 : 3].push({ gene: index });
  });
  for (const { alias, genes, isExact } of aliasesFor(typed)) {
    ranks[isExact ? 1 : 4].push(...genes.map((gene) => ({ gene, alias })));
  }
  const found = new Map();
  for (const one of ranks.flat()) if (!found.has(one.gene)) found.set(one.gene, one);
  return [...found.values()];
}

function openOptions(search, typed) {
  const { list } = search;
  search.found = fittingGenes(typed).slice(0, MOST_OPTIONS);
  search.active = typed.trim() === "" || search.found.length === 0 ? -1 : 0;
  const meant = search.found.length === 0 ? meantGenes(typed) : [];
  list.replaceChildren();
  if (search.found.length === 0) {
    const none = missingText(typed.trim(), meant);
    list.append(make("li", { class: "nothing", role: "option", "aria-disabled": "true" }, none));
    announce(none);
    search.found = meant.map((gene) => ({ gene }));
  } else {
    announce(`${search.found.length === 1 ? "1 gene" : `${search.found.length} genes`} found`);
  }
  list.append(...search.found.map((found, place) => geneOption(search, found, place)));
  list.hidden = false;
  list.scrollTop = 0;
  search.field.setAttribute("aria-expanded", "true");
  markActive(search);
}

/** Why nothing is found: the gene that is meant is not on the page, or no gene is called so. */
function missingText(typed, meant) {
  const known = aliasesFor(typed).find(({ isExact }) => isExact);
  if (known !== undefined) return `${typed} is ${known.symbols.join(", ")}: not on this page.`;
  return `No gene of this page has "${typed}" in its name.${meant.length > 0 ? " Did you mean:" : ""}`;
}

function geneOption(search, { gene, alias }, place) {
  const score = content.trust?.pcc[gene] ?? content.achieved?.[gene];
  const note = content.trust === null && content.achieved === null ? "" : formatted(score);
  return make(
    "li",
    { id: `${search.list.id}-${place}`, role: "option", "aria-selected": "false", onclick: () => chooseGene(search, gene) },
    make("span", {}, content.genes[gene], ...(alias === undefined ? [] : [make("small", {}, ` ${alias}`)])),
    make("small", {}, note),
  );
}

function markActive({ field, list, active }) {
  list.querySelectorAll("[aria-selected]").forEach((option, place) => {
    option.setAttribute("aria-selected", String(place === active));
    if (place === active) scrollInto(list, option);
  });
  if (active < 0) field.removeAttribute("aria-activedescendant");
  else field.setAttribute("aria-activedescendant", `${list.id}-${active}`);
}

function closeOptions({ field, list, current }) {
  list.hidden = true;
  field.setAttribute("aria-expanded", "false");
  field.removeAttribute("aria-activedescendant");
  field.value = current();
}

function chooseGene(search, gene) {
  search.choose(gene);
  closeOptions(search);
  search.field.select();
  announce(`${content.genes[gene]}: ${trustText(gene)}`);
}

function onSearchKey(search, event) {
  const { field, list } = search;
  const open = !list.hidden;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (!open) openOptions(search, "");
    moveActive(search, event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter" && open) {
    const isEmpty = field.value.trim() === "" && search.active < 0;
    const found = search.found[search.active];
    if (isEmpty && search.clear !== undefined) search.clear();
    if (found !== undefined) chooseGene(search, found.gene);
    else if (isEmpty) closeOptions(search);
  } else if (event.key === "Escape") {
    closeOptions(search);
  } else if (event.key === "/" && !open) {
    // The key that leads to the search leads to a new one from within; while something is typed it is a letter (CK5/6).
    byId("search").focus();
    byId("search").select();
  } else return;
  event.preventDefault();
}

function moveActive(search, step) {
  const n = search.found.length;
  if (n === 0) return;
  search.active = search.active < 0 ? (step > 0 ? 0 : n - 1) : (search.active + step + n) % n;
  markActive(search);
}
