"""Say what is measured of a workspace's queries: classes, numbers of sentences, protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from engine.catalogue.opening import open_catalogue
from engine.catalogue.sentences import SENTENCES
from engine.errors import StorageError, UnknownAttributeError, UserError
from engine.evaluation.cells import Measuring
from engine.evaluation.measuring import Measures, classes_of
from engine.evaluation.metrics import Protocol
from engine.plugins import find_method, installed, is_ours
from engine.queries.formats import QuerySet
from engine.queries.stored import StoredResults
from engine.storage.bundle import Bundle
from engine.storage.parts import content_key
from engine.storage.store import machine_cache
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary
from jobs.steps.query_options import with_checked_options

CLASS = "class"
"""The attribute that names an entity's fine-grained class, as UltraWiki's attributes.json is imported."""


TOLD = ("entities.parquet", SENTENCES)
"""Files of a bundle of which answers that are there are measured: names, attributes, sentences."""

CELLS = "cells"
"""The folder of a workspace's runs with every measured cell (:mod:`engine.evaluation.cells`)."""


def measuring(
    workspace: Workspace,
    bundle: Bundle,
    queries: QuerySet,
    protocol: Protocol = "seedset",
    negative_seeds: int | None = None,
) -> Measuring:
    """Return what is measured: besides the papers' columns the fine-grained class and the long tail.

    The entities of a class are those that its queries name and those with its name in their attribute
    "class": give all queries, also where only some of them are measured. Sentences are counted in the corpus,
    if it is there and has the bundle's entities.
    """
    sentences = sentence_counts(workspace, bundle)
    classes = fine_classes(bundle, queries)
    digest = content_key(
        json.dumps({label: sorted(classes[label]) for label in sorted(classes)}),
        b"" if sentences is None else sentences.tobytes(),
    )
    return Measuring(Measures(protocol, negative_seeds, classes, sentences), digest)


def named_results(results: Sequence[StoredResults], methods: Iterable[str]) -> dict[str, StoredResults]:
    """Return results by names that no two share: the method's, or with the folder's where that is taken."""
    found: dict[str, StoredResults] = {}
    taken = set(methods)
    for one in results:
        name, number = one.run.method, 1
        while name in taken:
            name = f"{one.run.method} ({one}{f', {number}' if number > 1 else ''})"
            number += 1
        taken.add(name)
        found[name] = one
    return found


def asked_of_results(queries: QuerySet, results: StoredResults) -> QuerySet:
    """Return the queries as the method of some results read them: its settings that they change, checked.

    Raises:
        UserError: the method is of a module that is not ours nor of an installed package. None is imported
            because a folder of results names it.
    """
    if not any(labelled.query.options for labelled in queries.queries):
        return queries
    method = results.run.method
    if not is_ours(method) and method not in installed():
        raise UserError(
            f"{results.folder.folder.uri}: made by {method}, whose module would have to be imported to check "
            f"the `options` of the queries; measure with --method {method}"
        )
    return with_checked_options(queries, find_method(method))


def fine_classes(bundle: Bundle, queries: QuerySet) -> dict[str, frozenset[int]]:
    """Return the entities of each fine-grained class of the queries."""
    catalogue = open_catalogue(bundle)
    found = classes_of(queries.queries)
    for label in found:
        try:
            found[label] |= set(catalogue.matching(((CLASS, (label,)),), lambda: False).tolist())
        except UnknownAttributeError:
            continue
    return found


def sentence_counts(workspace: Workspace, bundle: Bundle) -> npt.NDArray[np.int64] | None:
    """Return how many sentences each entity has, int64 [N]; None: the workspace's corpus has others."""
    try:
        parts = workspace.mentions()
        corpus = Vocabulary.read(workspace.entities.local_copy(machine_cache()))
    except StorageError:
        return None
    if corpus.names != bundle.vocabulary.names:
        return None
    counts = np.zeros(len(corpus.names), np.int64)
    for part in parts:
        with part.open_input() as stream:
            for batch in pq.ParquetFile(stream).iter_batches(columns=["entity_id", "end"]):
                told = batch["entity_id"].to_numpy()[batch["end"].to_numpy() > 0]  # others are images alone
                counts += np.bincount(told, minlength=len(counts))
    return counts
