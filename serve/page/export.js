// An answer as a file: CSV for spreadsheets, JSON for programs.

// What a spreadsheet reads as a formula, also in full width.
const FORMULA = /^\s*[=+\-@＝＋－＠\t\r\n]/;
const MARKS = { "+": "accepted", "-": "rejected", "": "" };

/**
 * The answer as CSV (RFC 4180): a row for each result, then one for each seed that is none of them.
 * `sideOf(name)` tells what was accepted and rejected.
 */
export function toCsv(answer, seeds, sideOf) {
  const columns = [...new Set(answer.results.flatMap((result) => Object.keys(result.evidence)))];
  const named = ["nearest_positive", "nearest_negative"].filter((key) =>
    answer.results.some((result) => result.explanation?.[key]),
  );
  const near = (result) =>
    named.flatMap((key) => {
      const one = result.explanation?.[key];
      return [one?.name ?? "", one?.similarity ?? ""];
    });
  const found = new Set(answer.results.map((result) => result.name));
  const rows = [
    ["rank", "id", "name", "score", "mark", ...named.flatMap((key) => [key, `${key}_similarity`]), ...columns],
    ...answer.results.map((result) => [
      result.rank,
      result.id,
      result.name,
      result.score ?? "",
      MARKS[sideOf(result.name)],
      ...near(result),
      ...columns.map((column) => result.evidence[column] ?? ""),
    ]),
    ...seeds
      .filter((seed) => !found.has(seed.name))
      .map((seed) => ["", "", seed.name, "", seed.positive ? "positive seed" : "negative seed"]),
  ];
  const width = rows[0].length;
  return rows.map((row) => [...row, ...Array(width - row.length).fill("")].map(cell).join(",")).join("\r\n") + "\r\n";
}

/** The answer as JSON: what was asked, what came, and what was accepted and rejected. */
export function toJson(answer, query, seeds, sideOf) {
  const results = answer.results.map((result) => ({ ...result, mark: MARKS[sideOf(result.name)] || null }));
  const names = (positive) => seeds.filter((seed) => seed.positive === positive).map((seed) => seed.name);
  const whole = { query, ...answer, results, seeds: { positive: names(true), negative: names(false) } };
  return `${JSON.stringify(whole, null, 2)}\n`;
}

/** A set as CSV: a row for each judged entity, with who judged it, when and why where that is known. */
export function setToCsv({ accepted, rejected }) {
  const row = (status) => (one) => [one.name, one.id ?? "", status, one.by ?? "", one.at ?? "", one.note ?? ""];
  const rows = [["name", "id", "status", "by", "at", "note"], ...accepted.map(row("accepted")), ...rejected.map(row("rejected"))];
  return rows.map((one) => one.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Hand the browser a file to keep. */
export function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Put text on the clipboard; true if it is there. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // the clipboard is closed to pages that come by plain http
  }
}

function copyBySelection(text) {
  const focus = document.activeElement;
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focus?.focus();
  return done;
}

function cell(value) {
  if (typeof value === "number") return String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
