// The seed lists: what was given, each with its side, and the way to another.

import { announce, bdi, byId, count, make } from "./dom.js";

/** Shows a state's seeds. `onEdit(seed)` opens a described entity again. */
export class SeedLists {
  constructor(state, { onEdit }) {
    this.state = state;
    this.onEdit = onEdit;
    this.lists = { positive: byId("positive"), negative: byId("negative") };
    byId("undo").addEventListener("click", () => this.undo());
    byId("redo").addEventListener("click", () => this.redo());
    state.listen(() => this.show());
  }

  undo() {
    if (this.state.undo()) announce(`Undone; ${count(this.state.seeds.length, "seed")}`);
  }

  redo() {
    if (this.state.redo()) announce(`Done again; ${count(this.state.seeds.length, "seed")}`);
  }

  show() {
    const focus = this.#focused();
    for (const [side, list] of Object.entries(this.lists)) {
      const seeds = this.state.seeds.filter((seed) => seed.positive === (side === "positive"));
      list.replaceChildren(...seeds.map((seed) => this.#row(seed)));
      if (!seeds.length) list.append(make("li", { class: "none" }, side === "positive" ? "none yet" : "none"));
    }
    this.#disable("undo", !this.state.past.length, "redo");
    this.#disable("redo", !this.state.future.length, "undo");
    this.#restore(focus);
  }

  /** Mark a seed as the one that an error is about. */
  blame(seed) {
    for (const row of document.querySelectorAll(".seed")) {
      row.classList.toggle("wrong", row.dataset.name === seed.name);
    }
  }

  #row(seed) {
    const [sign, other] = seed.positive ? ["+", "negative"] : ["−", "positive"];
    const row = make(
      "li",
      { class: `seed ${seed.positive ? "positive" : "negative"}` },
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
