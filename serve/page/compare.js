// Two answers side by side: what both have, what one alone has, and how far places moved.

import { bdi, byId, count, make } from "./dom.js";
import { rowKeys, turnTo } from "./rows.js";

const FIRST = [10, 50]; // of the best of either answer, how many are in both
const KEPT = 8; // answers
const METHOD = "method:"; // begins the choice of a method that is still to be asked

/**
 * What two lists of names, best first, have in common: `rows` of `{name, left, right}` with places from 1 or null,
 * in the order of the better place, and `agreement`: of the first k of either, how many are in both.
 */
export function compared(left, right) {
  const places = (names) => new Map(names.map((name, place) => [name, place + 1]));
  const [of, inRight] = [places(left), places(right)];
  const names = [...new Set([...left, ...right])];
  const rows = names.map((name) => ({ name, left: of.get(name) ?? null, right: inRight.get(name) ?? null }));
  const best = (row) => Math.min(row.left ?? Infinity, row.right ?? Infinity);
  rows.sort((a, b) => best(a) - best(b) || (a.left ?? Infinity) - (b.left ?? Infinity));
  const least = Math.min(left.length, right.length);
  const depths = [...new Set([...FIRST.filter((k) => k < least), least])].filter(Boolean);
  const both = (k) => left.slice(0, k).filter((name) => inRight.get(name) <= k).length;
  return { rows, agreement: depths.map((k) => ({ k, both: both(k) })) };
}

const PARTS = {
  all: () => true,
  both: ({ left, right }) => left && right,
  left: ({ right }) => !right,
  right: ({ left }) => !left,
};

/**
 * Keeps the last answers, and compares two of them in a dialog. `ask(method)` resolves to `{answer, body}` of the
 * query as it is now by another method; `methods()` names those that are served.
 */
export class Comparison {
  constructor({ state, ask, methods, onJudge, onDetails }) {
    Object.assign(this, { state, ask, methods, onDetails });
    this.kept = []; // {answer, label}, the newest last
    this.part = "all";
    this.dialog = byId("compare");
    this.rows = byId("compare-rows");
    for (const side of ["left", "right"]) byId(`compare-${side}`).addEventListener("change", (event) => this.#chosen(side, event.target));
    for (const part of Object.keys(PARTS)) byId(`compare-show-${part}`).addEventListener("click", () => this.#only(part));
    rowKeys(this.rows, { onJudge, onOpen: onDetails });
    state.listen(() => this.dialog.open && this.#marks());
  }

  /** Keep an answer, and what it was asked with. */
  keep(answer, body) {
    const seeds = [count(body.positive.length, "seed"), body.negative.length ? `${body.negative.length} rejected` : ""];
    const filter = Object.entries(body.filter ?? {}).map(([name, values]) => `${name} ${values.join(" or ")}`);
    const time = new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const label = [answer.method, ...seeds, ...filter, time].filter(Boolean).join(", ");
    this.kept = [...this.kept, { answer, label }].slice(-KEPT);
  }

  /** Compare the last answer with the one before, if there is one. */
  open() {
    if (!this.kept.length) return;
    byId("error-compare").textContent = "";
    [this.left, this.right] = [this.kept.at(-2) ?? this.kept.at(-1), this.kept.at(-1)];
    this.dialog.showModal();
    this.#show();
    byId(this.kept.length > 1 ? "compare-left" : "compare-right").focus();
  }

  async #chosen(side, select) {
    byId("error-compare").textContent = "";
    if (!select.value.startsWith(METHOD)) {
      this[side] = this.kept[Number(select.value)];
      this.#show();
      return;
    }
    byId("compare-about").textContent = "Asking …";
    try {
      const { answer, body } = await this.ask(select.value.slice(METHOD.length));
      this.keep(answer, body);
      this[side] = this.kept.at(-1);
    } catch (error) {
      byId("error-compare").textContent = error.message;
    }
    this.#show();
  }

  #only(part) {
    this.part = part;
    this.#show();
  }

  #show() {
    for (const side of ["left", "right"]) this.#choices(byId(`compare-${side}`), this[side]);
    const names = ({ answer }) => answer.results.map(({ name }) => name);
    const { rows, agreement } = compared(names(this.left), names(this.right));
    for (const [part, within] of Object.entries(PARTS)) {
      const button = byId(`compare-show-${part}`);
      button.querySelector("span").textContent = rows.filter(within).length;
      button.setAttribute("aria-pressed", String(part === this.part));
    }
    const figures = agreement.map(({ k, both }) => `of the first ${k}: ${both} in both (${Math.round((100 * both) / k)} %)`);
    byId("compare-about").textContent = this.left === this.right
      ? "This is one answer twice: choose another one, or a method, on either side."
      : `${figures.join("; ") || "nothing to compare"}.`;
    this.rows.replaceChildren(...rows.filter(PARTS[this.part]).map((row) => this.#row(row)));
    turnTo(this.rows);
    this.#marks();
  }

  #choices(select, chosen) {
    const answers = this.kept.map(({ label }, place) => new Option(label, place));
    const others = this.methods().map((name) => new Option(name, `${METHOD}${name}`));
    const [first, second] = [make("optgroup", { label: "Answers" }, ...answers), make("optgroup", { label: "Ask now, by the method" }, ...others)];
    select.replaceChildren(first, ...(others.length ? [second] : []));
    select.value = String(Math.max(this.kept.indexOf(chosen), 0));
  }

  #row({ name, left, right }) {
    const by = left && right ? left - right : null;
    const moved = by === null ? `only ${left ? "left" : "right"}` : by === 0 ? "same place" : `${Math.abs(by)} ${by > 0 ? "up" : "down"}`;
    const open = () => this.onDetails(name);
    const row = make(
      "tr",
      { tabIndex: -1, class: by === null ? "alone" : null },
      make("th", { scope: "row" }, make("button", { type: "button", class: "name", tabIndex: -1, onclick: open }, bdi(name))),
      make("td", {}, left ?? "–"),
      make("td", {}, right ?? "–"),
      make("td", {}, moved),
      make("td", { class: "mark" }),
    );
    row.dataset.name = name;
    return row;
  }

  /** Say of each row what was judged. */
  #marks() {
    for (const row of this.rows.children) {
      const side = this.state.sideOf(row.dataset.name);
      row.classList.toggle("accepted", side === "+");
      row.classList.toggle("rejected", side === "-");
      row.lastChild.textContent = { "+": "accepted", "-": "rejected" }[side] ?? "";
    }
  }
}
