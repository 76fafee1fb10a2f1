// A list of names, pasted or from a file: those that are known are taken, of the others it is said what is like them.

import * as api from "./api.js";
import { announce, bdi, byId, count, make } from "./dom.js";
import { button } from "./errors.js";
import { linesOf, namesOf } from "./lists.js";

const SHOWN = 50; // unknown names; the rest is counted
const MAX_NAME = 512;

/** Names of a text, apart by lines, cells and commas; a line that is one known name with a comma stays whole. */
async function namesIn(text) {
  const lines = linesOf(text);
  const several = lines.filter((line) => line.length <= MAX_NAME && namesOf(line).length > 1);
  const whole = new Set((await known(several)).filter(({ entity }) => entity).map(({ given }) => given));
  return lines.flatMap((line) => (whole.has(line) ? [line] : namesOf(line)));
}

const known = (names) => (names.length ? api.lookUp(names) : []);

/**
 * Match the names of a text. `onKnown(names)` is called with the known ones, spelt as the vocabulary does; unknown
 * ones are listed, each with names that are like it. Returns the one name that the text holds, if it is only one.
 */
export async function matchList(text, onKnown) {
  const names = [...new Set(await namesIn(text))];
  if (names.length === 1) return names[0];
  const results = await known(names);
  const found = results.filter(({ entity }) => entity);
  if (found.length) onKnown(found.map(({ entity }) => entity.name));
  const others = results.filter(({ entity }) => !entity);
  show(others, onKnown);
  const also = others.length ? `; ${others.length} not known` : "";
  announce(`${count(found.length, "name")} added${also}`);
  return null;
}

function show(unknown, onKnown) {
  const box = byId("unmatched");
  const rows = unknown.slice(0, SHOWN).map((one) => row(one, onKnown));
  const more = unknown.length - rows.length;
  const close = make("button", { type: "button", class: "quiet", onclick: () => clear(box) }, "Leave them out");
  box.replaceChildren(
    make("p", {}, `${count(unknown.length, "name")} not known here; take what is meant, or leave it out.`),
    make("ul", {}, ...rows),
    ...(more > 0 ? [make("p", {}, `… and ${more} more`)] : []),
    close,
  );
  box.hidden = unknown.length === 0;
}

function row({ given, suggestions }, onKnown) {
  const take = (name) => {
    onKnown([name]);
    const next = item.nextElementSibling?.querySelector("button");
    item.remove();
    const box = byId("unmatched");
    if (!box.querySelector("li")) clear(box);
    else (next ?? box.querySelector("button")).focus();
  };
  const offered = suggestions.map(({ name }) => button(name, take));
  const item = make("li", {}, bdi(given), offered.length ? ": " : ": nothing is like it", ...offered);
  return item;
}

function clear(box) {
  box.replaceChildren();
  box.hidden = true;
  byId("search").focus();
}
