"""Build the lexical view in parts, with no text of the whole corpus in one process.

1. Each mentions part, and descriptions some at a time, are counted: how often an entity has which term. That
   is kept by content, so that of a corpus that has grown only what is new is read.
2. Ranges of terms are added up over all parts and weighed: columns of a sparse matrix, on disk.
3. The matrix is read a few times, range by range, and reduced to a few dimensions.

**Size.** 10 million sentences of 20 words, of 200,000 entities: 1,200 parts of about 4 MB (16 B for each term
of each entity in a part), 5 GB; a range has 4 million of these, 64 MB, and 300 MB while it is sorted; about
140 million weights, 1.1 GB on disk. The reduction keeps three matrices of 522 float32 an entity on this
machine's disk, 1.3 GB, and some columns of two of them in memory; of sentences the driver maps files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pydantic import BaseModel
from safetensors.numpy import load_file, save_file

from engine.corpus.blocks.format import read_descriptions
from engine.corpus.schema import CorpusManifest, check_same_corpus, part_digests, read_manifest
from engine.corpus.terms import PartTerms, description_terms, mention_terms, repeated
from engine.retrieval.index import Vectors
from engine.retrieval.latent_semantics import latent_vectors
from engine.retrieval.lexical import (
    TERM_COUNTS,
    TermCounts,
    TermWeights,
    add_up,
    ends_by_range,
    pairs_between,
    weigh,
)
from engine.storage.parts import MANIFEST, PartFolder, check_whole, content_key, numbered, write_model
from engine.storage.store import Store, machine_cache
from engine.storage.whole import fault_of
from engine.storage.workspace import Workspace
from engine.text.hashes import Hashes, of_range
from jobs.workers.executor import Executor, make_parts

ANY_TERMS, ANY_WEIGHTS = "terms-", "lexical-"
"""Begin of the names of folders of counts and of weights, of any version."""
TERMS = f"{ANY_TERMS}1"
"""Folder of counts; the number is changed with what a word is, or how it is counted."""
WEIGHTS = f"{ANY_WEIGHTS}1-"
"""Begin of the names of folders of weights, before the digest of what they are made from; the number is
changed with how they are weighed."""
TOGETHER = 2048
"""Descriptions of a part."""
RANGE = 1 << 22
"""Counts that a range of terms has, about."""
BETWEEN = "between-"
"""Begin of the names of files with the pairs of words of two parts, beside the weights."""


class LexicalView(NamedTuple):
    """The vectors [N, D], and how many entities have texts, but no vector."""

    vectors: Vectors
    wordless: int


class TermsManifest(BaseModel):
    """What the counts are that the last view was made of, and its weights: the rest can go."""

    parts: list[str]
    weights: str


def lexical_view(workspace: Workspace, executor: Executor) -> LexicalView:
    """Return the lexical view of all entities, of their descriptions and sentences.

    Args:
        workspace: with the corpus, and whose cache keeps the counts.
        executor: where texts are counted and terms weighed.
    """
    counted = _count(workspace, executor)
    if not counted.n_entities:
        return LexicalView(np.zeros((0, 1), np.float32), 0)
    key = content_key(*counted.names, str(counted.n_entities))
    weights = _weigh(workspace, counted, key, executor)
    parts = [*dict.fromkeys([*counted.names, *counted.replaced])]
    write_model(_counts(workspace).folder / MANIFEST, TermsManifest(parts=parts, weights=key))
    vectors = latent_vectors(weights, counted.n_entities)
    has_text = weights.has_text_N
    return LexicalView(vectors, int((has_text & ~vectors.any(axis=1)).sum()))


@dataclass(frozen=True)
class _Counted:
    """The counts of a corpus: names of parts in order, and of those that others have taken the place of."""

    names: list[str]
    replaced: list[str]
    n_entities: int
    rows: int


class DescriptionsTask(NamedTuple):
    """The descriptions of a part: of entities from the first on."""

    name: str
    first: int
    texts: list[str]


class MentionsTask(NamedTuple):
    """A mentions part by its number, and the sentences that an earlier one has, too."""

    name: str
    part: int
    left_out: Hashes


def _count(workspace: Workspace, executor: Executor) -> _Counted:
    corpus, texts = read_manifest(workspace), read_descriptions(workspace)
    parts, address = _counts(workspace), (workspace.root.uri,)
    described = {}
    for first in range(0, len(texts), TOGETHER):
        some = texts[first : first + TOGETHER]
        name = content_key("descriptions", str(first), *some)
        described[name] = DescriptionsTask(name, first, some)
    of_descriptions = make_parts(
        parts,
        described,
        DescriptionTermsWorker,
        address,
        executor,
        "lexical view, descriptions",
        size=lambda task: len(task.texts),
    )
    digests = part_digests(workspace)
    nothing = np.empty(0, np.uint64)
    tasks = [_mentions_task(part, digest, nothing) for part, digest in enumerate(digests)]
    rows = _count_mentions(workspace, corpus, tasks, executor)
    again = repeated([_read(parts, task.name, ".sentences.npy") for task in tasks])
    replaced = [tasks[part].name for part in again]
    if again:
        for part, left_out in again.items():
            tasks[part] = _mentions_task(part, digests[part], left_out)
        rows |= _count_mentions(workspace, corpus, [tasks[part] for part in again], executor)
    names = [*described, *(task.name for task in tasks)]
    rows |= of_descriptions.parts
    return _Counted(names, replaced, len(texts), sum(rows[name] for name in names))


def _mentions_task(part: int, digest: str, left_out: Hashes) -> MentionsTask:
    return MentionsTask(content_key("mentions", digest, left_out.tobytes()), part, left_out)


def _count_mentions(
    workspace: Workspace, corpus: CorpusManifest, tasks: Sequence[MentionsTask], executor: Executor
) -> dict[str, int]:
    made = make_parts(
        _counts(workspace),
        {task.name: task for task in tasks},
        MentionTermsWorker,
        (workspace.root.uri,),
        executor,
        "lexical view, mentions",
        size=lambda task: corpus.parts[task.part],
        check=lambda: check_same_corpus(workspace, corpus.digest),
    )
    return made.parts


def _counts(workspace: Workspace) -> PartFolder[int]:
    """Return the parts of counts; of each is known how many it has."""
    suffixes = (".sentences.npy", ".ends.npy", ".terms.npy")
    return PartFolder(workspace.cache(TERMS), suffixes, _rows_in, fault_of)


def _rows_in(file: Store) -> int:
    check_whole(file)
    return file.size() // TERM_COUNTS.itemsize  # the header has less than 10 rows


def _read(parts: PartFolder[int], name: str, suffix: str) -> npt.NDArray[Any]:
    """Map a file of a part; as a plain array, whose slices are quicker than a memmap's."""
    path = parts.file(name, suffix).local_copy(machine_cache())
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _write_counts(parts: PartFolder[int], name: str, found: PartTerms) -> int:
    for suffix, array in zip(parts.suffixes, (found.sentences, found.ends, found.counts), strict=True):
        with parts.writing(name, suffix) as path, Path(path).open("wb") as file:
            np.save(file, array, allow_pickle=False)
    return _rows_in(parts.file(name))


class DescriptionTermsWorker:
    """A worker that counts the terms of descriptions.

    Args:
        workspace: its address.
    """

    def __init__(self, workspace: str) -> None:
        self._parts = _counts(Workspace.open(workspace))

    def __call__(self, task: DescriptionsTask) -> int:
        """Write a part and return how many counts it has."""
        return _write_counts(self._parts, task.name, description_terms(task.first, task.texts))


class MentionTermsWorker:
    """A worker that counts the terms of a mentions part.

    Args:
        workspace: its address.
    """

    def __init__(self, workspace: str) -> None:
        place = Workspace.open(workspace)
        self._parts, self._mentions = _counts(place), place.mentions()

    def __call__(self, task: MentionsTask) -> int:
        """Write a part and return how many counts it has."""
        with self._mentions[task.part].open_input() as stream:
            mentions = pq.read_table(stream, columns=["entity_id", "sentence"])
        return _write_counts(self._parts, task.name, mention_terms(mentions, task.left_out))


@dataclass(frozen=True)
class _Weights:
    """Weights of ranges of terms on disk, see :data:`engine.retrieval.latent_semantics.Blocks`."""

    files: list[Store]
    has_text_N: npt.NDArray[np.bool_]
    """Whether an entity has a text, with or without a word that is weighed."""

    def __call__(self) -> Iterator[TermWeights]:
        for file in self.files:
            yield TermWeights(**load_file(file.local_copy(machine_cache())))


def _weigh(workspace: Workspace, counted: _Counted, key: str, executor: Executor) -> _Weights:
    parts = _weights(workspace, key)
    has_text_N, between = np.zeros(counted.n_entities, bool), list[str]()
    ends_of_parts = [_read(_counts(workspace), name, ".ends.npy") for name in counted.names]
    for ends in ends_by_range(ends_of_parts, counted.n_entities):
        has_text_N[ends["entity"]] = True
        between.append(f"{BETWEEN}{len(between)}.npy")
        with (parts.folder / between[-1]).writing() as path, Path(path).open("wb") as file:
            np.save(file, pairs_between(ends), allow_pickle=False)
    bits = max(0, (counted.rows // RANGE).bit_length())
    tasks = {numbered(place): place for place in range(1 << bits)}
    arguments = (workspace.root.uri, counted.names, key, between, bits, counted.n_entities)
    make_parts(parts, tasks, TermWeightsWorker, arguments, executor, "lexical view, ranges of terms")
    return _Weights([parts.file(name) for name in tasks], has_text_N)


def _weights(workspace: Workspace, key: str) -> PartFolder[None]:
    return PartFolder(workspace.cache(f"{WEIGHTS}{key}"), (".safetensors",), check_whole)


class TermWeightsWorker:
    """A worker that adds up the counts of a range of terms, and weighs them.

    Args:
        workspace: its address.
        names: of the parts with counts.
        key: of the weights.
        between: names of the files with pairs of words of two parts, beside the weights.
        bits: of a term that say its range, the highest ones.
        n_entities: of the vocabulary.
    """

    def __init__(
        self,
        workspace: str,
        names: Sequence[str],
        key: str,
        between: Sequence[str],
        bits: int,
        n_entities: int,
    ) -> None:
        place = Workspace.open(workspace)
        counts, self._weights = _counts(place), _weights(place, key)
        self._files = [
            *(counts.file(name) for name in names),
            *(self._weights.folder / name for name in between),
        ]
        self._bits, self._n_entities = bits, n_entities

    def __call__(self, place: int) -> None:
        """Write the weights of a range."""
        rows = np.concatenate([self._rows(file, place) for file in self._files])
        counts = add_up(rows["term"], rows["entity"], rows["count"])
        with self._weights.writing(numbered(place)) as path:
            save_file(weigh(counts, self._n_entities)._asdict(), path)

    def _rows(self, file: Store, place: int) -> TermCounts:
        """Return the counts of a range in a part, which alone are read."""
        counts = np.load(file.local_copy(machine_cache()), mmap_mode="r", allow_pickle=False)
        return np.array(counts[of_range(counts["term"], place, self._bits)])
