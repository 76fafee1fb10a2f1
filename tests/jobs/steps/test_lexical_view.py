"""The lexical view made in parts is the one of all texts at once, and what is there is not read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.corpus.documents import documents
from engine.corpus.importing import writer
from engine.storage.workspace import Workspace
from examples.make_sample import write_sample
from jobs.steps import lexical_view as steps
from jobs.steps.cleaning_sources import lexical_removals
from jobs.steps.lexical_view import (
    DescriptionsTask,
    DescriptionTermsWorker,
    MentionsTask,
    MentionTermsWorker,
    TermWeightsWorker,
    lexical_view,
)
from jobs.steps.survey import Survey
from jobs.workers.executor import LocalExecutor, RayExecutor
from tests.support.corpora import jsonl, run_import, ultrawiki
from tests.support.executors import LastFirst
from tests.support.plain_lexical import plain_lexical_view


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 16)
    monkeypatch.setattr(steps, "TOGETHER", 2)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was counted: mentions parts by their numbers, descriptions by their texts."""
    found: list[str] = []
    mentions, descriptions = MentionTermsWorker.__call__, DescriptionTermsWorker.__call__

    def noted_mentions(self: MentionTermsWorker, task: MentionsTask) -> int:
        found.append(f"part {task.part}")
        return mentions(self, task)

    def noted_descriptions(self: DescriptionTermsWorker, task: DescriptionsTask) -> int:
        found.extend(task.texts)
        return descriptions(self, task)

    monkeypatch.setattr(MentionTermsWorker, "__call__", noted_mentions)
    monkeypatch.setattr(DescriptionTermsWorker, "__call__", noted_descriptions)
    return found


METALS = ["iron", "gold", "zinc", "lead"]


def metals(folder: Path, names: list[str], more: int = 10, **options: bool) -> Workspace:
    """Import a corpus of metals, whose sentences share words."""
    kinds = ["ore", "coin", "wire", "pipe", "ring", "rust", "salt"]
    sentences = {
        name: [f"We know {kinds[(i * i + 1) * place % 7]} of {name}, {i}0 years old" for i in range(more)]
        for place, name in enumerate(names, 1)
    }
    source = ultrawiki(folder / f"raw{len(names)}", sentences, ent2text={n: f"{n} is a metal" for n in names})
    run_import(folder / "w", source, "ultrawiki", **options)
    return Workspace.open(folder / "w")


def check_plain(workspace: Workspace, vectors: np.ndarray) -> None:
    plain = plain_lexical_view(documents(workspace))
    assert vectors.shape == plain.shape
    np.testing.assert_allclose(vectors @ vectors.T, plain @ plain.T, atol=1e-5)


def test_the_view_of_the_sample_is_that_of_all_its_texts_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 500)
    monkeypatch.setattr(steps, "TOGETHER", 100)
    monkeypatch.setattr(steps, "RANGE", 4000)
    write_sample(tmp_path / "raw")
    run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    workspace = Workspace.open(tmp_path / "w")
    found = lexical_view(workspace, LocalExecutor())
    check_plain(workspace, found.vectors)
    assert found.wordless == 0
    again = lexical_view(workspace, LastFirst())
    np.testing.assert_array_equal(again.vectors, found.vectors)
    workspace.cache("").delete()
    np.testing.assert_array_equal(lexical_view(workspace, LastFirst()).vectors, found.vectors)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_local")
def test_actors_make_the_same_view(tmp_path: Path) -> None:
    workspace = metals(tmp_path, METALS)
    found = lexical_view(workspace, RayExecutor(2))
    workspace.cache("").delete()
    np.testing.assert_array_equal(found.vectors, lexical_view(workspace, LocalExecutor()).vectors)


def test_of_a_corpus_that_has_grown_only_what_is_new_is_read(tmp_path: Path, read: list[str]) -> None:
    workspace = metals(tmp_path, METALS)
    lexical_view(workspace, LocalExecutor())
    assert read == [*(f"{n} is a metal" for n in METALS), "part 0", "part 1", "part 2"]
    read.clear()
    lexical_view(workspace, LocalExecutor())
    assert read == []
    workspace = metals(tmp_path, [*METALS, "copper"], append=True)
    found = lexical_view(workspace, LocalExecutor())
    assert read == ["copper is a metal", "part 3"]
    check_plain(workspace, found.vectors)
    workspace.cache("").delete()
    np.testing.assert_array_equal(lexical_view(workspace, LocalExecutor()).vectors, found.vectors)


def test_a_view_that_was_stopped_goes_on(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = metals(tmp_path, METALS)
    monkeypatch.setattr(steps, "RANGE", 20)
    weighed: list[int] = []
    count, weigh = MentionTermsWorker.__call__, TermWeightsWorker.__call__

    def count_one(self: MentionTermsWorker, task: MentionsTask) -> int:
        if task.part == 1:
            raise KeyboardInterrupt
        return count(self, task)

    def weigh_one(self: TermWeightsWorker, place: int) -> None:
        if len(weighed) == 1:
            raise KeyboardInterrupt
        weighed.append(place)
        weigh(self, place)

    for worker, stopped in ((MentionTermsWorker, count_one), (TermWeightsWorker, weigh_one)):
        with monkeypatch.context() as patch:
            patch.setattr(worker, "__call__", stopped)
            with pytest.raises(KeyboardInterrupt):
                lexical_view(workspace, LocalExecutor())
    assert read[len(METALS) :] == ["part 0", "part 1", "part 2"]

    def weigh_on(self: TermWeightsWorker, place: int) -> None:
        weighed.append(place)
        weigh(self, place)

    weighed.append(-1)
    monkeypatch.setattr(TermWeightsWorker, "__call__", weigh_on)
    check_plain(workspace, lexical_view(workspace, LocalExecutor()).vectors)
    assert len(read) == len(METALS) + 3
    assert weighed[:4] == [0, -1, 1, 2]


def test_a_sentence_with_several_images_counts_once_in_whatever_part(tmp_path: Path, read: list[str]) -> None:
    rows = [
        {
            "entity": name,
            "sentence": f"{name} is {(place + 1) * (i % 4)}0 feet",
            "image": f"/images/{name}{i}.jpg",
        }
        for i in range(12)
        for place, name in enumerate(METALS)
    ]
    jsonl(tmp_path / "raw" / "sentences.jsonl", rows)
    run_import(tmp_path / "w", tmp_path / "raw", "jsonl")
    workspace = Workspace.open(tmp_path / "w")
    found = lexical_view(workspace, LocalExecutor())
    check_plain(workspace, found.vectors)
    assert read[-5:] == ["part 0", "part 1", "part 2", "part 1", "part 2"]
    read.clear()
    np.testing.assert_array_equal(lexical_view(workspace, LocalExecutor()).vectors, found.vectors)
    assert read == []


def test_entities_with_texts_but_no_vector_are_counted(tmp_path: Path) -> None:
    sentences = {"iron": ["iron melts there"], "gold": ["gold melts here", "gold is there"], "x": ["x!"]}
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", sentences, [*sentences, "none"]), "ultrawiki")
    found = lexical_view(Workspace.open(tmp_path / "w"), LocalExecutor())
    assert found.wordless == 1
    np.testing.assert_array_equal(found.vectors.any(axis=1), [True, True, False, False])


def test_what_a_former_view_was_made_of_is_removed(tmp_path: Path) -> None:
    workspace = metals(tmp_path, METALS)
    before = lexical_view(workspace, LocalExecutor()).vectors
    workspace = metals(tmp_path, [*METALS, "copper"], append=True)
    lexical_view(workspace, LocalExecutor())
    survey = Survey.of(workspace, now=None)
    assert not list(lexical_removals(survey)), "another view may be under way"
    later = Survey.of(workspace, now=survey.now + 90_000)
    removals = list(lexical_removals(later))
    assert [one.path.partition("-")[0] for one in removals] == ["cache/lexical"]
    metals(tmp_path, METALS, overwrite=True)
    workspace = Workspace.open(tmp_path / "w")
    np.testing.assert_array_equal(lexical_view(workspace, LocalExecutor()).vectors, before)
    later = Survey.of(workspace, now=survey.now + 90_000)
    gone = {one.path: len(one.steps) for one in lexical_removals(later)}
    assert gone.pop("cache/terms-1") == 2 * 3, "the files of one part of mentions, and of one of descriptions"
    assert len(gone) == 1
    assert not later.unknown
