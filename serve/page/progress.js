// What a running request has come to: stages passed, rounds of generation, names that came.

import { announce, bdi, byId, count, make, span } from "./dom.js";
import { stageInWords } from "./words.js";

const SHOWN_EVERY_MS = 250;
const SPOKEN_EVERY_MS = 5000; // a screen reader shall not read every round
const NAMES_SHOWN = 60;

export class Progress {
  constructor() {
    this.steps = [];
    this.timer = 0;
  }

  /** Begin with the stages that are to come. */
  start(stages) {
    this.steps = stages.map((name) => ({ name, about: "", done: false }));
    this.began = performance.now();
    this.spoken = this.began;
    this.note = "";
    byId("arrivals").replaceChildren();
    byId("progress").hidden = false;
    byId("progress").classList.add("running");
    bringIntoView(byId("progress"));
    this.#show();
    announce("Expanding …");
    this.timer = setInterval(() => this.#tell(), SHOWN_EVERY_MS);
  }

  /** Show one event of the stream. */
  event(event, data) {
    if (event === "stage") this.#stage(data);
    else if (event === "round") this.#round(data);
    else if (event === "plain") this.note = "without news of its progress";
    this.#show();
  }

  /** The request is over. */
  stop() {
    clearInterval(this.timer);
    byId("progress").hidden = true;
    byId("progress").classList.remove("running");
  }

  #stage({ stage, seconds, candidates }) {
    const step = this.#step(stage);
    step.done = true;
    step.about = `${count(candidates, "candidate")}, ${span(seconds)}`;
  }

  #round({ stage, number, new: names, total }) {
    this.#step(stage).about = `round ${number}, ${total} found`;
    const list = byId("arrivals");
    list.prepend(...names.map(({ name }) => make("li", {}, bdi(name))));
    while (list.children.length > NAMES_SHOWN) list.lastChild.remove();
  }

  /** The first stage of this name that has not passed; one that nobody announced comes where it is. */
  #step(name) {
    const open = this.steps.findIndex((step) => !step.done);
    const known = this.steps.find((step) => !step.done && step.name === name);
    if (known) return known;
    const step = { name, about: "", done: false };
    this.steps.splice(open < 0 ? this.steps.length : open, 0, step);
    return step;
  }

  #show() {
    const current = this.steps.find((step) => !step.done);
    const rows = this.steps.map((step) =>
      make(
        "li",
        { class: step.done ? "done" : null, "aria-current": step === current ? "step" : null },
        make("span", { class: "name" }, stageInWords(step.name)),
        step.about && make("span", { class: "about" }, ` ${step.about}`),
      ),
    );
    byId("steps").replaceChildren(...rows);
    byId("progress-text").textContent = this.#text();
  }

  #text() {
    const current = this.steps.find((step) => !step.done);
    const doing = [current && stageInWords(current.name), current?.about, this.note].filter(Boolean).join(", ");
    return `Expanding for ${span((performance.now() - this.began) / 1000)}${doing ? ` · ${doing}` : ""}`;
  }

  #tell() {
    byId("progress-text").textContent = this.#text();
    if (performance.now() - this.spoken < SPOKEN_EVERY_MS) return;
    this.spoken = performance.now();
    announce(this.#text());
  }
}

/** Scroll to an element that is above the window, or below its middle: what follows it is to be seen too. */
function bringIntoView(element) {
  const { top } = element.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) element.scrollIntoView();
}
