"""Tell how a run went: a table for people, and a line of JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from cluster.crashing.checker import INVARIANTS, Violation, lag_of
from cluster.crashing.events import Answered, Ended, Expanded, Log, Pointed, Struck, Trained

WINDOW_S = 300.0
SHOWN = 10


def answered_share(answers: Sequence[Answered], window_s: float = WINDOW_S) -> float:
    """Return the share of requests that were answered in the worst window; 1 where none was sent."""
    sent: Counter[int] = Counter()
    got: Counter[int] = Counter()
    for one in answers:
        sent[int(one.sent / window_s)] += 1
        got[int(one.sent / window_s)] += one.body is not None
    return min((got[window] / n for window, n in sent.items()), default=1.0)


def lines(log: Log, violations: Sequence[Violation], seed: int, seconds: float) -> Iterator[str]:
    """Yield the lines of the report, the JSON last."""
    answers, pointed = log.of(Answered), log.of(Pointed)
    tables, trainings, ended = log.of(Expanded), log.of(Trained), log.of(Ended)
    struck = log.of(Struck)
    died = Counter(one.kind for one in struck if one.victim)
    killed = Counter(one.command for one in ended if one.killed)
    done = Counter(one.command for one in ended if not one.killed)
    longest = max((one.at - one.sent for one in answers), default=0.0)
    lag = max((lag_of(one, pointed) for one in answers), default=0.0)
    again = sum(one.tries > 1 for one in answers)
    lost, made = (sum(getattr(one, name) for one in tables) for name in ("lost", "again"))
    resumed = [one.resumed_at for one in trainings if one.resumed_at]
    share = answered_share(answers)
    yield f"seed {seed}, {seconds:g} s, {sum(died.values())} faults"
    yield f"  faults       {_told(died)}; {sum(not one.victim for one in struck)} met nothing of their kind"
    yield (
        f"  requests     {len(answers)}, answered {share:.2%} in the worst 5 minutes, {again} asked again, "
        f"longest {longest:.1f} s, oldest bundle {lag:.1f} s after its end"
    )
    yield f"  publisher    {len(pointed)} bundles became current, {killed['publisher']} commands killed"
    yield (
        f"  tables       {len(tables)} expanded, {killed['batch']} commands killed, rows lost {lost}, "
        f"made again {made}"
    )
    yield (
        f"  trainings    {len(trainings)} ended, {killed['training']} stopped; {len(resumed)} went on from "
        f"a checkpoint {resumed}"
    )
    for one in violations[:SHOWN]:
        yield f"VIOLATED {one.invariant} ({INVARIANTS[one.invariant]}) at {one.at:.1f} s: {one.detail}"
    if len(violations) > SHOWN:
        yield f"VIOLATED {len(violations)} times in all"
    figures = {
        "name": "crasher",
        "seed": seed,
        "seconds": seconds,
        "faults": dict(died),
        "requests": len(answers),
        "answered_share": round(share, 5),
        "asked_again": again,
        "longest_s": round(longest, 2),
        "oldest_bundle_s": round(lag, 2),
        "bundles": len(pointed),
        "tables": len(tables),
        "rows_lost": lost,
        "rows_again": made,
        "trainings": len(trainings),
        "resumed": len(resumed),
        "ended": dict(done),
        "violated": dict(Counter(one.invariant for one in violations)),
        "first_violated": violations[0].invariant if violations else None,
        "holds": not violations,
    }
    yield json.dumps(figures)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "none"
