// A blind second opinion: the entities of a set, without what it or anybody says of them, until all are done.

import * as api from "./api.js";
import { announce, bdi, byId, count, make } from "./dom.js";
import { rowKeys, turnTo } from "./rows.js";

const SIDES = { true: "accepted", false: "rejected", null: "not judged" };

/** A dialog. `who()` is the curator, `rename(name)` another one, `onDetails(name)` tells more of an entity. */
export class Review {
  constructor({ who, rename, onDetails }) {
    this.who = who;
    this.dialog = byId("review");
    this.list = byId("review-rows");
    rowKeys(this.list, { onJudge: (name, accepted) => this.#mark(name, accepted), onOpen: onDetails });
    byId("review-curator").addEventListener("change", (event) => {
      rename(event.target.value.trim());
      this.#begin();
    });
    byId("review-done").addEventListener("click", () => this.#finish());
  }

  /** Begin, or go on with, the review of a set. */
  async open({ id, name }) {
    this.id = id;
    byId("review-title").replaceChildren("Blind opinion of ", bdi(name));
    byId("review-curator").value = this.who();
    if (!this.dialog.open) this.dialog.showModal();
    byId(this.who() ? "review-title" : "review-curator").focus();
    await this.#begin();
  }

  async #begin() {
    byId("review-about").textContent = "Loading …";
    byId("error-review").textContent = "";
    byId("review-done").hidden = true;
    this.list.replaceChildren();
    try {
      if (!this.who()) throw new Error("Say who you are first: opinions without a name cannot be compared.");
      this.review = await api.beginReview(this.id, this.who());
    } catch (error) {
      byId("review-about").textContent = "";
      byId("error-review").textContent = error.message;
      return;
    }
    this.marks = new Map(this.review.entities.map(({ name: one, accepted }) => [one, accepted]));
    this.list.replaceChildren(...this.review.entities.map(({ name: one }) => this.#row(one)));
    turnTo(this.list);
    this.#show();
    this.list.firstElementChild?.focus();
  }

  #show() {
    const judged = [...this.marks.values()].filter((mark) => mark !== null).length;
    const { done, curator } = this.review;
    byId("review-about").textContent = done
      ? `${curator}, you are done. How all agree is shown below “Agreement” once nobody is left.`
      : `${judged} of ${count(this.marks.size, "entity", "entities")} judged as ${curator}. Nobody sees it before all reviews are done; what the set says is not shown.`;
    byId("review-done").hidden = done;
    for (const row of this.list.children) {
      const mark = this.marks.get(row.dataset.name);
      row.querySelector(".mark").textContent = SIDES[mark];
      for (const button of row.querySelectorAll("button")) {
        button.disabled = done;
        button.setAttribute("aria-pressed", String(button.value === String(mark)));
      }
    }
  }

  #row(name) {
    const button = (accepted) => {
      const [side, sign, word] = accepted ? ["positive", "+", "Accept"] : ["negative", "−", "Reject"];
      const given = { type: "button", value: String(accepted), class: `side ${side}`, "aria-label": `${word} ${name}` };
      return make("button", { ...given, onclick: () => this.#mark(name, accepted) }, sign);
    };
    const row = make(
      "li",
      { tabIndex: -1 },
      make("span", { class: "judge" }, button(true), button(false)),
      bdi(name, { class: "name" }),
      make("span", { class: "mark hint" }),
    );
    row.dataset.name = name;
    return row;
  }

  /** Write a mark, or take it back if it is there, and go on to the next row. */
  async #mark(name, accepted) {
    if (this.review.done) return;
    const mark = this.marks.get(name) === accepted ? null : accepted;
    const side = mark === null ? "clear" : mark ? "accept" : "reject";
    if (!(await this.#write({ [side]: [name] }))) return;
    this.marks.set(name, mark);
    this.#show();
    announce(`${name}: ${SIDES[mark]}`);
    const row = [...this.list.children].find((one) => one.dataset.name === name);
    (row.nextElementSibling ?? row).focus();
  }

  async #finish() {
    const left = [...this.marks.values()].filter((mark) => mark === null).length;
    const open = left ? `${left} are not judged, and stay so. ` : "";
    if (!confirm(`${open}End your review? Nothing of it changes after that.`)) return;
    if (!(await this.#write({ done: true }))) return;
    this.review.done = true;
    this.#show();
    byId("review-title").focus();
  }

  async #write(marks) {
    byId("error-review").textContent = "";
    try {
      await api.markReview(this.id, { round: this.review.round, by: this.who(), ...marks });
      return true;
    } catch (error) {
      byId("error-review").textContent = error.message;
      return false;
    }
  }
}

/** What is told of the last round of reviews: who is how far, and then how they agree. */
export function reviewsInWords({ round, entities, reviewers, agreement }) {
  if (!round) return [make("p", { class: "hint" }, "There is none yet.")];
  const far = reviewers.map(({ name, judged, done }) =>
    make("li", {}, bdi(name), done ? " is done" : `: ${judged} of ${entities}, not done`),
  );
  const line = ({ curators, judged, agreed, kappa }, more = "") => {
    const names = curators.flatMap((name, place) => [place ? ", " : "", bdi(name)]);
    return make("li", {}, ...names, `${more}: ${agreed} of ${judged}, kappa ${kappa.toFixed(2)}`);
  };
  const who = (names) => names.flatMap((name, place) => [place ? ", " : "", bdi(name)]);
  const told = [make("ul", { class: "hint" }, ...far)];
  if (!agreement) return [...told, make("p", { class: "hint" }, "Blind until two or more are done, and nobody is left.")];
  const { pairs, together, with_set: beside, disagreements } = agreement;
  const figures = [...pairs, ...(together ? [together] : [])].map((one) => line(one));
  const split = disagreements.map(({ name, accepted_by: yes, rejected_by: no }) =>
    make("li", {}, bdi(name, { class: "name" }), ": accepted by ", ...who(yes), "; rejected by ", ...who(no)),
  );
  return [
    ...told,
    make("ul", { id: "review-figures" }, ...figures, ...beside.map((one) => line(one, " and the set"))),
    split.length ? make("p", {}, "They do not agree on:") : null,
    make("ul", { id: "review-split" }, ...split),
  ].filter(Boolean);
}
