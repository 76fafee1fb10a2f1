// How far the curators of a named set agree, where they do not, and what one of them has not judged yet.

import * as api from "./api.js";
import { announce, bdi, byId, count, make } from "./dom.js";
import { reviewsInWords } from "./review.js";
import { limit, may } from "./rights.js";
import { rowKeys, turnTo } from "./rows.js";

const LISTED = 200; // disagreements, and entities to judge

const share = ({ judged, agreed }) => `${agreed} of ${judged} (${Math.round((100 * agreed) / judged)} %)`;
const time = (at) => new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** A dialog over `set`, a NamedSet. `who()` is the curator, `rename(name)` another one; `onDetails(name)` tells more. */
export class Agreement {
  constructor({ set, who, rename, onDetails, onReview }) {
    Object.assign(this, { set, who });
    this.dialog = byId("agreement");
    for (const id of ["disagreements", "second-opinions"]) {
      rowKeys(byId(id), { onJudge: (name, positive) => this.#judge(byId(id), name, positive), onOpen: onDetails });
    }
    byId("review-begin").addEventListener("click", () => {
      this.dialog.close(); // it says what others judged
      onReview(this.set.about);
    });
    byId("agreement-curator").addEventListener("change", (event) => {
      rename(event.target.value.trim());
      this.#load();
    });
  }

  /** Show it for the set that is open. */
  async open() {
    if (!this.set.isOpen) {
      announce("Keep or open a named set first");
      return;
    }
    byId("agreement-curator").value = this.who();
    byId("agreement-about").textContent = "Loading …";
    for (const id of ["agreement-pairs", "disagreements", "second-opinions", "reviews"]) byId(id).replaceChildren();
    if (!this.dialog.open) this.dialog.showModal();
    byId("agreement-title").focus();
    await this.#load();
  }

  async #load() {
    byId("error-agreement").textContent = "";
    try {
      await this.set.flush();
      const { id } = this.set.about;
      const [found, reviews] = await Promise.all([api.setAgreement(id, this.who(), LISTED), api.setReviews(id, LISTED)]);
      this.#show(found);
      byId("reviews").replaceChildren(...reviewsInWords(reviews));
    } catch (error) {
      byId("agreement-about").textContent = "";
      byId("error-agreement").textContent = error.message;
    }
  }

  #show({ shared, agreed, unnamed, pairs, together, disagreements, to_judge: unseen, left_to_judge: left }) {
    byId("agreement-about").textContent = [
      shared ? `${count(shared, "entity was", "entities were")} judged by several curators; they agree on ${share({ judged: shared, agreed })}.` : "No entity was judged by several curators yet: give a second opinion below.",
      unnamed ? `${count(unnamed, "judgement")} without a name ${unnamed === 1 ? "is" : "are"} left out.` : "",
    ].filter(Boolean).join(" ");
    const rows = [...pairs, ...(together ? [together] : [])].map((one) => {
      const names = one.curators.flatMap((name, place) => [place ? ", " : "", bdi(name)]);
      return make("tr", {}, make("th", { scope: "row" }, ...names), make("td", {}, share(one)), make("td", {}, one.kappa.toFixed(2)));
    });
    byId("agreement-pairs").replaceChildren(...rows);
    byId("agreement-table").hidden = rows.length === 0;
    byId("disagreements").replaceChildren(...disagreements.map((one) => this.#disagreement(one)));
    byId("disagreements-title").textContent = `Where they do not agree (${shared - agreed})`;
    byId("second-opinions").replaceChildren(...unseen.map((name) => this.#row(byId("second-opinions"), name)));
    byId("second-title").textContent = this.who() ? `Not judged by ${this.who()} (${left})` : "Second opinion";
    byId("second-about").textContent = this.who()
      ? left ? "Others judged these; how, is not shown. Your judgement is kept beside theirs, and the last one stands in the set." : "Nothing is left."
      : "Say who you are, to judge what others judged.";
    for (const id of ["disagreements", "second-opinions"]) turnTo(byId(id));
  }

  #disagreement({ name, stands, judgements }) {
    const said = judgements.map(({ by, accepted, at, note }) =>
      make("li", {}, bdi(by), ` ${accepted ? "accepted" : "rejected"} it, ${time(at)}`, note ? ": " : "", bdi(note)));
    const now = make("p", { class: "hint" }, `In the set it is ${stands || "neither"}.`);
    return this.#row(byId("disagreements"), name, make("ul", { class: "hint" }, ...said), now);
  }

  #row(list, name, ...more) {
    const button = (positive) => {
      const [side, sign, word] = positive ? ["positive", "+", "Accept"] : ["negative", "−", "Reject"];
      const judge = () => this.#judge(list, name, positive);
      return limit(make("button", { type: "button", class: `side ${side}`, "aria-label": `${word} ${name}`, onclick: judge }, sign), "curate");
    };
    const row = make("li", { tabIndex: -1 }, make("span", { class: "judge" }, button(true), button(false)), make("div", {}, bdi(name, { class: "name" }), ...more));
    row.dataset.name = name;
    return row;
  }

  /** Write a judgement of one's own beside the others', and go on to the next row. */
  async #judge(list, name, positive) {
    byId("error-agreement").textContent = "";
    const place = [...list.children].findIndex((row) => row.dataset.name === name);
    try {
      if (!may("curate")) throw new Error("Your token may only read.");
      if (!this.who()) throw new Error("Say who you are first: judgements without a name cannot be compared.");
      await this.set.judgeAnew(name, positive);
    } catch (error) {
      byId("error-agreement").textContent = error.message;
      return;
    }
    await this.#load();
    const rows = list.children;
    (rows[Math.min(place, rows.length - 1)] ?? byId("agreement-title")).focus();
  }
}
