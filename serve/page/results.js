// The ranked candidates: one row each, one of them current, and what is known for and against it.

import { bdi, byId, make, marked, short } from "./dom.js";
import { numberInWords } from "./words.js";
import { imageList } from "./images.js";

const SMALLEST = 0.04; // of the bar's length: the last one is still to be seen

/** Shows an answer. `onJudge(name, positive)` marks a candidate, `onDetails(result)` tells more. */
export class Results {
  constructor({ onJudge, onDetails, sideOf }) {
    this.onJudge = onJudge;
    this.onDetails = onDetails;
    this.sideOf = sideOf;
    this.list = byId("results");
    this.answer = null;
    this.shown = []; // its results, in the order of the rows
    this.unsure = false; // whether that is "least sure first"
    this.current = -1; // the row that keys act on
    this.opened = -1; // the row that shows all its evidence
    this.pointing = false;
    this.list.addEventListener("pointerdown", () => (this.pointing = true));
    window.addEventListener("pointerup", () => (this.pointing = false));
    this.list.addEventListener("focusin", (event) => this.#focused(event));
    this.list.addEventListener("click", (event) => this.#clicked(event));
  }

  /** Show another answer, or none, and make its first candidate the current one. */
  show(answer) {
    this.answer = answer;
    this.attributes = new Map();
    this.#build();
  }

  /** Whether the answer says how probable each of its entities is. */
  get hasProbabilities() {
    return (this.answer?.results ?? []).some((result) => typeof result.evidence.probability === "number");
  }

  /** Order the rows by doubt, those first whose probability is nearest to a half, or as they came. */
  order(unsure) {
    this.unsure = unsure;
    this.#build();
  }

  /** Entities from the first row to the current one that are not judged yet. */
  get aboveHere() {
    return this.shown.slice(0, this.current + 1).filter((result) => !this.sideOf(result.name)).map(({ name }) => name);
  }

  /** Show what is known of entities, by name: `{attribute: [value]}`. */
  showAttributes(known) {
    this.attributes = known;
    for (const [place, element] of [...this.list.children].entries()) {
      const line = attributeLine(known.get(this.shown[place].name));
      if (line) (element.querySelector(":scope > .nearest") ?? element.querySelector(":scope > .score")).after(line);
    }
  }

  #build() {
    const answer = this.answer;
    const results = answer?.results ?? [];
    const doubt = ({ evidence }) => Math.abs((evidence.probability ?? 0) - 0.5);
    this.shown = this.unsure && this.hasProbabilities ? [...results].sort((a, b) => doubt(a) - doubt(b)) : results;
    this.current = this.opened = -1;
    const scores = (answer?.results ?? []).map((result) => result.score).filter((score) => score !== null);
    const [low, high] = [Math.min(...scores), Math.max(...scores)];
    const share = (score) => {
      if (score === null) return 0;
      return high > low ? SMALLEST + (1 - SMALLEST) * ((score - low) / (high - low)) : 1;
    };
    // Where the order is another one, the proposed set has no end in it. Ranks count also what is not shown.
    const proposed = this.shown === results ? (answer?.counts?.proposed ?? 0) : 0;
    const last = results.findLast(({ rank }) => rank <= proposed)?.rank;
    const rows = this.shown.map((result, place) => row(result, place, share(result.score), last));
    this.list.replaceChildren(...rows);
    this.showAttributes(this.attributes);
    this.showMarks();
    if (rows.length) this.#setCurrent(0);
  }

  /** Show which candidates are seeds now. */
  showMarks() {
    for (const [place, element] of [...this.list.children].entries()) {
      const side = this.sideOf(this.shown[place].name);
      element.classList.toggle("accepted", side === "+");
      element.classList.toggle("rejected", side === "-");
      const [accept, reject] = element.querySelectorAll(".judge button");
      accept.setAttribute("aria-pressed", String(side === "+"));
      reject.setAttribute("aria-pressed", String(side === "-"));
    }
  }

  /** Move the focus by some rows; from outside, it only comes to the current one. */
  move(by) {
    this.focus(this.list.contains(document.activeElement) ? this.current + by : this.current);
  }

  /** Focus a row; beyond the ends, the first or the last. */
  focus(place = this.current) {
    this.list.children[Math.min(Math.max(place, 0), this.list.children.length - 1)]?.focus();
  }

  /** The candidate that keys act on, if there is one. */
  get chosen() {
    return this.shown[this.current] ?? null;
  }

  #focused(event) {
    const element = event.target.closest(".results > li");
    // Between press and release a row must not move away under the pointer.
    if (element && !this.pointing) this.#setCurrent(Number(element.dataset.place));
  }

  #setCurrent(place, open = true) {
    this.#turn(this.current, false);
    this.current = place;
    this.#turn(place, true);
    if (!open) return;
    this.list.children[this.opened]?.classList.remove("open");
    this.opened = place;
    const element = this.list.children[place];
    element.classList.add("open");
    if (!element.querySelector(".more")) element.append(more(this.shown[place]));
  }

  /** Only the current row's buttons are stops of the Tab key. */
  #turn(place, current) {
    const element = this.list.children[place];
    if (!element) return;
    element.classList.toggle("current", current);
    element.tabIndex = current ? 0 : -1;
    for (const button of element.querySelectorAll("button")) button.tabIndex = current ? 0 : -1;
  }

  #clicked(event) {
    const element = event.target.closest(".results > li");
    if (!element) return;
    const place = Number(element.dataset.place);
    const result = this.shown[place];
    const button = event.target.closest("button");
    this.#setCurrent(place, !button); // a button stays where it was pressed: the next one is under the pointer
    if (!button) {
      if (!getSelection().toString()) element.focus();
    } else if (button.classList.contains("name")) this.onDetails(result);
    else this.onJudge(result.name, button.classList.contains("positive"));
  }
}

/** One row; below that of rank `last` stands that the proposed set ends there. */
function row(result, place, share, last) {
  const { rank, name, score, explanation } = result;
  const sentence = explanation?.sentences?.[0];
  const bar = make("span", { class: "share", "aria-hidden": "true" });
  bar.style.setProperty("--share", share.toFixed(4));
  const element = make(
    "li",
    { tabIndex: -1, "aria-labelledby": `name-${place}` },
    make("span", { class: "rank" }, make("span", { class: "visually-hidden" }, "rank "), String(rank)),
    make("span", { class: "judge" }, judge(true, name), judge(false, name)),
    make("button", { type: "button", class: "name", tabIndex: -1, id: `name-${place}`, title: "details" }, bdi(name)),
    make("span", { class: "score" }, bar, make("span", { class: "visually-hidden" }, "score "), short(score)),
    explanation ? nearest(explanation) : null,
    sentence ? make("p", { class: "sentence", dir: "auto" }, ...marked(sentence)) : null,
    rank === last ? make("p", { class: "end" }, "the proposed set ends here") : null,
  );
  element.dataset.place = place;
  return element;
}

function judge(positive, name) {
  const [side, sign, word] = positive ? ["positive", "+", "Accept"] : ["negative", "−", "Reject"];
  const label = { "aria-label": `${word} ${name}`, "aria-pressed": "false" };
  return make("button", { type: "button", class: `side ${side}`, tabIndex: -1, ...label }, sign);
}

/** In words: the seeds of either kind that an entity is nearest to. */
export function nearest({ nearest_positive: positive, nearest_negative: negative }) {
  const seed = (one, side, sign, words) =>
    one &&
    make(
      "span",
      { class: `near ${side}` },
      make("span", { class: "glyph", "aria-hidden": "true" }, sign),
      make("span", { class: "visually-hidden" }, words),
      bdi(one.name, { class: "name", title: one.name }),
      ` ${short(one.similarity)}`,
    );
  return make(
    "span",
    { class: "nearest" },
    seed(positive, "positive", "+", "nearest positive seed "),
    seed(negative, "negative", "−", "nearest negative seed "),
  );
}

/** In words: which of the seeds' types the candidate has. */
export function held(types) {
  const said = (side, sign, words) =>
    (types?.[side] ?? []).map((name) =>
      make(
        "span",
        { class: `type ${side}` },
        sign ? make("span", { class: "glyph", "aria-hidden": "true" }, sign) : null,
        sign ? make("span", { class: "visually-hidden" }, words) : null,
        bdi(name),
      ),
    );
  const all = [
    ...said("shared"),
    ...said("positive", "+", "as positive seeds: "),
    ...said("negative", "−", "as negative seeds: "),
  ];
  if (!all.length) return null;
  return make("p", { class: "types" }, make("span", { class: "visually-hidden" }, "types of seeds, too: "), ...all);
}

/** The values of an entity's attributes, each under the attribute's name; null where there are none. */
function attributeLine(attributes) {
  const all = Object.entries(attributes ?? {}).filter(([, values]) => values.length);
  if (!all.length) return null;
  const parts = all.map(([name, values]) => bdi(values.join(", "), { title: name }));
  return make("p", { class: "attributes" }, make("span", { class: "visually-hidden" }, "attributes: "), ...parts);
}

/** What only the current row shows: its types, further sentences, images, and the numbers of the stages. */
function more({ name, evidence, explanation }) {
  const numbers = Object.entries(evidence).map(([column, value]) =>
    make("div", {}, make("dt", {}, numberInWords(column)), make("dd", {}, short(value))),
  );
  const sentences = (explanation?.sentences ?? []).slice(1);
  return make(
    "div",
    { class: "more" },
    held(explanation?.types),
    ...sentences.map((sentence) => make("p", { class: "sentence", dir: "auto" }, ...marked(sentence))),
    imageList(explanation?.images ?? [], name),
    numbers.length ? make("dl", { class: "numbers" }, ...numbers) : null,
  );
}
