// What the accepted share: in words, and as a condition that can be asked for with one key.

import { bdi, byId, make } from "./dom.js";

/** The values that every one of these entities' attributes has: a Map of attribute to values. */
export function sharedAttributes(known) {
  const [first, ...others] = known;
  if (!others.length) return new Map();
  const shared = new Map();
  for (const [name, values] of Object.entries(first)) {
    const common = values.filter((value) => others.every((one) => (Object.hasOwn(one, name) ? one[name] : []).includes(value)));
    if (common.length) shared.set(name, common);
  }
  return shared;
}

/** Shows what the seeds share. `onAsk()` is called when it shall be a condition. */
export class Shared {
  constructor({ onAsk }) {
    this.values = new Map();
    byId("only-shared").addEventListener("click", onAsk);
  }

  /**
   * Show what the attributes of accepted entities have in common, and how many rejected ones have that too, beside
   * the conditions that there are.
   */
  show(accepted, rejected, filter) {
    this.values = sharedAttributes(accepted);
    const parts = [...this.values].map(([name, values]) => {
      const has = (attributes) => values.every((value) => (Object.hasOwn(attributes, name) ? attributes[name] : []).includes(value));
      const others = rejected.filter(has).length;
      const also = others ? ` (${others} of ${rejected.length} rejected, too)` : "";
      return make("span", { class: "type" }, bdi(name), " ", make("b", {}, bdi(values.join(", "))), also);
    });
    byId("shared-values").replaceChildren(...parts);
    byId("shared-here").hidden = parts.length === 0;
    byId("only-shared").disabled = [...this.values.keys()].every((name) => filter.has(name));
  }
}
