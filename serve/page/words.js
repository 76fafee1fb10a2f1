// What stages and numbers are called on the page, for people who have read none of the papers.

const STAGES = {
  CGExpan: "name the class, then find its entities",
  CaSE: "compare words and vectors",
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
  agreement: ["agreement of several searches", "1 where each of them finds it as near"],
};

/** A stage in words. */
export const stageInWords = (stage) => STAGES[stage] ?? stage;

/** A number of an answer in words. */
export const numberInWords = (column) => NUMBERS[column]?.[0] ?? column;

/** What the numbers in some columns mean: pairs of a name and an explanation. */
export function legend(columns) {
  const score = ["score", "what the list is ordered by; it means something only beside the others of this list"];
  return [score, ...columns.filter((column) => NUMBERS[column]).map((column) => NUMBERS[column])];
}
