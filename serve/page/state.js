// What is asked: seeds and options, with undo for the seeds, and their form in the address.

import { sample } from "./sample.js";

const MAX_JUDGED = 2000; // of both kinds, in an address; a named set holds more
const MAX_PAST = 500;
const MAX_EXCLUDED = 10_000; // of one query, by the interface

// The filter is a Map: an attribute may be called anything, "constructor" and "__proto__" too.
// `given` is text by field, for methods that are told what is wanted.
const NOT_GIVEN = { class_name: "", positive_attributes: "", negative_attributes: "" };
export const START = {
  method: "default",
  topK: 50,
  filter: new Map(),
  evidence: true,
  within: null,
  given: NOT_GIVEN,
};
const GIVEN = { class: "class_name", shared: "positive_attributes", unlike: "negative_attributes" }; // by address part

/**
 * What was accepted and rejected, in order, each `{positive: bool, name, sentences: null | [string]}`
 * (sentences: an entity that the vocabulary does not hold), and options. Seeds are a sample of them. They
 * are told apart by name: an id means another entity in another bundle. Listeners hear of every change.
 */
export class State {
  constructor() {
    this.seeds = [];
    this.options = { ...START };
    this.past = [];
    this.future = [];
    this.setId = null; // the id of the named set that is open
    this.listeners = [];
  }

  listen(listener) {
    this.listeners.push(listener);
  }

  /** Put new seeds in place of the old; what was there can be had back. */
  setSeeds(seeds) {
    this.past = [...this.past, this.seeds].slice(-MAX_PAST);
    this.future = [];
    this.seeds = seeds;
    this.#tell();
  }

  /** Add a seed, or turn the one of that name to this side. */
  add(name, positive, sentences = null) {
    const known = this.seeds.findIndex((seed) => seed.name === name);
    const seed = { name, positive, sentences: sentences ?? this.seeds[known]?.sentences ?? null };
    this.setSeeds(known < 0 ? [...this.seeds, seed] : this.seeds.with(known, seed));
  }

  /** Accept entities by their names, in one step. */
  addAll(names) {
    const given = new Set(names);
    const others = this.seeds.map((seed) => (given.delete(seed.name) ? { ...seed, positive: true } : seed));
    const added = Array.from(given, (name) => ({ name, positive: true, sentences: null }));
    this.setSeeds([...others, ...added]);
  }

  /** Take over what a named set holds; what was there before cannot be had back here. */
  take(seeds) {
    [this.past, this.future, this.seeds] = [[], [], seeds];
    this.#tell();
  }

  remove(name) {
    this.setSeeds(this.seeds.filter((seed) => seed.name !== name));
  }

  /** Put a seed in place of the one of this name; the same entity twice becomes one. */
  replace(name, seed) {
    const others = this.seeds.filter((one) => one.name === name || one.name !== seed.name);
    this.setSeeds(others.map((one) => (one.name === name ? seed : one)));
  }

  /** "+" or "-" for a seed, "" for what is none. */
  sideOf(name) {
    const seed = this.seeds.find((one) => one.name === name);
    return seed ? (seed.positive ? "+" : "-") : "";
  }

  undo() {
    return this.#step(this.past, this.future);
  }

  redo() {
    return this.#step(this.future, this.past);
  }

  set(options) {
    this.options = { ...this.options, ...options };
    this.#tell();
  }

  /** Take over the options of a question that was kept; its seeds are what is judged. */
  setQuestion(question) {
    const words = (given) => Object.entries(given ?? {}).map(([name, values]) => `${name}: ${values.join(", ")}`).join("; ");
    this.set({
      method: question.method ?? START.method,
      topK: question.top_k ?? START.topK,
      within: question.deadline_ms ?? null,
      evidence: question.explain ?? false,
      filter: new Map(Object.entries(question.filter ?? {})),
      given: {
        class_name: question.class_name ?? "",
        positive_attributes: words(question.positive_attributes),
        negative_attributes: words(question.negative_attributes),
      },
    });
  }

  /** The seeds of each side: those judged entities that are asked with. */
  sampled() {
    const side = (wanted) => sample(this.seeds.filter((seed) => seed.positive === wanted));
    return { positive: side(true), negative: side(false) };
  }

  /**
   * What was judged and is no seed, so that it is to be kept out of an answer: as much as a query takes, the newest,
   * and how many there are `beyond` that. What the vocabulary does not hold cannot come back.
   */
  excluded() {
    const { positive, negative } = this.sampled();
    const asked = new Set([...positive, ...negative]);
    const others = this.seeds.filter((seed) => !asked.has(seed) && !seed.sentences && !seed.gone);
    return { exclude: others.slice(-MAX_EXCLUDED), beyond: Math.max(others.length - MAX_EXCLUDED, 0) };
  }

  /** The body of a request, and its seeds in the order in which an error counts them. */
  request() {
    const { method, topK, filter, evidence, within, given: told } = this.options;
    const { positive, negative } = this.sampled();
    const given = ({ name, sentences }) => (sentences ? { name, sentences } : name);
    const body = { positive: positive.map(given), negative: negative.map(given), method, top_k: topK };
    if (filter.size) body.filter = Object.fromEntries(filter);
    if (evidence) body.explain = true;
    if (within) body.deadline_ms = within;
    const className = told.class_name.trim();
    if (className) body.class_name = className;
    for (const field of ["positive_attributes", "negative_attributes"]) {
      const attributes = attributesOf(told[field]);
      if (attributes.size) body[field] = Object.fromEntries(attributes);
    }
    return { body, seeds: { positive, negative } };
  }

  /** The address's part after the #: names, so that a link can be read, and outlives a bundle. */
  toFragment() {
    const { method, topK, filter, evidence, within, given } = this.options;
    const parts = new URLSearchParams();
    if (this.setId) parts.append("set", this.setId);
    for (const { positive, name, sentences } of this.setId ? [] : this.seeds) {
      const key = positive ? "p" : "n";
      if (sentences) parts.append(`${key}.new`, JSON.stringify([name, ...sentences]));
      else parts.append(key, name);
    }
    if (method !== START.method) parts.append("method", method);
    if (topK !== START.topK) parts.append("k", topK);
    if (within) parts.append("within", within);
    if (!evidence) parts.append("evidence", "off");
    for (const [part, field] of Object.entries(GIVEN)) {
      if (given[field].trim()) parts.append(part, given[field].trim());
    }
    for (const [attribute, values] of filter) {
      for (const value of values) parts.append(`f.${attribute}`, value);
    }
    return parts.toString();
  }

  /** Read what `toFragment` wrote; returns the parts that are not understood, which are left out. */
  fromFragment(fragment) {
    const parts = new URLSearchParams(fragment);
    const seeds = new Map();
    const filter = new Map();
    const [once, unread] = [new Set(), []];
    this.setId = /^[0-9a-f]{32}$/.test(parts.get("set") ?? "") ? parts.get("set") : null;
    for (const [key, value] of parts) {
      if (key === "set" && this.setId) continue;
      const seed = seedOf(key, value);
      const attribute = key.startsWith("f.") ? key.slice(2) : "";
      if (seed && seeds.size < MAX_JUDGED) seeds.set(seed.name, seed);
      else if (attribute) filter.set(attribute, [...(filter.get(attribute) ?? []), value]);
      else if (!isOption(key, value, once)) unread.push(`${key}=${value}`);
    }
    this.options = {
      method: parts.get("method") ?? START.method,
      topK: positiveInt(parts.get("k")) ?? START.topK,
      within: positiveInt(parts.get("within")),
      evidence: parts.get("evidence") !== "off",
      given: Object.fromEntries(Object.entries(GIVEN).map(([part, field]) => [field, parts.get(part) ?? ""])),
      filter,
    };
    this.setSeeds([...seeds.values()]);
    return unread;
  }

  #step(from, to) {
    if (!from.length) return false;
    to.push(this.seeds);
    this.seeds = from.pop();
    this.#tell();
    return true;
  }

  #tell() {
    for (const listener of this.listeners) listener();
  }
}

/** Whether a part of the address is an option that can be read, for the first time. */
function isOption(key, value, once) {
  const known =
    ((key === "method" || Object.hasOwn(GIVEN, key)) && value) ||
    ((key === "k" || key === "within") && positiveInt(value) !== null) ||
    (key === "evidence" && (value === "off" || value === "on"));
  if (!known || once.has(key)) return false;
  once.add(key);
  return true;
}

/** The attributes in a text such as "continent: Asia, Africa; language: Thai", with their values. */
function attributesOf(text) {
  const attributes = new Map();
  for (const one of text.split(";")) {
    const [name, ...rest] = one.split(":");
    const values = rest.join(":").split(",").map((value) => value.trim()).filter(Boolean);
    const before = attributes.get(name.trim()) ?? [];
    if (name.trim() && values.length) attributes.set(name.trim(), [...before, ...values]);
  }
  return attributes;
}

function seedOf(key, value) {
  const [side, kind] = key.split(".");
  if (side !== "p" && side !== "n") return null;
  if (kind !== "new") return kind === undefined && value ? seed(side, value, null) : null;
  try {
    const [name, ...sentences] = JSON.parse(value);
    const texts = [name, ...sentences].every((one) => typeof one === "string" && one);
    return texts && sentences.length ? seed(side, name, sentences) : null;
  } catch {
    return null;
  }
}

function seed(side, name, sentences) {
  return { positive: side === "p", name, sentences };
}

function positiveInt(text) {
  return /^[1-9]\d{0,6}$/.test(text ?? "") ? Number(text) : null;
}
