/*
 * The start: read the numbers, then fill every part of the page.
 */

/** Colours, opacity, and the buttons that save. */
function makeTools() {
  byId("palette").replaceChildren(...Object.entries(PALETTES).map(([value, name]) => make("option", { value }, name)));
  byId("palette").value = state.palette;
  listen(byId("palette"), "change", ({ target }) => update({ palette: target.value }));
  byId("opacity").value = String(100 * state.opacity);
  listen(byId("opacity"), "input", ({ target }) => update({ opacity: Number(target.value) / 100 }));
  listen(byId("save-picture"), "click", savePicture);
  listen(byId("save-table"), "click", saveTable);
}

/** A fault that the reader has to know of. */
function showFailure(error) {
  byId("failure").hidden = false;
  byId("failure").textContent = `The page could not be shown in full (${error.message}). Open it in a current browser.`;
  throw error;
}

/** Fill every part of the page with what is to be shown; also once another slide has been chosen. */
async function build() {
  stopListening();
  forgetListeners();
  byId("panel-1").hidden = state.shown.length < 2;
  byId("maps").classList.toggle("single", state.shown.length < 2);
  makeProvenance();
  await readFirst();
  await Promise.all(state.shown.map(readBlock));
  indexPlaces();
  makeTools();
  makeContrast();
  makeSets();
  makeTable();
  makeSearch();
  makePair();
  makeLegends();
  await makeMaps();
  makeDrawing();
  makeAnnotations();
  makeRegionPart();
  makeSpotPart();
  listenToKeys();
}

async function start() {
  makeThemeButton();
  makeSlides();
  makePrint();
  await build();
  document.documentElement.dataset.ready = "true";
  await readBlock("spread"); // no map shows it yet; from now on it stands among the values of a spot
}

start().catch(showFailure);
