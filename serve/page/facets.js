// What the results have: of each attribute the values, how many results have them, each a condition by a click.

import { bdi, byId, make } from "./dom.js";

const SHOWN = 8; // values of an attribute

/** Shows the facets of an answer. `onFilter(filter)` is called with the conditions that shall hold now. */
export class Facets {
  constructor({ state, onFilter }) {
    Object.assign(this, { state, onFilter });
    this.whole = new Set(); // attributes of which all values are shown
  }

  /** Show an answer's facets, `{attribute: [{value, count, entities}]}`; null: it has none. */
  show(facets) {
    this.facets = facets;
    const rows = Object.entries(facets ?? {})
      .filter(([, values]) => values.length)
      .map(([attribute, values]) => this.#row(attribute, values));
    byId("facets").hidden = rows.length === 0;
    byId("facet-rows").replaceChildren(...rows);
  }

  #row(attribute, values) {
    const shown = this.whole.has(attribute) ? values : values.slice(0, SHOWN);
    const more = values.length - shown.length;
    const showAll = () => {
      this.whole.add(attribute);
      this.show(this.facets);
      byId("facet-rows").querySelector(`[data-attribute="${CSS.escape(attribute)}"] button`)?.focus();
    };
    const all = more > 0 ? [make("button", { type: "button", class: "quiet", onclick: showAll }, `${more} more`)] : [];
    const group = make("dd", { role: "group", "aria-label": attribute }, ...shown.map((one) => this.#value(attribute, one)), ...all);
    const row = make("div", {}, make("dt", {}, bdi(attribute)), group);
    row.dataset.attribute = attribute;
    return row;
  }

  #value(attribute, { value, count: n, entities }) {
    const held = this.state.options.filter.get(attribute) ?? [];
    const on = held.includes(value);
    const toggle = () => {
      const filter = new Map(this.state.options.filter);
      const values = on ? held.filter((one) => one !== value) : [...held, value];
      if (values.length) filter.set(attribute, values);
      else filter.delete(attribute);
      this.onFilter(filter);
    };
    const words = `${value}: ${n} of the results, ${entities} of all; ${on ? "shown alone: take the condition away" : "show only these"}`;
    const given = { type: "button", class: "facet", "aria-pressed": String(on), "aria-label": words, title: words, onclick: toggle };
    return make("button", given, bdi(value), " ", make("span", { class: "similarity" }, String(n)));
  }
}
