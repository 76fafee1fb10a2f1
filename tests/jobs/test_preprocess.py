import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.corpus.importing import writer
from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.corpus.inputs.worker import PartMaker, Stats
from engine.errors import StorageError, UserError
from engine.models.hub import EMBEDDED, embedded_model_path
from engine.storage.workspace import Workspace
from jobs.preprocess import Outcome, preprocess
from tests.support.corpora import jsonl, run_import, ultrawiki

ROOT = Path(__file__).parents[2]
NAMES = ["iron", "gold", "zinc"]


def raw(folder: Path) -> Path:
    sentences = {n: [f"Sentence {i} tells of {n} and more." for i in range(10)] for n in NAMES}
    return ultrawiki(folder, sentences, ent2text={"iron": "A metal."})


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """30 mentions in parts of 8."""
    monkeypatch.setattr(writer, "PART_ROWS", 8)
    run_import(tmp_path / "w", raw(tmp_path / "raw"), "ultrawiki")
    return tmp_path / "w"


def make(workspace: str | Path, force: bool = False, workers: int = 2, **settings: object) -> Outcome:
    tokenizer = fingerprint(load_tokenizer(embedded_model_path()))
    wanted = InputSettings.model_validate({"tokenizer": tokenizer, "max_sentences": 4} | settings)
    return preprocess(Workspace.open(workspace), EMBEDDED, wanted, workers, force)


def rows(workspace: str | Path) -> list[dict[str, object]]:
    tables = []
    for part in open_inputs(Workspace.open(workspace)).parts:
        with part.open_input() as stream:
            tables.append(pq.read_table(stream).replace_schema_metadata(None))
    found: list[dict[str, object]] = pa.concat_tables(tables).to_pylist()
    return found


def stamps(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("part-*")}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same parts by the same maker, without Ray."""

    def make_here(
        workspace: Workspace,
        model: str,
        settings: InputSettings,
        key: str,
        drawn: dict[int, np.ndarray],
        workers: int | None,
    ) -> dict[int, Stats]:
        maker = PartMaker(workspace.root.uri, model, settings, key)
        return {i: maker.make(i, part) for i, part in drawn.items()}

    monkeypatch.setattr("jobs.preprocess._make", make_here)


def test_parts_are_made_once_and_only_where_missing(in_process: None, corpus: Path) -> None:
    first = make(corpus)
    assert (first.made, first.kept, first.manifest.mentions) == (4, 0, 12)
    folder = corpus / "inputs" / first.key
    before, content = stamps(folder), rows(corpus)
    assert [r["entity_id"] for r in content] == [0] * 4 + [1] * 4 + [2] * 4
    again = make(corpus)
    assert (again.made, again.kept, again.manifest) == (0, 4, first.manifest)
    assert stamps(folder) == before
    (folder / "part-00002.parquet").unlink()
    (folder / "part-00001.parquet").write_bytes(b"PAR1 half a part")
    mended = make(corpus)
    assert (mended.made, mended.kept, mended.manifest) == (2, 2, first.manifest)
    after = stamps(folder)
    assert {n for n in before if before[n] != after[n]} == {"part-00001.parquet", "part-00002.parquet"}
    assert rows(corpus) == content
    assert make(corpus, force=True).made == 4
    assert rows(corpus) == content


def test_other_settings_go_beside(in_process: None, corpus: Path) -> None:
    plain = make(corpus)
    told = make(corpus, descriptions=True)
    assert plain.key != told.key
    assert open_inputs(Workspace.open(corpus)).key == told.key
    assert open_inputs(Workspace.open(corpus), plain.key).manifest == plain.manifest
    text = load_tokenizer(embedded_model_path()).decode(rows(corpus)[0]["input_ids"])
    assert text.startswith("[CLS] a metal. sentence ")
    assert text.endswith("tells of [MASK] and more. [SEP]")


def test_a_corpus_that_was_replaced(in_process: None, corpus: Path, tmp_path: Path) -> None:
    old = make(corpus)
    run_import(corpus, ultrawiki(tmp_path / "raw", {"iron": ["Iron."]}), "ultrawiki", overwrite=True)
    with pytest.raises(UserError, match="made from another corpus than the one that is there now"):
        open_inputs(Workspace.open(corpus))
    assert make(corpus).key != old.key
    assert len(rows(corpus)) == 1


def test_the_draw_does_not_depend_on_the_parts(
    in_process: None, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(corpus)
    monkeypatch.setattr(writer, "PART_ROWS", 1000)
    run_import(tmp_path / "one", tmp_path / "raw", "ultrawiki")
    assert make(tmp_path / "one").made == 1
    assert rows(tmp_path / "one") == rows(corpus)


@pytest.mark.slow
def test_ray_makes_the_same_parts(ray_local: None, corpus: Path, request: pytest.FixtureRequest) -> None:
    spread = make(corpus)
    content = rows(corpus)
    request.getfixturevalue("in_process")
    assert make(corpus, force=True) == spread
    assert rows(corpus) == content


@pytest.mark.slow
def test_a_mistake_on_a_worker_reaches_the_driver(ray_local: None, corpus: Path) -> None:
    with pytest.raises(UserError, match=r"^--model embedded: this node has another tokenizer"):
        make(corpus, tokenizer="0" * 64)
    with pytest.raises(UserError, match="no model input here yet"):
        open_inputs(Workspace.open(corpus))


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.preprocess", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=200)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    early = job("--workspace", str(tmp_path / "w"))
    assert early.returncode == 2
    assert "no corpus here yet; run `python -m jobs.import_corpus" in early.stderr
    assert len(early.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_command_line_in_a_bucket(s3: str, tmp_path: Path) -> None:
    """A process of its own: Ray's workers take the address from the environment that Ray started in."""
    run_import(f"{s3}/w", raw(tmp_path / "raw"), "ultrawiki")
    wrong = job("--workspace", f"{s3}/w", "--model", str(tmp_path / "raw"))
    assert wrong.returncode == 2
    assert wrong.stderr.startswith(f"error: --model {tmp_path}/raw: no tokenizer can be loaded from it")
    done = job("--workspace", f"{s3}/w", "--max-sentences", "2", "--max-length", "16", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert " mentions=6 " in done.stdout
    assert "parts_made=1 parts_kept=0" in done.stdout
    assert len(rows(f"{s3}/w")) == 6
    again = job("--workspace", f"{s3}/w", "--max-sentences", "2", "--max-length", "16")
    assert "parts_made=0 parts_kept=1" in again.stdout


def test_a_corpus_with_a_part_missing(tmp_path: Path) -> None:
    run_import(tmp_path / "w", raw(tmp_path / "raw"), "ultrawiki")
    shutil.rmtree(tmp_path / "w/corpus/mentions")
    with pytest.raises(UserError, match=r"not the parts that corpus/manifest.json lists; import again"):
        make(tmp_path / "w")


def test_contexts_without_a_sentence_are_drawn_only_when_asked_for(in_process: None, tmp_path: Path) -> None:
    table = [{"entity": "iron", "image": f"{i}.png"} for i in range(3)]
    table += [{"entity": "iron", "sentence": "Iron rusts."}, {"entity": "tin", "image": "4.png"}]
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", table), "jsonl")
    text = make(tmp_path / "w")
    assert [(r["entity_id"], r["mention"]) for r in rows(tmp_path / "w")] == [(0, 3)]
    both = make(tmp_path / "w", images=True)
    assert "-I-" in both.key
    assert "-I-" not in text.key
    drawn = rows(tmp_path / "w")
    assert [(r["entity_id"], r["mention"]) for r in drawn] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 4)]
    tokenizer = load_tokenizer(embedded_model_path())
    alone = [tokenizer.cls_token_id, tokenizer.mask_token_id, tokenizer.sep_token_id]
    assert [r["input_ids"] == alone for r in drawn] == [True, True, True, False, True]


def test_text_alone_of_a_corpus_of_images_alone_is_a_mistake(tmp_path: Path) -> None:
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", [{"entity": "iron", "image": "a.png"}]), "jsonl")
    with pytest.raises(StorageError, match="no sentence in it, images alone; add --images"):
        make(tmp_path / "w")
