"""Tell how far curators of a set agree: on what several of them judged, by the last judgement of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from engine.queries.making.statistics import cohen_kappa, fleiss_kappa
from serve.sets.events import JUDGE, Event, Json, cancelled, judged, members_of

MAX_CURATORS = 12
"""Curators that are compared with each other: those who judged most of what others judged, too."""

Accepted = Mapping[str, Mapping[str, bool]]
"""Whether it is accepted, by entity name, then by curator."""

SET = ""
"""In the place of a curator: what the set says."""


@dataclass(frozen=True)
class Judgement:
    """What a curator said of an entity last, with the event that holds it."""

    accepted: bool
    event: Event


def judgements(events: Sequence[Event]) -> tuple[dict[str, dict[str, Judgement]], int]:
    """Return the judgements in force by entity and curator, and how many came without a curator's name.

    Events that were undone do not count, a curator's later judgement takes the place of the earlier, and one
    that a curator takes back is none; another's stays.
    """
    undone, unnamed = cancelled(events), 0
    found: dict[str, dict[str, Judgement]] = {}
    for event in events:
        if event.kind != JUDGE or event.version in undone:
            continue
        for name, member in members_of(event).items():
            if not event.by:
                unnamed += member is not None
            elif member is None:
                found.get(name, {}).pop(event.by, None)
            else:
                found.setdefault(name, {})[event.by] = Judgement(member.accepted, event)
    return {name: by for name, by in found.items() if by}, unnamed


def agreement(events: Sequence[Event], curator: str, limit: int) -> Json:
    """Return how far the curators of a set agree, and where they do not.

    Args:
        events: of the set, all of them in order.
        curator: whose second opinion is wanted; "": nobody's.
        limit: entities that are listed at most.
    """
    said, unnamed = judgements(events)
    accepted = {name: {who: one.accepted for who, one in by.items()} for name, by in said.items()}
    shared = {name: by for name, by in accepted.items() if len(by) > 1}
    many = Counter(who for by in said.values() for who in by)
    common = Counter(who for by in shared.values() for who in by)
    split = _split(shared)
    split.sort(key=lambda name: -max(one.event.version for one in said[name].values()))
    undone = cancelled(events)
    stands = judged(event for event in events if event.version not in undone)
    unseen = [name for name in stands if curator and curator not in said.get(name, {})]
    return {
        "curators": [
            {"name": who, "judged": many[who], "shared": common[who]}
            for who in sorted(many, key=lambda who: (-many[who], who))
        ],
        "unnamed": unnamed,
        **_figures(shared, len(split)),
        "disagreements": [
            {"name": name, "stands": _word(stands.get(name)), "judgements": _told(said[name])}
            for name in split[:limit]
        ],
        "to_judge": unseen[:limit],
        "left_to_judge": len(unseen),
    }


def compared(said: Accepted, stands: Mapping[str, bool], limit: int) -> Json:
    """Return how far reviews agree with each other, and each with the set that they are of.

    Args:
        said: by entity and curator.
        stands: what the set said of each entity when the reviews began.
        limit: entities that are listed at most of those on which the reviews do not agree.
    """
    shared = {name: by for name, by in said.items() if len(by) > 1}
    split = sorted(_split(shared))
    beside = {name: {**by, SET: stands[name]} for name, by in said.items()}
    curators = sorted({who for by in said.values() for who in by})
    return {
        **_figures(shared, len(split)),
        "with_set": [{**one, "curators": [who]} for who in curators if (one := _pair(beside, who, SET))],
        "disagreements": [
            {"name": name, "accepted_by": _who(shared[name], True), "rejected_by": _who(shared[name], False)}
            for name in split[:limit]
        ],
    }


def _split(shared: Accepted) -> list[str]:
    """Return the entities on which curators do not agree."""
    return [name for name, by in shared.items() if len(set(by.values())) > 1]


def _who(by: Mapping[str, bool], accepted: bool) -> list[str]:
    return sorted(who for who, one in by.items() if one is accepted)


def _figures(shared: Accepted, split: int) -> Json:
    """Return how often curators agree on what several of them judged, and their kappas."""
    common = Counter(who for by in shared.values() for who in by)
    most = sorted(common, key=lambda who: (-common[who], who))[:MAX_CURATORS]
    return {
        "shared": len(shared),
        "agreed": len(shared) - split,
        "pairs": [one for pair in combinations(most, 2) if (one := _pair(shared, *pair))],
        "together": _together(shared, most),
    }


def _pair(shared: Accepted, first: str, second: str) -> Json | None:
    """Return the agreement of two curators on what both judged; None: there is nothing of the kind."""
    counts_CC = np.zeros((2, 2), np.int64)
    for by in shared.values():
        if first in by and second in by:
            counts_CC[int(by[first]), int(by[second])] += 1
    both, agreed = int(counts_CC.sum()), int(np.trace(counts_CC))
    if not both:
        return None
    kappa = round(cohen_kappa(counts_CC), 4)
    return {"curators": [first, second], "judged": both, "agreed": agreed, "kappa": kappa}


def _together(shared: Accepted, curators: Sequence[str]) -> Json | None:
    """Return the agreement of three or more curators on what all of them judged; None: there is none."""
    rows = [[by[who] for who in curators] for by in shared.values() if by.keys() >= set(curators)]
    if len(curators) < 3 or not rows:
        return None
    accepted_I = np.array(rows, np.int64).sum(axis=1)
    counts_IC = np.stack([accepted_I, len(curators) - accepted_I], axis=1)
    agreed = int((counts_IC.max(axis=1) == len(curators)).sum())
    kappa = round(fleiss_kappa(counts_IC), 4)
    return {"curators": list(curators), "judged": len(rows), "agreed": agreed, "kappa": kappa}


def _told(by: Mapping[str, Judgement]) -> list[Json]:
    """Return an entity's judgements, oldest first."""
    ordered = sorted(by.items(), key=lambda item: item[1].event.version)
    return [
        {
            **{"by": who, "accepted": one.accepted},
            **{"at": one.event.at, "note": one.event.note, "version": one.event.version},
        }
        for who, one in ordered
    ]


def _word(member: Any) -> str:
    return "" if member is None else "accepted" if member.accepted else "rejected"
