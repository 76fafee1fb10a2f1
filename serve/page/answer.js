// What stands around the rows of an answer: how many there are, how far they are judged, what numbers mean.

import * as api from "./api.js";
import { announce, bdi, byId, count, make, span } from "./dom.js";
import { legend, stageInWords } from "./words.js";

const REASONED = {
  class_name: "Class",
  hallucinated: "Listed, not in the vocabulary",
  positive: "Positive seeds: ones",
  negative: "Negative seeds: ones",
};

/** Shows an answer: `results` its rows, this class the rest. */
export class AnswerView {
  constructor({ state, results, options, shared }) {
    Object.assign(this, { state, results, options, shared });
    this.request = null; // for what is fetched once an answer is shown
  }

  show(answer) {
    const { results } = this;
    results.show(answer);
    byId("welcome").hidden = true;
    byId("exports").hidden = byId("tools").hidden = answer.results.length === 0;
    byId("order").disabled = !results.hasProbabilities;
    showLegend(answer);
    this.showJudged();
    this.#showAttributes(answer);
    byId("results-title").textContent = count(answer.results.length, "result");
    const stages = Object.entries(answer.seconds).map(([stage, seconds]) => `${stageInWords(stage)}: ${span(seconds)}`);
    byId("about-answer").textContent = [`method ${answer.method}`, `bundle ${answer.bundle}`, ...stages].join(" · ");
    const reasoned = Object.entries(answer.reasoning ?? {});
    byId("reasoning").hidden = reasoned.length === 0;
    byId("reasoning").replaceChildren(
      ...reasoned.flatMap(([part, text]) => [make("dt", {}, REASONED[part] ?? part), make("dd", {}, bdi(text))]),
    );
    byId("degraded").hidden = answer.degraded.length === 0;
    byId("degraded").replaceChildren(
      make("b", {}, "Not everything could be used:"),
      make("ul", {}, ...answer.degraded.map((note) => make("li", {}, note))),
    );
    const best = answer.results[0];
    announce(`${count(answer.results.length, "result")}${best ? `; the first is ${best.name}` : ""}`);
  }

  /** Say how far the list is judged, and the proposed set. */
  showJudged() {
    const { answer } = this.results;
    if (!answer) return;
    const done = (some) => some.filter(({ name }) => this.state.sideOf(name)).length;
    const proposed = answer.results.filter(({ rank }) => rank <= (answer.counts?.proposed ?? 0));
    const parts = [`${done(answer.results)} of ${answer.results.length} judged`];
    if (proposed.length) parts.push(`${done(proposed)} of the ${proposed.length} proposed`);
    byId("judged").textContent = parts.join("; ");
  }

  /** Fetch the attributes of the results, where entities have any, and show them in the rows. */
  async #showAttributes(answer) {
    this.request?.abort();
    if (!this.options.attributes.length || !answer.results.length) return;
    this.request = new AbortController();
    try {
      const seeds = this.state.sampled().positive.filter((seed) => !seed.sentences).map(({ name }) => name);
      const names = [...seeds, ...answer.results.map(({ name }) => name)];
      const found = await api.lookUp(names, this.request.signal, ["attributes"]);
      if (this.results.answer !== answer) return;
      const known = found.filter(({ entity }) => entity);
      const ofSeeds = known.filter(({ given }) => seeds.includes(given)).map(({ entity }) => entity.attributes);
      this.shared.show(ofSeeds, this.state.options.filter);
      this.results.showAttributes(new Map(known.map(({ given, entity }) => [given, entity.attributes])));
    } catch {} // the answer stands without them
  }
}

/** Explain the numbers that the answer has. */
function showLegend({ results: all }) {
  const columns = [...new Set(all.flatMap((result) => Object.keys(result.evidence)))];
  const rows = legend(columns).flatMap(([name, words]) => [make("dt", {}, name), make("dd", {}, words)]);
  byId("legend").hidden = all.length === 0;
  byId("legend").querySelector("dl").replaceChildren(...rows);
}
