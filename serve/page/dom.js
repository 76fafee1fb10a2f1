// Small helpers over the DOM. Text from outside only ever becomes text nodes: there is no innerHTML here.

/**
 * Make an element. `class` and `data-…`/`aria-…` are attributes, `on…` functions are listeners, other
 * names are properties; null and false leave an attribute out.
 */
export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class" || name === "role" || name === "for" || name.includes("-")) {
      element.setAttribute(name, value === true ? "" : String(value));
    } else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A name, set apart so that its direction of writing leaves what stands around it alone. */
export function bdi(text, given = {}) {
  return make("bdi", given, text);
}

/** The element with this id; it is in the page, or the page is broken. */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** Say something to screen readers, without moving the focus. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Whether a key belongs to a composition of an input method; Safari says of its last one only the code 229. */
export function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/** A number for people: three digits after the point, or what is shown where there is none. */
export function short(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

/** A time span for people. */
export function span(seconds) {
  if (seconds < 0.001) return "<\u00a01\u00a0ms";
  return seconds < 1 ? `${Math.round(seconds * 1000)}\u00a0ms` : `${seconds.toFixed(1)}\u00a0s`;
}

/** "1 seed", "2 seeds". */
export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")}\u00a0${n === 1 ? one : many}`;
}

/**
 * The pieces of a sentence with its mention as a `mark`. `start` and `end` count characters; a string
 * here counts UTF-16 units, of which some characters have two.
 */
export function marked({ text, start, end }) {
  const characters = Array.from(text);
  const part = (from, to) => characters.slice(from, to).join("");
  return [part(0, start), make("mark", {}, part(start, end)), part(end)];
}
