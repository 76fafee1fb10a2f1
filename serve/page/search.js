// The search box: an ARIA combobox over the vocabulary, with its first match ready to be taken.

import * as api from "./api.js";
import { announce, bdi, byId, count, isComposing, make } from "./dom.js";
import { isList, linesOf, namesOf } from "./lists.js";
import { matchList } from "./matching.js";

const PAUSE_MS = 80;
const SHOWN = 10;
const MAX_NAME = 512;

/**
 * Calls `onChoose(name, positive)` for a seed, `onList(names)` for those of a list, and `onDescribe(name)` for
 * what is not known. Enter in the empty box is `onExpand()`.
 */
export class Search {
  constructor({ onChoose, onList, onDescribe, onExpand }) {
    this.onExpand = onExpand;
    this.onChoose = onChoose;
    this.onList = onList;
    this.onDescribe = onDescribe;
    this.input = byId("search");
    this.list = byId("completions");
    this.options = [];
    this.active = -1;
    this.timer = 0;
    this.request = null;
    this.input.addEventListener("input", () => this.#typed());
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("paste", (event) => this.#inserted(event, event.clipboardData));
    this.input.addEventListener("drop", (event) => this.#inserted(event, event.dataTransfer));
    byId("upload").addEventListener("change", (event) => this.#upload(event.target));
    this.input.addEventListener("blur", () => this.close());
    for (const positive of [true, false]) {
      const button = byId(positive ? "add-positive" : "add-negative");
      button.addEventListener("mousedown", (event) => event.preventDefault()); // the list stays open
      button.addEventListener("click", () => this.#enter(positive, true));
    }
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  close() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.request = null;
    this.#show([]);
  }

  #typed() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.request = null;
    const text = this.input.value.trim();
    if (!text) {
      this.#show([]);
      return;
    }
    this.request = new AbortController();
    this.timer = setTimeout(() => this.#ask(text, this.request), PAUSE_MS);
  }

  async #ask(text, request) {
    let found = [];
    try {
      found = await api.search(text, SHOWN, request.signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      announce(error.message);
    }
    if (request !== this.request) return; // an older answer than the text
    this.request = null;
    const known = exact(found, text);
    this.#show(known < 0 ? [...found, { describe: text }] : found, Math.max(known, found.length ? 0 : -1));
    announce(found.length ? `${count(found.length, "name")}; ${found[0].name}` : `no name is like ${text}`);
  }

  #show(options, active = -1) {
    this.options = options;
    this.active = -1;
    this.list.replaceChildren(...options.map((option, place) => this.#row(option, place)));
    this.list.hidden = options.length === 0;
    this.input.setAttribute("aria-expanded", String(options.length > 0));
    this.#activate(active);
  }

  #row(option, place) {
    const content = option.describe
      ? ["Not in the vocabulary? Describe “", bdi(option.describe), "” …"]
      : [bdi(option.name, { class: "name" }), ...alias(option)];
    return make(
      "li",
      {
        role: "option",
        id: `completion-${place}`,
        class: option.describe ? "describe" : null,
        "aria-selected": "false",
        onmousedown: (event) => event.preventDefault(), // the box keeps the focus
        onclick: (event) => this.#pick(option, !event.shiftKey),
      },
      ...content,
    );
  }

  #activate(place) {
    this.list.children[this.active]?.setAttribute("aria-selected", "false");
    this.active = place;
    const row = this.list.children[place];
    row?.setAttribute("aria-selected", "true");
    row?.scrollIntoView({ block: "nearest" });
    if (row) this.input.setAttribute("aria-activedescendant", row.id);
    else this.input.removeAttribute("aria-activedescendant");
  }

  #key(event) {
    if (isComposing(event)) return;
    const n = this.options.length;
    const moves = { ArrowDown: this.active + 1, ArrowUp: this.active - 1 };
    if (event.key in moves && n) this.#activate((moves[event.key] + n) % n);
    else if (event.key === "Enter") this.#enter(!event.shiftKey);
    else if (event.key === "Escape") this.#escape();
    else return;
    event.preventDefault();
  }

  #escape() {
    if (!this.options.length) this.input.value = "";
    this.close();
  }

  async #upload(input) {
    const text = await input.files[0].text();
    input.value = ""; // the same file may be chosen again
    await this.#takeApart(text.replace(/^\ufeff/, ""));
  }

  /** Take a list that is pasted or dropped apart; the box holds one line, and would cut it. */
  #inserted(event, data) {
    const text = data?.getData("text/plain") ?? "";
    if (!isList(text) && text.trim().length <= MAX_NAME) return;
    event.preventDefault();
    this.#takeApart(text);
  }

  async #takeApart(text) {
    const long = linesOf(text).flatMap(namesOf).find((name) => Array.from(name).length > MAX_NAME);
    if (long) {
      this.#tell(`A name has at most ${MAX_NAME} characters, and this one ${Array.from(long).length}: ${long.slice(0, 40)} …`);
      return;
    }
    this.#typeIn("");
    try {
      const single = await matchList(text, this.onList);
      if (single) this.#typeIn(single);
    } catch (error) {
      this.#tell(error.message);
    }
  }

  #typeIn(text) {
    byId("error-seeds").replaceChildren();
    this.input.value = text;
    this.#typed();
  }

  #tell(problem) {
    byId("error-seeds").replaceChildren(make("p", {}, problem));
  }

  /** Take the active name; where there is none, with `look` what the server would complete, else the text. */
  #enter(positive, look = this.request !== null) {
    const text = this.input.value.trim();
    if (!text && positive && !look) this.onExpand();
    else if (!text) this.input.focus();
    else if (this.options[this.active]) this.#pick(this.options[this.active], positive);
    else if (look) this.#resolve(text, positive);
    else this.#take(text, positive);
  }

  /** Take what the list would show first, if it begins so; what is merely like the text is shown, to choose. */
  async #resolve(text, positive) {
    this.input.value = "";
    this.close();
    const found = await api.search(text, SHOWN).catch(() => []);
    const first = found[exact(found, text)] ?? found[0];
    if (!first || begins(first.matched, text)) this.onChoose(first?.name ?? text, positive);
    else this.#typeIn(text);
  }

  #pick(option, positive) {
    if (!option.describe) {
      this.#take(option.name, positive);
      return;
    }
    this.close();
    this.onDescribe(option.describe);
  }

  #take(name, positive) {
    this.input.value = "";
    this.close();
    this.input.focus();
    this.onChoose(name, positive);
  }
}

/** A spelling without case, with plain signs for look-alike ones, much as the service compares them. */
function plain(spelling) {
  return spelling
    .normalize("NFKC")
    .replace(/\p{Default_Ignorable_Code_Point}/gu, "")
    .replace(/[\u2010-\u2015\u2212]/g, "-")
    .replace(/[\u2018\u2019\u02bc\u2032]/g, "'")
    .replace(/\s+/g, " ")
    .trim()
    .toLowerCase();
}

/** The place of the entity that is spelt like this, by its name or an alias; -1: there is none. */
function exact(found, text) {
  const same = (spelling) => plain(spelling) === plain(text);
  return found.findIndex(({ name, aliases }) => [name, ...aliases].some(same));
}

const begins = (spelling, text) => plain(spelling).startsWith(plain(text));

/** The alias by which an entity was found, where it was not the name itself. */
function alias({ name, matched }) {
  return matched === name ? [] : [make("span", { class: "alias" }, "also ", bdi(matched))];
}
