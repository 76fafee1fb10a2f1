"""The command that mines contrast lists: what it makes, finds again, and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.storage.workspace import Workspace
from engine.training.contrast_lists import open_lists
from engine.vocabulary import Vocabulary
from jobs.mine_contrast import main
from tests.support.bundles import publish_vectors
from tests.support.chat_server import chat_server, completion
from tests.support.commands import run_command
from tests.support.corpora import run_import

NAMES = ["Norway", "Sweden", "Denmark", "Japan", "Thailand", "Laos"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A corpus of six entities, three near each other and three others, and a query of one seed of each."""
    lines = [json.dumps({"entity": name, "sentence": f"{name} is here."}) for name in NAMES]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    run_import(tmp_path / "w", tmp_path / "raw.jsonl", "jsonl")
    names = Vocabulary.read(Path(Workspace.open(tmp_path / "w").entities.path)).names
    places = [[1.0, 0.1] if name in NAMES[:3] else [0.1, 1.0] for name in names]
    vectors = np.array(places)
    publish_vectors(Workspace.open(tmp_path / "w"), names, {"mask": vectors, "joint": vectors})
    record = {"id": "q", "positive": ["Norway"], "negative": ["Japan"], "pos_gt": ["Laos"]}
    (tmp_path / "q.jsonl").write_text(json.dumps(record))
    return tmp_path


def mine(root: Path, *words: object) -> int:
    return run_command(main, "--workspace", root / "w", "--queries", root / "q.jsonl", *words)


def listed(root: Path) -> tuple[set[str], set[str]]:
    """Return the names of the newest lists' only query."""
    workspace = Workspace.open(root / "w")
    names = Vocabulary.read(Path(workspace.entities.path)).names
    (one,) = open_lists(workspace).read(len(names))
    return {names[i] for i in one.pos_list}, {names[i] for i in one.neg_list}


def test_lists_are_mined_from_the_seeds_and_found_by_a_rerun(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mine(root) == 0
    assert listed(root) == (set(NAMES[:3]), set(NAMES[3:])), "by the seeds, whatever the truth says"
    first = capsys.readouterr().out
    assert " queries=1 refused=0 judged=8 kept=4 on_both_sides=0 seeds_alone=0 unjudged=0 made=1" in first
    assert mine(root, "--top", 1, "--recall", 3) == 0
    assert mine(root) == 0
    shown = capsys.readouterr()
    assert "made before, by the same settings" in shown.err
    assert shown.out.splitlines()[-1] == f"{first.split()[0]} queries=1 kept=4 made=0"
    assert listed(root) == (set(NAMES[:3]), set(NAMES[3:])), "what is found again is the newest"


def test_what_a_chat_model_declines_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with chat_server(monkeypatch, [completion(None, refusal="I cannot.")]):
        assert mine(root, "--judge", "chat") == 2
    assert "none of the 1 queries was judged; 'q': the chat model declines: 'I cannot.'" in (
        capsys.readouterr().err
    )
    (root / "w" / "chat").rename(root / "declined")
    replies = [completion('{"result": [0, 0, 0, 0]}')]
    with chat_server(monkeypatch, replies):
        assert mine(root, "--judge", "chat") == 0
    shown = capsys.readouterr()
    assert (
        "query 'q': seeds alone in the positive and the negative list: nothing that was judged" in shown.err
    )
    assert "chat: 2 requests, 300 tokens are counted in" in shown.err
    assert "kept=0" in shown.out
    assert "seeds_alone=2" in shown.out


def test_mistakes_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mine(root, "--top", 20, "--recall", 10) == 2
    assert "--top 20: more than --recall 10" in capsys.readouterr().err
    assert mine(root, "--judge", "chat") == 2
    assert "--judge chat: SEEDSET_CHAT_MODEL is not set" in capsys.readouterr().err
    publish_vectors(Workspace.open(root / "w"), ["Chad"], {"mask": np.eye(1)})
    (root / "q.jsonl").write_text('{"id": "q", "positive": ["Chad"]}')
    assert mine(root) == 2
    assert "its entities are not those of the corpus" in capsys.readouterr().err
