/*
 * The colour scale: one for measured and predicted values of a gene or one each, and how much of it is shown.
 */

/** Least share of a scale that stays between its two ends. */
const LEAST_CONTRAST = 0.02;

/** Make the choice of scale and the two sliders work. */
function makeContrast() {
  const [scale, least, most] = [byId("scale"), byId("least"), byId("most")];
  byId("scale-tool").hidden = !hasLayer("measured");
  listen(scale, "change", () => update({ scale: scale.value }));
  listen(least, "input", () => update({ least: Math.min(Number(least.value) / 100, state.most - LEAST_CONTRAST) }));
  listen(most, "input", () => update({ most: Math.max(Number(most.value) / 100, state.least + LEAST_CONTRAST) }));
  listen(byId("contrast-reset"), "click", () => update({ least: 0, most: 1 }));
  const show = () => {
    scale.value = state.scale;
    [least.value, most.value] = [String(100 * state.least), String(100 * state.most)];
    byId("contrast-reset").disabled = state.least === 0 && state.most === 1;
  };
  show();
  onChange(show);
}
