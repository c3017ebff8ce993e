/*
 * Several slides in one page: a switch between them that keeps the gene, the layers and the colours.
 */

/** Fill the switch; it is not there where there is one slide. */
function makeSlides() {
  const choice = byId("slides");
  choice.replaceChildren(...contents.map(({ slide }, value) => make("option", { value }, slide)));
  choice.value = String(shownSlide);
  byId("slides-tool").hidden = contents.length < 2;
  choice.addEventListener("change", () => showSlide(Number(choice.value)).catch(showFailure));
}

/**
 * Show another slide.
 * @param {number} number
 */
async function showSlide(number) {
  const names = [state.gene, state.second].map((gene) => content.genes[gene]);
  const layers = state.shown;
  takeSlide(number);
  const [gene, second] = names.map((name) => content.genes.indexOf(name));
  const shown = firstLayers().map((layer, index) => (layers[index] !== undefined && hasLayer(layers[index]) ? layers[index] : layer));
  forgetListeners();
  update({ gene: Math.max(gene, 0), second, spot: -1, pointed: -1, region: null, drawing: "move", set: -1, shown });
  await build();
  announce(`Slide ${content.slide}${gene < 0 ? `; ${names[0]} is not among its genes` : ""}`);
}
