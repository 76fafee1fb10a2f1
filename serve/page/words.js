// What stages and numbers are called on the page, for people who have read none of the papers.

const STAGES = {
  CGExpan: "name the class, then find its entities",
  CaSE: "compare words and vectors",
  Compare: "compare with each seed, by a rule",
  ChatExpand: "ask the chat model for names",
  ConditionedRetrieve: "read sentences together with the seeds",
  ContrastRerank: "set apart what is unlike the seeds",
  EncodeNewEntities: "read the described entities",
  Explain: "find the evidence",
  Generate: "let the language model name entities",
  GenerativeRerank: "ask the language model about each",
  Membership: "say where the set ends",
  Retrieve: "find what is near the seeds",
  SegmentRerank: "move down what is like the rejected",
  Select: "choose few of a group, and unlike ones",
  SetExpan: "find what appears in the same phrases",
  TypeRerank: "prefer what has the seeds' types",
  WindowSearch: "find sentences near the seeds'",
};

const NUMBERS = {
  probability: ["probability that it belongs", "0 to 1; 0.7 means: of ten entities with 0.7, about seven belong"],
  positive: ["nearness to the accepted", "mean cosine to the seeds; 1 is the same direction, 0 is nothing in common"],
  negative: ["nearness to the rejected", "likewise, to the seeds of what is not wanted"],
  segment: ["group in the list", "the list is cut into groups of like score; inside one, the nearer to the rejected stands lower"],
  generation: ["likelihood by the language model", "of the seeds, given this name"],
  types: ["agreement of types", "how far its types are those that tell the accepted from the rejected"],
  agreement: ["nearness to each accepted", "like nearness to the accepted, but low if it is far from one of them"],
  marginal: ["what it was chosen by", "its score, less its likeness to what stands above it"],
  context: ["context pairs", "0 or less: how far it is on the wrong side of the pairs that were given"],
  recall: ["score of the first search", "by which it came among the candidates"],
  lexical: ["words in common", "how many phrases it shares with the seeds, the rare ones counting more"],
  mrr: ["place in several rankings", "mean of one by its place; 1 is first in each of them"],
  iteration: ["round", "in which it came into the set; each round also looks for what the ones before found"],
  divergence: ["distance of its contexts", "from those of the whole set; 0 is the same"],
  rank: ["place in the search", "before the list was ordered anew"],
  likelihood: ["likelihood by the language model", "of this name after the seeds; larger is likelier"],
  generated: ["times named", "how often the language model named it"],
  likeness: ["likeness of the spelling", "of what the chat model wrote to this name; 1 is the same"],
};

/** A stage in words. */
export const stageInWords = (stage) => STAGES[stage] ?? stage;

/** A number of an answer in words. */
export const numberInWords = (column) => NUMBERS[column]?.[0] ?? column;

/** What the numbers in some columns mean: pairs of a name and an explanation. */
export function legend(columns) {
  const always = [
    ["score", "what the list is ordered by; it means something only beside the others of this list"],
    ["+ name, − name", "the accepted and the rejected seed that it is nearest to, and how near: 1 is the same direction"],
  ];
  return [...always, ...columns.filter((column) => NUMBERS[column]).map((column) => NUMBERS[column])];
}
