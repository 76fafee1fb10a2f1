// The small dialogs: a new entity, a token, and the keys. Each gives the focus back where it was.

import { problemOfToken } from "./api.js";
import { byId } from "./dom.js";

const MAX_SENTENCES = 16;
const MAX_LENGTH = 2000;

for (const cancel of document.querySelectorAll("dialog .cancel")) {
  cancel.addEventListener("click", () => cancel.closest("dialog").close(""));
}

/**
 * Ask for a name and sentences. `onDescribed({name, sentences, positive})` is called if they are given.
 */
export function describeEntity({ name = "", sentences = [], onDescribed }) {
  const dialog = byId("new-entity");
  byId("new-name").value = name;
  byId("new-sentences").value = sentences.join("\n");
  byId("error-new").textContent = "";
  open(dialog, name ? "new-sentences" : "new-name");
  dialog.querySelector("form").onsubmit = (event) => {
    const given = { name: byId("new-name").value.trim(), sentences: lines(byId("new-sentences").value) };
    const wrong = problemOf(given);
    byId("error-new").textContent = wrong?.message ?? "";
    if (wrong) {
      event.preventDefault();
      byId(wrong.input).focus();
      return;
    }
    onDescribed({ ...given, positive: event.submitter?.value !== "-" });
  };
}

/** Ask for a token; null if none is given. */
export function askToken(wrong) {
  const dialog = byId("token");
  const text = byId("token-text");
  text.value = "";
  byId("error-token").textContent = wrong ? "The server does not take this token." : "";
  open(dialog, "token-text");
  return new Promise((resolve) => {
    let given = null;
    dialog.querySelector("form").onsubmit = (event) => {
      const token = text.value.trim();
      const problem = token && problemOfToken(token);
      byId("error-token").textContent = problem || "";
      given = problem ? null : token || null;
      if (!given) event.preventDefault();
    };
    dialog.addEventListener("close", () => resolve(given), { once: true });
  });
}

/** Show the keys. */
export function showKeys() {
  open(byId("keys"));
}

/** Whether single keys do something: who speaks to the computer can turn them off. */
export function singleKeys() {
  return byId("single-keys").checked;
}

function open(dialog, first = null) {
  if (!dialog.open) dialog.showModal();
  if (first) byId(first).focus();
}

function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

function problemOf({ name, sentences }) {
  if (!name) return { input: "new-name", message: "Give it a name." };
  if (!sentences.length) return { input: "new-sentences", message: "Give at least one sentence that mentions it." };
  if (sentences.length > MAX_SENTENCES) {
    return { input: "new-sentences", message: `${sentences.length} sentences: at most ${MAX_SENTENCES} are taken.` };
  }
  const long = sentences.findIndex((sentence) => Array.from(sentence).length > MAX_LENGTH);
  if (long < 0) return null;
  return { input: "new-sentences", message: `Sentence ${long + 1} is longer than ${MAX_LENGTH} characters.` };
}
