// What stands around the rows of an answer: how many there are, how far they are judged, what numbers mean.

import * as api from "./api.js";
import { announce, bdi, byId, count as counted, make, span } from "./dom.js";
import { legend, stageInWords } from "./words.js";

const UNSURE = [0.3, 0.7];

const REASONED = {
  class_name: "Class",
  hallucinated: "Listed, not in the vocabulary",
  positive: "Positive seeds: ones",
  negative: "Negative seeds: ones",
};

/** Whether an entity may as well belong as not: said so on the page ("unsure"), with these bounds. */
const isUnsure = ({ evidence: { probability } }) => probability >= UNSURE[0] && probability <= UNSURE[1];

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
    byId("results-title").textContent = counted(answer.results.length, "result");
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
    announce(`${counted(answer.results.length, "result")}${best ? `; the first is ${best.name}` : ""}`);
  }

  /** Say how far the list is judged, and the proposed set. */
  showJudged() {
    const { answer } = this.results;
    if (!answer) return;
    const { results, counts } = answer;
    const count = (some, ...sides) => some.filter(({ name }) => sides.includes(this.state.sideOf(name))).length;
    const [accepted, rejected, left] = ["+", "-", ""].map((side) => count(results, side));
    const proposed = results.filter(({ rank }) => rank <= (counts?.proposed ?? 0));
    const parts = [`${accepted + rejected} of ${results.length} judged: ${accepted} accepted, ${rejected} rejected`, `${left} left`];
    if (this.results.hasProbabilities) parts[1] += `, ${count(results.filter(isUnsure), "")} of them unsure`;
    if (proposed.length) parts.push(`of the ${proposed.length} proposed ${count(proposed, "+", "-")} judged`);
    byId("judged").textContent = parts.join("; ");
    Object.assign(byId("judged-share"), { max: Math.max(results.length, 1), value: accepted + rejected });
  }

  /** Fetch the attributes of the results, where entities have any, and show them in the rows. */
  async #showAttributes(answer) {
    this.request?.abort();
    if (!this.options.attributes.length || !answer.results.length) return;
    this.request = new AbortController();
    try {
      const { positive, negative } = this.state.sampled();
      const [accepted, rejected] = [positive, negative].map((side) => side.filter((seed) => !seed.sentences).map(({ name }) => name));
      const names = [...new Set([...accepted, ...rejected, ...answer.results.map(({ name }) => name)])];
      const found = await api.lookUp(names, this.request.signal, ["attributes"]);
      if (this.results.answer !== answer) return;
      const known = new Map(found.filter(({ entity }) => entity).map(({ given, entity }) => [given, entity.attributes]));
      const of = (side) => side.map((name) => known.get(name)).filter(Boolean);
      this.shared.show(of(accepted), of(rejected), this.state.options.filter);
      this.results.showAttributes(known);
    } catch {} // the answer stands without them
  }
}

/** Explain the numbers that the answer has. */
function showLegend({ results: all }) {
  const columns = [...new Set(all.flatMap((result) => Object.keys(result.evidence)))];
  const unsure = ["unsure", `a probability of ${UNSURE[0]} to ${UNSURE[1]}: it may as well belong as not`];
  const words = [...legend(columns), ...(columns.includes("probability") ? [unsure] : [])];
  const rows = words.flatMap(([name, meaning]) => [make("dt", {}, name), make("dd", {}, meaning)]);
  byId("legend").hidden = all.length === 0;
  byId("legend").querySelector("dl").replaceChildren(...rows);
}
