"""Type a file of mentions into a folder of Parquet parts: what ``type_mentions`` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from engine.errors import FormatError
from engine.models.device import worker_device
from engine.models.fingerprint import check_unchanged, model_fingerprint
from engine.storage.parts import MANIFEST, PartFolder, content_key, write_model
from engine.storage.store import Store
from engine.storage.whole import fault_of
from engine.typing.labels_file import LabelsFile, Rule
from engine.typing.mentions import TypedMention, read_mentions
from engine.typing.model import TypingModel
from jobs.workers.executor import Executor, make_parts

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("left", pa.string(), nullable=False),
        pa.field("mention", pa.string(), nullable=False),
        pa.field("right", pa.string(), nullable=False),
        pa.field("types", pa.list_(pa.string()), nullable=False),
        pa.field("confidences", pa.list_(pa.float32()), nullable=False),
    ]
)
"""A row a mention, in the order of the file; of each its types, the surest first (parents before theirs)."""


class TypesManifest(BaseModel):
    """The manifest of an output, written last: without it the output is unfinished."""

    mentions: int
    model: str
    fingerprint: str
    rule: Rule
    parts: list[str]
    """Names of the parts, in the order of the mentions."""


class MentionsTask(NamedTuple):
    """The mentions of one part."""

    name: str
    mentions: list[TypedMention]


class MentionTypingWorker:
    """A worker that types the mentions of a part and writes it.

    Args:
        model: a typing model's folder.
        fingerprint: of the model.
        output: address of the folder of parts.
        rule: how types are chosen.

    Raises:
        UserError: the model is another one on this machine.
    """

    def __init__(self, model: str, fingerprint: str, output: str, rule: Rule) -> None:
        check_unchanged(model, fingerprint)
        self._model, self._rule = TypingModel.load(model).to(worker_device()), rule
        self._parts = _parts(Store.open(output))

    def __call__(self, task: MentionsTask) -> int:
        """Write a part; return how many mentions it has."""
        found = self._model.types([one.mention for one in task.mentions], self._rule)
        rows = [
            {
                "id": one.id,
                "left": one.mention.left,
                "mention": one.mention.text,
                "right": one.mention.right,
                "types": [score.label for score in scores],
                "confidences": [score.confidence for score in scores],
            }
            for one, scores in zip(task.mentions, found, strict=True)
        ]
        with self._parts.writing(task.name) as path:
            pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
        return len(rows)


def type_mentions(
    mentions: Store,
    model: str,
    output: Store,
    rule: Rule | None,
    part_size: int,
    executor: Executor,
    overwrite: bool = False,
) -> TypesManifest:
    """Type all mentions of a file; parts that are there already are kept.

    Args:
        mentions: JSON lines; types that they have are not read.
        model: a typing model's folder.
        output: receives the parts, and the manifest last.
        rule: how types are chosen; None: the model's own.
        part_size: mentions of a part.
        executor: where the model runs.
        overwrite: delete an output of other mentions or another model that is there.

    Raises:
        FormatError: a line cannot be read, or the folder holds another output.
    """
    chosen = rule or LabelsFile.read(model).rule
    fingerprint = model_fingerprint(model)
    tasks = _tasks(read_mentions(mentions, labelled=False), part_size, fingerprint, chosen)
    parts = _parts(output)
    _clear(output, parts, set(tasks), overwrite)
    made = make_parts(
        parts,
        tasks,
        MentionTypingWorker,
        (model, fingerprint, output.uri, chosen),
        executor,
        "typing, mentions",
        lambda task: len(task.mentions),
        gpu=True,
    )
    manifest = TypesManifest(
        mentions=sum(made.parts.values()),
        model=model,
        fingerprint=fingerprint,
        rule=chosen,
        parts=list(made.parts),
    )
    write_model(output / f"_{MANIFEST}", manifest)
    return manifest


def _parts(output: Store) -> PartFolder[int]:
    return PartFolder(output, (".parquet",), _rows)


def _rows(file: Store) -> int:
    if fault := fault_of(file):
        raise ValueError(fault)
    with file.open_input() as stream:
        return int(pq.read_metadata(stream).num_rows)


def _tasks(
    mentions: Sequence[TypedMention], size: int, fingerprint: str, rule: Rule
) -> dict[str, MentionsTask]:
    """Return the parts by a name that sorts by place, and stands for all that the part is made of."""
    found = {}
    for place, start in enumerate(range(0, len(mentions), size)):
        some = list(mentions[start : start + size])
        content = json.dumps([asdict(one) for one in some])
        name = f"{place:05}-{content_key(content, fingerprint, rule)}"
        found[name] = MentionsTask(name, some)
    return found


def _clear(output: Store, parts: PartFolder[int], wanted: set[str], overwrite: bool) -> None:
    """Delete parts that are none of this output's, if that is wanted; the manifest is written again.

    Raises:
        FormatError: there are such parts.
    """
    others = [name for name in parts.names() if name not in wanted]
    if others and not overwrite:
        raise FormatError(
            f"{output.uri}: holds {len(others)} parts of other mentions, another model, rule or --part-size; "
            "name another --output, or give --overwrite"
        )
    for name in others:
        parts.file(name).delete()
    (output / f"_{MANIFEST}").delete()
