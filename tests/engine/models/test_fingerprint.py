"""A model's fingerprint goes by what its files hold, not by their names or times."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.models import fingerprint as module
from engine.models.fingerprint import check_unchanged, file_sha256, model_fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with the files of a sentence-transformers model; what they hold is never loaded."""
    folder = tmp_path / "m"
    (folder / "2_Dense").mkdir(parents=True)
    modules = [{"path": ""}, {"path": "2_Dense"}, {"path": "../outside"}]
    files = {
        "config.json": "{}",
        "model.safetensors": "weights",
        "tokenizer.json": "{}",
        "modules.json": json.dumps(modules),
        "2_Dense/model.safetensors": "projection",
        "README.md": "told",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "2_Dense/model.safetensors"]
)
def test_other_content_of_the_same_size_and_time_is_another_model(model: Path, name: str) -> None:
    before, path = model_fingerprint(model), model / name
    stamp = path.stat()
    path.write_text(path.read_text().swapcase() if name.endswith("safetensors") else "[]")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    assert model_fingerprint(model) != before
    with pytest.raises(UserError, match=r"--model .*m: its files are not those that this work began with"):
        check_unchanged(str(model), before)


def test_a_file_more_or_less_is_another_model(model: Path) -> None:
    before = model_fingerprint(model)
    (model / "added_tokens.json").write_text("{}")
    after = model_fingerprint(model)
    assert after != before
    (model / "added_tokens.json").rename(model / "special_tokens_map.json")
    assert model_fingerprint(model) not in (before, after), "its name counts"


def test_place_times_and_what_people_read_do_not_count(model: Path, tmp_path: Path) -> None:
    before = model_fingerprint(model)
    (model / "README.md").write_text("told otherwise")
    (model / "checkpoint-5").mkdir()
    (model / "checkpoint-5" / "model.safetensors").write_text("of a training")
    os.utime(model / "model.safetensors", ns=(1, 1))
    model.rename(tmp_path / "elsewhere")
    assert model_fingerprint(tmp_path / "elsewhere") == before
    check_unchanged(str(tmp_path / "elsewhere"), before)


def test_what_has_not_changed_is_read_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = model / "model.safetensors", []
    sha256_of = module.sha256_of

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr(module, "sha256_of", counted)
    assert file_sha256(path) == file_sha256(path)
    assert len(read) == 2, "a file just written could change within a tick of the clock"
    monkeypatch.setattr(module, "RACY_SECONDS", 0)
    assert file_sha256(path) == file_sha256(path)
    assert len(read) == 3


def test_a_name_on_the_hub_goes_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef" * 2 + "01234567"
    snapshot = tmp_path / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    monkeypatch.setattr(module.NamedModel, "find", lambda self, name: snapshot / name)
    assert model_fingerprint("someone/some-model") == commit[:16]


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        model_fingerprint(tmp_path / "none")
