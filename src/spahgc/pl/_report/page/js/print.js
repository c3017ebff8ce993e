/*
 * On paper the maps are a drawing: live maps have the size of the screen and would be cut off.
 */

/** Put the drawing in the place of the maps while the page is printed. */
function makePrint() {
  window.addEventListener("beforeprint", () => {
    if (panels.length === 0) return;
    byId("sheet").replaceChildren(drawSheet());
    document.documentElement.dataset.printing = "true";
  });
  window.addEventListener("afterprint", () => {
    delete document.documentElement.dataset.printing;
    byId("sheet").replaceChildren();
  });
}
