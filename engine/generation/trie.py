"""Store the prefix trie of all names as flat arrays, so that one vector step serves all beams.

A node is stored only while at least two names share it; the first node that belongs to one name alone is
a leaf, and the rest of that name is read from the token table (the prefix tree of GenExpan's constrained
decoding). Every sequence must end alike ("." and a line break), so that none is the beginning of another.
Names that tokenise alike share a sequence, which then stands for both.

Shape letters: T tokens of all sequences, S sequences, E entities, M nodes; B nodes asked for, P their
children in all. Sizes stay below 2**31.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import FormatError, QueryError
from engine.query import Ids

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.int32]

HEADER = "trie.json"
FORMAT_VERSION = 1

MAX_TOKENS = 256
"""Tokens of a sequence: building takes memory in proportion to the longest."""


class Header(BaseModel):
    """The header of the arrays, in ``trie.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: int
    token_type: Literal["uint16", "int32"]
    tokens: int = Field(ge=0)
    sequences: int = Field(ge=0)
    entities: int = Field(ge=0)
    nodes: int = Field(ge=1)

    def form(self, name: str) -> tuple[np.dtype, tuple[int]]:
        """Return the type and shape that the array ``name`` must have."""
        size = {
            "tokens": self.tokens,
            "starts": self.sequences + 1,
            "entity_starts": self.sequences + 1,
            "node_token": self.nodes,
            "node_sequence": self.nodes,
            "first_child": self.nodes + 1,
        }.get(name, self.entities)
        return np.dtype(self.token_type if name in ("tokens", "node_token") else "int32"), (size,)


@dataclass(frozen=True, eq=False)
class Trie:
    """Distinct sequences in lexicographic order, their entities, and the nodes above them.

    Nodes are numbered breadth first: node 0 is the root, which is never a leaf, and the children of node
    i are the nodes ``first_child[i]:first_child[i + 1]``, by ascending token.

    Attributes:
        tokens: the sequences after one another, uint16 [T] (int32 if an id needs it).
        starts: where each sequence begins in ``tokens``, and the end, int32 [S + 1].
        entities: ids sequence by sequence, ascending within one, int32 [E].
        entity_starts: where each sequence's entities begin, and the end, int32 [S + 1].
        entity_ids: all ids, ascending, int32 [E].
        entity_sequence: the sequence of each of ``entity_ids``, int32 [E].
        node_token: the token that leads to a node, [M], of the type of ``tokens``; 0 at the root.
        first_child: int32 [M + 1]; a leaf's slice is empty.
        node_sequence: the first sequence below a node; a leaf's only one, int32 [M].
    """

    tokens: Tokens
    starts: npt.NDArray[np.int32]
    entities: Ids
    entity_starts: npt.NDArray[np.int32]
    entity_ids: Ids
    entity_sequence: npt.NDArray[np.int32]
    node_token: Tokens
    first_child: npt.NDArray[np.int32]
    node_sequence: npt.NDArray[np.int32]

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]], entities: Ids | None = None) -> Trie:
        """Build the trie of some token sequences.

        Args:
            sequences: one for each entity.
            entities: their ids, int32 [E]; by default 0, 1, 2, …

        Raises:
            FormatError: a sequence is empty, too long, or the beginning of another, or an entity comes
                twice; the entities are named.
        """
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        ids = np.arange(len(lengths), dtype=np.int32) if entities is None else entities.astype(np.int32)
        _check_lengths(lengths, ids)
        starts = _starts(lengths)
        tokens: Tokens = np.fromiter(chain.from_iterable(sequences), np.int32, int(starts[-1]))
        if tokens.max(initial=0) < 1 << 16:
            tokens = tokens.astype(np.uint16)
        rows = _sorted_rows(tokens, lengths, ids)
        tokens, starts, ids = *_take(tokens, starts, rows), ids[rows]
        common = _common(tokens, starts)
        first = _first_of_alike(np.diff(starts), common, ids)
        entity_starts = np.append(first, len(ids))
        return cls._assemble(*_take(tokens, starts, first), common[first], ids, entity_starts)

    @classmethod
    def _assemble(
        cls, tokens: Tokens, starts: Ints, common: Ints, entities: Ids, entity_starts: Ints
    ) -> Trie:
        """Assign numbers to the nodes above sorted distinct sequences.

        Sequence i starts a node on each level from ``common[i] + 1`` (it leaves the one before it) to
        the first on which it also differs from the one after it.
        """
        n = len(starts) - 1
        last = np.maximum(common, np.append(common[1:], 0)[:n]) + 1
        sequence = np.repeat(np.arange(n), last - common)
        level = 1 + _ranges(common, last - common)
        breadth_first = np.argsort(level.astype(np.uint16), kind="stable")
        sequence = np.concatenate([[0], sequence[breadth_first]])
        level = np.concatenate([[0], level[breadth_first]])
        node_token = np.zeros(len(level), tokens.dtype)
        node_token[1:] = tokens[starts[sequence[1:]] + level[1:] - 1]
        # A node's first child: the first node of the next level that begins at its sequence or later.
        place = level * max(n, 1) + sequence
        first_child = np.append(np.searchsorted(place, place + max(n, 1)), len(level))
        order = np.argsort(entities, kind="stable")
        entity_sequence = np.repeat(np.arange(n), np.diff(entity_starts))[order]
        return cls(
            tokens,
            starts.astype(np.int32),
            entities,
            entity_starts.astype(np.int32),
            entities[order],
            entity_sequence.astype(np.int32),
            node_token,
            first_child.astype(np.int32),
            sequence.astype(np.int32),
        )

    def restrict(self, entities: Ids) -> Trie:
        """Return the trie of some of the entities only; its leaves lie higher, their tails are longer.

        Raises:
            QueryError: an entity has no name in this trie.
        """
        ids = np.unique(entities).astype(np.int32)
        found = np.searchsorted(self.entity_ids, ids)
        known = found < self.n_entities
        known[known] = self.entity_ids[found[known]] == ids[known]
        if not known.all():
            raise QueryError(
                f"entity {ids[~known][0]} is not in the trie; build the trie again from this vocabulary"
            )
        sequence = self.entity_sequence[found]
        order = np.argsort(sequence, kind="stable")
        rows, first = np.unique(sequence[order], return_index=True)
        tokens, starts = _take(self.tokens, self.starts, rows)
        return self._assemble(tokens, starts, _common(tokens, starts), ids[order], np.append(first, len(ids)))

    def children(self, nodes: Ints) -> tuple[Ints, Ints, Ints]:
        """Return all children of some nodes, node by node, by ascending token.

        Args:
            nodes: int64 [B].

        Returns:
            For each child, int64 [P]: the place of its parent in ``nodes``, its node, its token.
        """
        first = self.first_child[nodes].astype(np.int64)
        counts = self.first_child[nodes + 1] - first
        child = _ranges(first, counts)
        return np.repeat(np.arange(len(nodes)), counts), child, self.node_token[child].astype(np.int64)

    def is_leaf(self, nodes: Ints) -> npt.NDArray[np.bool_]:
        """Return whether one sequence remains at each node, [B]: what follows is its tail."""
        return (self.first_child[nodes] == self.first_child[nodes + 1]) & (nodes > 0)

    def tail_length(self, leaves: Ints) -> Ints:
        """Return how many tokens follow after each leaf, int64 [B]; no choice is left among them."""
        return self.starts[self.node_sequence[leaves] + 1] - self._tail_start(leaves)

    def tail_token(self, leaves: Ints, offset: Ints) -> Ints:
        """Return the token at ``offset`` (int64 [B], below :meth:`tail_length`) of each tail, int64 [B]."""
        return self.tokens[self._tail_start(leaves) + offset].astype(np.int64)

    def entities_at(self, leaf: int) -> Ids:
        """Return the entities of a leaf, ascending: more than one where names tokenise alike."""
        sequence = self.node_sequence[leaf]
        return self.entities[self.entity_starts[sequence] : self.entity_starts[sequence + 1]]

    def __len__(self) -> int:
        return len(self.node_token)

    @property
    def n_entities(self) -> int:
        """Entities that can be reached."""
        return len(self.entities)

    @property
    def n_sequences(self) -> int:
        """Distinct sequences: fewer than entities where names tokenise alike."""
        return len(self.starts) - 1

    @cached_property
    def depth(self) -> int:
        """Tokens of the longest sequence."""
        return int(np.diff(self.starts).max(initial=0))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    @cached_property
    def level_starts(self) -> Ints:
        """The first node of each level, and the number of nodes."""
        starts = [0]
        while starts[-1] < len(self):
            starts.append(int(self.first_child[starts[-1]]))
        return np.array(starts)

    def _tail_start(self, leaves: Ints) -> Ints:
        level = np.searchsorted(self.level_starts, leaves, side="right") - 1
        return self.starts[self.node_sequence[leaves]] + level

    def save(self, folder: Path) -> None:
        """Write one npy file an array, and ``trie.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)
        header = Header(
            format_version=FORMAT_VERSION,
            token_type="uint16" if self.tokens.dtype == np.uint16 else "int32",
            tokens=len(self.tokens),
            sequences=self.n_sequences,
            entities=self.n_entities,
            nodes=len(self),
        )
        (folder / HEADER).write_text(header.model_dump_json(indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Trie:
        """Read what :meth:`save` wrote; the arrays are memory-mapped.

        Raises:
            FormatError: a file is missing or broken, of another format, or leads out of the arrays.
        """
        try:
            header = Header.model_validate_json((folder / HEADER).read_bytes())
        except (OSError, ValidationError) as error:
            raise FormatError(f"{folder / HEADER}: not the header of a trie: {error}") from None
        if header.format_version != FORMAT_VERSION:
            raise FormatError(
                f"{folder / HEADER}: format {header.format_version}, this program reads {FORMAT_VERSION}; "
                "build the trie again"
            )
        trie = cls(**{field.name: _read(folder, field.name, header) for field in fields(cls)})
        if broken := trie._broken():
            raise FormatError(f"{folder / f'{broken}.npy'}: leads out of its arrays; build the trie again")
        return trie

    def _broken(self) -> str | None:
        """Return the name of an array that contradicts the others, so that a walk would go astray."""
        nodes, first = np.arange(len(self)), self.first_child
        sound = {
            "starts": _divides(self.starts, len(self.tokens)),
            "entity_starts": _divides(self.entity_starts, self.n_entities),
            "entity_ids": (np.diff(self.entity_ids) > 0).all(),
            "entities": np.array_equal(np.sort(self.entities), self.entity_ids),
            "entity_sequence": _within(self.entity_sequence, self.n_sequences),
            "node_sequence": _within(self.node_sequence, max(self.n_sequences, 1)),
            "first_child": first[0] == 1
            and first[-1] == len(self)
            and (np.diff(first) >= 0).all()
            and (first[:-1] > nodes).all(),
        }
        for name, holds in sound.items():
            if not holds:
                return name
        leaves = nodes[self.is_leaf(nodes)]
        return "node_sequence" if (self.tail_length(leaves) < 0).any() else None


def _check_lengths(lengths: Ints, ids: Ids) -> None:
    """Refuse empty sequences, long ones, and an entity that comes twice."""
    if not lengths.all():
        raise FormatError(f"entity {ids[lengths.argmin()]}: its name has no tokens; leave it out")
    if lengths.max(initial=0) > MAX_TOKENS:
        raise FormatError(
            f"entity {ids[lengths.argmax()]}: its name has {lengths.max()} tokens, at most {MAX_TOKENS} are "
            "taken; shorten it or leave it out"
        )
    ascending = np.sort(ids)
    if (again := ascending[1:] == ascending[:-1]).any():
        raise FormatError(f"entity {ascending[1:][again][0]}: comes twice; give each entity one name")


def _sorted_rows(tokens: Tokens, lengths: Ints, ids: Ids) -> Ints:
    """Return the order of sequences by tokens, then by entity.

    Rows of big-endian bytes compare as their tokens do. Padding with 0 may tie a sequence with one that
    it begins: such pairs, still side by side, are refused afterwards.
    """
    longest = int(lengths.max(initial=1))
    padded = np.zeros((len(lengths), longest), tokens.dtype.newbyteorder(">"))
    padded[np.arange(longest) < lengths[:, None]] = tokens
    rows = padded.view(np.dtype((np.void, padded.itemsize * longest)))[:, 0]
    by_id = np.argsort(ids, kind="stable")
    return by_id[np.argsort(rows[by_id], kind="stable")]


def _common(tokens: Tokens, starts: Ints) -> Ints:
    """Return how many leading tokens each sequence shares with the one before it, [S]; 0 for the first."""
    lengths = np.diff(starts)
    common = np.zeros(len(lengths), np.int64)
    rows = np.arange(1, len(lengths))
    level = 0
    while len(rows):
        rows = rows[np.minimum(lengths[rows], lengths[rows - 1]) > level]
        rows = rows[tokens[starts[rows] + level] == tokens[starts[rows - 1] + level]]
        level += 1
        common[rows] = level
    return common


def _first_of_alike(lengths: Ints, common: Ints, ids: Ids) -> Ints:
    """Return the first row of each run of equal sequences; refuse one that begins another."""
    covered = common[1:] == np.minimum(lengths[1:], lengths[:-1])
    equal = lengths[1:] == lengths[:-1]
    if (prefix := covered & ~equal).any():
        row = int(prefix.argmax())
        raise FormatError(
            f"entities {ids[row]} and {ids[row + 1]}: the tokens of one name are the beginning of the "
            "other's; end every name with the same closing tokens"
        )
    return np.flatnonzero(np.append(True, ~covered)[: len(ids)])


def _take(
    tokens: Tokens, starts: npt.NDArray[np.integer], rows: npt.NDArray[np.integer]
) -> tuple[Tokens, Ints]:
    """Return the tokens and starts of some sequences, in the order of ``rows``."""
    first = starts[rows].astype(np.int64)
    lengths = starts[rows + 1] - first
    return tokens[_ranges(first, lengths)], _starts(lengths)


def _ranges(first: Ints, counts: Ints) -> Ints:
    """Return ``first[i], first[i] + 1, …`` (``counts[i]`` of them) for each i, after one another."""
    before = _starts(counts)
    return np.repeat(first - before[:-1], counts) + np.arange(before[-1])


def _starts(counts: Ints) -> Ints:
    """Return where each of some runs begins, and the end: int64, one longer than ``counts``."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _read(folder: Path, name: str, header: Header) -> npt.NDArray:
    """Map one array, of the form that the header says."""
    path = folder / f"{name}.npy"
    try:
        array = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except (OSError, ValueError, OverflowError) as error:
        raise FormatError(f"{path}: not a NumPy array: {error}; build the trie again") from None
    dtype, shape = header.form(name)
    if (array.dtype, array.shape) != (dtype, shape):
        raise FormatError(
            f"{path}: holds {array.dtype} {array.shape}, {HEADER} says {dtype} {shape}; build the trie again"
        )
    return array


def _divides(starts: npt.NDArray[np.int32], total: int) -> bool:
    """Return whether starts cut ``total`` things into runs, none of them empty."""
    return bool(starts[0] == 0 and starts[-1] == total and (np.diff(starts) > 0).all())


def _within(values: npt.NDArray[np.int32], count: int) -> bool:
    """Return whether all values number one of ``count`` things."""
    return bool((values >= 0).all() and (values < count).all())
