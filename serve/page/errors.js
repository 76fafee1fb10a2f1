// Errors, beside the input that they are about, with suggestions that mend it.

import { bdi, byId, make } from "./dom.js";

const BOXES = ["error-seeds", "error-method", "error-top-k", "error-within", "error-evidence", "error-filter", "problem"];
const AGAIN = new Set(["rate_limited", "overloaded", "unavailable", "timeout", "unreachable", "slow_request"]);

/** Take every error off the page. */
export function clearErrors() {
  for (const id of BOXES) byId(id).replaceChildren();
  for (const row of document.querySelectorAll(".wrong")) row.classList.remove("wrong");
  for (const field of document.querySelectorAll("#query [aria-invalid]")) field.removeAttribute("aria-invalid");
}

/**
 * Show an error of a request.
 *
 * `seeds` are the request's `{positive, negative, exclude}`, in the order in which the error counts them; `page`
 * holds what can be mended: `state`, `options`, `lists`, and `retry()`.
 */
export function showError(error, seeds, page) {
  clearErrors();
  const { box, mend } = placeOf(error.field ?? "", seeds, page);
  const parts = [make("p", {}, message(error))];
  if (mend && error.suggestions.length) {
    const apply = (suggestion) => {
      mend(suggestion);
      clearErrors();
      byId("expand").focus();
    };
    parts.push(make("p", { class: "suggestions" }, "Use ", ...error.suggestions.map((one) => button(one, apply))));
  }
  if (box === "error-evidence") {
    const without = () => {
      page.state.set({ evidence: false });
      page.retry();
    };
    parts.push(make("button", { type: "button", onclick: without }, "Answer without it"));
  }
  if (AGAIN.has(error.code)) {
    parts.push(make("button", { type: "button", onclick: () => page.retry() }, "Try again"));
  }
  byId(box).replaceChildren(...parts);
  byId(box).scrollIntoView({ block: "nearest" });
}

/** Buttons of suggestions; `apply(suggestion)` is called with the one that was chosen. */
export function button(suggestion, apply) {
  return make("button", { type: "button", class: "suggestion", onclick: () => apply(suggestion) }, bdi(suggestion));
}

function message({ message, id, retryAfter }) {
  const when = retryAfter ? ` Try again in ${retryAfter}\u00a0s.` : "";
  return `${message}${/[.?!]$/.test(message) ? "" : "."}${when}${id && !message.includes(id) ? ` (The log has it under ${id}.)` : ""}`;
}

function placeOf(field, seeds, { state, options, lists }) {
  const [first, second] = field.split(".");
  if (first === "positive" || first === "negative" || first === "exclude") {
    const seed = seeds[first]?.[Number(second)];
    if (!seed || !second) return { box: "error-seeds" };
    lists.blame(seed);
    return { box: "error-seeds", mend: (name) => state.replace(seed.name, { ...seed, name, sentences: null }) };
  }
  const inputs = { method: "method", top_k: "top-k", deadline_ms: "within" };
  if (Object.hasOwn(inputs, first)) {
    byId(inputs[first]).setAttribute("aria-invalid", "true");
    const mend = first === "method" ? (method) => state.set({ method }) : null;
    return { box: `error-${inputs[first]}`, mend };
  }
  if (first === "explain") return { box: "error-evidence" };
  if (first === "filter") {
    const attribute = field.slice("filter.".length);
    return { box: "error-filter", mend: (better) => options.mend(attribute, better) };
  }
  return { box: "problem" };
}
