/*
 * The gene search: a field that types ahead (the combobox of the WAI-ARIA authoring practices).
 */

const MOST_OPTIONS = 60;

const search = { found: [], active: -1 };

/** Make the search field work. */
function makeSearch() {
  const field = byId("search");
  field.value = content.genes[state.gene];
  field.addEventListener("focus", () => field.select());
  field.addEventListener("input", () => openOptions(field.value));
  field.addEventListener("click", () => {
    if (byId("options").hidden) openOptions("");
  });
  field.addEventListener("keydown", onSearchKey);
  field.addEventListener("blur", closeOptions);
  // A press on the list must not take the focus away, or the list would close before the click.
  byId("options").addEventListener("mousedown", (event) => event.preventDefault());
  onChange((changed) => {
    if (changed.has("gene")) field.value = content.genes[state.gene];
  });
}

/**
 * Genes that fit: those that are called so, begin so, then contain it; within each the most trusted first.
 * @param {string} typed
 * @returns {number[]}
 */
function fittingGenes(typed) {
  const wanted = typed.trim().toLocaleLowerCase();
  const ranks = [[], [], []];
  content.genes.forEach((gene, index) => {
    const at = gene.toLocaleLowerCase().indexOf(wanted);
    if (at < 0) return;
    if (gene.length === wanted.length) ranks[0].push(index);
    else ranks[at === 0 ? 1 : 2].push(index);
  });
  return ranks.flat();
}

function openOptions(typed) {
  search.found = fittingGenes(typed).slice(0, MOST_OPTIONS);
  search.active = typed.trim() === "" || search.found.length === 0 ? -1 : 0;
  const list = byId("options");
  list.replaceChildren(...search.found.map(geneOption));
  if (search.found.length === 0) {
    const none = `No gene of this page has "${typed.trim()}" in its name.`;
    list.append(make("li", { class: "nothing", role: "option", "aria-disabled": "true" }, none));
    announce(none);
  } else {
    announce(`${search.found.length === 1 ? "1 gene" : `${search.found.length} genes`} found`);
  }
  list.hidden = false;
  list.scrollTop = 0;
  byId("search").setAttribute("aria-expanded", "true");
  markActive();
}

function geneOption(gene, place) {
  const score = content.trust?.pcc[gene] ?? content.achieved?.[gene];
  const note = content.trust === null && content.achieved === null ? "" : formatted(score);
  return make(
    "li",
    { id: `option-${place}`, role: "option", "aria-selected": "false", onclick: () => chooseGene(gene) },
    make("span", {}, content.genes[gene]),
    make("small", {}, note),
  );
}

function markActive() {
  byId("options").querySelectorAll("[aria-selected]").forEach((option, place) => {
    option.setAttribute("aria-selected", String(place === search.active));
    if (place === search.active) scrollInto(byId("options"), option);
  });
  const field = byId("search");
  if (search.active < 0) field.removeAttribute("aria-activedescendant");
  else field.setAttribute("aria-activedescendant", `option-${search.active}`);
}

function closeOptions() {
  byId("options").hidden = true;
  byId("search").setAttribute("aria-expanded", "false");
  byId("search").removeAttribute("aria-activedescendant");
  byId("search").value = content.genes[state.gene];
}

function chooseGene(gene) {
  update({ gene });
  closeOptions();
  byId("search").select();
  announce(`${content.genes[gene]}: ${trustText(gene)}`);
}

function onSearchKey(event) {
  const open = !byId("options").hidden;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    if (!open) openOptions("");
    moveActive(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter" && open) {
    const gene = search.found[Math.max(search.active, 0)];
    if (gene !== undefined) chooseGene(gene);
  } else if (event.key === "Escape") {
    closeOptions();
  } else return;
  event.preventDefault();
}

function moveActive(step) {
  const n = search.found.length;
  if (n === 0) return;
  search.active = search.active < 0 ? (step > 0 ? 0 : n - 1) : (search.active + step + n) % n;
  markActive();
}
