/*
 * Marker panels: the gene sets of a file, each of which narrows the gene table to its genes.
 */

/** Fill the choice of panels; it is not there where the page has none. */
function makeSets() {
  const { sets } = content;
  byId("sets-tool").hidden = sets.length === 0;
  const all = make("option", { value: -1 }, "all genes");
  byId("sets").replaceChildren(all, ...sets.map(({ name, genes, n }, value) => make("option", { value }, `${name} (${genes.length} of ${n})`)));
  byId("sets").value = String(state.set);
  listen(byId("sets"), "change", ({ target }) => {
    const set = Number(target.value);
    const inside = set < 0 || sets[set].genes.includes(state.gene);
    update(inside ? { set } : { set, gene: table.order.find((gene) => sets[set].genes.includes(gene)) });
  });
}

/** Whether the table shows a gene. */
function isInSet(gene) {
  return state.set < 0 || content.sets[state.set].genes.includes(gene);
}
