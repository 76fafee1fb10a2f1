// Method, number of results, time, evidence, and conditions on attributes.

import * as api from "./api.js";
import { bdi, byId, count, isComposing, make } from "./dom.js";
import { stageInWords } from "./words.js";

// By input: the field of a request, and its name among the `given` parts of a method's description.
const GIVEN = {
  "class-name": ["class_name", "class_name"],
  shared: ["positive_attributes", "positive"],
  unlike: ["negative_attributes", "negative"],
};

/** Shows and changes a state's options; what is served fills the choices. */
export class Options {
  constructor(state) {
    this.state = state;
    this.methods = [];
    this.attributes = [];
    byId("method").addEventListener("change", (event) => state.set({ method: event.target.value }));
    byId("top-k").addEventListener("change", (event) => this.#topK(event.target));
    byId("within").addEventListener("change", (event) => {
      state.set({ within: Number(event.target.value) || null });
    });
    byId("evidence").addEventListener("change", (event) => state.set({ evidence: event.target.checked }));
    for (const [id, [field]] of Object.entries(GIVEN)) {
      byId(id).addEventListener("input", (event) => {
        state.set({ given: { ...state.options.given, [field]: event.target.value } });
      });
    }
    byId("attribute").addEventListener("change", () => this.#offerValues());
    byId("add-condition").addEventListener("click", () => this.#addCondition());
    byId("value").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || isComposing(event)) return;
      event.preventDefault();
      this.#addCondition();
    });
    state.listen(() => this.show());
  }

  /** Ask what there is to choose from. */
  async load() {
    const [served, attributes] = await Promise.all([api.methods(), api.attributes()]);
    this.methods = served.methods;
    this.served = served.default;
    this.attributes = attributes;
    byId("filters").hidden = attributes.length === 0;
    byId("attribute").replaceChildren(...attributes.map(({ name }) => new Option(name, name)));
    this.#offerValues();
    this.show();
  }

  /** The stages that a method is made of, by their bare names. */
  stagesOf(method) {
    const name = method === "default" ? this.served : method;
    const stages = this.methods.find((one) => one.name === name)?.stages ?? [];
    return stages.map((stage) => stage.split("(")[0]);
  }

  show() {
    const { method, topK, filter, evidence, within, given } = this.state.options;
    this.#showMethods(method);
    this.#showGiven(method, given);
    byId("top-k").value = topK;
    byId("evidence").checked = evidence;
    const time = byId("within");
    const value = within ? String(within) : "";
    if (![...time.options].some((option) => option.value === value)) {
      time.append(new Option(`${within / 1000} seconds`, value));
    }
    time.value = value;
    this.#showFilter(filter);
  }

  #showMethods(method) {
    const names = this.methods.map((one) => one.name).filter((name) => name !== "default");
    const labels = new Map([["default", this.served === "default" || !this.served ? "default" : `default (${this.served})`]]);
    for (const name of names) labels.set(name, name);
    if (!labels.has(method)) labels.set(method, `${method} (not served here)`);
    byId("method").replaceChildren(...[...labels].map(([value, label]) => new Option(label, value)));
    byId("method").value = method;
    byId("method-about").textContent = this.stagesOf(method).map(stageInWords).join(", then ");
  }

  /** What a method is told stands in inputs of its own; other methods have none. */
  #showGiven(method, given) {
    const about = this.methods.find((one) => one.name === method)?.description ?? "";
    const parts = about.match(/given=\(([^)]*)\)/)?.[1] ?? "";
    for (const [id, [field, part]] of Object.entries(GIVEN)) {
      byId(id).closest(".field").hidden = !parts.includes(`'${part}'`);
      if (byId(id).value !== given[field]) byId(id).value = given[field];
    }
  }

  #topK(input) {
    const topK = Number(input.value);
    if (Number.isInteger(topK) && topK >= 1) this.state.set({ topK });
    else this.show();
  }

  #showFilter(filter) {
    const inside = document.activeElement?.closest("#filter");
    const rows = [...filter].flatMap(([attribute, values]) =>
      values.map((value) => this.#condition(attribute, value)),
    );
    byId("filter").replaceChildren(...rows);
    byId("filter").hidden = rows.length === 0;
    if (inside) (byId("filter").querySelector("button") ?? byId("value")).focus();
  }

  #condition(attribute, value) {
    return make(
      "li",
      { class: "seed condition" },
      make("span", { class: "name" }, bdi(attribute), " = ", bdi(value)),
      make(
        "button",
        {
          type: "button",
          class: "remove",
          "aria-label": `Remove the condition ${attribute} = ${value}`,
          onclick: () => this.#setValues(attribute, (values) => values.filter((one) => one !== value)),
        },
        "×",
      ),
    );
  }

  #offerValues() {
    const attribute = this.attributes.find(({ name }) => name === byId("attribute").value);
    const offer = ({ value, entities }) => new Option(count(entities, "entity", "entities"), value);
    byId("values").replaceChildren(...(attribute?.values ?? []).map(offer));
  }

  #addCondition() {
    const [attribute, input] = [byId("attribute").value, byId("value")];
    const value = input.value.trim();
    input.focus();
    if (!attribute || !value) return;
    input.value = "";
    this.#setValues(attribute, (values) => [...values.filter((one) => one !== value), value]);
  }

  #setValues(attribute, change) {
    const filter = new Map(this.state.options.filter);
    const changed = change(filter.get(attribute) ?? []);
    if (changed.length) filter.set(attribute, changed);
    else filter.delete(attribute);
    this.state.set({ filter });
  }

  /** Put a suggestion in place of an attribute that nothing has, or of its value that nothing has. */
  mend(attribute, suggestion) {
    const known = this.attributes.find(({ name }) => name === attribute);
    const values = this.state.options.filter.get(attribute) ?? [];
    const listed = (value) => known?.values.some((one) => one.value === value);
    const wrong = values.find((value) => !listed(value)) ?? values.at(-1);
    const mended = ([name, all]) => {
      if (name !== attribute) return [name, all];
      return known ? [name, all.map((one) => (one === wrong ? suggestion : one))] : [suggestion, all];
    };
    this.state.set({ filter: new Map([...this.state.options.filter].map(mended)) });
  }
}
