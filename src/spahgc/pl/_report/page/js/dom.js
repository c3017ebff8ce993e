/*
 * Elements and numbers as text. Whatever comes from a slide enters the page through these functions, as text: a gene
 * may be called "<script>".
 */

const SVG = "http://www.w3.org/2000/svg";
const MINUS = "\u2212";
const NO_VALUE = "\u2013";

/**
 * An element of the page by its id.
 * @param {string} id
 * @returns {HTMLElement}
 */
function byId(id) {
  return document.getElementById(id);
}

/**
 * A new element.
 * @param {string} tag
 * @param {Object<string, *>} [attributes] A function is a listener: {onclick: f}. False, null and undefined are left out.
 * @param {...(Node|string)} children Strings become text.
 * @returns {HTMLElement}
 */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/**
 * The same for a drawing.
 * @param {string} tag
 * @param {Object<string, *>} [attributes]
 * @param {...(Node|string)} children
 * @returns {SVGElement}
 */
function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

let hearing = new AbortController();

/**
 * Listen to an element that stays when another slide is shown; until then.
 * @param {EventTarget} target
 * @param {string} type
 * @param {function(Event): void} listener
 */
function listen(target, type, listener) {
  target.addEventListener(type, listener, { signal: hearing.signal });
}

/** End all that listen() has begun. */
function stopListening() {
  hearing.abort();
  hearing = new AbortController();
}

/**
 * A number for the eye; NaN and null are a dash.
 * @param {?number} value
 * @param {number} [digits] Digits after the point.
 */
function formatted(value, digits = 2) {
  if (!isNumber(value)) return NO_VALUE;
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", MINUS);
}

/** Thousands set apart. */
function counted(value) {
  return value.toLocaleString("en-GB");
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function clamped(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/**
 * The largest of 1, 2 and 5 times a power of ten that is not longer.
 * @param {number} longest
 */
function roundLength(longest) {
  const power = 10 ** Math.floor(Math.log10(longest));
  return Math.max(...[1, 2, 5].map((digit) => digit * power).filter((length) => length <= longest));
}

/**
 * A length with its unit.
 * @param {number} microns
 */
function lengthText(microns) {
  return microns >= 1000 ? `${microns / 1000} mm` : `${microns} \u00b5m`;
}

/**
 * Say something to those who listen to the page.
 * @param {string} text
 */
function announce(text) {
  byId("announcement").textContent = text;
}

/**
 * Scroll a list, and nothing but the list, until a part of it is seen, also where the window cuts the list.
 * @param {HTMLElement} list
 * @param {HTMLElement} part
 */
function scrollInto(list, part) {
  const [outer, inner] = [list.getBoundingClientRect(), part.getBoundingClientRect()];
  const head = list.querySelector("thead")?.offsetHeight ?? 0;
  if (inner.top < outer.top + head) list.scrollTop -= outer.top + head - inner.top;
  const bottom = Math.min(outer.bottom, Math.max(window.innerHeight, outer.top + head + inner.height));
  if (inner.bottom > bottom) list.scrollTop += inner.bottom - bottom;
}

/**
 * Hand a file over to the reader.
 * @param {Blob} blob
 * @param {string} name Letters that a file system may refuse are replaced.
 */
function download(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name.replace(/[^\p{L}\p{N}._-]+/gu, "_") }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}
