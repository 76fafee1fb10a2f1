"""Let a teacher label the mentions of a file for self-training, into parts that are kept in the cache."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.models.device import worker_device
from engine.models.fingerprint import check_unchanged, model_fingerprint
from engine.storage.parts import PartFolder, content_key
from engine.storage.store import Store
from engine.storage.whole import fault_of
from engine.storage.workspace import Workspace
from engine.typing.labels_file import LabelsFile
from engine.typing.mentions import TypedMention, read_mentions
from engine.typing.model import TypingModel
from engine.typing.teacher import Thresholds, taught, write_taught
from jobs import console
from jobs.workers.executor import Executor, make_parts

TAUGHT = "taught-"
"""Begin of the names of folders with labels of teachers, before the fingerprint of the teacher."""
PART = 2048
"""Mentions of a part: with UFET's 10,331 types their scores are 85 MB."""


class Counts(NamedTuple):
    """How many mentions there are, how many of them with a sure type, and all their types."""

    mentions: int
    learnt: int
    positive: int
    uncertain: int


@dataclass(frozen=True)
class TaughtMentions:
    """Mentions with a teacher's labels, in files of a workspace's cache; and the teacher's folder."""

    teacher: str
    files: tuple[str, ...]
    """Their addresses."""
    key: str
    """What they were made from."""


class TeacherWorker:
    """A worker that labels the mentions of a part and writes it.

    Args:
        workspace: its address.
        teacher: a typing model's folder.
        fingerprint: of the teacher.
        labels: that are learnt, all of them the teacher's.
        thresholds: of what holds and what does not.

    Raises:
        UserError: the model is another one on this machine.
    """

    def __init__(
        self, workspace: str, teacher: str, fingerprint: str, labels: Sequence[str], thresholds: Thresholds
    ) -> None:
        check_unchanged(teacher, fingerprint, "--teacher")
        self._model, self._thresholds = TypingModel.load(teacher).to(worker_device()), thresholds
        place = {label: number for number, label in enumerate(self._model.labels)}
        self._columns = [place[label] for label in labels]
        self._parts = _parts(Workspace.open(workspace), fingerprint)

    def __call__(self, task: tuple[str, list[TypedMention]]) -> Counts:
        """Write a part; return what is in it."""
        name, mentions = task
        scores_nN = self._model.scores([one.mention for one in mentions])[:, self._columns]
        with self._parts.writing(name) as path:
            write_taught(path, mentions, taught(scores_nN, self._thresholds))
        return _counts(self._parts.file(name))


def teach(
    workspace: Workspace,
    file: Store,
    teacher: str,
    labels: Sequence[str],
    thresholds: Thresholds,
    executor: Executor,
) -> TaughtMentions:
    """Label all mentions of a file by a teacher; parts that are there already are kept.

    Args:
        workspace: whose cache receives the parts.
        file: JSON lines; types that they have are not read.
        teacher: a typing model's folder.
        labels: that are learnt; others that the teacher knows are left out.
        thresholds: of what holds and what does not.
        executor: where the teacher runs.

    Raises:
        UserError: there is no such teacher, it does not know a label, or is sure of no type.
        FormatError: a line cannot be read, or there is none.
    """
    thresholds.check()
    fingerprint = model_fingerprint(teacher, "--teacher")
    known = set(LabelsFile.read(teacher).labels)
    if strange := [label for label in labels if label not in known]:
        raise UserError(
            f"--teacher {teacher}: does not know {len(strange)} of the {len(labels)} types that are learnt, "
            f"such as {strange[0]!r}; name a model that was trained on these types, or another --labels"
        )
    mentions = read_mentions(file, labelled=False)
    tasks = _tasks(mentions, labels, thresholds)
    parts = _parts(workspace, fingerprint)
    arguments = (workspace.root.uri, teacher, fingerprint, list(labels), thresholds)
    made = make_parts(
        parts, tasks, TeacherWorker, arguments, executor, "teacher, mentions", lambda t: len(t[1]), gpu=True
    )
    total = Counts(*map(sum, zip(*made.parts.values(), strict=True)))
    if not total.learnt:
        raise UserError(
            f"--self-train {file.uri}: the teacher gives no type of any of the {total.mentions} mentions a "
            f"probability of {thresholds.positive:g}; lower --positive-probability, or name other mentions"
        )
    console.say(
        f"teacher: {total.learnt} of {total.mentions} mentions have a type and are learnt; of all, "
        f"{total.positive / total.mentions:.1f} types hold on average, and "
        f"{total.uncertain / total.mentions:.1f} do not count"
    )
    names = list(made.parts)
    return TaughtMentions(
        teacher, tuple(parts.file(name).uri for name in names), content_key(fingerprint, *names)
    )


def _parts(workspace: Workspace, fingerprint: str) -> PartFolder[Counts]:
    return PartFolder(workspace.cache(f"{TAUGHT}{fingerprint}"), (".parquet",), _counts)


def _counts(file: Store) -> Counts:
    if fault := fault_of(file):
        raise ValueError(fault)
    with file.open_input() as stream:
        table = pq.read_table(stream, columns=["positive", "uncertain"])
    positive_n, uncertain_n = (pc.list_value_length(table[name]).to_numpy() for name in table.column_names)
    return Counts(len(table), int((positive_n > 0).sum()), int(positive_n.sum()), int(uncertain_n.sum()))


def _tasks(
    mentions: Sequence[TypedMention], labels: Sequence[str], thresholds: Thresholds
) -> dict[str, tuple[str, list[TypedMention]]]:
    """Return the parts by a name that stands for all but the teacher that the part is made of."""
    rule = json.dumps([list(labels), thresholds])
    found = {}
    for start in range(0, len(mentions), PART):
        some = list(mentions[start : start + PART])
        texts = [[one.id, one.mention.left, one.mention.text, one.mention.right] for one in some]
        name = content_key(json.dumps(texts), rule)
        found[name] = (name, some)
    return found
