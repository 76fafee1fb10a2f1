// Rows of a list or a table that are gone through by keys: one of them is a stop of the Tab key.

import { singleKeys } from "./dialogs.js";

/**
 * Let keys act on the rows that a container has, or will have. Each row has `data-name`: j, k and arrows go on,
 * `onJudge(name, positive)` is called for a and r, `onOpen(name)` for Enter.
 */
export function rowKeys(container, { onJudge, onOpen }) {
  const rowOf = (element) => [...container.children].find((row) => row.contains(element));
  container.addEventListener("focusin", (event) => turnTo(container, rowOf(event.target)));
  container.addEventListener("keydown", (event) => {
    const row = rowOf(event.target);
    if (!row?.dataset.name || event.ctrlKey || event.metaKey || event.altKey) return;
    const { name } = row.dataset;
    const go = (other) => other?.focus();
    const keys = { ArrowDown: () => go(row.nextElementSibling), ArrowUp: () => go(row.previousElementSibling) };
    if (event.target === row) keys.Enter = () => onOpen(name);
    const letters = { j: keys.ArrowDown, k: keys.ArrowUp, a: () => onJudge(name, true), r: () => onJudge(name, false) };
    const act = keys[event.key] ?? (singleKeys() ? letters[event.key] : undefined);
    if (!act) return;
    act();
    event.preventDefault();
  });
}

/** Make a row the one that the Tab key comes to; by default the first. */
export function turnTo(container, row = container.firstElementChild) {
  for (const other of container.children) other.tabIndex = other === row ? 0 : -1;
}
