// What the token may do, and what of the page it may not: that is shown as disabled, with the reason.

import * as api from "./api.js";
import { announce, bdi, byId } from "./dom.js";

const RIGHTS = ["read", "curate", "publish"]; // each includes those before it

let caller = { name: "", rights: "publish" }; // until the server says

/** Whether the token has a right, or one that includes it. */
export const may = (right) => RIGHTS.indexOf(caller.rights) >= RIGHTS.indexOf(right);

/** The name of the token, which is then the curator's; "" where the server wants no token. */
export const callerName = () => caller.name;

const reason = (right) => `Your token may only ${caller.rights}; this needs one that may ${right}.`;

/** Let an element do something only with a right. In the page itself that is `data-needs`. */
export function limit(element, right) {
  element.dataset.needs = right;
  show(element);
  return element;
}

/** Ask what the token may do, and show it. */
export async function load() {
  caller = await api.caller();
  for (const element of document.querySelectorAll("[data-needs]")) show(element);
  byId("rights").hidden = may("curate");
  byId("rights").replaceChildren("Your token, ", bdi(caller.name), ", may only read: sets can be opened and downloaded, and nothing is kept of what you judge.");
  for (const id of ["keep-curator", "agreement-curator", "review-curator"]) {
    const input = byId(id);
    input.readOnly = Boolean(caller.name);
    input.title = caller.name ? "the name of your token" : "";
  }
}

function show(element) {
  const right = element.dataset.needs;
  if (may(right)) {
    element.removeAttribute("aria-disabled");
    element.removeAttribute("title");
  } else {
    // Not `disabled`: what cannot have the focus cannot tell a screen reader why.
    element.setAttribute("aria-disabled", "true");
    element.title = reason(right);
  }
}

document.addEventListener(
  "click",
  (event) => {
    const element = event.target.closest?.("[data-needs][aria-disabled]");
    if (!element) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    announce(reason(element.dataset.needs));
  },
  true,
);
