/*
 * The start: read the numbers, then fill every part of the page.
 */

/** Light or dark: as the system has it until the reader says otherwise. */
function makeThemeButton() {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const button = byId("theme");
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}

/** Colours, opacity, and the buttons that save. */
function makeTools() {
  byId("palette").append(...Object.entries(PALETTES).map(([value, name]) => make("option", { value }, name)));
  byId("palette").addEventListener("change", ({ target }) => update({ palette: target.value }));
  byId("opacity").value = String(100 * state.opacity);
  byId("opacity").addEventListener("input", ({ target }) => update({ opacity: Number(target.value) / 100 }));
  byId("save-picture").addEventListener("click", savePicture);
  byId("save-table").addEventListener("click", saveTable);
}

/** A fault that the reader has to know of. */
function showFailure(error) {
  byId("failure").hidden = false;
  byId("failure").textContent = `The page could not be shown in full (${error.message}). Open it in a current browser.`;
  throw error;
}

async function start() {
  makeThemeButton();
  byId("panel-1")?.toggleAttribute("hidden", state.shown.length < 2);
  byId("maps").classList.toggle("single", state.shown.length < 2);
  makeProvenance();
  await readFirst();
  await Promise.all(state.shown.map(readBlock));
  indexPlaces();
  makeTools();
  makeTable();
  makeSearch();
  makeLegends();
  await makeMaps();
  makeSpotPart();
  listenToKeys();
  document.documentElement.dataset.ready = "true";
  await readBlock("spread"); // no map shows it yet; from now on it stands among the values of a spot
}

start().catch(showFailure);
