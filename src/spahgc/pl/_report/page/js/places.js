/*
 * Which spot lies where: under the pointer, and next to another.
 */

/** Neighbours further to the side than this many times their distance ahead are not in that direction. */
const WIDEST = 1.2;
/** How much worse a step to the side is than one ahead. */
const SIDEWAYS = 1.5;

/** Spots by the square of the slide in which they lie. */
const squares = { side: 1, spots: new Map() };

/** Sort the spots into squares, once. */
function indexPlaces() {
  squares.side = 2 * content.diameter;
  for (let spot = 0; spot < content.nSpots; spot += 1) {
    const key = squareOf(arrays.places[2 * spot], arrays.places[2 * spot + 1]);
    if (!squares.spots.has(key)) squares.spots.set(key, []);
    squares.spots.get(key).push(spot);
  }
}

function squareOf(x, y) {
  return `${Math.floor(x / squares.side)},${Math.floor(y / squares.side)}`;
}

/**
 * The spot at a place, or -1.
 * @param {number} x
 * @param {number} y Downwards, as places are.
 * @param {number} reach How far from its centre a spot may be met; no further than a square is wide.
 */
function spotNear(x, y, reach) {
  let best = -1;
  let least = Math.min(reach, squares.side) ** 2;
  for (const dx of [-squares.side, 0, squares.side]) {
    for (const dy of [-squares.side, 0, squares.side]) {
      for (const spot of squares.spots.get(squareOf(x + dx, y + dy)) ?? []) {
        const distance = (arrays.places[2 * spot] - x) ** 2 + (arrays.places[2 * spot + 1] - y) ** 2;
        if (distance <= least) [best, least] = [spot, distance];
      }
    }
  }
  return best;
}

/**
 * The next spot in a direction; the same where there is none.
 * @param {number} from
 * @param {[number, number]} direction A step in x and y.
 */
function nextSpot(from, [stepX, stepY]) {
  const [x, y] = [arrays.places[2 * from], arrays.places[2 * from + 1]];
  let best = from;
  let least = Infinity;
  for (let spot = 0; spot < content.nSpots; spot += 1) {
    const [dx, dy] = [arrays.places[2 * spot] - x, arrays.places[2 * spot + 1] - y];
    const ahead = dx * stepX + dy * stepY;
    const aside = Math.abs(dx * stepY) + Math.abs(dy * stepX);
    const cost = ahead + SIDEWAYS * aside;
    if (ahead > 0 && aside <= WIDEST * ahead && cost < least) [best, least] = [spot, cost];
  }
  return best;
}

/** The spot nearest to a place, however far. */
function nearestSpot(x, y) {
  let best = 0;
  let least = Infinity;
  for (let spot = 0; spot < content.nSpots; spot += 1) {
    const distance = (arrays.places[2 * spot] - x) ** 2 + (arrays.places[2 * spot + 1] - y) ** 2;
    if (distance < least) [best, least] = [spot, distance];
  }
  return best;
}
