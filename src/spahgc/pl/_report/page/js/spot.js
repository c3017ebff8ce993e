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
  // What adds up to a prediction that nobody can read would give it a weight that it does not have.
  const added = unknown.has(spot) ? null : addedFor(spot, state.gene);
  if (added !== null) cards.push(...added.spots.map((each) => addingCard(each, added.spots[0])));
  else if (content.retrieved !== null) cards.push(...retrievedFor(spot).map(referenceCard));
  const caution = "This spot looks like nothing on the references: what was predicted here is not shown, and the reference spots below are no explanation of it.";
  part.replaceChildren(...(unknown.has(spot) ? [make("p", { class: "caution" }, caution)] : []), make("ol", { class: "cards" }, ...cards));
  if (added !== null) {
    part.append(make("p", { class: "sums" }, sumOf(added)), make("p", { class: "quiet" }, content.added.note));
  } else if (content.retrieved !== null) part.append(make("p", { class: "quiet" }, content.retrieved.note));
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

/** The prediction as a sum: the mean of the gene, what each slide adds, and the rest. */
function sumOf({ slides, mean, rest }) {
  const parts = slides.map(({ slide, value }) => `${signed(value)} ${slide}`);
  if (rest !== 0) parts.push(`${signed(rest)} other`);
  const total = slides.reduce((sum, { value }) => sum + value, mean + rest);
  return `Predicted ${formatted(total)} = mean ${formatted(mean)} ${parts.join(" ")}`;
}

/** A number with its sign. */
function signed(value) {
  const text = formatted(value);
  return text.startsWith(MINUS) ? text : `+${text}`;
}

/** A reference spot with what it adds; the bar is a share of what the strongest adds. */
function addingCard({ reference, value }, strongest) {
  return cardOf(reference, Math.abs(value / strongest.value), [`adds ${signed(value)}`]);
}

function referenceCard({ reference, similarity, attention }) {
  const lines = [`attention ${formatted(attention)}`, `similarity ${formatted(similarity)}`];
  return cardOf(reference, attention, lines);
}

/** Patch, names, a bar and some lines of a reference spot. */
function cardOf(reference, share, lines) {
  const { slides, slideOf, names } = content.retrieved;
  const slide = slides[slideOf[reference]];
  const url = patchUrl(reference);
  const image =
    url === null
      ? make("div", { class: "patch empty" }, "no patch")
      : make("img", { class: "patch", src: url, alt: `Patch of reference spot ${names[reference]} of ${slide}` });
  image.style.borderColor = content.slideColours[slideOf[reference] % content.slideColours.length];
  const weight = make("span", { class: "weight", "aria-hidden": "true" }, make("span"));
  weight.firstChild.style.width = `${100 * clamped(share, 0, 1)}%`;
  const caption = make(
    "figcaption",
    {},
    make("b", { title: slide }, slide),
    make("span", { class: "name", title: names[reference] }, names[reference]),
    weight,
    ...lines.map((line) => make("span", {}, line)),
  );
  return make("li", {}, make("figure", {}, image, caption));
}
