import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.corpus.importing import writer
from engine.corpus.inputs.format import InputSettings, open_inputs
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.errors import StorageError, UserError
from engine.models.hub import EMBEDDED, embedded_model_path
from engine.storage.workspace import Workspace
from jobs.preprocess import main
from jobs.steps import model_input
from jobs.steps.model_input import PreprocessResult, preprocess
from jobs.workers.executor import Executor, LocalExecutor
from tests.support.commands import run_command
from tests.support.corpora import jsonl, run_import, ultrawiki
from tests.support.encoders import write_encoder

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


def make(
    workspace: str | Path, force: bool = False, executor: Executor | None = None, **settings: object
) -> PreprocessResult:
    tokenizer = fingerprint(load_tokenizer(embedded_model_path()))
    wanted = InputSettings.model_validate({"tokenizer": tokenizer, "max_sentences": 4} | settings)
    return preprocess(Workspace.open(workspace), EMBEDDED, wanted, executor or LocalExecutor(), force)


def rows(workspace: str | Path) -> list[dict[str, Any]]:
    tables = []
    for part in open_inputs(Workspace.open(workspace)).parts:
        with part.open_input() as stream:
            tables.append(pq.read_table(stream).replace_schema_metadata(None))
    found: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return found


def stamps(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("part-*")}


def test_parts_are_made_once_and_only_where_missing(corpus: Path) -> None:
    first = make(corpus)
    assert (first.made, first.kept, first.manifest.mentions) == (4, 0, 12)
    folder = Path(open_inputs(Workspace.open(corpus)).parts[0].path).parent
    before, content = stamps(folder), rows(corpus)
    assert [r["entity_id"] for r in content] == [0] * 4 + [1] * 4 + [2] * 4
    again = make(corpus)
    assert (again.made, again.kept, again.manifest) == (0, 4, first.manifest)
    assert stamps(folder) == before
    lost, broken = sorted(before)[:2]
    (folder / lost).unlink()
    (folder / broken).write_bytes(b"PAR1 half a part")
    mended = make(corpus)
    assert (mended.made, mended.kept, mended.manifest) == (2, 2, first.manifest)
    after = stamps(folder)
    assert {n for n in before if before[n] != after[n]} == {lost, broken}
    assert rows(corpus) == content
    assert make(corpus, force=True).made == 4
    assert rows(corpus) == content


def test_other_settings_go_beside(corpus: Path) -> None:
    plain = make(corpus)
    told = make(corpus, descriptions=True)
    assert plain.key != told.key
    assert open_inputs(Workspace.open(corpus)).key == told.key
    assert open_inputs(Workspace.open(corpus), plain.key).manifest == plain.manifest
    text = load_tokenizer(embedded_model_path()).decode(rows(corpus)[0]["input_ids"])
    assert isinstance(text, str)
    assert text.startswith("[CLS] a metal. sentence ")
    assert text.endswith("tells of [MASK] and more. [SEP]")


def test_names_stay_in_descriptions_unless_they_are_to_be_masked(tmp_path: Path) -> None:
    sentences = {"iron": ["We know iron here."], "zinc": ["We know zinc here."]}
    about = {"iron": "Iron is a metal."}
    run_import(tmp_path / "w", ultrawiki(tmp_path / "raw", sentences, ent2text=about), "ultrawiki")
    decode = load_tokenizer(embedded_model_path()).decode
    kept = make(tmp_path / "w", descriptions=True)
    first, second = (decode(row["input_ids"]) for row in rows(tmp_path / "w"))
    assert first == "[CLS] iron is a metal. we know [MASK] here. [SEP]"
    assert second == "[CLS] we know [MASK] here. [SEP]", "it has no description"
    masked = make(tmp_path / "w", descriptions=True, description_names="masked")
    assert masked.key != kept.key
    assert (
        decode(rows(tmp_path / "w")[0]["input_ids"]) == "[CLS] [MASK] is a metal. we know [MASK] here. [SEP]"
    )


def test_a_corpus_that_was_replaced(corpus: Path, tmp_path: Path) -> None:
    old = make(corpus)
    run_import(corpus, ultrawiki(tmp_path / "raw", {"iron": ["Iron."]}), "ultrawiki", overwrite=True)
    with pytest.raises(UserError, match="made from another corpus than the one that is there now"):
        open_inputs(Workspace.open(corpus))
    assert make(corpus).key != old.key
    assert len(rows(corpus)) == 1


def test_the_draw_does_not_depend_on_the_parts(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(corpus)
    monkeypatch.setattr(writer, "PART_ROWS", 1000)
    run_import(tmp_path / "one", tmp_path / "raw", "ultrawiki")
    assert make(tmp_path / "one").made == 1
    without = [[{**row, "row": None} for row in rows(folder)] for folder in (tmp_path / "one", corpus)]
    assert without[0] == without[1]


def test_one_new_sentence_makes_one_part_anew(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Appended to the last entity, so that nothing before it moves."""
    make(corpus, max_sentences=100)
    before = rows(corpus)
    more = {n: [f"Sentence {i} tells of {n} and more." for i in range(10)] for n in NAMES}
    more["zinc"].append("A new sentence on zinc.")
    told = {"iron": "A metal."}
    run_import(corpus, ultrawiki(tmp_path / "more", more, ent2text=told), "ultrawiki", overwrite=True)
    grown = make(corpus, max_sentences=100)
    assert (grown.made, grown.kept) == (1, 3)
    after = rows(corpus)
    assert after[:-1] == before
    assert after[-1]["row"] == 6, "the last of the fourth part"
    aside = make(corpus, max_sentences=100, force=True)
    assert aside.manifest == grown.manifest
    assert rows(corpus) == after, "parts that were kept are those that would be made"


def test_a_description_that_changes_makes_its_parts_anew(corpus: Path, tmp_path: Path) -> None:
    make(corpus, max_sentences=100, descriptions=True)
    sentences = {n: [f"Sentence {i} tells of {n} and more." for i in range(10)] for n in NAMES}
    other = ultrawiki(tmp_path / "other", sentences, ent2text={"iron": "Another metal."})
    run_import(corpus, other, "ultrawiki", overwrite=True)
    again = make(corpus, max_sentences=100, descriptions=True)
    assert (again.made, again.kept) == (2, 2), "iron's sentences are in the first two of four parts"
    content = rows(corpus)
    make(corpus, max_sentences=100, descriptions=True, force=True)
    assert rows(corpus) == content


def test_another_tokenizer_under_the_same_name_is_a_mistake(corpus: Path) -> None:
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
    assert "no corpus here yet; run `seedset import" in early.stderr
    assert len(early.stderr.splitlines()) == 1


def test_the_command_line_in_a_bucket(
    s3: str, tmp_path: Path, in_this_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run_import(f"{s3}/w", raw(tmp_path / "raw"), "ultrawiki")
    words: tuple[object, ...] = ("--workspace", f"{s3}/w")
    assert run_command(main, *words, "--model", tmp_path / "raw") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --model {tmp_path}/raw: no tokenizer can be loaded from it")
    words += ("--max-sentences", 2, "--max-length", 16)
    assert run_command(main, *words, "--workers", 1) == 0
    out = capsys.readouterr().out
    assert " mentions=6 " in out
    assert "parts_made=1 parts_kept=0" in out
    assert len(rows(f"{s3}/w")) == 6
    assert run_command(main, *words) == 0
    assert "parts_made=0 parts_kept=1" in capsys.readouterr().out


def test_a_corpus_with_a_part_missing(tmp_path: Path) -> None:
    run_import(tmp_path / "w", raw(tmp_path / "raw"), "ultrawiki")
    shutil.rmtree(tmp_path / "w/corpus/mentions")
    with pytest.raises(UserError, match=r"not the parts that corpus/manifest.json lists; import again"):
        make(tmp_path / "w")


def test_contexts_without_a_sentence_are_drawn_only_when_asked_for(tmp_path: Path) -> None:
    table = [{"entity": "iron", "image": f"{i}.png"} for i in range(3)]
    table += [{"entity": "iron", "sentence": "Iron rusts."}, {"entity": "tin", "image": "4.png"}]
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", table), "jsonl")
    text = make(tmp_path / "w")
    assert [(r["entity_id"], r["row"]) for r in rows(tmp_path / "w")] == [(0, 3)]
    both = make(tmp_path / "w", images=True)
    assert "-I-" in both.key
    assert "-I-" not in text.key
    drawn = rows(tmp_path / "w")
    assert [(r["entity_id"], r["row"]) for r in drawn] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 4)]
    tokenizer = load_tokenizer(embedded_model_path())
    alone = [tokenizer.cls_token_id, tokenizer.mask_token_id, tokenizer.sep_token_id]
    assert [r["input_ids"] == alone for r in drawn] == [True, True, True, False, True]


def test_contexts_of_a_sentence_with_several_images_are_numbered_over_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 3)
    told = ["Iron rusts.", "Iron melts.", "Iron rusts."]
    images: list[dict[str, Any]] = [{"image": f"{i}.png"} if i % 4 else {} for i in range(10)]
    table = [{"entity": "iron", "sentence": told[i % 3]} | image for i, image in enumerate(images)]
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", table), "jsonl")
    workspace = Workspace.open(tmp_path / "w")
    found, seen = model_input.numbers_of_images(workspace), Counter[str]()
    assert len(found) > 2
    for part, numbers in zip(workspace.mentions(), found, strict=True):
        for row, number in zip(pq.read_table(part.path).to_pylist(), numbers.tolist(), strict=True):
            seen[row["sentence"]] += row["image"] is not None
            assert number == (seen[row["sentence"]] if row["image"] is not None else 0)
    assert max(seen.values()) > 2


def test_text_alone_of_a_corpus_of_images_alone_is_a_mistake(tmp_path: Path) -> None:
    run_import(tmp_path / "w", jsonl(tmp_path / "s.jsonl", [{"entity": "iron", "image": "a.png"}]), "jsonl")
    with pytest.raises(StorageError, match="no sentence in it, images alone; add --images"):
        make(tmp_path / "w")


def cyrillic(folder: Path, share: int) -> Path:
    """Write 20 sentences for a tokenizer of Latin letters, some of them in another alphabet's."""
    foreign = "Железо iron ржавеет и потом не блестит так как оно должно {}."
    sentences = {"iron": [foreign.format(i) if i < share else f"Iron {i} rusts." for i in range(20)]}
    return ultrawiki(folder, sentences)


def test_words_that_the_tokenizer_lacks_are_told_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_encoder(tmp_path / "letters")
    model = str(tmp_path / "letters")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(model)))
    for share, unknown in ((0, 0), (4, 4 * 10)):
        run_import(tmp_path / "w", cyrillic(tmp_path / f"raw{share}", share), "ultrawiki", overwrite=True)
        capsys.readouterr()
        made = preprocess(Workspace.open(tmp_path / "w"), model, settings, LocalExecutor())
        assert made.manifest.unknown == unknown
        told = capsys.readouterr().err
        assert ("unknown to its tokenizer, such as in 'Железо iron" in told) == (share > 0)


def test_a_corpus_that_the_tokenizer_cannot_read_is_refused(tmp_path: Path) -> None:
    write_encoder(tmp_path / "letters")
    model = str(tmp_path / "letters")
    run_import(tmp_path / "w", cyrillic(tmp_path / "raw", 20), "ultrawiki")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(model)))
    with pytest.raises(UserError, match=r"letters: \d\d% of the tokens of 20 sentences.*xlm-roberta"):
        preprocess(Workspace.open(tmp_path / "w"), model, settings, LocalExecutor())
    with pytest.raises(UserError, match="no model input here yet"):
        open_inputs(Workspace.open(tmp_path / "w"))
