// A map of the set: what was accepted, what was rejected, and the answer, on a plane, near where they are alike.

import * as api from "./api.js";
import { singleKeys } from "./dialogs.js";
import { bdi, byId, count, make, marked, short } from "./dom.js";
import { labelled, moved, placeOf, showing, wholeView, zoomed } from "./plane.js";
import { held, nearest } from "./results.js";

const MOST = 400; // entities besides the seeds, by the interface
const JUDGED = 200; // of these that were judged: the answer has room, too
const STEP = 60; // pixels that an arrow key moves the map
const FACTOR = 1.4; // of a zoom by key or button
const LINE = 16; // pixels of a name's height

const KINDS = { "+": "accepted", "-": "rejected", "": "in the answer" };
const MARKS = {
  "+": "M0,-6A6,6 0 1 1 0,6A6,6 0 1 1 0,-6Z", // round
  "-": "M-5,-5H5V5H-5Z", // square
  "": "M0,-5L5,0L0,5L-5,0Z", // a diamond
};

function draw(tag, given = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Draws a map in a dialog. `answer()` is what is shown; `onJudge(name, positive)`, `onDetails(name)` as in a list. */
export class EntityMap {
  constructor({ state, answer, onJudge, onDetails }) {
    Object.assign(this, { state, answer, onJudge, onDetails });
    this.dialog = byId("map");
    this.svg = byId("map-drawing");
    this.points = []; // those that have a place
    this.chosen = -1;
    this.view = null;
    this.request = null;
    this.dialog.addEventListener("close", () => this.request?.abort());
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    this.svg.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => this.#render()).observe(this.svg);
    this.#followPointers();
    const buttons = { "map-in": () => this.#zoom(FACTOR), "map-out": () => this.#zoom(1 / FACTOR), "map-whole": () => this.#whole() };
    for (const [id, act] of Object.entries(buttons)) byId(id).addEventListener("click", act);
    state.listen(() => this.dialog.open && this.#marks());
  }

  /** Open the map of what is judged and shown now. */
  async open() {
    this.request?.abort();
    const own = (this.request = new AbortController());
    const { body, left } = this.#question();
    this.#clear(body.positive.length + body.negative.length ? "Loading …" : "Accept or reject an entity first.");
    if (!this.dialog.open) this.dialog.showModal();
    this.svg.focus();
    if (!(body.positive.length + body.negative.length)) return;
    try {
      const found = await api.map(body, own.signal);
      if (this.dialog.open) this.#show(found, left);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.#clear("");
      byId("error-map").textContent = error.message;
    }
  }

  /** The body of the request, and how many entities are left out of it. */
  #question() {
    const { body } = this.state.request();
    const judged = this.state.excluded().exclude.map(({ name }) => name).slice(-JUDGED);
    const results = (this.answer()?.results ?? []).map(({ name }) => name);
    const all = [...new Set([...judged, ...results])];
    const entities = all.slice(0, MOST);
    const { exclude, beyond } = this.state.excluded();
    const left = exclude.length + beyond - judged.length + all.length - entities.length;
    return { body: { positive: body.positive, negative: body.negative, entities, explain: true }, left };
  }

  #clear(text) {
    [this.points, this.chosen, this.view] = [[], -1, null];
    this.svg.replaceChildren();
    byId("error-map").textContent = "";
    byId("map-about").textContent = text;
    byId("map-why").replaceChildren();
    byId("map-rows").replaceChildren();
    byId("map-table").hidden = true;
  }

  #show({ points, shown }, left) {
    const ranks = new Map((this.answer()?.results ?? []).map((result) => [result.name, result]));
    const all = points.map((point) => ({ ...point, result: ranks.get(point.name) }));
    this.points = all.filter(({ x }) => x !== null);
    const without = all.length - this.points.length;
    byId("map-about").textContent = [
      `${count(this.points.length, "entity", "entities")}; near is alike.`,
      shown === null ? "" : `The map shows ${Math.round(100 * shown)} % of how they differ; what seems near may be apart in the rest, the numbers say.`,
      without ? `${count(without, "entity", "entities")} without a place: nothing is known of them.` : "",
      left ? `${left} more are left out.` : "",
    ].filter(Boolean).join(" ");
    this.#build();
    this.#table(all);
    this.#whole();
    if (this.points.length) this.choose(0, false);
  }

  #build() {
    this.lines = draw("g", { class: "map-lines" });
    this.marks = this.points.map((_, place) => {
      const mark = draw("g", {}, draw("path"));
      mark.addEventListener("click", () => this.choose(place));
      return mark;
    });
    this.names = this.points.map(({ name }) => {
      const text = draw("text", { dy: "0.32em" });
      text.textContent = name.length > 28 ? `${name.slice(0, 27)}…` : name;
      return text;
    });
    this.svg.replaceChildren(this.lines, draw("g", { "aria-hidden": "true" }, ...this.marks), draw("g", { class: "map-names", "aria-hidden": "true" }, ...this.names));
    this.widths = this.names.map((text) => text.getComputedTextLength());
    // Names of what was judged come before the answer's, and these in its order.
    const weight = ({ name, result }) => (this.state.sideOf(name) ? 0 : (result?.rank ?? 1));
    this.order = this.points.map((point, place) => [weight(point), place]).sort(([a], [b]) => a - b).map(([, place]) => place);
    this.#marks();
  }

  /** Show what was judged meanwhile. */
  #marks() {
    for (const [place, { name }] of this.points.entries()) {
      const side = this.state.sideOf(name);
      this.marks[place].setAttribute("class", `map-point ${{ "+": "positive", "-": "negative" }[side] ?? "other"}`);
      this.marks[place].firstChild.setAttribute("d", MARKS[side]);
    }
    for (const cell of byId("map-rows").querySelectorAll("[data-kind]")) {
      cell.textContent = KINDS[this.state.sideOf(cell.dataset.kind)];
    }
    if (this.chosen >= 0) this.#why();
    this.#render();
  }

  get #size() {
    return [this.svg.clientWidth, this.svg.clientHeight];
  }

  #whole() {
    if (this.points.length) this.view = wholeView(this.points, ...this.#size);
    this.#render();
  }

  #zoom(factor, at = undefined) {
    if (this.view) this.view = zoomed(this.view, factor, ...this.#size, at);
    this.#render();
  }

  #render() {
    if (!this.view || !this.dialog.open) return;
    const [width, height] = this.#size;
    const places = this.points.map((point) => placeOf(point, this.view, width, height));
    for (const [place, { left, top }] of places.entries()) {
      this.marks[place].setAttribute("transform", `translate(${left.toFixed(1)} ${top.toFixed(1)})`);
      this.marks[place].classList.toggle("chosen", place === this.chosen);
    }
    const first = this.chosen >= 0 ? [this.chosen, ...this.order.filter((one) => one !== this.chosen)] : this.order;
    const corners = labelled(first.map((place) => ({ ...places[place], width: this.widths[place] })), width, height, LINE);
    for (const [i, place] of first.entries()) {
      const name = this.names[place];
      name.style.display = corners[i] ? "" : "none";
      name.classList.toggle("chosen", place === this.chosen);
      if (!corners[i]) continue;
      name.setAttribute("x", corners[i].left.toFixed(1));
      name.setAttribute("y", (corners[i].top + LINE / 2).toFixed(1));
    }
    this.#drawLines(places);
  }

  /** Lines from the chosen point to the seeds that it is nearest to. */
  #drawLines(places) {
    const { nearest_positive: positive, nearest_negative: negative } = this.points[this.chosen]?.explanation ?? {};
    const from = places[this.chosen];
    const lines = [["positive", positive], ["negative", negative]].flatMap(([side, seed]) => {
      const end = places[this.points.findIndex(({ name }) => name === seed?.name)];
      return end ? [draw("line", { class: side, x1: from.left, y1: from.top, x2: end.left, y2: end.top })] : [];
    });
    this.lines.replaceChildren(...lines);
  }

  /** Choose a point: it is named, and it is said why it lies where it does. */
  choose(place, move = true) {
    this.chosen = place;
    if (move && this.view) this.view = showing(this.view, this.points[place], ...this.#size);
    this.#why();
    this.#render();
  }

  #why() {
    const { name, explanation, result } = this.points[this.chosen];
    const side = this.state.sideOf(name);
    const sentence = explanation.sentences[0];
    const button = (positive) => {
      const [kind, sign, word] = positive ? ["positive", "+", "Accept"] : ["negative", "−", "Reject"];
      const pressed = String(side === (positive ? "+" : "-"));
      const label = { "aria-label": `${word} ${name}`, "aria-pressed": pressed };
      return make("button", { type: "button", class: `side ${kind}`, ...label, onclick: () => this.#judge(positive) }, sign);
    };
    const inside = byId("map-why").contains(document.activeElement) && document.activeElement.className;
    byId("map-why").replaceChildren(
      make("h3", {}, bdi(name)),
      make("p", { class: "hint" }, result ? `${KINDS[side]}; place ${result.rank}, score ${short(result.score)}` : KINDS[side]),
      nearest(explanation),
      ...[held(explanation.types)].filter(Boolean),
      ...(sentence ? [make("p", { class: "sentence", dir: "auto" }, ...marked(sentence))] : []),
      make("div", { class: "bar" }, button(true), button(false), make("button", { type: "button", class: "more-about", onclick: () => this.onDetails(name) }, "Details")),
    );
    if (inside) byId("map-why").querySelector(`[class="${inside}"]`)?.focus();
  }

  #judge(positive) {
    const { name } = this.points[this.chosen] ?? {};
    if (name) this.onJudge(name, positive); // the state tells of it, and the mark changes
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.points.length) return;
    const steps = {
      ArrowLeft: () => this.#move(STEP, 0),
      ArrowRight: () => this.#move(-STEP, 0),
      ArrowUp: () => this.#move(0, STEP),
      ArrowDown: () => this.#move(0, -STEP),
      Home: () => this.#whole(),
      Enter: () => this.chosen >= 0 && this.onDetails(this.points[this.chosen].name),
    };
    const letters = {
      "+": () => this.#zoom(FACTOR),
      "=": () => this.#zoom(FACTOR),
      "-": () => this.#zoom(1 / FACTOR),
      0: () => this.#whole(),
      j: () => this.#next(1),
      k: () => this.#next(-1),
      a: () => this.#judge(true),
      r: () => this.#judge(false),
    };
    const act = steps[event.key] ?? (singleKeys() ? letters[event.key] : undefined);
    if (!act) return;
    act();
    event.preventDefault();
  }

  /** Choose the point after the chosen one, in the order in which they are named. */
  #next(by) {
    const at = this.order.indexOf(this.chosen);
    this.choose(this.order[(at + by + this.order.length) % this.order.length]);
  }

  #move(right, down) {
    if (this.view) this.view = moved(this.view, right, down);
    this.#render();
  }

  #wheel(event) {
    event.preventDefault();
    const { left, top } = this.svg.getBoundingClientRect();
    this.#zoom(Math.exp(-event.deltaY / 400), { left: event.clientX - left, top: event.clientY - top });
  }

  /** One pointer moves the map, two make it larger or smaller. */
  #followPointers() {
    const down = new Map();
    const apart = () => {
      const [a, b] = [...down.values()];
      return Math.hypot(a.x - b.x, a.y - b.y) || 1;
    };
    const lift = ({ pointerId }) => down.delete(pointerId);
    this.svg.addEventListener("pointerdown", (event) => down.set(event.pointerId, { x: event.clientX, y: event.clientY }));
    this.svg.addEventListener("pointermove", (event) => {
      const before = down.get(event.pointerId);
      if (!before) return;
      const distance = down.size > 1 ? apart() : 0;
      down.set(event.pointerId, { x: event.clientX, y: event.clientY });
      this.#move((event.clientX - before.x) / down.size, (event.clientY - before.y) / down.size);
      if (distance) this.#zoom(apart() / distance);
    });
    for (const kind of ["pointerup", "pointercancel", "pointerleave"]) this.svg.addEventListener(kind, lift);
  }

  /** The same in words: each entity, what it is, and what it is nearest to. */
  #table(all) {
    const near = (one) => (one ? [bdi(one.name), ` ${short(one.similarity)}`] : ["–"]);
    const rows = all.map(({ name, x, explanation }) => {
      const place = this.points.findIndex((point) => point.name === name);
      const choose = () => {
        this.choose(place);
        this.svg.focus();
      };
      const title = x === null ? bdi(name) : make("button", { type: "button", class: "name", onclick: choose }, bdi(name));
      const kind = make("td", {}, KINDS[this.state.sideOf(name)]);
      kind.dataset.kind = name;
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, title),
        kind,
        make("td", {}, ...near(explanation.nearest_positive)),
        make("td", {}, ...near(explanation.nearest_negative)),
      );
    });
    byId("map-rows").replaceChildren(...rows);
    byId("map-table").hidden = rows.length === 0;
  }
}
