// A named set on the server: what is judged here is written there, event by event, and what others judged comes.

import * as api from "./api.js";
import { may } from "./rights.js";

const JUDGED = 1000; // names of one event

/** The judgements of a state by name: "+" or "-". Described entities are kept in the question alone. */
function marksOf(seeds) {
  return new Map(seeds.filter((seed) => !seed.sentences).map((seed) => [seed.name, seed.positive ? "+" : "-"]));
}

function seedsOf({ accepted, rejected, question }) {
  const described = ["positive", "negative"].flatMap((side) =>
    (question?.[side] ?? [])
      .filter((one) => one.sentences)
      .map((one) => ({ ...one, positive: side === "positive" })),
  );
  const judged = [...accepted.map((one) => [one, true]), ...rejected.map((one) => [one, false])];
  judged.sort(([a], [b]) => a.version - b.version);
  return [
    ...described,
    ...judged.map(([one, positive]) => ({ name: one.name, positive, sentences: null, gone: one.id === null })),
  ];
}

/** What leads from some marks to others: entities to accept, to reject, and to clear. */
function difference(from, to) {
  const change = { accept: [], reject: [], clear: [] };
  for (const [name, mark] of to) if (from.get(name) !== mark) change[mark === "+" ? "accept" : "reject"].push(name);
  for (const name of from.keys()) if (!to.has(name)) change.clear.push(name);
  return change;
}

const isEmpty = ({ accept, reject, clear }) => !(accept.length + reject.length + clear.length);

/**
 * Keeps a state and a set on the server alike. Changes are written one after the other, each made of the version
 * that was seen last; where somebody else was quicker, theirs is taken in and ours is written after it.
 * `onChange()`: something of the set is to be shown anew; `onConflict(events, contradicting)`: others' events came
 * in between, and these names were judged both ways; `onProblem(error | null)`: a change is not written, or is again.
 */
export class NamedSet {
  constructor(state, { onChange, onConflict, onProblem, who, note }) {
    Object.assign(this, { state, onChange, onConflict, onProblem, who, note });
    this.about = null; // of the set as the server last told
    this.saved = new Map(); // marks that the server has
    this.refused = new Set(); // names that it does not take
    this.writing = Promise.resolve();
    this.pending = 0;
    state.listen(() => this.#changed());
  }

  get isOpen() {
    return this.about !== null;
  }

  /** Whether what is judged here is written: who may only read looks at a set, and judges on the page alone. */
  get isWritten() {
    return this.isOpen && may("curate");
  }

  /** Make a set of what is judged now, and open it. */
  async create(name) {
    const { body } = this.state.request();
    const question = body.positive.length ? body : null;
    const made = await api.createSet({ name, question, by: this.who() });
    this.#adopt(made, new Map());
    this.state.set({}); // the address names it, and what is judged is written
  }

  /** Open a set; its marks and its question take the place of what is here. */
  async open(id) {
    await this.leave();
    const whole = await api.set(id);
    this.#show(whole);
    return whole.question;
  }

  /** Write what is not written yet, and follow the state no longer. */
  async leave() {
    if (!this.isOpen) return;
    await this.flush();
    this.about = null;
    this.onChange();
  }

  async close() {
    await this.leave();
    this.state.setId = null;
    this.state.set({}); // the address names none
  }

  /** Cancel the last judgement on the server, whoever made it and when; or the last undo, with `again`. */
  async step(again = false) {
    await this.flush();
    const version = again ? this.about.redo : this.about.undo;
    if (version !== null) await this.undo(version);
    return version !== null;
  }

  /** Cancel an event. */
  async undo(version) {
    await this.#write({ kind: "undo", undo: version });
    this.#show(await api.set(this.about.id));
  }

  /** Judge an entity whatever the set says of it: a second opinion is kept beside the first. */
  async judgeAnew(name, positive) {
    await this.flush();
    const [accept, reject] = positive ? [[name], []] : [[], [name]];
    await this.#write({ kind: "judge", accept, reject, clear: [] }, this.note());
    this.#show(await api.set(this.about.id));
  }

  /** Keep what is asked, if it is another question. */
  async keepQuestion(question) {
    if (!this.isWritten || JSON.stringify(question) === JSON.stringify(this.about.question)) return;
    this.about.question = question;
    await this.#enqueue(() => this.#write({ kind: "ask", question }));
  }

  rename(name) {
    return this.#write({ kind: "rename", name });
  }

  /** Take in what others did meanwhile. */
  async refresh() {
    if (!this.isOpen || this.pending) return;
    const { version } = await api.setEvents(this.about.id, this.about.version);
    if (version !== this.about.version) await this.#merge();
  }

  /** Resolves once everything is written. */
  flush() {
    this.#changed();
    return this.writing;
  }

  #adopt(about, saved) {
    this.about = { ...this.about, ...about };
    this.saved = saved;
    this.state.setId = about.id;
    this.onChange();
  }

  #show(whole) {
    const seeds = seedsOf(whole);
    this.refused.clear();
    this.#adopt(whole, marksOf(seeds));
    this.state.take(seeds);
  }

  #changed() {
    if (!this.isWritten || isEmpty(this.#unsaved())) return;
    this.#enqueue(() => this.#save());
  }

  #unsaved() {
    const marks = marksOf(this.state.seeds);
    for (const name of this.refused) marks.delete(name);
    return difference(this.saved, marks);
  }

  #enqueue(task) {
    this.pending += 1;
    this.writing = this.writing.then(task).then(
      () => this.onProblem(null),
      (error) => this.onProblem(error),
    ).finally(() => {
      this.pending -= 1;
      this.onChange();
    });
    this.onChange();
    return this.writing;
  }

  async #save() {
    for (;;) {
      const change = this.#unsaved();
      if (isEmpty(change)) return;
      let left = JUDGED;
      for (const side of Object.keys(change)) {
        change[side] = change[side].slice(0, left);
        left -= change[side].length;
      }
      try {
        await this.#write({ kind: "judge", ...change }, this.note());
      } catch (error) {
        const [, side, place] = (error.field ?? "").split(".");
        if (error.code !== "unknown_entity" || !change[side]) throw error;
        this.refused.add(change[side][Number(place)]);
        this.onProblem(error);
        continue;
      }
      for (const name of change.accept) this.saved.set(name, "+");
      for (const name of change.reject) this.saved.set(name, "-");
      for (const name of change.clear) this.saved.delete(name);
    }
  }

  /** Write one event; where the set is newer than we know, take that in first. */
  async #write(change, note = "") {
    const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    for (let tries = 0; ; tries += 1) {
      try {
        const event = { version: this.about.version, change, note, by: this.who(), id };
        this.about = { ...this.about, ...(await api.changeSet(this.about.id, event)) };
        return;
      } catch (error) {
        if (error.code !== "set_conflict" || tries > 20) throw error;
        await this.#merge();
      }
    }
  }

  /** Take in the events that are newer than what we know; what we have not written yet stays as it is here. */
  async #merge() {
    const { events } = await api.setEvents(this.about.id, this.about.version);
    const whole = await api.set(this.about.id);
    const theirs = seedsOf(whole);
    const mine = difference(this.saved, marksOf(this.state.seeds));
    const own = new Map([
      ...mine.accept.map((name) => [name, "+"]),
      ...mine.reject.map((name) => [name, "-"]),
      ...mine.clear.map((name) => [name, ""]),
    ]);
    const changed = difference(this.saved, marksOf(theirs));
    const contradicting = [
      ...changed.accept.filter((name) => own.has(name) && own.get(name) !== "+"),
      ...changed.reject.filter((name) => own.has(name) && own.get(name) !== "-"),
    ];
    const ownSeeds = this.state.seeds.filter((seed) => own.has(seed.name) || seed.sentences);
    const seeds = [...theirs.filter((seed) => !own.has(seed.name) && !seed.sentences), ...ownSeeds];
    this.about = { ...this.about, ...whole };
    this.saved = marksOf(theirs);
    this.state.take(seeds);
    const others = events.filter((event) => event.change.kind === "judge" || event.change.kind === "undo");
    this.onConflict(others, contradicting);
  }
}
