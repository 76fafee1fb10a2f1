"""Measure what re-ranking by segments could bring if it knew the truth, and what its cosine knows.

    python -m benchmarks.segment_oracle --workspace W --queries FOLDER

RetExpan's list is re-ranked (section 5.1) by several similarities to the negative seeds: by the mean
cosine (the paper's), and by an oracle that calls an entity of the negative truth similar and is right in a
given share of the cases; then both again on the list without the entities that are in no answer of their
class. An oracle is no method, as it reads the answers: it tells a weak similarity from a weak rule.

Of all pairs in a segment of an entity of the positive truth and another one, a similarity orders so many
well that the former comes first (percent, 50 is chance): ``of negative``, where the other one is in the
negative truth; ``of neither``, where it is in neither. Segments help as far as the first of these outweighs
the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.report import report
from engine.evaluation.measuring import classes_of
from engine.evaluation.metrics import Means, measure
from engine.methods import method
from engine.queries.formats import LabelledQuery, read_queries
from engine.query import Scores
from engine.retrieval.index import mean_of, seed_vectors
from engine.retrieval.opening import open_index
from engine.stages.rerank import equal_segments
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace

Ids = npt.NDArray[np.int32]
Hits = npt.NDArray[np.bool_]
Segments = npt.NDArray[np.int64]
Nearness = Callable[[LabelledQuery, Ids], Scores]


@dataclass(frozen=True)
class Question:
    """A query, the list that answers it, and the entities that are in any answer of its class."""

    asked: LabelledQuery
    ids: Ids
    members: frozenset[int]

    def of_class(self) -> Question:
        """Return the same with a list of members alone."""
        return replace(self, ids=self.ids[np.isin(self.ids, list(self.members))])


COLUMNS = ("PosMAP@10", "NegMAP@10", "PosMAP@100", "NegMAP@100", "CombMAP")
PAIRS = ("of negative", "of neither")
LENGTHS = (4, 10, 20, 50)
RIGHT = (1.0, 0.9, 0.75)


def oracle(right: float, seed: int) -> Nearness:
    """Return a similarity of 1 to the negative truth and 0 else, turned round in a share 1 - right."""
    random = np.random.default_rng(seed)

    def near(labelled: LabelledQuery, ids: Ids) -> Scores:
        known = np.isin(ids, list(labelled.negative.ids))
        return np.where(random.random(len(ids)) < right, known, ~known).astype(np.float32)

    return near


def cosine(bundle: Bundle, view: str) -> Nearness:
    """Return the paper's similarity: the mean cosine to the negative seeds."""
    index = open_index(bundle, view)

    def near(labelled: LabelledQuery, ids: Ids) -> Scores:
        (own,) = seed_vectors(index, view, [(labelled.query, labelled.query.negative)])
        (products,) = index.similarities([(ids, mean_of(own)[None])])
        return products[:, 0]

    return near


def ordered_well(first: Hits, later: Hits, negative: Scores, segment: Segments) -> tuple[float, int]:
    """Return how many pairs of a segment the similarity orders well, ties by half, and how many there are."""
    right, pairs = 0.0, 0
    for number in np.unique(segment[first]):
        within = segment == number
        difference = negative[within & later][:, None] - negative[within & first][None]
        right += float((difference > 0).sum() + (difference == 0).sum() / 2)
        pairs += difference.size
    return right, pairs


def row(questions: Sequence[Question], near: Nearness | None, length: int) -> dict[str, float]:
    """Return the mean columns of the re-ranked lists, and the shares of pairs that are ordered well."""
    means, pairs = Means(), {"of negative": (0.0, 0), "of neither": (0.0, 0)}
    for q in questions:
        ids, segment = q.ids, equal_segments(len(q.ids), length)
        positive, against = (np.isin(ids, list(side.ids)) for side in (q.asked.positive, q.asked.negative))
        if near:
            negative = near(q.asked, ids)
            ids = ids[np.lexsort((negative, segment))]
            for kind, others in (("of negative", against), ("of neither", ~positive & ~against)):
                well, count = ordered_well(positive, others, negative, segment)
                pairs[kind] = pairs[kind][0] + well, pairs[kind][1] + count
        means.add(measure(ids, q.asked.positive, q.asked.negative))
    shares = {kind: 100 * right / count for kind, (right, count) in pairs.items() if count}
    return means.result() | shares


def main() -> None:
    """Print the table of all similarities and lengths."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--view", default="mask", help="the view of the cosine [default: mask]")
    parser.add_argument("--method", default="retexpan-negative", help="[default: retexpan-negative]")
    given = parser.parse_args()
    bundle = Bundle.open(Workspace.open(given.workspace))
    read = read_queries(Store.open(given.queries), bundle.vocabulary).queries
    asked = [q for q in read if q.query.negative and q.positive.size]
    answers = method(given.method).open(bundle)([q.query for q in asked])
    classes = classes_of(read)
    whole = [Question(q, e.ranking.ids, classes[q.label]) for q, e in zip(asked, answers, strict=True)]
    similarities = {"cosine": cosine(bundle, given.view)}
    similarities |= {f"oracle, {100 * right:.0f} % right": oracle(right, seed=13) for right in RIGHT}
    rows, gains = [], {}
    for title, questions in (("", whole), (", in class", [q.of_class() for q in whole])):
        none = row(questions, None, 1)
        rows.append([f"none{title}", "", *(f"{none[c]:.1f}" for c in COLUMNS)])
        for name, near in similarities.items():
            for length in LENGTHS:
                figures = row(questions, near, length)
                shown = [f"{figures[c]:.1f}" if c in figures else "" for c in (*COLUMNS, *PAIRS)]
                rows.append([name + title, str(length), *shown])
                gains[f"{name}{title}, {length}"] = round(figures["CombMAP"] - none["CombMAP"], 2)
    report(
        f"{given.method}, {len(asked)} queries with negative seeds, re-ranked by segments (percent)",
        ["similarity", "length", *COLUMNS, *PAIRS],
        rows,
        name="segment_oracle",
        holds=gains["oracle, 100 % right, 4"] > 0,
        gains=gains,
    )


if __name__ == "__main__":
    main()
