"""Raw texts to an imported corpus: forms of files, what is kept, what is refused, and what a rerun does."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.corpus.linking.rules import LinkRules
from engine.corpus.positions import RowPosition
from engine.corpus.readers import row_files
from engine.corpus.readers.base import Entity
from engine.corpus.readers.row_files import find_row_files
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary
from jobs.link import main
from jobs.steps import link_drawing, linking
from jobs.steps.link_drawing import DrawSettings, draw
from jobs.steps.linking import LinkSettings, LinkSource, LinkWorker, link_parts
from jobs.workers.executor import LocalExecutor
from tests.support.commands import run_command
from tests.support.corpora import run_import
from tests.support.executors import LastFirst

TEXTS = [
    "Oslo is the capital of Norway. Mr. Hansen lives in Oslo.",
    "Bergen lies on the coast of Norway.",
    "He flew from Oslo\nto Bergen-town and back to Bergen.",
    "Nothing is said here.",
]


def table(folder: Path) -> Path:
    """Entities as a spreadsheet has them."""
    file = folder / "places.csv"
    rows = [
        {"title": "Oslo", "also": "Christiania|Kristiania", "attributes": '{"kind": ["city"]}'},
        {"title": "Bergen", "also": "", "attributes": ""},
        {"title": "Norway", "also": "", "attributes": '{"kind": "country"}'},
        {"title": "Atlantis", "also": "", "attributes": ""},
    ]
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def texts(folder: Path, some: list[str] = TEXTS, name: str = "a.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in some), encoding="utf-8")
    return folder


def link(root: Path, *extra: object, entities: object = None, given: object = None) -> int:
    raw = root / "raw"
    words = ["--entities", entities or table(root), "--texts", given or (raw if raw.exists() else texts(raw))]
    if entities is None:
        words += ["--entity-columns", "name=title,aliases=also"]
    return run_command(main, *words, "--output", root / "out", "--workers", 1, *extra)


def rows(root: Path) -> list[dict[str, Any]]:
    files = sorted((root / "out" / "sentences").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def mentions(root: Path) -> list[tuple[str, str]]:
    return sorted((row["entity"], row["sentence"]) for row in rows(root))


EXPECTED = [
    ("Bergen", "Bergen lies on the coast of Norway."),
    ("Bergen", "He flew from Oslo to Bergen-town and back to Bergen."),
    ("Norway", "Bergen lies on the coast of Norway."),
    ("Norway", "Oslo is the capital of Norway."),
    ("Oslo", "He flew from Oslo to Bergen-town and back to Bergen."),
    ("Oslo", "Mr. Hansen lives in Oslo."),
    ("Oslo", "Oslo is the capital of Norway."),
]


def test_texts_become_a_corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert link(tmp_path) == 0
    told = capsys.readouterr()
    assert "never_found=1 entities=4 texts=4 sentences=5 mentions=7 drawn=7 refused=0" in told.out
    assert "texts: 1 files of jsonl, the text in text" in told.err
    assert mentions(tmp_path) == EXPECTED
    for row in rows(tmp_path):
        assert row["sentence"][row["start"] : row["end"]] == row["entity"]
        assert row["document"].startswith("a.jsonl, line ")
    got = run_import(tmp_path / "w", tmp_path / "out", "parquet")
    assert (got.manifest.counts.mentions, got.manifest.counts.quarantined) == (7, 0)
    entities = Workspace.open(tmp_path / "w").entities
    assert Vocabulary.read(Path(entities.path)).aliases[0] == ["Christiania", "Kristiania"]
    kinds = pq.read_table(entities.path)["attributes"].to_pylist()
    assert kinds == [[("kind", ["city"])], [], [("kind", ["country"])], []]


def test_every_form_of_file_gives_the_same(tmp_path: Path) -> None:
    """A folder as Spark leaves it, with other names; compressed lines; tables of fields; a text a line."""
    raw = tmp_path / "raw"
    raw.mkdir()
    spark = raw / "day=1"
    spark.mkdir()
    (raw / "_SUCCESS").touch()
    (raw / ".part.crc").touch()
    body = pa.array(TEXTS[:1], pa.large_string()).dictionary_encode()
    pq.write_table(pa.table({"body": body, "n": pa.nulls(1)}), spark / "part-00000-f3a1.c000.snappy.parquet")
    with gzip.open(raw / "b.jsonl.gz", "wt", encoding="utf-8-sig") as out:
        out.write(json.dumps({"body": TEXTS[1]}) + "\r\n")
    with (raw / "c.csv").open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([["id", "body"], ["1", TEXTS[2]]])
    (raw / "d.tsv").write_text(f"body\tid\n{TEXTS[3]}\t2\n", encoding="utf-8")
    assert link(tmp_path, "--text-columns", "text=body,document=id", given=raw) == 0
    assert mentions(tmp_path) == EXPECTED
    assert {row["document"] for row in rows(tmp_path)} >= {
        "1",
        "day=1/part-00000-f3a1.c000.snappy.parquet, row 0",
    }

    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(" ".join(text.split()) for text in TEXTS) + "\n", encoding="utf-8")
    assert link(tmp_path, given=lines) == 0
    assert mentions(tmp_path) == EXPECTED


def test_a_pattern_names_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = texts(tmp_path / "raw", TEXTS[:2], "part-0.jsonl")
    texts(raw, TEXTS[2:], "part-1.jsonl")
    texts(raw, ["Oslo is left out."], "other.jsonl")
    assert link(tmp_path, given=f"{raw}/part-*.jsonl") == 0
    assert mentions(tmp_path) == EXPECTED
    assert "texts: 2 files" in capsys.readouterr().err


def test_row_groups_are_parts_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "PIECE_ROWS", 2)
    monkeypatch.setattr(linking, "ROWS_IN_MEMORY", 2)
    (tmp_path / "raw").mkdir()
    file = tmp_path / "raw" / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS}), file, row_group_size=1)
    assert link(tmp_path) == 0
    assert mentions(tmp_path) == EXPECTED
    assert len(list((tmp_path / "out" / "_found").glob("*.parquet"))) == 2
    assert {row["document"] for row in rows(tmp_path)} == {f"a.parquet, row {n}" for n in range(3)}


def test_a_large_file_of_lines_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = texts(tmp_path / "whole", TEXTS * 3)
    assert link(tmp_path, given=whole) == 0
    expected = mentions(tmp_path)
    monkeypatch.setattr(row_files, "PIECE_BYTES", 70)
    assert link(tmp_path, given=whole) == 0
    assert mentions(tmp_path) == expected == EXPECTED
    assert len(list((tmp_path / "out" / "_found").glob("*.json"))) > 5
    assert any(row["document"].startswith("a.jsonl, byte ") for row in rows(tmp_path))


def test_a_rerun_links_only_what_is_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = texts(tmp_path / "raw", TEXTS[:2])
    assert link(tmp_path) == 0
    texts(raw, TEXTS[2:], "b.jsonl")
    linked: list[str] = []
    call = LinkWorker.__call__

    def noting(self: LinkWorker, task: linking.LinkTask) -> Any:
        linked.append(task.source)
        return call(self, task)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LinkWorker, "__call__", noting)
        assert link(tmp_path) == 0
        assert linked == ["b.jsonl"]
        assert mentions(tmp_path) == EXPECTED
        before = {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
        assert link(tmp_path) == 0
        assert linked == ["b.jsonl"], "nothing has changed"
        after = {file.name: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
        assert after == before
        # Another rule, another table, another text: what they change is made again.
        assert link(tmp_path, "--no-compounds") == 0
        assert linked[1:] == ["a.jsonl", "b.jsonl"]
        texts(raw, [*TEXTS[2:], "Bergen."], "b.jsonl")
        assert link(tmp_path, "--no-compounds") == 0
        assert linked[3:] == ["b.jsonl"]
        texts(raw, ["Norway comes first."], "0.jsonl")
        assert link(tmp_path, "--no-compounds") == 0
        assert linked[4:] == ["0.jsonl"]
        assert link(tmp_path, "--no-compounds", entities=_names(tmp_path, "Oslo")) == 0
        assert linked[5:] == ["0.jsonl", "a.jsonl", "b.jsonl"]
    assert {entity for entity, _ in mentions(tmp_path)} == {"Oslo"}
    assert len(list((tmp_path / "out" / "_found").glob("*.json"))) == 3, "what is no longer used is gone"


def test_a_run_that_dies_goes_on_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = texts(tmp_path / "raw", TEXTS[:2])
    texts(raw, TEXTS[2:], "b.jsonl")
    call = LinkWorker.__call__

    def dying(self: LinkWorker, task: linking.LinkTask) -> Any:
        if task.source == "b.jsonl":
            raise OSError(28, "No space left on device")
        return call(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(LinkWorker, "__call__", dying)
        assert link(tmp_path) == 2
    assert not (tmp_path / "out" / "_manifest.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(
            LinkWorker, "__call__", lambda self, task: call(self, task) if task.source == "b.jsonl" else 1
        )
        assert link(tmp_path) == 0
    assert mentions(tmp_path) == EXPECTED


def _names(folder: Path, *names: str) -> Path:
    file = folder / "names.txt"
    file.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return file


def test_what_is_refused_is_in_quarantine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = texts(tmp_path / "raw")
    with (raw / "a.jsonl").open("a", encoding="utf-8") as out:
        out.write(
            '{"text": 5}\n{"text": \n{"body": "Oslo"}\n'
            + json.dumps({"text": "Oslo \x00 here. Oslo."})
            + "\n"
        )
    names = _names(tmp_path, "Oslo", "Bergen", "Norway", "Oslo", "x" * 600)
    assert link(tmp_path, entities=names, given=raw) == 0
    told = capsys.readouterr()
    assert "refused=6" in told.out
    lines = (tmp_path / "out" / "quarantine" / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["source"], one["code"]) for one in found] == [
        ("names.txt", "duplicate_entity"),
        ("names.txt", "text_too_long"),
        ("a.jsonl", "wrong_type"),
        ("a.jsonl", "not_json"),
        ("a.jsonl", "wrong_type"),
        ("a.jsonl", "text_control_character"),
    ]
    assert found[2]["position"].startswith("line 5,")
    assert mentions(tmp_path) == sorted([*EXPECTED, ("Oslo", "Oslo.")])
    assert link(tmp_path, "--strict", entities=names, given=raw) == 2
    assert "error: " in (said := capsys.readouterr().err)
    assert "6 rows or sentences were refused, and --strict allows none" in said
    assert not (tmp_path / "out" / "_manifest.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--texts", "{}/nowhere"], "nowhere: nothing is there; give a file, a folder, a pattern"),
        (["--texts", "{}/raw/none*.jsonl"], "none*.jsonl: no file of it can be read (found: a.jsonl)"),
        (["--text-columns", "text=body"], "a.jsonl has no column body (found: text)"),
        (["--text-columns", "title=body"], "there is no column title; known are text, document"),
        (["--text-columns", "body"], "--text-columns body: write OURS=THEIRS"),
        (["--entity-columns", "name=nom"], "places.csv: no column nom (found: title, also, attributes)"),
        (["--entities", "{}/empty.jsonl"], "empty.jsonl: no entity in it"),
        (["--texts", "{}/raw.docx"], "its ending says not how it is read"),
    ],
)
def test_mistakes_say_what_is_there(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "raw.docx").write_bytes(b"x")
    assert link(tmp_path, *(word.format(tmp_path) for word in words)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_an_output_within_the_texts_is_refused_before_it_is_read_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, everything = _names(tmp_path, "Oslo"), texts(tmp_path / "raw")
    words = ("--entities", names, "--texts", everything, "--output", everything / "linked", "--workers", 1)
    assert run_command(main, *words) == 0
    assert run_command(main, *words) == 2
    assert "lies within --texts" in capsys.readouterr().err


def test_texts_without_a_known_column_name_those_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table({"review": TEXTS, "stars": [1] * 4}), tmp_path / "raw" / "a.parquet")
    assert link(tmp_path, given=tmp_path / "raw") == 2
    assert "(found: review, stars); give --text-columns text=NAME" in capsys.readouterr().err


def test_few_sentences_are_drawn_and_common_words_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [f"The king of Oslo, number {i}." for i in range(30)] + [f"A queen, {i}." for i in range(2)]
    names = _names(tmp_path, "Oslo", "king", "queen")
    raw = texts(tmp_path / "raw", some)
    few = ("--per-entity", 5, "--too-common", 0.5)
    assert link(tmp_path, *few, entities=names, given=raw) == 0
    assert [entity for entity, _ in mentions(tmp_path)] == ["Oslo"] * 5 + ["king"] * 5 + ["queen"] * 2
    monkeypatch.setattr(link_drawing, "COMMON_SENTENCES", 29)  # in a small corpus nothing is too common
    assert link(tmp_path, *few, entities=names, given=raw) == 0
    assert [entity for entity, _ in mentions(tmp_path)] == ["Oslo"] * 5 + ["queen"] * 2
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Ordinary words that are too common: 1" in report
    assert "| king | 30 |" in report
    with (tmp_path / "out" / "report.csv").open(encoding="utf-8", newline="") as file:
        by_name = {row["entity"]: row for row in csv.DictReader(file)}
    assert (by_name["Oslo"]["mentions"], by_name["Oslo"]["drawn"]) == ("30", "5")
    assert (by_name["king"]["drawn"], by_name["king"]["too_common"]) == ("0", "30")
    drawn = set(mentions(tmp_path))
    texts(raw, [*some, "One more of Oslo."])
    assert link(tmp_path, *few, entities=names, given=raw) == 0
    assert len(drawn - set(mentions(tmp_path))) <= 1, "a draw stays, but for what a new one displaces"
    assert link(tmp_path, "--per-entity", 0, "--too-common", 1, entities=names, given=raw) == 0
    assert len(rows(tmp_path)) == 30 + 30 + 2 + 1


AMBIGUOUS = [
    "Georgia (country) makes wine in the Caucasus.",
    "Georgia (state) grows peaches in the south.",
    "The wine of Georgia is old.",
    "The peaches of Georgia are sweet.",
    "Georgia it is.",
]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("refuse", {}),
        ("all", {2: ["country", "state"], 3: ["country", "state"], 4: ["country", "state"]}),
        ("nearest", {2: ["country"], 3: ["state"]}),
    ],
)
def test_ambiguous_names_are_refused_taken_for_all_or_decided(
    tmp_path: Path, policy: str, expected: dict[int, list[str]]
) -> None:
    file = tmp_path / "e.jsonl"
    both = [{"name": f"Georgia ({kind})", "aliases": ["Georgia"]} for kind in ("country", "state")]
    file.write_text("".join(json.dumps(one) + "\n" for one in both), encoding="utf-8")
    raw = texts(tmp_path / "raw", AMBIGUOUS)
    assert link(tmp_path, "--ambiguous", policy, "--no-split", entities=file, given=raw) == 0
    found: dict[int, list[str]] = {}
    for entity, sentence in mentions(tmp_path):
        found.setdefault(AMBIGUOUS.index(sentence), []).append(entity[9:-1])
    assert found == {0: ["country"], 1: ["state"], **expected}
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "## Ambiguous: several entities are spelt so: 3 places" in report
    assert "The wine of [Georgia] is old." in report
    assert run_import(tmp_path / "w", tmp_path / "out", "parquet").manifest.counts.quarantined == 0


def test_a_broken_file_is_named_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = texts(tmp_path / "raw")
    (raw / "b.parquet").write_bytes(b"PAR1 no more")
    with gzip.open(raw / "c.jsonl.gz", "wb") as out:
        out.write(json.dumps({"text": "Oslo at the end."}).encode() * 200)
    packed = (raw / "c.jsonl.gz").read_bytes()
    (raw / "c.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert link(tmp_path, given=raw) == 0
    assert mentions(tmp_path) == EXPECTED
    told = capsys.readouterr()
    assert "refused=2" in told.out
    refused = (tmp_path / "out" / "quarantine" / "refused.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["code"] for line in refused.splitlines()] == ["file_broken", "file_cut_off"]


def test_from_bucket_to_bucket(s3: str, tmp_path: Path) -> None:
    for name, content in (
        ("places.csv", table(tmp_path).read_bytes()),
        ("raw/part-0.jsonl", (texts(tmp_path / "raw") / "a.jsonl").read_bytes()),
        ("raw/_SUCCESS", b""),
    ):
        (Store.open(s3) / name).write_bytes(content)
    words = ["--entities", f"{s3}/places.csv", "--entity-columns", "name=title,aliases=also"]
    words += ["--texts", f"{s3}/raw/part-*", "--output", f"{s3}/out", "--workers", "1"]
    assert run_command(main, *words) == 0
    assert run_command(main, *words) == 0
    got = run_import(f"{s3}/work", f"{s3}/out", "parquet")
    assert got.manifest.counts.mentions == len(EXPECTED)


def test_parts_may_be_done_elsewhere_and_in_any_order(tmp_path: Path) -> None:
    raw = texts(tmp_path / "raw", TEXTS[:2])
    texts(raw, TEXTS[2:], "b.jsonl")
    files, columns = find_row_files(str(raw)).files, {"text": "text"}
    entities = [Entity(name, [], None, {}, "", RowPosition(0)) for name in ("Oslo", "Bergen", "Norway")]
    found = {}
    for executor in (LocalExecutor(), LastFirst()):
        output = Store.open(tmp_path / type(executor).__name__)
        result = link_parts(LinkSource(entities, files, columns), output, LinkSettings(), executor)
        found[output.name] = draw(output, result, entities, DrawSettings())
    written = [sorted((tmp_path / name / "sentences").glob("*")) for name in found]
    assert [file.read_bytes() for file in written[0]] == [file.read_bytes() for file in written[1]]
    assert sum(found["LastFirst"].parts) == len(EXPECTED)


def test_settings_are_plain_data() -> None:
    settings = LinkSettings(rules=LinkRules(case="any"))
    assert LinkSettings.model_validate_json(settings.model_dump_json()) == settings


def test_an_unknown_language_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert link(tmp_path, "--language", "xx") == 2
    assert "--language xx: no language that sentencex knows" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert link(tmp_path, "--language", "xx", "--no-split") == 0
    assert link(tmp_path, "--language", "sv") == 0
    assert "sentencex has no rules of this language" in capsys.readouterr().err


def test_a_wide_space_behind_an_abbreviation_ends_no_worker(tmp_path: Path) -> None:
    """sentencex alone panics on it, in languages whose rules look at what stands before a full stop."""
    raw = texts(tmp_path / "raw", ["The road to A\u00a0. Oslo is far."])
    assert link(tmp_path, given=raw) == 0
    assert mentions(tmp_path) == [("Oslo", "The road to A . Oslo is far.")]
