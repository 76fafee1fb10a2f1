// The panel of the named set: keep, open, close, its history, who changed what meanwhile, and its files.

import * as api from "./api.js";
import { announce, bdi, byId, count, make } from "./dom.js";
import { save, setToCsv } from "./export.js";
import { callerName, limit, may } from "./rights.js";
import { NamedSet } from "./sets.js";

const CURATOR = "seedset.curator";
const SUGGESTED = 3; // names that a set's suggested name is made of
const NAMED = 5; // entities of an event that are named

let curator = "";

/** Who works here: whose token it is, or as they said last. */
export function storedCurator() {
  if (callerName()) return callerName();
  try {
    curator = localStorage.getItem(CURATOR) ?? curator;
  } catch {} // storage is closed to the page
  return curator;
}

/** Keep who works here, for this browser. */
export function storeCurator(name) {
  curator = name;
  try {
    localStorage.setItem(CURATOR, name);
  } catch {} // it lasts as long as the page
}

const time = (at) => new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
const by = (name) => (name ? bdi(name) : "somebody");

/** Shows and changes the named set of a state. `onOpened(question)` is called when one was opened. */
export class Curation {
  constructor(state, { onOpened, onShown, onReview }) {
    this.state = state;
    this.onOpened = onOpened;
    this.onReview = onReview;
    this.set = new NamedSet(state, {
      onChange: () => {
        this.show();
        onShown();
      },
      onConflict: (events, contradicting) => this.#showConflict(events, contradicting),
      onProblem: (error) => this.#showProblem(error),
      who: storedCurator,
      note: () => byId("why").value.trim(),
    });
    byId("set-keep").addEventListener("click", () => this.keep());
    byId("set-open").addEventListener("click", () => this.choose());
    byId("set-history").addEventListener("click", () => this.history());
    byId("set-close").addEventListener("click", () => this.set.close());
    byId("set-csv").addEventListener("click", () => this.saveAs("csv"));
    byId("set-json").addEventListener("click", () => this.saveAs("json"));
    byId("set-delete").addEventListener("click", () => this.#delete());
    byId("keep-set").querySelector("form").addEventListener("submit", (event) => this.#kept(event));
    byId("open-filter").addEventListener("input", () => this.#list());
    byId("open-filter").addEventListener("keydown", (event) => this.#pick(event));
    byId("import-set").addEventListener("change", (event) => this.#import(event.target));
    window.addEventListener("focus", () => this.set.refresh().catch(() => {}));
  }

  /** What can be undone and done again; null: that is the page's own business. */
  steps() {
    return this.set.isWritten ? this.set.about : null;
  }

  /** Undo, or do again, on the server; false if no set is open. */
  step(again) {
    if (!this.set.isWritten) return false;
    const { accepted, rejected } = this.set.about.counts;
    this.set.step(again).then(
      (done) => done && announce(`${again ? "Done again" : "Undone"}; ${accepted + rejected} were judged`),
      (error) => this.#showProblem(error),
    );
    return true;
  }

  show() {
    const about = this.set.about;
    byId("set-name").replaceChildren(about ? bdi(about.name) : "Not kept yet: only the address of this page holds it.");
    byId("set-name").classList.toggle("kept", Boolean(about));
    for (const id of ["set-history", "set-agreement", "set-close"]) byId(id).hidden = !about;
    byId("why-field").hidden = !this.set.isWritten;
    byId("set-keep").hidden = Boolean(about);
    const { accepted, rejected } = about?.counts ?? {};
    const saved = !may("curate") ? "what you judge here is not kept" : this.set.pending ? "writing …" : "all is kept";
    byId("set-state").textContent = about
      ? `${accepted} accepted, ${rejected} rejected; version ${about.version}, ${saved}`
      : "";
  }

  /** Ask for a name, and keep what is here under it. */
  keep() {
    if (this.set.isOpen) return;
    if (!may("curate")) {
      byId("set-keep").click(); // which says why not
      return;
    }
    const names = this.state.seeds.filter((seed) => seed.positive).map((seed) => seed.name);
    const like = names.length ? `Like ${names.slice(0, SUGGESTED).join(", ")}` : "";
    byId("keep-name").value = like.slice(0, 200);
    byId("keep-curator").value = storedCurator();
    byId("error-keep").textContent = "";
    byId("keep-set").showModal();
    byId("keep-name").select();
  }

  async #kept(event) {
    event.preventDefault();
    const name = byId("keep-name").value.trim();
    storeCurator(byId("keep-curator").value.trim());
    try {
      await this.set.create(name);
      byId("keep-set").close();
      announce(`${name} is kept`);
    } catch (error) {
      byId("error-keep").textContent = error.message;
      byId("keep-name").focus();
    }
  }

  /** Show the sets that there are, to open one. */
  async choose() {
    byId("open-filter").value = "";
    byId("error-open").textContent = "";
    byId("open-list").replaceChildren(make("li", { class: "hint" }, "Loading …"));
    byId("open-set").showModal();
    byId("open-filter").focus();
    this.listed = [];
    try {
      this.listed = await api.sets();
    } catch (error) {
      byId("error-open").textContent = error.message;
    }
    this.#list();
  }

  #list() {
    const wanted = byId("open-filter").value.trim().toLowerCase();
    const found = this.listed.filter(({ name }) => name.toLowerCase().includes(wanted));
    const row = ({ id, name, counts, changed_at: at, changed_by: who }) =>
      make(
        "li",
        {},
        make("button", { type: "button", class: "name", onclick: () => this.#openChosen(id) }, bdi(name)),
        make("span", { class: "hint" }, ` ${counts.accepted} accepted, ${counts.rejected} rejected; ${time(at)}, `, by(who)),
        limit(make("button", { type: "button", class: "quiet", "aria-label": `Judge ${name} blind`, onclick: () => this.#review({ id, name }) }, "Judge blind …"), "curate"),
      );
    const none = make("li", { class: "hint" }, this.listed.length ? "no set is called so" : "no set is kept yet");
    byId("open-list").replaceChildren(...(found.length ? found.map(row) : [none]));
  }

  /** Judge a set that is not opened: so nothing is seen of what it says. */
  #review(set) {
    byId("open-set").close();
    this.onReview(set);
  }

  #pick(event) {
    if (event.key !== "Enter") return;
    event.preventDefault();
    byId("open-list").querySelector("button")?.click();
  }

  async #openChosen(id) {
    try {
      await this.open(id);
      byId("open-set").close();
    } catch (error) {
      byId("error-open").textContent = error.message;
    }
  }

  /** Open the set of an id. */
  async open(id) {
    const question = await this.set.open(id);
    byId("set-conflict").hidden = true;
    announce(`${this.set.about.name}: ${count(this.state.seeds.length, "entity", "entities")}`);
    this.onOpened(question);
  }

  async #import(input) {
    try {
      const made = await api.importSet(JSON.parse(await input.files[0].text()));
      await this.#openChosen(made.id);
    } catch (error) {
      byId("error-open").textContent = error instanceof SyntaxError ? "This file is no exported set." : error.message;
    }
    input.value = "";
  }

  /** Show what was changed, last first, each with a way to take it back. */
  async history() {
    if (!this.set.isOpen) return;
    const dialog = byId("history");
    if (!dialog.open) dialog.showModal();
    byId("history-title").tabIndex = -1;
    byId("history-title").focus();
    byId("error-history").textContent = "";
    try {
      await this.set.flush();
      const { id, version } = this.set.about;
      const { events } = await api.setEvents(id, Math.max(0, version - 1000));
      byId("events").replaceChildren(...events.reverse().map((event) => this.#event(event)));
    } catch (error) {
      byId("error-history").textContent = error.message;
    }
  }

  #event(event) {
    const undo = async () => {
      try {
        await this.set.undo(event.version);
      } catch (error) {
        byId("error-history").textContent = error.message;
      }
      await this.history();
    };
    const can = event.change.kind !== "create" && !event.undone;
    return make(
      "li",
      { value: event.version, class: event.undone ? "undone" : null },
      make("p", {}, by(event.by), ` ${inWords(event.change)}`),
      make("p", { class: "hint" }, time(event.at), event.note ? ": " : "", bdi(event.note), event.undone ? " (undone)" : ""),
      can ? limit(make("button", { type: "button", class: "quiet", "aria-label": `Undo change ${event.version}`, onclick: undo }, "Undo"), "curate") : null,
    );
  }

  async #delete() {
    const { id, name, version } = this.set.about;
    if (!confirm(`Delete “${name}” with its whole history? This cannot be undone.`)) return;
    try {
      await api.deleteSet(id, version);
      byId("history").close();
      this.set.close();
    } catch (error) {
      byId("error-history").textContent = error.message;
    }
  }

  #showProblem(error) {
    const again = make("button", { type: "button", onclick: () => this.set.flush() }, "Try again");
    const parts = error ? [make("p", {}, `Not kept: ${error.message}`), again] : [];
    byId("set-problem").replaceChildren(...parts);
  }

  /** Say what others did meanwhile, and of what was judged both ways, whose judgement stands. */
  #showConflict(events, contradicting) {
    const lines = events.map((event) => make("li", {}, by(event.by), ` ${inWords(event.change)}`));
    const sides = contradicting.map((name) => {
      const [mine, theirs] = this.state.sideOf(name) === "+" ? ["accepted", false] : ["rejected", true];
      const give = () => {
        this.state.add(name, theirs);
        item.remove();
      };
      const item = make("li", {}, bdi(name), `: you ${mine} it, the other did not; yours stands. `, make("button", { type: "button", onclick: give }, "Take theirs"));
      return item;
    });
    const close = make("button", { type: "button", class: "quiet", onclick: () => (byId("set-conflict").hidden = true) }, "Understood");
    byId("set-conflict").replaceChildren(
      make("p", {}, "This set was changed meanwhile. Both changes are kept."),
      make("ul", {}, ...lines, ...sides),
      close,
    );
    byId("set-conflict").hidden = false;
  }

  /** Hand over the set as a file: what is kept with who, when and why; without a named set, what is here. */
  async saveAs(kind) {
    const name = (this.set.about?.name ?? "set").replace(/[^\p{L}\p{N}]+/gu, "-");
    let whole = { name: "", ...this.#own() };
    try {
      if (this.set.isOpen) {
        await this.set.flush();
        whole = kind === "csv" ? await api.set(this.set.about.id) : await api.exportSet(this.set.about.id);
      }
    } catch (error) {
      this.#showProblem(error);
      return;
    }
    const [type, text] = kind === "csv" ? ["text/csv", `\ufeff${setToCsv(whole)}`] : ["application/json", `${JSON.stringify(whole, null, 2)}\n`];
    save(`${name}.${kind}`, type, text);
    announce(`${count(whole.accepted.length, "accepted entity", "accepted entities")} downloaded as ${kind.toUpperCase()}`);
  }

  #own() {
    const side = (positive) => this.state.seeds.filter((seed) => seed.positive === positive).map(({ name }) => ({ name }));
    return { accepted: side(true), rejected: side(false) };
  }
}

/** A change in words. */
function inWords(change) {
  const named = (entities) => {
    const names = entities.slice(0, NAMED).map((one) => one.name ?? one);
    const more = entities.length - names.length;
    return `${names.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
  };
  if (change.kind === "create") return `made the set “${change.name}”`;
  if (change.kind === "rename") return `called it “${change.name}”`;
  if (change.kind === "ask") return "asked anew";
  if (change.kind === "undo") return `undid change ${change.undo}`;
  const parts = [
    ["accepted", change.accept],
    ["rejected", change.reject],
    ["took back", change.clear],
  ];
  return parts.filter(([, all]) => all.length).map(([word, all]) => `${word} ${named(all)}`).join("; ");
}
