/*
 * Two genes at once: a map each, or mixed on one, white where both are low, dark where both are high.
 */

/** What a high value leaves of white: pink for the first gene, green for the second. Told apart by all kinds of sight. */
const BLEND = [[208, 28, 139], [77, 172, 38]];
const BLEND_STEPS = 32;
const EXPRESSION = new Set(["measured", "predicted"]);

/** Whether a layer shows two genes in one. */
function isBlended(layer) {
  return state.second >= 0 && state.pair === "blend" && EXPRESSION.has(layer);
}

/**
 * Colour of two shares of their scales.
 * @param {number} first
 * @param {number} second
 */
function mixed(first, second) {
  const shares = [first, second].map((share) => clamped(share, 0, 1));
  const part = (channel) =>
    BLEND.reduce((light, colour, i) => light * (1 - shares[i] * (1 - colour[channel] / 255)), 255);
  return `rgb(${[0, 1, 2].map((channel) => Math.round(part(channel))).join(",")})`;
}

/** Colour of every spot, null where a value is missing. */
function blendedColours(layer) {
  const shares = [state.gene, state.second].map((gene) => {
    const view = viewOf(layer, gene);
    const table = Array.from({ length: MISSING + 1 }, (_, code) => shareOf(view, decoded(layer, gene, code)));
    return Array.from(codesOf(layer, gene), (code) => table[code]);
  });
  return shares[0].map((first, spot) => (Number.isNaN(first + shares[1][spot]) ? null : mixed(first, shares[1][spot])));
}

/** The square of all mixtures, the first gene to the right and the second upwards, as a drawing of so many pixels. */
function blendSquare(side) {
  const canvas = make("canvas", { class: "blend", width: side, height: side, "aria-hidden": "true" });
  drawBlendSquare(canvas.getContext("2d"), 0, 0, side);
  return canvas;
}

function drawBlendSquare(ink, left, top, side) {
  const step = side / BLEND_STEPS;
  for (let i = 0; i < BLEND_STEPS; i += 1) {
    for (let j = 0; j < BLEND_STEPS; j += 1) {
      ink.fillStyle = mixed(i / (BLEND_STEPS - 1), 1 - j / (BLEND_STEPS - 1));
      ink.fillRect(left + i * step, top + j * step, step + 0.5, step + 0.5);
    }
  }
}

/** What the two axes of the square are, in words. */
function blendTexts(layer) {
  return [state.gene, state.second].map((gene, i) => {
    const [low, high] = scaleEnds(viewOf(layer, gene));
    return `${["To the right, pink", "Upwards, green"][i]}: ${content.genes[gene]}, ${low} to ${high}`;
  });
}

function titleOf(index) {
  const layer = state.shown[index];
  if (!isBlended(layer)) return viewOf(layer, geneOf(index)).title;
  return `${content.genes[state.gene]} and ${content.genes[state.second]}, ${LAYERS[layer].toLowerCase()}`;
}

/** The field of the second gene, and how the two are shown. */
function makePair() {
  makeGeneField({
    field: byId("second"),
    list: byId("second-options"),
    current: () => content.genes[state.second] ?? "",
    choose: (gene) => chooseSecond(gene).catch(showFailure),
    clear: () => chooseSecond(-1).catch(showFailure),
  });
  listen(byId("pair"), "change", ({ target }) => showPair(target.value).catch(showFailure));
  const show = () => {
    byId("pair").value = state.pair;
    byId("pair-tool").hidden = state.second < 0;
  };
  show();
  onChange(show);
}

async function chooseSecond(gene) {
  const isNew = (state.second < 0) !== (gene < 0);
  update({ second: gene });
  if (isNew) await showPair(state.pair);
}

/** Side by side both maps show the same layer of a gene each; else measured and predicted, as without a second gene. */
async function showPair(pair) {
  update({ pair });
  const isSide = state.second >= 0 && pair === "side";
  const layer = EXPRESSION.has(state.shown.at(-1)) ? state.shown.at(-1) : "predicted";
  const shown = isSide ? [layer, layer] : firstLayers();
  await Promise.all(shown.map(readBlock));
  // A page of one map gets a second one as soon as it is needed.
  if (shown.length !== state.shown.length) {
    state.shown = shown;
    await build();
  } else if (isSide || state.shown[0] === state.shown[1]) update({ shown });
}
