// Which of the accepted entities are asked with.

/**
 * Seeds of a side that a question holds at most: half of what the interface takes. Each more helps less, and fifty
 * are the most that were measured (docs/results.md, "How many seeds help").
 */
export const MOST_SEEDS = 50;

/**
 * The seeds among judged entities, in their order: all if they are few, else entities that are spread evenly over
 * the order in which they were judged, the first and the last among them. Described ones come first: nothing
 * else stands for them.
 */
export function sample(entities, most = MOST_SEEDS) {
  if (entities.length <= most) return entities;
  const described = entities.filter((one) => one.sentences).slice(0, most);
  const others = entities.filter((one) => !one.sentences);
  const free = most - described.length;
  const places = Array.from({ length: free }, (_, i) => Math.round((i * (others.length - 1)) / Math.max(free - 1, 1)));
  const chosen = new Set([...described, ...places.map((place) => others[place])]);
  return entities.filter((one) => chosen.has(one));
}
