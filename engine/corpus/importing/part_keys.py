"""Keep keys of its mentions beside each part, so that an import that adds reads these in place of the texts.

::

    mentions/part-00000.parquet  a part
    mentions/part-00000.keys     Parquet, a row for each of its mentions: 64 bits of a hash, the entity,
                                 whether it has a sentence. It names the sha256 of the part that it is of

A key alone tells that a mention is new. Where one agrees, the part is read, once, and 128 bits are compared
that are made of its texts: of 10^9 known mentions and 10^7 to be added, half a thousandth of one agrees by
chance in the first 64 (10^7 * 10^9 / 2^64), for which one part is read in vain, and 3e-23 in all. Files that
are missing, damaged or of another part count as none: that part is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.storage.parts import BROKEN
from engine.storage.store import Store

SUFFIX = ".keys"
COLUMNS = ["entity_id", "sentence", "image", "end"]
"""Columns of mentions that keys are made of."""

_SCHEMA = pa.schema(
    [
        pa.field("key", pa.int64(), nullable=False),
        pa.field("entity_id", pa.int32(), nullable=False),
        pa.field("has_sentence", pa.bool_(), nullable=False),
    ]
)
_SHA256, _BYTES = b"part_sha256", b"part_bytes"

Digests = npt.NDArray[np.int64]


class PartKeys(NamedTuple):
    """The keys of a part's mentions.

    Attributes:
        keys: int64 [rows], in the order of the rows.
        entities: ids of the entities of the mentions, int32 [rows].
        has_sentence: bool [rows]; False: a context that is an image alone.
        part_bytes: size of the part; -1: not known.
    """

    keys: Digests
    entities: npt.NDArray[np.int32]
    has_sentence: npt.NDArray[np.bool_]
    part_bytes: int = -1


def digest_of(entity_id: int, sentence: str, image: str | None) -> tuple[int, int]:
    """Return 128 bits of a hash of what tells a mention from any other but for its place; first the key."""
    digest = _digest(entity_id, sentence, image)
    return int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(
        digest[8:], "little", signed=True
    )


def digests_of(mentions: pa.Table) -> Digests:
    """Return :func:`digest_of` of each mention, int64 [rows, 2]."""
    columns = (mentions[name].to_pylist() for name in ("entity_id", "sentence", "image"))
    digests: Iterable[bytes] = map(_digest, *columns)
    return np.frombuffer(b"".join(digests), "<i8").reshape(-1, 2)


def _digest(entity_id: int, sentence: str, image: str | None) -> bytes:
    # No address has a NUL, and no sentence.
    return blake2b(f"{entity_id}\0{image or ''}\0{sentence}".encode(), digest_size=16).digest()


def keys_of(mentions: pa.Table, digests: Digests) -> PartKeys:
    """Return the keys of a part, given :func:`digests_of` its mentions."""
    told = pc.greater(mentions["end"], 0).to_numpy()
    return PartKeys(np.ascontiguousarray(digests[:, 0]), mentions["entity_id"].to_numpy(), told)


def write_keys(keys: PartKeys, digest: str, part_bytes: int, target: Path) -> None:
    """Write the keys of a part.

    Args:
        keys: of its mentions.
        digest: sha256 of the part.
        part_bytes: its size.
        target: a local path.
    """
    schema = _SCHEMA.with_metadata({_SHA256: digest, _BYTES: str(part_bytes)})
    table = pa.Table.from_arrays([pa.array(column) for column in keys[:3]], schema=schema)
    # Keys are as random as can be; a bit that turned over would let a sentence be added twice.
    pq.write_table(
        table,
        target,
        use_dictionary=["entity_id"],
        compression={"key": "none", "entity_id": "snappy", "has_sentence": "snappy"},
        write_statistics=False,
        write_page_checksum=True,
    )


def read_keys(file: Store, digest: str) -> PartKeys | None:
    """Return the keys of a part, None: they are not there, not whole, or of another one.

    Args:
        file: of keys.
        digest: sha256 of the part.
    """
    content = file.read_if_there()
    if content is None:
        return None
    with suppress(*BROKEN, OSError):  # a checksum that differs is one of these
        parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        about = parquet.schema_arrow.metadata or {}
        if about.get(_SHA256) == digest.encode():
            table = parquet.read()
            keys, entities, told = (table[name].to_numpy() for name in _SCHEMA.names)
            return PartKeys(keys, entities, told, int(about[_BYTES]))
    return None
