/*
 * Light or dark: as the system has it until the reader says otherwise.
 */

/** The button says what it does. */
function makeThemeButton() {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    byId("theme").textContent = isDark() ? "Light mode" : "Dark mode";
  };
  byId("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  show();
}
