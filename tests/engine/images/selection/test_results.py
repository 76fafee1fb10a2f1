import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.corpus.readers.base import RefusedRecord
from engine.errors import FormatError, StorageError
from engine.images.selection import results as choice_folder
from engine.images.selection.results import SelectionFolder, SelectionManifest, SelectionWorker
from engine.images.selection.settings import SelectionSettings
from engine.images.selection.table import MAX_CANDIDATES, SelectionRecord, read_table
from engine.models import detector as objects
from engine.storage.store import Store
from jobs.workers.executor import make_parts
from tests.support import choice_models
from tests.support.executors import LastFirst
from tests.support.images import backbone, image_bytes

Record = dict[str, Any]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return choice_models.clip(tmp_path_factory.mktemp("clip"))


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for colour in ("red", "green", "blue", "gold"):
        (folder / f"{colour}.png").write_bytes(image_bytes(colour))
    (folder / "broken.png").write_bytes(image_bytes("red")[:60])
    (folder / "text.png").write_text("no picture")


def write_table(folder: Path, records: list[Record]) -> Store:
    if not folder.exists():
        write_images(folder)
    (folder / "found.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return Store.open(folder / "found.jsonl")


def record(*candidates: str, **more: Any) -> Record:
    return {"entity": "iron", "sentence": "iron is red .", "candidates": list(candidates)} | more


def chosen(table: Store, output: Path, settings: SelectionSettings) -> tuple[list[Record], list[Record]]:
    """Make all that is missing; return the sentences and the scores."""
    folder = SelectionFolder(Store.open(output))
    wanted = folder.begin(table, settings)
    made = make_parts(
        folder.parts, wanted.tasks(), SelectionWorker, (str(output), settings), LastFirst(), "records"
    )
    folder.finish(made.parts.values())
    sentences = [json.loads(x) for f in sorted(output.glob("sentences/*")) for x in f.open(encoding="utf-8")]
    scores = [row for f in sorted(output.glob("scores/*")) for row in pq.read_table(f).to_pylist()]
    return sentences, scores


def missing(folder: SelectionFolder, wanted: SelectionManifest) -> list[str]:
    return [part for part in wanted.tasks() if part not in folder.parts.finished()]


def refusals(output: Path) -> list[Record]:
    return [json.loads(x) for f in sorted((output / "quarantine").glob("*")) for x in f.open("r")]


def test_the_best_candidate_is_chosen_and_every_score_is_kept(clip: str, tmp_path: Path) -> None:
    records = [
        record("red.png", "green.png", "blue.png", start=0, end=4, typical="gold.png"),
        record("green.png", "red.png"),
    ]
    table = write_table(tmp_path / "raw", records)
    sentences, scores = chosen(table, tmp_path / "out", SelectionSettings(clip=clip, alpha=0.25))
    assert [row["record"] for row in scores] == [0, 0, 0, 1, 1]
    assert [row["rank"] for row in scores] == [1, 2, 3, 1, 2]
    for number, line in enumerate(sentences):
        own = [row for row in scores if row["record"] == number]
        best = max(own, key=lambda row: row["score"])
        assert (line["image"], own[0]["image"]) == (best["image"], best["image"])
        assert line["image_score"] == pytest.approx(best["score"], abs=1e-6)
        assert Path(line["image"]).parent == tmp_path / "raw"
    for row in scores[:3]:
        assert row["score"] == pytest.approx(0.25 * row["agreement"] + 0.75 * row["similarity"], abs=1e-6)
    assert [(row["similarity"], row["score"]) for row in scores[3:]] == [
        (None, row["agreement"]) for row in scores[3:]
    ]
    assert (sentences[0]["start"], sentences[0]["end"]) == (0, 4)
    assert "start" not in sentences[1]
    # The same image, sentence and model: whatever stands beside it, it agrees the same.
    agreed = {(row["record"], row["image"]): row["agreement"] for row in scores}
    red = str(tmp_path / "raw" / "red.png")
    assert agreed[0, red] == pytest.approx(agreed[1, red], abs=1e-5)


@pytest.mark.parametrize("parts", ["fixed", "yolos", "resnet"])
def test_the_typical_image_itself_is_the_most_similar(
    clip: str, tmp_path: Path, parts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "CONFIDENT", 0.0)  # random weights are sure of nothing
    detector = choice_models.yolos(tmp_path / "yolos") if parts == "yolos" else None
    vision = backbone(tmp_path / "resnet") if parts == "resnet" else None
    settings = SelectionSettings(clip=clip, detector=detector, vision=vision, alpha=0)
    given = record("green.png", "gold.png", "blue.png", typical="gold.png")
    sentences, scores = chosen(write_table(tmp_path / "raw", [given]), tmp_path / "out", settings)
    assert len(scores) == 3
    if parts == "yolos":  # its boxes are random: the whole picture need not be among them
        assert all(-1 <= row["similarity"] <= 1 for row in scores)
        return
    assert Path(sentences[0]["image"]).name == "gold.png"
    assert scores[0]["similarity"] == pytest.approx(1, abs=1e-4)


def test_what_cannot_be_read_is_refused_by_name_and_the_record_stays(clip: str, tmp_path: Path) -> None:
    bad = ["broken.png", "text.png", "missing.png", "http://x/y.png"]
    records = [record(*bad, "red.png"), record(*bad), record(), record("red.png", typical="missing.png")]
    table = write_table(tmp_path / "raw", records)
    sentences, scores = chosen(table, tmp_path / "out", SelectionSettings(clip=clip))
    assert [Path(line.get("image", "-")).name for line in sentences] == ["red.png", "-", "-", "red.png"]
    assert [row["record"] for row in scores] == [0, 3]
    assert scores[1]["similarity"] is None
    lines = refusals(tmp_path / "out")
    assert [Path(line["source"]).name for line in lines] == [
        *("broken.png", "text.png", "missing.png", "y.png") * 2,
        "missing.png",
    ]
    reasons = [line["reason"] for line in lines]
    for reason, word in zip(reasons, ["truncated|broken", "not an image", "missing", "s3://"], strict=False):
        assert any(w in reason for w in word.split("|")), reason
    assert reasons[-1].startswith("the typical image: missing")
    assert lines[-1]["position"].startswith("line 4")


def test_any_text_that_a_record_may_hold_waits_whole(clip: str, tmp_path: Path) -> None:
    texts = ["the flag\u2028of iron", "the flag\u2029of\u2028\u2028gold", "a\nflag", "a \u00a0 flag"]
    records = [record("red.png") | {"sentence": text} for text in texts]
    records.append(record("red.png", "odd\ud83d.png", typical="odd\udc00.png"))
    table = write_table(tmp_path / "raw", records)
    sentences, scores = chosen(table, tmp_path / "out", SelectionSettings(clip=clip))
    assert [line["sentence"] for line in sentences[:4]] == texts
    assert [row["record"] for row in scores] == [0, 1, 2, 3, 4]
    told = refusals(tmp_path / "out")
    assert [line["code"] for line in told] == ["text_surrogate", "text_surrogate"]
    assert all(line["position"].startswith("line 5") for line in told)


def test_records_that_cannot_be_used_are_refused_and_counted(tmp_path: Path) -> None:
    bad: list[Record] = [
        record() | {"entity": None},
        record() | {"sentence": ["x"]},
        record() | {"sentence": "x" * 20_000},
        record(*[f"{i}.png" for i in range(MAX_CANDIDATES + 1)]),
        record() | {"entity": "ir\ud83don"},
    ]
    table = write_table(tmp_path / "raw", [*bad, record("red.png", "red.png")])
    found = list(read_table(table))
    assert all(isinstance(one, RefusedRecord) for one in found[:-1])
    assert isinstance(found[-1], SelectionRecord)
    assert found[-1].number == len(bad)
    assert len(found[-1].candidates) == 1
    wanted = SelectionFolder(Store.open(tmp_path / "out")).begin(table, SelectionSettings(clip="x"))
    assert (wanted.records, wanted.refused) == (1, len(bad))
    assert len(refusals(tmp_path / "out")) == len(bad)


def test_a_detail_that_cannot_be_used_costs_itself(tmp_path: Path) -> None:
    records: list[Record] = [
        record("red.png", "a\ud83d.png", typical="b\ud83d.png"),
        record("red.png") | {"candidates": ["", None, float("nan"), 1, "red.png"], "start": 0.0, "end": 4.0},
        record(typical=3, start="0", end=1) | {"candidates": "red.png"},
        record("http://x/y.png", typical=float("nan"), start=float("nan"), end=None),
    ]
    table = write_table(tmp_path / "raw", records)
    found = [one for one in read_table(table) if isinstance(one, SelectionRecord)]
    assert [[Path(c).name for c in one.candidates] for one in found] == [["red.png"]] * 3 + [["y.png"]]
    assert [one.typical for one in found] == [None] * 4
    assert [(one.start, one.end) for one in found] == [(None, None), (0, 4), (None, None), (None, None)]
    wanted = SelectionFolder(Store.open(tmp_path / "out")).begin(table, SelectionSettings(clip="x"))
    assert (wanted.records, wanted.refused, wanted.details_refused) == (4, 0, 6)
    assert [line["reason"] for line in refusals(tmp_path / "out")] == [
        "a candidate holds half of a surrogate pair, U+D83D",
        "typical holds half of a surrogate pair, U+D83D",
        "a candidate must be a text, not a number",
        "a candidate empty",
        "start must be a whole number, not a text",
        "typical must be a text, not a number",
    ]


def test_a_table_that_is_cut_off_ends_the_choice_before_it_begins(tmp_path: Path) -> None:
    table = write_table(tmp_path / "raw", [record("red.png"), record("blue.png")])
    content = Path(table.path).read_bytes()
    packed = tmp_path / "raw" / "found.jsonl.gz"
    packed.write_bytes(gzip.compress(content))
    assert len(list(read_table(Store.open(packed)))) == 2
    for name, cut in (("found.jsonl", content[:-9]), ("found.jsonl.gz", packed.read_bytes()[:-9])):
        (tmp_path / "raw" / name).write_bytes(cut)
        folder = SelectionFolder(Store.open(tmp_path / "out"))
        with pytest.raises(FormatError, match=rf"{name}, line \d, byte \d+: .*cut off.*make the file again"):
            folder.begin(Store.open(tmp_path / "raw" / name), SelectionSettings(clip="x"))
        assert not (tmp_path / "out" / "choice.json").exists()


def test_parquet_holds_the_same_columns(tmp_path: Path) -> None:
    records = [record("a.png", typical="b.png", start=0, end=4), record()]
    jsonl = write_table(tmp_path / "raw", records)
    table = pa.Table.from_pylist([r | {"typical": r.get("typical")} for r in records])
    pq.write_table(table, tmp_path / "raw" / "found.parquet")
    read = list(read_table(Store.open(tmp_path / "raw" / "found.parquet")))
    assert [one._replace(position="") for one in read if isinstance(one, SelectionRecord)] == [
        one._replace(position="") for one in read_table(jsonl) if isinstance(one, SelectionRecord)
    ]
    with pytest.raises(FormatError, match=r"\.jsonl or \.parquet"):
        next(read_table(Store.open(tmp_path / "raw" / "found.csv")))
    with pytest.raises(StorageError, match="no such file"):
        next(read_table(Store.open(tmp_path / "raw" / "nothing.jsonl")))


def test_a_stopped_choice_goes_on_and_another_one_is_not_mixed_in(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice_folder, "PART_RECORDS", 2)
    table = write_table(tmp_path / "raw", [record("red.png", "blue.png") for _ in range(5)])
    folder, settings = SelectionFolder(Store.open(tmp_path / "out")), SelectionSettings(clip=clip)
    wanted = folder.begin(table, settings)
    assert missing(folder, wanted) == ["00000", "00001", "00002"]
    assert [wanted.records_of(part) for part in wanted.tasks()] == [2, 2, 1]
    made = SelectionWorker(str(tmp_path / "out"), settings)("00001")
    assert folder.parts.finished() == {"00001": made}, "what is read is what the worker said"
    assert missing(folder, folder.begin(table, settings)) == ["00000", "00002"]
    sentences, scores = chosen(table, tmp_path / "out", settings)
    assert (len(sentences), len(scores)) == (5, 10)
    assert missing(folder, wanted) == []
    (tmp_path / "out" / "scores" / "part-00000.parquet").unlink()
    (tmp_path / "out" / "scores" / "part-00002.parquet").write_bytes(b"PAR1")
    assert missing(folder, wanted) == ["00000", "00002"], "sentences alone are half a part"
    assert chosen(table, tmp_path / "out", settings) == (sentences, scores)
    folder.begin(table, settings)
    counts = folder.finish(folder.parts.finished().values())
    assert not (tmp_path / "out" / "records").exists()
    assert dict(counts) == {
        "records": 5,
        "chosen": 5,
        "without_image": 0,
        "images_scored": 10,
        "images_refused": 0,
    }
    with pytest.raises(StorageError, match="--overwrite"):
        folder.begin(table, settings.model_copy(update={"alpha": 0.1}))
    write_table(tmp_path / "raw", [record("red.png")])
    with pytest.raises(StorageError, match="differs"):
        folder.begin(table, settings)
    assert missing(folder, folder.begin(table, settings, overwrite=True)) == ["00000"]
    (tmp_path / "out" / "choice.json").write_text("{}")
    with pytest.raises(StorageError, match=r"choice\.json: cannot be read .*; add --overwrite, or name"):
        folder.begin(table, settings)
    assert missing(folder, folder.begin(table, settings, overwrite=True)) == ["00000"]
