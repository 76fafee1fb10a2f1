// Calls of the HTTP interface. Whatever goes wrong becomes an ApiError in the interface's own shape.

const TOKEN = "seedset.token";
const LOOKED_UP = 1000; // names of one request
const FALL_BACK = new Set(["unreachable", "not_found", "method_not_allowed", "cut_off"]);

export class ApiError extends Error {
  constructor(error, status = 0, retryAfter = null) {
    super(error.message);
    this.code = error.code;
    this.field = error.field ?? null;
    this.suggestions = error.suggestions ?? [];
    this.id = error.id ?? null;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

let ask = async () => null;
let asking = null;
let kept = null; // the token where the browser lets the page store nothing

function storedToken() {
  try {
    kept = sessionStorage.getItem(TOKEN) ?? kept;
  } catch {} // storage is closed to the page
  return kept !== null && problemOfToken(kept) === null ? kept : null;
}

function storeToken(token) {
  kept = token;
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {} // it lasts as long as the page
}

/** Why a token cannot be sent, without the token; null if it can. */
export function problemOfToken(token) {
  const signs = Array.from(token);
  const place = signs.findIndex((sign) => sign < " " || sign > "~");
  if (place < 0) return null;
  const code = signs[place].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return `Its character ${place + 1} is one that no token holds (U+${code}), perhaps an invisible one. Copy it again.`;
}

let changed = () => {};

/** Say what is done when another token is used, or the one that is has not the rights that it was thought to have. */
export function onRightsChanged(done) {
  changed = done;
}

/** Say how a token is asked for: `given(wrong)` resolves to a token, or to null if there is none. */
export function onUnauthorized(given) {
  ask = given;
}

async function call(path, { body, signal, method = body === undefined ? "GET" : "POST" } = {}) {
  for (;;) {
    const token = storedToken();
    const headers = {};
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const response = await reach(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
    if (response.ok) return response;
    if (response.status === 403) changed();
    if (response.status !== 401 || !(await renewed(token))) throw await errorOf(response);
  }
}

async function reach(path, options) {
  try {
    return await fetch(new URL(path, document.baseURI), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError({ code: "unreachable", message: "The server does not answer. Is it running?" });
  }
}

/** Ask for a token, once for all calls that want one now; true if there is another than `used`. */
async function renewed(used) {
  if (storedToken() === used) {
    asking ??= ask(used !== null).finally(() => (asking = null));
    const token = await asking;
    if (token === null) return false;
    storeToken(token);
    changed();
  }
  return true;
}

async function errorOf(response) {
  const wait = Number(response.headers.get("Retry-After"));
  const body = await response.json().catch(() => null);
  const error = body?.error ?? { code: "internal", message: `The server answered ${response.status}.` };
  return new ApiError(error, response.status, wait > 0 ? wait : null);
}

async function get(path, parameters = {}, signal = undefined) {
  const query = new URLSearchParams(parameters).toString();
  return (await call(query ? `${path}?${query}` : path, { signal })).json();
}

/** Entities with a name or alias like `text`, best first, each with the spelling that `matched`. */
export async function search(text, limit, signal) {
  return (await get("v1/entities", { search: text, limit }, signal)).entities;
}

/** Everything that is known of the entity of a name. */
export const entity = (name, signal) => get(`v1/entities/${encodeURIComponent(name)}`, {}, signal);
export const attributes = async () => (await get("v1/attributes")).attributes;
export const methods = () => get("v1/methods");
export const bundle = () => get("v1/bundle");
export const caller = () => get("v1/caller");

/** The entity of each name, or what is like it, in order. */
export async function lookUp(names, signal, fields = []) {
  const found = [];
  for (let start = 0; start < names.length; start += LOOKED_UP) {
    const part = { names: names.slice(start, start + LOOKED_UP), ...(fields.length ? { fields } : {}) };
    found.push(...(await (await call("v1/entities/lookup", { body: part, signal })).json()).results);
  }
  return found;
}

/** Seeds and other entities on a plane. */
export const map = async (body, signal) => (await call("v1/map", { body, signal })).json();

export const sets = async () => (await get("v1/sets", { limit: 1000 })).sets;
export const set = (id) => get(`v1/sets/${id}`);
export const setEvents = (id, after = 0) => get(`v1/sets/${id}/events`, { after, limit: 1000 });
export const setAgreement = (id, curator, limit) => get(`v1/sets/${id}/agreement`, { curator, limit });
export const setReviews = (id, limit) => get(`v1/sets/${id}/reviews`, { limit });
export const beginReview = async (id, by) => (await call(`v1/sets/${id}/reviews`, { body: { by } })).json();
export const markReview = async (id, marks) => (await call(`v1/sets/${id}/reviews/marks`, { body: marks })).json();
export const exportSet = (id) => get(`v1/sets/${id}/export`);
export const createSet = async (given) => (await call("v1/sets", { body: given })).json();
export const importSet = async (whole) => (await call("v1/sets/import", { body: whole })).json();
export const changeSet = async (id, change) => (await call(`v1/sets/${id}/events`, { body: change })).json();
export const deleteSet = async (id, version) =>
  (await call(`v1/sets/${id}?version=${version}`, { method: "DELETE" })).json();

/** The bytes of an image of ours; other addresses are not asked. */
export async function image(given, signal) {
  const address = given.replace(/^\/(?!\/)/, ""); // we may be served under a prefix, and not know it
  if (new URL(address, document.baseURI).origin !== location.origin) throw new TypeError("not our image");
  return (await call(address, { signal })).blob();
}

/**
 * Answer a query. Progress goes to `onProgress(event, data)` where the server can tell of it; where
 * that fails, the query is asked once more without.
 */
export async function expand(query, signal, onProgress) {
  try {
    const response = await call("v1/expand/stream", { body: query, signal });
    for await (const { event, data } of events(response)) {
      if (event === "answer") return data;
      if (event === "error") throw new ApiError(data.error);
      onProgress(event, data);
    }
  } catch (error) {
    if (signal.aborted || !(error instanceof ApiError && FALL_BACK.has(error.code))) throw error;
  }
  onProgress("plain", {});
  return (await call("v1/expand", { body: query, signal })).json();
}

/** The events of an event stream: `{event, data}`, data read as JSON; comments are left out. */
async function* events(response) {
  const type = response.headers.get("Content-Type") ?? "";
  if (!type.startsWith("text/event-stream")) throw new ApiError({ code: "cut_off", message: "" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError({ code: "cut_off", message: error.message });
    });
    if (done) return;
    text = (text + value).replaceAll("\r\n", "\n");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    yield* blocks.map(eventOf).filter((one) => one.data !== null);
  }
}

function eventOf(block) {
  const lines = block.split("\n");
  const values = (name) =>
    lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart());
  const data = values("data").join("\n");
  return { event: values("event")[0] ?? "message", data: data ? JSON.parse(data) : null };
}
