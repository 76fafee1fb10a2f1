// A view of a plane: which part of it is shown, how large, and which names find room. No DOM here.

const MARGIN = 0.86; // of the width or height that all points take together
const [LEAST, MOST] = [0.5, 80]; // zoom, beside the view of all points
const GAP = 8; // pixels between a point and its name
const MARK = 5; // pixels from the middle of a point to its edge

/**
 * The view of all points `{x, y}`: `{scale, cx, cy, whole}`, pixels a unit, what is in the middle, and the scale at
 * which all is seen. Both directions have the same scale, so that distances may be compared.
 */
export function wholeView(points, width, height) {
  const [xs, ys] = [points.map(({ x }) => x), points.map(({ y }) => y)];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const fits = [width / (right - left), height / (high - low)].filter((one) => Number.isFinite(one) && one > 0);
  const scale = MARGIN * (fits.length ? Math.min(...fits) : Math.min(width, height));
  return { scale, cx: (left + right) / 2, cy: (low + high) / 2, whole: scale };
}

/** Where a point is in a view of some size, in pixels from the upper left corner. */
export function placeOf({ x, y }, { scale, cx, cy }, width, height) {
  return { left: width / 2 + (x - cx) * scale, top: height / 2 - (y - cy) * scale };
}

/** The view moved by some pixels: what was there is so far to the right, and below. */
export function moved(view, right, down) {
  return { ...view, cx: view.cx - right / view.scale, cy: view.cy + down / view.scale };
}

/** The view larger by a factor; what is at a place, by default in the middle, stays there. */
export function zoomed(view, factor, width, height, { left, top } = { left: width / 2, top: height / 2 }) {
  const scale = Math.min(Math.max(view.scale * factor, LEAST * view.whole), MOST * view.whole);
  const [across, down] = [left - width / 2, top - height / 2];
  const kept = 1 / view.scale - 1 / scale;
  return { ...view, scale, cx: view.cx + across * kept, cy: view.cy - down * kept };
}

/** The view with a point in it: as it is if the point is seen, else with the point in its middle. */
export function showing(view, point, width, height) {
  const { left, top } = placeOf(point, view, width, height);
  const seen = left > 0 && left < width && top > 0 && top < height;
  return seen ? view : { ...view, cx: point.x, cy: point.y };
}

/**
 * Which names are written, and on which side of their points: of places `{left, top, width}` in pixels, the first
 * ones first, those that overlap no name before them; where there is a choice, over no point. Returns for each the
 * upper left corner of its name, or null.
 */
export function labelled(places, width, height, lineHeight) {
  const taken = [];
  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const around = ({ left, top }) => ({ left: left - MARK, right: left + MARK, top: top - MARK, bottom: top + MARK });
  const inside = ({ left, top }) => left >= 0 && left <= width && top >= 0 && top <= height;
  const marks = places.filter(inside).map(around);
  return places.map((place) => {
    if (!inside(place)) return null;
    const { left, top, width: length } = place;
    const corners = [
      [left + GAP, top - lineHeight / 2],
      [left - GAP - length, top - lineHeight / 2],
      [left - length / 2, top - MARK - lineHeight],
      [left - length / 2, top + MARK],
    ];
    const boxes = corners
      .map(([x, y]) => ({ left: x, right: x + length, top: y, bottom: y + lineHeight }))
      .filter((box) => box.left >= 0 && box.right <= width && !taken.some((other) => overlap(box, other)));
    const box = boxes.find((one) => !marks.some((mark) => overlap(one, mark))) ?? boxes[0];
    if (!box) return null;
    taken.push(box);
    return { left: box.left, top: box.top };
  });
}
