"""Expand under the guidance of class names that a masked language model gives the set (CGExpan).

Zhang, Shen, Shang and Han, "Empower Entity Set Expansion via Language Model Probing", ACL 2020, and their
program. One iteration: name the class, choose a name and names that it is not, take entities that fit the
name and the set, drop those that fit another class better.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.generation.hearst import MASK, PATTERNS, Masked, query, spoken
from engine.query import Expansion, Ids, Query, Ranking
from engine.retrieval.class_names import negative_names, of_other_classes, often, positive_name
from engine.retrieval.mention_states import PROBING
from engine.stages.base import Stage, Worker, by_settings
from engine.stages.retrieve import Matching, allowed, evidence_of, matching_of, unused
from engine.storage.bundle import Bundle
from engine.text.class_words import head_noun, is_modifier, stop_words
from engine.text.plurals import plural

if TYPE_CHECKING:  # what only describes a pipeline loads no model library
    from engine.retrieval.index import Vectors
    from engine.stages.masked_lm import Probing

FEW = 1e-8
"""The nearness of an entity with too few mentions, and the least that a logarithm is taken of."""


class CGExpan(Stage):
    """Grow the set of positive seeds by entities that fit its class name, iteration by iteration.

    **Class names** (section 3.1). ``draws`` times for each of six Hearst patterns, three entities of the
    set are drawn and the model fills the class's mask: "[MASK] such as a , b , and c .". Of the three
    likeliest tokens plurals are names; each is put back and a word in front of it asked for ("[MASK]
    countries such as …"). A name counts once a query that gives it.

    **Ranking** (section 3.2). A name is near to an entity by the mean of the ``mentions`` largest cosines,
    over the entity's mentions, of the best of six states at "{name} such as [MASK] ." and the like. The
    positive name has the largest sum over the set of 1 / rank, among those that 5/6 of the queries gave, and
    former positive ones. Negative are names of one word that for every seed stand more than ``margin``
    places below it.

    **Entities** (section 3.3). 3 x 6 times, a mask among three drawn entities under the positive name,
    "countries such as a , [MASK] , b , and c .", gives a state. Of the 500 entities with the largest mean
    cosine of means to three drawn members (global), score(e) = 5 log local(e) + log global(e), where local
    is the nearness of e's mentions to the state. The first 20 of each such ranking get 1 / rank; taken are
    those with a mean of 1/5 at least, and five in any case.

    **Filter.** An entity that in more than two patterns is nearer to a negative name than to the positive
    one is dropped, and one whose own name is a class name. Where the set stops growing twice, the margin
    grows by one and what was dropped may come again.

    **Where this differs.** The authors ask NLTK which words are nouns and adjectives, and `inflect` for
    plurals. Here the last word must be spelt as an English plural, or have one that is a token of the model,
    and neither word may be a stop word (scikit-learn's): no tagger, and English alone. The list is complete
    with ``k`` entities, as theirs is with 50; a query that wants more gets more, but no more than
    ``iterations`` are made (ours, for the sake of time) and none after the query's deadline. Draws begin
    anew with every query, and do not go through the set in turn. Where names are ranked, their program
    writes "{name} especially" without a comma, and an entity with few mentions has an arbitrary say.

    Negative seeds are only kept out. After a stage that recalled candidates, or where a query has filters,
    only those are taken. Evidence: ``mrr`` and ``iteration``, as SetExpan's.

    Args:
        k: entities of a complete list.
        draws: queries for class names a pattern.
        mentions: whose nearness counts, k in the paper; an entity with fewer has no say and is not taken.
        margin: places between the positive name and a negative one.
        least: queries that must give a name for it to be ranked.
        pool: globally nearest entities whose mentions are compared; in a vocabulary of few thousand, fewer do
            better.
        iterations: at most.
        seed: of the draws.
    """

    k: int = Field(default=50, ge=1)
    draws: int = Field(default=6, ge=1)
    mentions: int = Field(default=5, ge=1)
    margin: int = Field(default=2, ge=0)
    least: int = Field(default=3, ge=1)
    pool: int = Field(default=500, ge=1)
    iterations: int = Field(default=20, ge=1)
    seed: int = Field(default=13, ge=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "k": (1, 500),
        "pool": (1, 10_000),
        "iterations": (1, 100),
    }
    unit: ClassVar[str] = "iterations"

    def cost(self, expansion: Expansion) -> int:
        """Return the iterations at most."""
        return self.asked(expansion.query).iterations

    def needs(self) -> tuple[str, ...]:
        """Name the masked language model with the states of all mentions."""
        return (PROBING,)

    def open(self, bundle: Bundle) -> Worker:
        """Load the masked language model, and map the states of all mentions.

        Raises:
            BundleError: the bundle was built without ``--class-names``.
        """
        from engine.stages.masked_lm import open_probing

        probing = open_probing(bundle)
        stop_words()  # now, not in the first query
        names, matching = bundle.vocabulary.names, matching_of(bundle)

        def run(own: CGExpan, expansions: list[Expansion]) -> list[Expansion]:
            return [own._expand(probing, names, matching, expansion) for expansion in expansions]

        return lambda expansions: by_settings(self, expansions, run)

    def _expand(
        self, probing: Probing, names: Sequence[str], matching: Matching, expansion: Expansion
    ) -> Expansion:
        asked, counts_N = expansion.query, probing.mentions.counts_N
        seeds = [seed for seed in asked.positive if seed >= 0 and counts_N[seed]]
        may_be = allowed(expansion, bool(seeds), matching)
        free_N = np.asarray(counts_N >= self.mentions)
        if may_be is not None:
            free_N = free_N & np.isin(np.arange(len(free_N)), may_be)
        free_N[[i for i in asked.kept_out if i >= 0]] = False
        grown = ClassGuided(self, probing, names, seeds, free_N)
        notes: tuple[str, ...] = ()
        if seeds:
            notes = grown.grow(asked, max(self.k, asked.wanted))
        has = np.isin(asked.positive, seeds)[:, None].astype(np.float32)
        ranking = grown.ranking().head(max(self.k, asked.wanted))
        return replace(
            expansion,
            ranking=ranking.with_evidence(**evidence_of(expansion.ranking, ranking.ids)),
            degraded=(
                *expansion.degraded,
                *unused(self.name, asked, "positive", asked.positive, has),
                *notes,
            ),
        )


@dataclass
class ClassGuided:
    """The growing set of one query.

    Args:
        stage: the settings.
        probing: the masked language model, and the mentions' states.
        names: of all entities, by id.
        seeds: the positive ones.
        free_N: the entities that may be taken.
    """

    stage: CGExpan
    probing: Probing
    names: Sequence[str]
    seeds: list[int]
    free_N: npt.NDArray[np.bool_]
    taken: list[tuple[int, float, int]] = field(default_factory=list)
    """Id, mean reciprocal rank and iteration of each entity, in order."""
    class_names: list[str] = field(default_factory=list)
    """The positive names so far, each once."""

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.stage.seed)
        self._negative: set[str] = set()
        self._dropped: set[int] = set()

    @property
    def members(self) -> list[int]:
        """The seeds and what was taken."""
        return self.seeds + [entity for entity, _, _ in self.taken]

    def grow(self, asked: Query, size: int) -> tuple[str, ...]:
        """Make iterations until the set is complete; return why it is not, if no class has a name."""
        margin, stuck = self.stage.margin, 0
        size = min(size, int(self.free_N.sum()))
        for iteration in range(1, self.stage.iterations + 1):
            before = len(self.taken)
            if before >= size or (asked.deadline is not None and asked.deadline.remaining() <= 0):
                break
            counts = self.name_classes()
            if not any(count >= self.stage.least for count in counts.values()) and not self.class_names:
                return (f"{self.stage.name}: the model names no class of the seeds",)
            name = self.choose_names(counts, margin)
            self.taken += [(*found, iteration) for found in self.fitting(name)]
            self.filter(name, counts)
            if len(self.taken) > before:
                stuck = 0
                continue
            stuck += 1
            if stuck == 2:
                margin, stuck = margin + 1, 0
                self._dropped, self._negative = set(), set()
                if margin >= 10:
                    break
        return ()

    def ranking(self) -> Ranking:
        """Return what was taken, in order."""
        columns = list(zip(*self.taken, strict=True)) or [(), (), ()]
        mrr, step = (np.array(column, np.float32) for column in columns[1:])
        return Ranking(np.array(columns[0], np.int32), mrr - (step - 1), {"mrr": mrr, "iteration": step})

    def name_classes(self) -> Counter[str]:
        """Return the class names that the model gives the set, and how many queries gave each.

        A name of two words is given by no more queries than its second word. Where these are too few for the
        longer name to be ranked or to drop an entity, it is not asked for, and not counted.
        """
        drawn = [
            (pattern, self._drawn(3)) for _ in range(self.stage.draws) for pattern in range(len(PATTERNS))
        ]
        first = self.probing.model.best([query(p, MASK, some) for p, some in drawn], 3)
        knows = self.probing.model.knows
        heads = [list(dict.fromkeys(filter(None, (head_noun(t, knows) for t in own)))) for own in first]
        given = Counter(head for own in heads for head in own)
        least = min(self.stage.least, self.stage.draws)
        asked = [(i, head) for i, own in enumerate(heads) for head in own if given[head] >= least]
        texts = [query(drawn[i][0], f"{MASK} {head}", drawn[i][1]) for i, head in asked]
        longer: list[set[str]] = [set(own) for own in heads]
        for (i, head), tokens in zip(asked, self.probing.model.best(texts, 3) if texts else [], strict=True):
            longer[i] |= {f"{word} {head}" for word in tokens if is_modifier(word, head)}
        return Counter(name for own in longer for name in sorted(own))

    def choose_names(self, counts: Counter[str], margin: int) -> str:
        """Return the positive name, and keep the negative ones."""
        stage = self.stage
        given = [name for name, count in counts.items() if count >= stage.least]
        names = sorted(given, key=lambda name: (-counts[name], name))
        names += [name for name in self.class_names if name not in names]
        heard = [seed for seed in self.seeds if self.probing.mentions.counts_N[seed] >= stage.mentions]
        members = heard + [entity for entity, _, _ in self.taken]
        nearness_EC = self._nearness(names, members)
        eligible = often(counts, stage.draws * len(PATTERNS), 5 / 6) | set(self.class_names)
        positive = positive_name(names, nearness_EC, eligible & set(names) or set(names))
        if positive not in self.class_names:
            self.class_names.append(positive)
        self._negative |= negative_names(names, nearness_EC[: len(heard)], positive, margin)
        self._negative.discard(positive)
        return positive

    def fitting(self, name: str) -> list[tuple[int, float]]:
        """Return the entities to take next, and their mean reciprocal ranks, best first."""
        members, means_ND = np.array(self.members), self.probing.means_ND
        texts = [self._entity_query(p, name) for _ in range(3) for p in range(len(PATTERNS))]
        states_TD = self.probing.model.states(texts)
        free_N = self.free_N.copy()
        free_N[[*members, *self._dropped]] = False
        pools: list[tuple[Ids, npt.NDArray[np.float64]]] = []
        for _ in texts:
            some = self._random.choice(members, min(3, len(members)), replace=False)
            near_N = (means_ND @ means_ND[some].T).mean(axis=1).astype(np.float64)
            nearest = np.argsort(-near_N, kind="stable")[: self.stage.pool]
            pool = nearest[free_N[nearest]].astype(np.int32)
            pools.append((pool, near_N[pool]))
        # The pools are much the same: every entity's mentions are read once.
        every = np.unique(np.concatenate([pool for pool, _ in pools]))
        local_TE = self.probing.mentions.nearness(states_TD, every.tolist(), self.stage.mentions)
        sums: defaultdict[int, float] = defaultdict(float)
        for local_E, (pool, near) in zip(local_TE, pools, strict=True):
            local = np.maximum(local_E[np.searchsorted(every, pool)], FEW)
            scores = 5 * np.log(local) + np.log(np.maximum(near, FEW))
            for rank, place in enumerate(np.argsort(-scores, kind="stable")[:20], 1):
                sums[int(pool[place])] += 1 / rank
        ranked = sorted(sums, key=lambda entity: (-round(sums[entity], 12), entity))
        good = sum(sums[entity] >= len(texts) / 5 for entity in ranked)
        return [(entity, sums[entity] / len(texts)) for entity in ranked[: max(5, good)]]

    def filter(self, name: str, counts: Counter[str]) -> None:
        """Drop what is nearer to another class, and what is a class name itself."""
        ids = [entity for entity, _, _ in self.taken]
        if not ids:
            return
        wrong = np.zeros(len(ids), bool)
        if self._negative:
            names = [name, *sorted(self._negative)]
            near = self.probing.mentions.nearness(self._states_of(names), ids, self.stage.mentions)
            wrong = of_other_classes(near.reshape(len(names), -1, len(ids)).transpose(1, 0, 2))
        classes = {one for one, count in counts.items() if count >= self.stage.draws}
        classes |= {plural(one) for one in classes}
        wrong |= np.array([spoken(self.names[entity]) in classes for entity in ids])
        self._dropped |= {entity for entity, bad in zip(ids, wrong, strict=True) if bad}
        self.taken = [row for row, bad in zip(self.taken, wrong, strict=True) if not bad]

    def _drawn(self, n: int) -> list[str]:
        members = self.members
        places = self._random.choice(len(members), min(n, len(members)), replace=False)
        return [spoken(self.names[members[place]]) for place in places]

    def _entity_query(self, pattern: int, name: str) -> Masked:
        """Return a query with a mask at a random place among three entities of the set."""
        names = [MASK, *self._drawn(3)]
        return query(pattern, name, [names[i] for i in self._random.permutation(len(names))])

    def _states_of(self, names: Sequence[str]) -> Vectors:
        """Return the states at an entity's mask under class names, one a pattern of each, [6 C, D]."""
        return np.concatenate([self.probing.class_states(name) for name in names])

    def _nearness(self, names: Sequence[str], entities: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return the nearness of class names to entities, by the best pattern at each mention, [E, C].

        The entities have ``mentions`` mentions at least.
        """
        states, k = self._states_of(names), self.stage.mentions
        return self.probing.mentions.nearness(states, entities, k, together=len(PATTERNS)).T
