// The page: puts its parts together, runs queries, and reads keys.

import { Agreement } from "./agreement.js";
import { AnswerView } from "./answer.js";
import * as api from "./api.js";
import { Comparison } from "./compare.js";
import { Curation, storeCurator, storedCurator } from "./curation.js";
import { askToken, describeEntity, showKeys, singleKeys } from "./dialogs.js";
import { announce, byId, count, isComposing, make } from "./dom.js";
import { Details } from "./details.js";
import { clearErrors, showError } from "./errors.js";
import { copy, save, toCsv, toJson } from "./export.js";
import { Facets } from "./facets.js";
import { EntityMap } from "./map.js";
import { Options } from "./options.js";
import { Progress } from "./progress.js";
import { Results } from "./results.js";
import { Review } from "./review.js";
import * as rights from "./rights.js";
import { Search } from "./search.js";
import { SeedLists } from "./seeds.js";
import { Shared } from "./shared.js";
import { State } from "./state.js";

const state = new State();
const sideOf = (name) => state.sideOf(name);
const curation = new Curation(state, { onOpened: opened, onShown: () => lists.show(), onReview: (set) => review.open(set) });
const lists = new SeedLists(state, { onEdit: edit, onStep: (again) => curation.step(again), steps: () => curation.steps() });
const options = new Options(state);
const progress = new Progress();
const results = new Results({ onJudge: judge, onDetails: ({ name }) => details.open(name), sideOf });
const details = new Details({ onJudge: judge, sideOf });
const shared = new Shared({ onAsk: askShared });
const map = new EntityMap({
  state,
  answer: () => results.answer,
  onJudge: judge,
  onDetails: (name) => details.open(name),
});
const review = new Review({ who: storedCurator, rename: storeCurator, onDetails: (name) => details.open(name) });
const agreement = new Agreement({
  set: curation.set,
  who: storedCurator,
  rename: storeCurator,
  onDetails: (name) => details.open(name),
  onReview: (set) => review.open(set),
});
const comparison = new Comparison({
  state,
  ask: async (method) => {
    const body = { ...state.request().body, method };
    return { body, answer: await ask(body) };
  },
  methods: () => options.methods.map(({ name }) => name),
  onJudge: judge,
  onDetails: (name) => details.open(name),
});
const facets = new Facets({ state, onFilter: askWith });
const shownAnswer = new AnswerView({ state, results, options, shared });
const search = new Search({
  onExpand: () => {
    document.activeElement.blur(); // so that the answer has the focus
    expand();
  },
  onChoose: (name, positive) => state.add(name, positive),
  onList: (names) => state.addAll(names),
  onDescribe: describe,
});

let running = null; // the AbortController of the request that runs
let asked = null; // the body that the answer shown belongs to
const PAGE = 10; // rows that a large step passes
const MOST_RESULTS = 1000; // that a service gives by default

const ADDRESS_AGAIN_MS = 5000;
let addressTimer = 0;

/** Write the query into the address. Browsers refuse that where it is done often; then once more, later. */
function showAddress() {
  clearTimeout(addressTimer);
  try {
    history.replaceState(null, "", `#${state.toFragment()}`);
  } catch {
    addressTimer = setTimeout(showAddress, ADDRESS_AGAIN_MS);
  }
}

state.listen(() => {
  showAddress();
  results.showMarks();
  shownAnswer.showJudged();
  showChanged();
});

/** Accept or reject an entity; doing it again takes that back. */
function judge(name, positive) {
  const side = positive ? "+" : "-";
  if (state.sideOf(name) === side) state.remove(name);
  else state.add(name, positive);
  const words = { "+": "accepted", "-": "rejected", "": "unmarked" };
  announce(`${name}: ${words[state.sideOf(name)]}`);
}

function describe(name = "") {
  describeEntity({
    name,
    onDescribed: ({ name: given, sentences, positive }) => {
      byId("search").value = "";
      state.add(given, positive, sentences);
    },
  });
}

function edit(seed) {
  describeEntity({
    ...seed,
    onDescribed: (given) => state.replace(seed.name, given),
  });
}

/** Ask for the query as it is now; what runs is given up. */
async function expand() {
  running?.abort();
  const { body, seeds } = state.request();
  clearErrors();
  if (!seeds.positive.length) {
    const missing = { message: "Give at least one positive seed.", field: "positive", suggestions: [] };
    showError(missing, seeds, page);
    search.focus();
    return;
  }
  const { exclude } = state.excluded();
  const own = (running = new AbortController());
  progress.start(options.stagesOf(body.method));
  byId("results").setAttribute("aria-busy", "true");
  try {
    const answer = await ask(body, own.signal, (event, data) => progress.event(event, data));
    if (own !== running) return;
    showAnswer(answer, body);
    curation.set.keepQuestion(body);
  } catch (error) {
    if (own === running && !own.signal.aborted) showError(error, { ...seeds, exclude }, page);
  } finally {
    if (own === running) finished();
  }
}

/**
 * Ask a query for what is not judged. Seeds never come back, and the others are excluded; those beyond the most that
 * a query excludes are asked for in addition, and not shown.
 */
async function ask(body, signal = new AbortController().signal, onProgress = () => {}) {
  const { exclude, beyond } = state.excluded();
  const judged = new Set(state.seeds.map((seed) => seed.name));
  const wanted = { ...body };
  if (exclude.length) wanted.exclude = exclude.map(({ name }) => name);
  if (beyond) wanted.top_k = Math.max(body.top_k, Math.min(body.top_k + beyond, MOST_RESULTS));
  if (options.attributes.length) wanted.facets = true;
  const answer = await api.expand(wanted, signal, onProgress);
  return { ...answer, results: answer.results.filter(({ name }) => !judged.has(name)).slice(0, body.top_k) };
}

/** Put the page at rest; the focus goes on where what had it is gone. */
function finished() {
  running = null;
  const lost = byId("progress").contains(document.activeElement);
  progress.stop();
  byId("results").removeAttribute("aria-busy");
  if (lost) (results.chosen ? byId("results-title") : byId("expand")).focus();
}

function stop() {
  if (!running) return;
  running.abort();
  finished();
  announce("Stopped");
}

function showAnswer(answer, body) {
  const inList = byId("results").contains(document.activeElement);
  const elsewhere = document.activeElement && document.activeElement !== document.body && !inList;
  asked = body;
  comparison.keep(answer, body);
  facets.show(answer.facets ?? null);
  shownAnswer.show(answer);
  showChanged();
  if (!elsewhere || document.activeElement === byId("again")) results.focus();
}

const PARTS = {
  positive: "seeds",
  negative: "seeds",
  method: "method",
  top_k: "number of results",
  deadline_ms: "time",
  explain: "evidence",
  filter: "conditions",
  class_name: "class",
  positive_attributes: "attributes",
  negative_attributes: "attributes",
};

/** Say what of the query is no longer that of the answer. */
function showChanged() {
  const now = state.request().body;
  const differs = (key) => JSON.stringify(now[key]) !== JSON.stringify(asked[key]);
  const parts = asked ? new Set(Object.keys(PARTS).filter(differs).map((key) => PARTS[key])) : new Set();
  const changed = parts.size > 0;
  if (changed) byId("changed-parts").textContent = new Intl.ListFormat("en").format(parts);
  byId("results").classList.toggle("stale", changed);
  const focused = document.activeElement === byId("again");
  byId("changed").hidden = !changed;
  if (!changed && focused) results.focus();
  byId("expand").textContent = changed ? "Expand again" : "Expand";
}

const EXPORTS = {
  csv: { type: "text/csv", text: () => toCsv(results.answer, state.seeds, sideOf), mark: "\ufeff" },
  json: { type: "application/json", text: () => toJson(results.answer, asked, state.seeds, sideOf), mark: "" },
};

async function copyAs(kind) {
  const done = await copy(EXPORTS[kind].text());
  announce(done ? `Copied as ${kind.toUpperCase()}` : "The browser does not let this page copy");
}

/** The byte order mark tells spreadsheets that a CSV file is UTF-8. */
function saveAs(kind) {
  const { type, text, mark } = EXPORTS[kind];
  save(`seedset-${results.answer.bundle}.${kind}`, type, mark + text());
}

const KEYS = {
  "/": () => search.focus(),
  j: () => results.move(1),
  ArrowDown: () => results.move(1),
  k: () => results.move(-1),
  ArrowUp: () => results.move(-1),
  a: () => judgeCurrent(true),
  "+": () => judgeCurrent(true),
  r: () => judgeCurrent(false),
  "-": () => judgeCurrent(false),
  d: () => results.chosen && details.open(results.chosen.name),
  e: expand,
  s: stop,
  J: () => results.move(PAGE),
  K: () => results.move(-PAGE),
  f: askShared,
  A: acceptAbove,
  l: () => reorder(byId("order").value === "best" ? "unsure" : "best"),
  c: () => comparison.open(),
  m: () => results.answer && map.open(),
  n: () => curation.keep(),
  o: () => curation.choose(),
  h: () => curation.history(),
  g: () => agreement.open(),
  x: () => curation.saveAs("csv"),
  u: () => lists.undo(),
  U: () => lists.redo(),
  "?": showKeys,
};

/** Judge the current candidate and go on to the next. */
function judgeCurrent(positive) {
  if (!results.chosen) return;
  judge(results.chosen.name, positive);
  results.focus(results.current + 1);
}

/** Accept what stands from the first row to the current one, but for what was judged; and go on to the next. */
function acceptAbove() {
  const names = results.aboveHere;
  if (!names.length) return;
  state.addAll(names);
  announce(`${names.length} accepted`);
  results.focus(results.current + 1);
}

/** Ask only for entities with the attributes that all accepted ones share. */
function askShared() {
  if (byId("only-shared").disabled || !shared.values.size) return;
  askWith(new Map([...state.options.filter, ...shared.values]));
}

function askWith(filter) {
  state.set({ filter });
  expand();
}

function reorder(order) {
  if (!results.hasProbabilities) return;
  byId("order").value = order;
  results.order(order === "unsure");
  announce(order === "unsure" ? "Least sure first" : "Best first");
  results.focus();
}

/** Take over the question of a set that was opened, and ask it. */
function opened(question) {
  if (question) state.setQuestion(question);
  if (state.seeds.some((seed) => seed.positive)) expand();
}

function onKey(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isComposing(event)) return;
  if (target.closest("input:not([type=checkbox]), textarea, select") || document.querySelector("dialog[open]")) return;
  if (key === "Enter" && target.matches(".results > li")) KEYS.d();
  else if (!(key in KEYS) || (key.length === 1 && !singleKeys())) return;
  else if (key.startsWith("Arrow") && !target.closest(".results")) return; // elsewhere they scroll
  else KEYS[key]();
  event.preventDefault();
}

async function load() {
  try {
    const [about] = await Promise.all([api.bundle(), options.load(), rights.load()]);
    showBundle(about);
  } catch (error) {
    showError(error, {}, { ...page, retry: start });
  }
}

function showBundle({ id, entities, refused }) {
  byId("bundle").replaceChildren(`bundle ${id} · ${count(entities, "entity", "entities")}`);
  if (!refused) return;
  byId("bundle").append(make("span", { class: "refused" }, ` · the newer ${refused.id} is not served: ${refused.reason}`));
}

/** Read the address, ask what there is, and answer the query that the address holds. */
async function start() {
  stop();
  clearErrors();
  await curation.set.leave(); // before what it holds is replaced here: that is no change of the set
  const unread = state.fromFragment(location.hash.slice(1));
  if (location.search.length > 1) unread.push(location.search);
  state.past = [];
  lists.show();
  await load();
  if (state.setId && (await reopen(state.setId))) return;
  if (unread.length) {
    const text = `The address holds what is not understood, and was left out: ${unread.slice(0, 5).join(", ").slice(0, 200)}`;
    byId("unread").textContent = text;
  }
  byId("unread").hidden = unread.length === 0;
  if (state.seeds.some((seed) => seed.positive)) await expand();
}

/** Open the set that the address names; false if that cannot be. */
async function reopen(id) {
  try {
    await curation.open(id);
    return true;
  } catch (error) {
    state.setId = null;
    showError(error, {}, { ...page, retry: start });
    return false;
  }
}

const page = { state, options, lists, retry: expand };

api.onUnauthorized(askToken);
api.onRightsChanged(() =>
  rights.load().then(() => {
    curation.show();
    lists.show();
  }, () => {}),
);
byId("query").addEventListener("submit", (event) => {
  event.preventDefault();
  expand();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address holds the query, not a place
  byId("results-title").focus();
});
byId("describe").addEventListener("click", () => describe(byId("search").value.trim()));
byId("show-keys").addEventListener("click", showKeys);
byId("stop").addEventListener("click", stop);
byId("again").addEventListener("click", expand);
byId("set-agreement").addEventListener("click", () => agreement.open());
byId("show-map").addEventListener("click", () => map.open());
byId("show-compare").addEventListener("click", () => comparison.open());
byId("accept-above").addEventListener("click", acceptAbove);
byId("order").addEventListener("change", (event) => reorder(event.target.value));
for (const kind of ["csv", "json"]) {
  byId(`copy-${kind}`).addEventListener("click", () => copyAs(kind));
  byId(`save-${kind}`).addEventListener("click", () => saveAs(kind));
}
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", start);
start();
