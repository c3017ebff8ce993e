/*
 * The chosen spot: its values, its patch, and the reference spots from which the graph reads.
 */

const PATCH_PX = 76;

/** Keep the part about the chosen spot up to date. */
function makeSpotPart() {
  drawSpot();
  onChange((changed) => {
    if (["spot", "gene", "shown"].some((name) => changed.has(name))) drawSpot();
  });
}

function drawSpot() {
  const part = byId("spot-body");
  const { spot } = state;
  byId("spot-title").textContent = spot < 0 ? "Chosen spot" : `Spot ${content.spots[spot]}`;
  if (spot < 0) {
    const what = content.retrieved === null ? "its values" : "its values and the reference spots behind its prediction";
    part.replaceChildren(make("p", { class: "quiet" }, `Click a spot, or press Enter on one, to see ${what}.`));
    return;
  }
  const cards = [ownCard(spot)];
  if (content.retrieved !== null) cards.push(...retrievedFor(spot).map(referenceCard));
  part.replaceChildren(make("ol", { class: "cards" }, ...cards));
  if (content.retrieved !== null) part.append(make("p", { class: "quiet" }, content.retrieved.note));
}

function ownCard(spot) {
  const rows = spotValues(spot).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  const values = make("div", { class: "values" }, make("b", {}, content.genes[state.gene]), make("dl", {}, ...rows));
  const patch = ownPatch(spot);
  return make("li", { class: "own" }, ...(patch === null ? [] : [patch]), values);
}

/** The spot's own patch, cut from the page's picture of the slide; nothing where its width is not known. */
function ownPatch(spot) {
  if (picture === null || content.patchWidth === null) return null;
  const canvas = make("canvas", { class: "patch", role: "img", "aria-label": "Patch of the chosen spot" });
  const side = Math.round(PATCH_PX * window.devicePixelRatio);
  [canvas.width, canvas.height] = [side, side];
  const scale = pictureScale();
  const [x, y] = [arrays.places[2 * spot], arrays.places[2 * spot + 1]];
  const width = content.patchWidth * scale;
  const left = (x - content.picture.left) * scale - width / 2;
  const top = (y - content.picture.top) * scale - width / 2;
  canvas.getContext("2d").drawImage(picture, left, top, width, width, 0, 0, side, side);
  return make("figure", {}, canvas, make("figcaption", {}, make("b", {}, "this spot")));
}

/** Pixels of the picture for one unit of the map. */
function pictureScale() {
  return picture.naturalWidth / (content.picture.right - content.picture.left);
}

function referenceCard({ reference, similarity, attention }) {
  const { slides, slideOf, names } = content.retrieved;
  const slide = slides[slideOf[reference]];
  const url = patchUrl(reference);
  const image =
    url === null
      ? make("div", { class: "patch empty" }, "no patch")
      : make("img", { class: "patch", src: url, alt: `Patch of reference spot ${names[reference]} of ${slide}` });
  image.style.borderColor = content.slideColours[slideOf[reference] % content.slideColours.length];
  const weight = make("span", { class: "weight", "aria-hidden": "true" }, make("span"));
  weight.firstChild.style.width = `${100 * clamped(attention, 0, 1)}%`;
  const caption = make(
    "figcaption",
    {},
    make("b", { title: slide }, slide),
    make("span", { class: "name", title: names[reference] }, names[reference]),
    weight,
    make("span", {}, `attention ${formatted(attention)}`),
    make("span", {}, `similarity ${formatted(similarity)}`),
  );
  return make("li", {}, make("figure", {}, image, caption));
}
