import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import FormatError, StorageError
from engine.queries.answer_table import Labels, Result
from engine.queries.formats import RefusedQuery
from engine.queries.results import ExpansionFolder, PartCounts, RunDescription
from engine.query import Expansion, Query, Ranking
from engine.refusals import Code, Refusal
from engine.storage.store import Store

LABELS = Labels(
    pa.array(["a", "b", "c"]), pa.array([["a.png"], [], ["c.png", "s3://b/c.jpg"]], pa.list_(pa.string()))
)

REFUSED = RefusedQuery("q.json", 3, None, Refusal(Code.NOT_JSON, "no"))


def expansion(name: str, ids: list[int], degraded: tuple[str, ...] = ()) -> Expansion:
    scores = np.linspace(1, 0, len(ids), dtype=np.float32)
    ranking = Ranking(np.array(ids, np.int32), scores, {"x": scores / np.float32(3), "y": scores * 0})
    return Expansion(Query(name, (0,)), ranking, {}, degraded, {"class_name": f"class of {name}"})


def described(**changes: Any) -> RunDescription:
    fields = {
        "method": "m",
        "pipeline": "M()",
        "bundle": "b",
        "queries_digest": "d",
        "queries": 5,
        "part_size": 2,
    }
    return RunDescription(**{**fields, **changes})


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> ExpansionFolder:
    root = tmp_path if request.param == "local" else request.getfixturevalue("s3")
    return ExpansionFolder(Store.open(f"{root}/out"))


PARTS = ["00000", "00001", "00002"]


def fill(folder: ExpansionFolder, run: RunDescription, parts: Sequence[str]) -> None:
    for part in parts:
        n = run.parts[part].stop - run.parts[part].start
        counts = folder.write_part(
            part, [Result(expansion(f"q{part}-{i}", [1, 2])) for i in range(n)], LABELS
        )
        assert folder.parts.finished()[part] == counts == PartCounts(n, 0, 2 * n)


def missing(folder: ExpansionFolder, run: RunDescription) -> list[str]:
    return [part for part in run.parts if part not in folder.parts.finished()]


def test_parts_cover_every_query_once():
    run = described(queries=5, part_size=2)
    assert list(run.parts) == PARTS
    assert list(run.parts.values()) == [slice(0, 2), slice(2, 4), slice(4, 5)]


def test_a_rerun_sees_what_is_missing_and_keeps_the_size_of_parts(folder):
    run = folder.begin(described(), overwrite=False)
    fill(folder, run, ["00000", "00002"])
    again = folder.begin(described(part_size=4), overwrite=False)
    assert again == run
    assert missing(folder, again) == ["00001"]
    with pytest.raises(FormatError, match=r"part-00001\.parquet: missing"):
        folder.finish(again, [])
    fill(folder, again, ["00001"])
    manifest = folder.finish(again, [REFUSED])
    assert (manifest["rows"], manifest["empty"], manifest["refused"]) == (10, 0, 1)
    assert [part["queries"] for part in manifest["parts"]] == [2, 2, 1]
    line = {"source": "q.json", "position": 3, "query_id": None, "code": "not_json", "reason": "no"}
    assert json.loads((folder.folder / "_refused.jsonl").read_bytes()) == line
    # The folder is a Parquet data set as it stands: other files' names begin with _.
    assert pq.read_table(folder.folder.path, filesystem=folder.folder.fs).num_rows == 10


def test_another_run_is_refused_and_can_be_overwritten(folder):
    fill(folder, folder.begin(described(), overwrite=False), PARTS)
    folder.finish(described(), [REFUSED])
    (folder.folder / "notes.txt").write_bytes(b"mine")
    with pytest.raises(FormatError, match=r"bundle: b, not c.*--overwrite"):
        folder.begin(described(bundle="c"), overwrite=False)
    run = folder.begin(described(bundle="c"), overwrite=True)
    assert missing(folder, run) == PARTS
    assert {file.name for file in folder.folder.files()} == {"_run.json", "notes.txt"}
    (folder.folder / "part-mine.parquet").write_bytes(b"mine")
    with pytest.raises(FormatError, match=r"part-mine\.parquet, which no run began"):
        folder.begin(run, overwrite=True)
    assert (folder.folder / "part-mine.parquet").exists(), "nothing is removed that no run wrote"


def test_a_folder_of_other_parquet_files_is_not_touched(folder):
    (folder.folder / "mine.parquet").write_bytes(b"")
    with pytest.raises(FormatError, match=r"mine\.parquet, which no run began"):
        folder.begin(described(), overwrite=False)


def test_a_part_that_is_not_whole_or_not_ours_is_named(folder):
    run = folder.begin(described(), overwrite=False)
    fill(folder, run, PARTS)
    folder.write_part("00001", [Result(expansion("q", [1]))], LABELS)
    with pytest.raises(FormatError, match=r"part-00001.*answers 1 queries"):
        folder.finish(run, [])
    assert missing(folder, run) == [], "it is for a person to judge"
    for content in (b"PAR1", parquet_of_others()):
        (folder.folder / "part-00001.parquet").write_bytes(content)
        assert missing(folder, run) == ["00001"]
        with pytest.raises(FormatError, match=r"part-00001.*not a part of ours"):
            folder.finish(run, [])
    assert not (folder.folder / "_manifest.json").exists()


def parquet_of_others() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    return sink.getvalue().to_pybytes()


def test_a_description_that_cannot_be_read_names_the_way_out(folder):
    (folder.folder / "_run.json").write_bytes(b"{}")
    with pytest.raises(StorageError, match=r"_run\.json: cannot be read .*; name another --output, or give"):
        folder.begin(described(), overwrite=False)
    assert folder.begin(described(), overwrite=True) == described()
