"""Data sets of the Hugging Face hub by name; a server of this machine stands in for the hub."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from engine.errors import StorageError
from engine.storage.sources import HubStore, source_store
from engine.storage.workspace import Workspace
from jobs.link import main as link
from tests.support.commands import run_command
from tests.support.corpora import run_import
from tests.support.hub_server import hub

SPLITS = ("train", "test")


def table(*texts: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"entity": ["Oslo"] * len(texts), "sentence": texts}), out)
    return out.getvalue()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The files of a data set on a hub."""
    held = {f"data/{split}-00000-of-00001.parquet": table(f"Oslo is in {split}.") for split in SPLITS}
    held["LICENSE"] = b"# About"
    with hub("some/set", held) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", _template(address))
        yield held
    HfFileSystem.clear_instance_cache()


def _template(address: str) -> str:
    return address + "/{repo_id}/resolve/{revision}/{filename}"


def test_addresses_name_what_they_did(files: dict[str, bytes]) -> None:
    place = source_store("hf://some/set")
    assert [file.uri for file in place.files(".parquet")] == [
        f"hf://some/set/data/{split}-00000-of-00001.parquet" for split in sorted(SPLITS)
    ]
    for address in (
        "hf://some/set/LICENSE",
        "hf://datasets/some/set/LICENSE",
        "hf://some/set@main/LICENSE",
    ):
        file = source_store(address)
        assert isinstance(file, HubStore)
        assert file.read_bytes() == source_store(file.uri).read_bytes() == b"# About"
    assert ((place / "none").exists(), place.size(), file.size()) == (False, -1, 7)
    stamp = file.stamp()
    files["LICENSE"] = b"# Other"
    HfFileSystem.clear_instance_cache()
    assert source_store("hf://some/set/LICENSE").stamp() != stamp


def test_a_corpus_is_imported_by_name(files: dict[str, bytes], tmp_path: Path) -> None:
    got = run_import(tmp_path / "w", "hf://some/set", "auto")
    assert sorted(one["sentence"] for one in got.mentions) == ["Oslo is in test.", "Oslo is in train."]
    one = run_import(tmp_path / "v", "hf://some/set/data/train-*", "auto")
    assert [mention["sentence"] for mention in one.mentions] == ["Oslo is in train."]


def test_texts_and_a_table_are_linked_by_name(files: dict[str, bytes], tmp_path: Path) -> None:
    files["names.txt"] = b"Oslo\n"
    words = ["--entities", "hf://some/set/names.txt", "--texts", "hf://some/set/data", "--workers", 1]
    assert run_command(link, *words, "--output", tmp_path / "out") == 0
    assert len(run_import(tmp_path / "w", tmp_path / "out", "auto").mentions) == 2


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://some", "hf://some: names no data set; write hf://OWNER/NAME"),
        ("hf://datasets/some", "hf://datasets/some: names no data set; write hf://OWNER/NAME"),
        ("hf://", "names no data set"),
        ("hf://some/set/../x", "a path with the part '', '.' or '..' is not read"),
        ("hf://some/none", r"hf://some/none: cannot be reached \(.*\); check the name \(hf://OWNER/NAME\)"),
    ],
)
def test_wrong_addresses_are_named(files: dict[str, bytes], address: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        source_store(address)


def test_what_is_not_in_the_data_set_is_named(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="hf://some/set/none: nothing is there"):
        run_import(tmp_path / "w", "hf://some/set/none", "auto")


def test_offline_the_way_out_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = r"offline mode is enabled.*; HF_HUB_OFFLINE must not be set.* \(hf download OWNER/NAME"
    with pytest.raises(StorageError, match=said):
        source_store("hf://some/set")


def test_a_hub_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with pytest.raises(
        StorageError, match=r"hf://some/set: cannot be reached \(.*refused.*\); check the name"
    ):
        source_store("hf://some/set")


def test_nothing_is_written_there() -> None:
    with pytest.raises(StorageError, match="hf:// is only read from, as a source of"):
        Workspace.open("hf://some/set")
