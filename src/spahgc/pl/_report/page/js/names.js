/*
 * What a reader calls a gene: its symbol, a name of pathology (HER2), or one with a slip of the pen.
 */

/** Slips that a name may have, as a share of its letters, and at most. */
const SLIP_SHARE = 0.34;
const MOST_SLIPS = 2;
const MOST_MEANT = 3;

/** A name in capitals without hyphens and blanks, as _aliases.py has it. */
function plainName(name) {
  const greek = { "\u03b1": "alpha", "\u03b2": "beta", "\u03b3": "gamma", "\u03b4": "delta", "\u03ba": "kappa", "\u03bb": "lambda" };
  const text = name.trim().replace(/[\u03b1\u03b2\u03b3\u03b4\u03ba\u03bb]/g, (letter) => greek[letter]);
  return text.normalize("NFKC").toUpperCase().replace(/[^\p{L}\p{N}]/gu, "") || text;
}

/** Genes of the page by their plain names; made anew for each slide. */
function placesByName() {
  const places = new Map();
  content.genes.forEach((name, gene) => {
    const plain = plainName(name);
    places.set(plain, [...(places.get(plain) ?? []), gene]);
  });
  return places;
}

/**
 * Other names that begin as what was typed, with the genes of the page that they mean.
 * @param {string} typed
 * @returns {Array<{alias: string, symbols: string[], genes: number[]}>} Those that are called just so first.
 */
function aliasesFor(typed) {
  const wanted = plainName(typed);
  if (wanted === "") return [];
  const places = placesByName();
  return Object.entries(contents[0].aliases)
    .map(([alias, symbols]) => ({ alias, symbols, plain: plainName(alias) }))
    .filter(({ plain }) => plain.startsWith(wanted))
    .sort((a, b) => a.plain.length - b.plain.length)
    .map(({ alias, symbols, plain }) => {
      const genes = symbols.flatMap((symbol) => places.get(plainName(symbol)) ?? []);
      return { alias, symbols, genes, isExact: plain === wanted };
    });
}

/** Genes that may have been meant by a name that no gene has. */
function meantGenes(typed) {
  const wanted = plainName(typed);
  const slips = Math.min(MOST_SLIPS, Math.floor(SLIP_SHARE * wanted.length));
  return [...placesByName()]
    .map(([plain, genes]) => ({ genes, distance: editDistance(wanted, plain, slips) }))
    .filter(({ distance }) => distance <= slips)
    .sort((a, b) => a.distance - b.distance)
    .flatMap(({ genes }) => genes)
    .slice(0, MOST_MEANT);
}

/** Letters to change, add or leave out between two words; one more than the most where there are more. */
function editDistance(one, other, most) {
  if (Math.abs(one.length - other.length) > most) return most + 1;
  let row = Array.from({ length: other.length + 1 }, (_, i) => i);
  for (let i = 1; i <= one.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= other.length; j += 1) {
      next.push(Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (one[i - 1] === other[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1);
}
