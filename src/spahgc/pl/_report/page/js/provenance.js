/*
 * Where the page's numbers come from, and under which licences its parts stand.
 */

/** Write the sections about the origin of the page. */
function makeProvenance() {
  byId("subtitle").textContent = content.subtitle;
  document.title = content.title;
  byId("title").textContent = content.title;
  byId("warning").textContent = content.warning ?? "";
  byId("warning").hidden = content.warning === null;
  byId("summary").replaceChildren(...content.summary.map((line) => make("li", {}, line)));
  byId("notes").replaceChildren(...content.notes.map((note) => make("li", {}, note)));
  byId("provenance-body").replaceChildren(
    ...content.provenance.map(({ title, rows, folded }) => {
      const list = make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
      if (!folded) return make("section", {}, make("h3", {}, title), list);
      return make("details", {}, make("summary", {}, title), list);
    }),
    make("details", {}, make("summary", {}, "Licence of Leaflet 1.9.4, which draws the maps"), make("pre", {}, contents[0].licence)),
  );
}
