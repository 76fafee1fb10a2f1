// One entity, on demand: what it is, where it is named, and what stands near it.

import * as api from "./api.js";
import { announce, bdi, byId, make, marked, short } from "./dom.js";
import { button } from "./errors.js";
import { imageList } from "./images.js";

/** A sheet at the side. `onJudge(name, positive)` makes a seed of an entity shown in it. */
export class Details {
  constructor({ onJudge, sideOf }) {
    this.onJudge = onJudge;
    this.sideOf = sideOf;
    this.sheet = byId("details");
    this.request = null;
    this.sheet.addEventListener("close", () => this.request?.abort());
    this.sheet.addEventListener("click", (event) => {
      if (event.target === this.sheet) this.sheet.close(); // the backdrop
    });
  }

  /** Show the entity of a name: an id means another one in another bundle. */
  async open(name) {
    this.request?.abort();
    const request = (this.request = new AbortController());
    this.#show(name, make("p", { class: "hint" }, "Loading …"));
    if (!this.sheet.open) this.sheet.showModal();
    this.sheet.querySelector("h2").focus();
    try {
      const found = await api.entity(name, request.signal);
      if (this.sheet.open) this.#show(found.name, ...this.#parts(found));
      announce(`details of ${found.name}`);
    } catch (error) {
      if (error.name === "AbortError") return;
      const open = (suggestion) => this.open(suggestion);
      const parts = [make("p", {}, error.message), ...(error.suggestions ?? []).map((one) => button(one, open))];
      this.#show(name, make("div", { class: "error", role: "alert" }, ...parts));
    }
  }

  #show(name, ...parts) {
    const title = make("h2", { id: "details-title", tabIndex: -1 }, bdi(name));
    const close = make("button", { type: "button", onclick: () => this.sheet.close() }, "Close");
    this.sheet.replaceChildren(make("div", { class: "bar" }, title, close), ...parts);
    title.focus();
  }

  #parts(found) {
    const { name, aliases, description, attributes, sentences, images, neighbours } = found;
    const facts = Object.entries(attributes).flatMap(([attribute, values]) => [
      make("dt", {}, bdi(attribute)),
      make("dd", {}, bdi(values.join(", "))),
    ]);
    const quotes = sentences.map((one) => make("p", { class: "sentence", dir: "auto" }, ...marked(one)));
    const also = aliases.flatMap((alias, place) => [place ? ", " : "", bdi(alias)]);
    return [
      this.#judge(name),
      also.length ? make("p", { class: "hint" }, "also ", ...also) : null,
      description ? make("p", { class: "description", dir: "auto" }, description) : null,
      facts.length ? make("dl", { class: "facts" }, ...facts) : null,
      imageList(images, name),
      quotes.length ? section("Sentences", ...quotes) : null,
      neighbours.length ? section("Neighbours", make("ul", {}, ...neighbours.map((one) => this.#near(one)))) : null,
    ].filter(Boolean);
  }

  #near({ name, similarity }) {
    const open = () => this.open(name);
    const title = make("button", { type: "button", class: "name", "aria-label": `Details of ${name}`, onclick: open }, bdi(name));
    return make("li", {}, this.#judge(name), title, make("span", { class: "similarity" }, short(similarity)));
  }

  #judge(name) {
    const group = make("span", { class: "judge" });
    const one = (positive) => {
      const [side, sign] = positive ? ["positive", "+"] : ["negative", "−"];
      const label = `${name} as a ${side} seed`;
      const toggle = make("button", { type: "button", class: `side ${side}`, "aria-label": label }, sign);
      toggle.addEventListener("click", () => {
        this.onJudge(name, positive);
        show();
      });
      return toggle;
    };
    const [accept, reject] = [one(true), one(false)];
    const show = () => {
      accept.setAttribute("aria-pressed", String(this.sideOf(name) === "+"));
      reject.setAttribute("aria-pressed", String(this.sideOf(name) === "-"));
    };
    show();
    group.append(accept, reject);
    return group;
  }
}

function section(title, ...children) {
  return make("section", {}, make("h3", {}, title), ...children);
}
