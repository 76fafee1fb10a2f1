// Lists of names as people paste them: a name a line, cells of a table, or with commas between them.

const LINES = /[\n\r\t\u2028\u2029]+/;
const BETWEEN = /[,;，；、]/;
const PART = /\s*(?:"((?:[^"]|"")*)"\s*(?=[,;，；、]|$)|([^,;，；、]+))/g; // in quotes, as CSV has them, or without

/** Whether a text holds several names, or may. */
export function isList(text) {
  return LINES.test(text.trim()) || BETWEEN.test(text);
}

/** The lines and cells of a text that are not blank. */
export function linesOf(text) {
  return text
    .split(LINES)
    .map((line) => line.trim())
    .filter(Boolean);
}

/** The names of a line. */
export function namesOf(line) {
  const parts = Array.from(line.matchAll(PART), ([, quoted, bare]) => quoted?.replaceAll('""', '"') ?? bare);
  return parts.map((part) => part.trim()).filter(Boolean);
}
