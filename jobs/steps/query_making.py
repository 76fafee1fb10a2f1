"""Read fine classes from a corpus, and show what the queries that are made of them are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.evaluation.plots import available, heat_map
from engine.evaluation.report import markdown_table
from engine.queries.making.definitions import FineClass, UltraFineClass
from engine.queries.making.statistics import similarities
from engine.retrieval.index import index_file
from engine.retrieval.opening import open_index
from engine.storage.bundle import Bundle
from engine.storage.parts import content_key
from engine.storage.store import machine_cache
from engine.storage.workspace import Workspace

VIEW = "mask"
"""The view whose vectors the map compares."""

SHOWN_CLASSES = 80
"""Classes of the map; of more, some of each fine class (figure 4)."""


def fine_classes(
    workspace: Workspace, class_attribute: str, wanted: Sequence[str], attributes: Sequence[str]
) -> tuple[list[str], list[FineClass]]:
    """Return the names of a corpus' entities, and its fine classes, sorted by name.

    Args:
        workspace: with the corpus.
        class_attribute: whose values are the classes; where no entity has it, all are one class, "all".
        wanted: names of classes; none: all.
        attributes: that define classes; none: all others.

    Raises:
        UserError: the entities have no attributes, or what is wanted is not there.
    """
    table = pq.read_table(workspace.entities.local_copy(machine_cache()), columns=["name", "attributes"])
    own = [
        {name: list(values or ()) for name, values in some or ()} for some in table["attributes"].to_pylist()
    ]
    known = sorted({name for one in own for name in one})
    others = [name for name in known if name != class_attribute]
    _check(attributes, others, "--attribute")
    if not others:
        raise UserError(f"{workspace.root.uri}: its entities have no attributes to define classes by")
    kept = set(attributes or others)
    members: dict[str, list[int]] = {}
    for entity, one in enumerate(own):
        for label in one.get(class_attribute, ()) if class_attribute in known else ("all",):
            members.setdefault(label, []).append(entity)
    _check(wanted, sorted(members), "--fine-class")
    found = [
        FineClass(
            label,
            entities,
            [{name: values for name, values in own[i].items() if name in kept} for i in entities],
        )
        for label, entities in sorted(members.items())
        if not wanted or label in wanted
    ]
    return table["name"].to_pylist(), found


def _check(wanted: Sequence[str], there: Sequence[str], option: str) -> None:
    if missing := [name for name in wanted if name not in there]:
        has = ", ".join(there[:20]) or "none"
        raise UserError(f"{option} {missing[0]}: not in this corpus; it has {has}")


def random_of(seed: int, name: str) -> Random:
    """Return the random numbers of a fine class, which no other class changes."""
    return Random(content_key(str(seed), name))


def similarity_map(bundle: Bundle | None, made: Sequence[UltraFineClass]) -> bytes | None:
    """Return the map of how alike classes are, as PNG; None where there are no vectors or no matplotlib."""
    if bundle is None or index_file(VIEW) not in bundle.manifest.files or not available():
        return None
    step = max(1, -(-len(made) // SHOWN_CLASSES))
    shown = sorted(made[::step], key=lambda one: one.fine)
    vectors_ND = np.asarray(open_index(bundle, VIEW).vectors_of(range(len(bundle.vocabulary))))
    groups = [one.fine for one in shown]
    return heat_map("Cosine of classes' mean vectors", similarities(shown, vectors_ND), groups)


def statistics_page(found: Mapping[str, Any]) -> str:
    """Return the statistics for people."""
    seeds = found["seeds"]
    overall = [
        ("fine classes", found["fine_classes"]),
        ("ultra-fine classes", found["ultra_fine_classes"]),
        ("queries", found["queries"]),
        ("positive entities of a class (P), mean", found["positive_entities"]),
        ("negative entities of a class (N), mean", found["negative_entities"]),
        ("positive seeds of a query", "-".join(map(str, seeds.get("pos", ())))),
        ("negative seeds of a query", "-".join(map(str, seeds.get("neg", ())))),
        ("true answers of a query, mean", found["truth"]["pos"]),
        ("classes with the same positive and negative attributes", found["same_attributes"]),
        ("share of classes that share positive entities with another", found["intersecting"]),
        (
            "positive entities that two classes of a fine class share, of all (Jaccard), mean",
            found["overlap"],
        ),
    ]
    if sizes := found.get("vocabulary"):
        overall += [
            ("entities of the vocabulary", sizes["entities"]),
            ("of them hard negatives, by BM25", sizes["hard_negatives"]),
            ("entities of no class, which these are chosen from", sizes["pool"]),
        ]
    lines = ["# Queries", "", *markdown_table(["", "number"], [[a, str(b)] for a, b in overall]), ""]
    counts = [[pair, str(number)] for pair, number in found["attribute_counts"].items()]
    lines += ["## By numbers of attributes", ""]
    lines += [*markdown_table(["positive, negative", "ultra-fine classes"], counts), ""]
    rows = [
        [
            one["class"],
            str(one["entities"]),
            str(one["ultra_fine_classes"]),
            ", ".join(one["attributes"]),
        ]
        for one in found["by_fine_class"]
    ]
    lines += ["## Fine classes", ""]
    lines += [*markdown_table(["class", "entities", "ultra-fine classes", "attributes"], rows), ""]
    if "agreement" in found:
        kappas = [
            [name, str(one["items"]), str(one["annotators"]), f"{one['kappa']:.3f}"]
            for name, one in found["agreement"].items()
        ]
        lines += ["## Agreement of annotators", ""]
        lines += [*markdown_table(["attribute", "entities", "annotators", "Fleiss' kappa"], kappas), ""]
    return "\n".join(lines)
