// Images of entities.

import * as api from "./api.js";
import { make } from "./dom.js";

const SIDE = 160; // pixels; the style sheet shows them no larger

/** Images of an entity, or null if there are none; one that cannot be had is left out. */
export function imageList(addresses, name) {
  if (!addresses.length) return null;
  return make("p", { class: "images" }, ...addresses.map((address) => imageCanvas(address, name)));
}

// A canvas and not an `img`: an `img` sends no token, and the page's own bytes as its source are refused.
function imageCanvas(address, name) {
  const canvas = make("canvas", { role: "img", "aria-label": `Image of ${name}`, width: SIDE, height: SIDE });
  draw(canvas, address).catch(() => canvas.remove());
  return canvas;
}

async function draw(canvas, address) {
  const bitmap = await createImageBitmap(await api.image(address));
  const scale = Math.min(1, (SIDE * devicePixelRatio) / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}
