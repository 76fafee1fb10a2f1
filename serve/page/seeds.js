// What was accepted and rejected: each entity with its side, and the way to the other. Some are the seeds.

import { announce, bdi, byId, count, make } from "./dom.js";

const SHOWN = 300; // of a side; the last ones, as the first are long judged

/**
 * Shows what a state holds. `onEdit(seed)` opens a described entity again; `onStep(again)`, if it returns true, takes
 * an undo or a redo on itself; `steps()` says which of them a named set has.
 */
export class SeedLists {
  constructor(state, { onEdit, onStep, steps }) {
    this.state = state;
    this.onEdit = onEdit;
    this.onStep = onStep;
    this.steps = steps;
    this.whole = { positive: false, negative: false };
    this.lists = { positive: byId("positive"), negative: byId("negative") };
    byId("undo").addEventListener("click", () => this.undo());
    byId("redo").addEventListener("click", () => this.redo());
    state.listen(() => this.show());
  }

  undo() {
    if (this.onStep(false)) return;
    if (this.state.undo()) announce(`Undone; ${count(this.state.seeds.length, "seed")}`);
  }

  redo() {
    if (this.onStep(true)) return;
    if (this.state.redo()) announce(`Done again; ${count(this.state.seeds.length, "seed")}`);
  }

  show() {
    const focus = this.#focused();
    const sampled = this.state.sampled();
    for (const [side, list] of Object.entries(this.lists)) {
      const seeds = this.state.seeds.filter((seed) => seed.positive === (side === "positive"));
      const asked = new Set(sampled[side]);
      const shown = this.whole[side] ? seeds : seeds.slice(-SHOWN);
      list.replaceChildren(...shown.map((seed) => this.#row(seed, seeds.length > asked.size && asked.has(seed))));
      if (shown.length < seeds.length) list.prepend(this.#showAll(side, seeds.length));
      const some = seeds.length > asked.size ? `, ${asked.size} of them as seeds` : "";
      byId(`${side}-count`).textContent = seeds.length ? `(${seeds.length}${some})` : "";
      if (!seeds.length) list.append(make("li", { class: "none" }, side === "positive" ? "none yet" : "none"));
    }
    const { undo, redo } = this.steps() ?? { undo: this.state.past.length, redo: this.state.future.length };
    this.#disable("undo", !undo, "redo");
    this.#disable("redo", !redo, "undo");
    this.#restore(focus);
  }

  /** Mark a seed as the one that an error is about. */
  blame(seed) {
    for (const row of document.querySelectorAll(".seed")) {
      row.classList.toggle("wrong", row.dataset.name === seed.name);
    }
  }

  #showAll(side, n) {
    const show = () => {
      this.whole[side] = true;
      this.show();
    };
    return make("li", {}, make("button", { type: "button", class: "quiet", onclick: show }, `Show all ${n}`));
  }

  #row(seed, asked) {
    const [sign, other] = seed.positive ? ["+", "negative"] : ["−", "positive"];
    const row = make(
      "li",
      { class: `seed ${seed.positive ? "positive" : "negative"}${asked ? " asked" : ""}${seed.gone ? " gone" : ""}` },
      make(
        "button",
        {
          type: "button",
          class: "sign",
          "data-role": "turn",
          "aria-label": `Make ${seed.name} a ${other} seed`,
          title: `make it a ${other} seed`,
          onclick: () => this.state.add(seed.name, !seed.positive),
        },
        sign,
      ),
      this.#name(seed),
      asked ? make("span", { class: "tag" }, "seed") : null,
      seed.gone ? make("span", { class: "tag", title: "the bundle that is served does not hold it" }, "gone") : null,
      make(
        "button",
        {
          type: "button",
          class: "remove",
          "data-role": "remove",
          "aria-label": `Remove ${seed.name}`,
          onclick: () => this.state.remove(seed.name),
        },
        "×",
      ),
    );
    row.dataset.name = seed.name;
    return row;
  }

  #name(seed) {
    if (!seed.sentences) return bdi(seed.name, { class: "name", title: seed.name });
    return make(
      "button",
      {
        type: "button",
        class: "name described",
        "data-role": "edit",
        "aria-label": `Edit the description of ${seed.name}`,
        title: seed.sentences.join("\n"),
        onclick: () => this.onEdit(seed),
      },
      bdi(seed.name),
      make("span", { class: "tag" }, "new"),
    );
  }

  #disable(id, disabled, other) {
    const button = byId(id);
    const lost = disabled && document.activeElement === button;
    button.disabled = disabled;
    if (lost) (byId(other).disabled ? byId("search") : byId(other)).focus();
  }

  /** Which control of which seed has the focus, if one has. */
  #focused() {
    const row = document.activeElement?.closest(".seed[data-name]");
    if (!row) return null;
    const place = [...document.querySelectorAll(".seed[data-name]")].indexOf(row);
    return { name: row.dataset.name, role: document.activeElement.dataset.role, place };
  }

  /** Give the focus to the same control as before, or to that of the seed now in its place. */
  #restore(focus) {
    if (!focus) return;
    const rows = [...document.querySelectorAll(".seed[data-name]")];
    const row = rows.find((one) => one.dataset.name === focus.name) ?? rows[Math.min(focus.place, rows.length - 1)];
    (row?.querySelector(`[data-role="${focus.role}"]`) ?? row?.querySelector("button") ?? byId("search")).focus();
  }
}
