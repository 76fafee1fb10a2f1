"""A report on random bundles: every method a row, the same bytes again, nothing measured twice."""

from __future__ import annotations

import errno
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.evaluation import cells
from engine.evaluation.comparison import COMPARED_POSITIVE, differences
from engine.evaluation.plots import available
from engine.evaluation.sweeps import sample
from engine.evaluation.tables import tables
from engine.methods import METHODS
from engine.queries.formats import read_queries
from engine.stages.generate import Generator
from engine.storage.bundle import Bundle
from engine.storage.publishing import point_to
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import evaluate, expand
from jobs.report import main
from jobs.steps import reporting
from jobs.steps.measuring import measuring
from tests.support.bundles import method_bundle, publish_vectors
from tests.support.commands import run_command

N = 40
NAMES = ("retexpan", "retexpan-negative", "retexpan+cds", "default")
FAST = tuple(word for name in NAMES for word in ("--method", name))


def write_world(root: Path) -> Path:
    """A bundle that every method can run on; two classes with attributes, negative seeds, missing truth."""
    method_bundle(root / "w", n=N, d=4)
    (root / "query").mkdir(parents=True)
    for label, first in (("things", 0), ("<b>places</b>", 20)):
        records = [
            {
                "group_id": i,
                "pos_seeds": [first + i, first + i + 1],
                "neg_seeds": [first + 10 + i, first + 11],
                "pos_gt": [*range(first + (4, 15)[i % 2], first + (9, 19)[i % 2]), "nobody"],
                "neg_gt": [first + 13, first + 14],
                "pos_attrs": {"kind": ("a", "b")[i % 2]},
                "neg_attrs": {"kind": "c"} if i else {"size": "d"},
                "class": label,
            }
            for i in range(3)
        ]
        (root / "query" / f"{first}.json").write_text(json.dumps(records))
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("report"))


def report(root: Path, *extra: object) -> int:
    return run_command(main, "--workspace", root / "w", "--queries", root / "query", *extra)


def read(root: Path, name: str = "report.json") -> bytes:
    return (root / "w" / "runs" / "report" / name).read_bytes()


@pytest.fixture(scope="module")
def first(world: Path) -> dict:
    """The first report on the world, without figures."""
    assert report(world, *FAST, "--no-plots", "--sweep", "negatives", "--sweep", "length") == 0
    return json.loads(read(world))


def test_rows_hold_intervals_and_tests_against_the_baseline(first: dict) -> None:
    rows = {row["method"]: row for row in first["rows"]}
    assert tuple(rows) == NAMES
    for row in rows.values():
        for column in ("CombMAP", "PosMAP@10", "NegP@100", "Avg"):
            low, high = row["intervals"][column]
            assert low <= row["overall"][column] <= high
    assert "against" not in rows["retexpan"]
    test = rows["default"]["against"]
    difference = rows["default"]["overall"]["CombMAP"] - rows["retexpan"]["overall"]["CombMAP"]
    assert test["difference"] == pytest.approx(difference, abs=2e-3)
    assert test["low"] <= test["difference"] <= test["high"]
    assert 0 < test["p"] <= test["p_holm"] <= 1


def test_a_note_that_several_methods_have_stands_once(first: dict) -> None:
    rows = [row | {"note": "is odd"} for row in first["rows"] if "overall" in row]
    (all_methods,) = (one for one in tables(first | {"rows": rows}) if one.title == "All methods")
    noted = [note for note in all_methods.notes if note.endswith(": is odd.")]
    assert noted == [f"{', '.join(row['method'] for row in rows)}: is odd."]


def test_sweeps_hold_a_value_each(first: dict) -> None:
    sweeps = {sweep["name"]: sweep for sweep in first["sweeps"]}
    assert [len(sweeps[name]["overall"]) for name in ("negatives", "length")] == [6, 6]
    rows = {row["method"]: row["overall"] for row in first["rows"]}
    at = dict(zip(sweeps["length"]["values"], sweeps["length"]["overall"], strict=True))
    assert at[4] == rows["retexpan"], "the paper's length is the method itself"
    assert at[1] != at[32]
    at = dict(zip(sweeps["negatives"]["values"], sweeps["negatives"]["overall"], strict=True))
    assert at[2] == at[5] == rows["retexpan"], "no query has more than two"


def test_the_same_again_measures_nothing_and_has_the_same_bytes(
    world: Path, first: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, times = read(world), read(world, "timings.json")
    asked = (*FAST, "--no-plots", "--sweep", "negatives", "--sweep", "length")
    with monkeypatch.context() as patch:
        patch.setattr(cells, "measure_into", lambda *_: pytest.fail("measured again"))
        assert report(world, *asked) == 0
    assert (read(world), read(world, "timings.json")) == (before, times)
    # On another disk, from nothing.
    elsewhere = write_world(tmp_path)
    assert report(elsewhere, *asked) == 0
    assert read(elsewhere) == before


def test_a_method_that_cannot_run_is_a_row_that_says_why(world: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(N, 4))
    publish_vectors(Workspace.open(tmp_path / "w"), [f"entity {i}" for i in range(N)], {"mask": vectors})
    (tmp_path / "query").symlink_to(world / "query")
    few = ("--no-plots", "--sweep", "none", "--method", "lexical", "--method", "retexpan-negative")
    assert report(tmp_path, *few, "--baseline", "lexical") == 0
    assert "No tests: the baseline lexical was not measured." in read(tmp_path, "report.md").decode()
    assert report(tmp_path, "--no-plots", "--sweep", "top-p") == 0
    found = json.loads(read(tmp_path))
    rows = {row["method"]: row for row in found["rows"]}
    why = "the bundle lacks index/lexical.faiss; run `seedset build-index`, which makes it"
    assert rows["lexical"]["why_not"] == why
    assert "lacks lm, trie; run `seedset pretrain-lm`" in rows["genexpan"]["why_not"]
    assert "images: run `seedset image-features`" in rows["multimodal"]["why_not"]
    assert "--row retexpan+ra=retexpan@BUNDLE" in rows["retexpan+ra"]["why_not"]
    assert "overall" in rows["retexpan"]
    assert found["sweeps"] == []
    assert [one["name"] for one in found["sweeps_left_out"]] == ["top-p"]
    text = read(tmp_path, "report.md").decode()
    assert "## Not measured" in text
    assert f"| lexical | {why} |" in text
    assert "| sweep: Top-p of selection (figure 7) | the bundle lacks lm, trie; run" in text


def test_a_method_without_any_answer_is_not_measured(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With nothing found, nothing wrong is found either, which is a CombMAP of 50."""
    vectors = np.random.default_rng(0).normal(size=(N, 4))
    views = {"mask": vectors, "lexical": np.zeros((N, 4))}
    publish_vectors(Workspace.open(tmp_path / "w"), [f"entity {i}" for i in range(N)], views)
    (tmp_path / "query").symlink_to(world / "query")
    methods = ("--method", "retexpan-negative", "--method", "lexical")
    assert report(tmp_path, *methods, "--no-plots", "--sweep", "none", "--baseline", "lexical") == 0
    rows = {row["method"]: row for row in json.loads(read(tmp_path))["rows"]}
    assert "overall" in rows["retexpan-negative"]
    why = rows["lexical"]["why_not"]
    said = r"none of the 6 queries has an answer; the first: Retrieve: .* has no sentence and was not used"
    assert re.fullmatch(said, why)
    assert f"| lexical | {why} |" in read(tmp_path, "report.md").decode()

    asked = ["--workspace", str(tmp_path / "w"), "--queries", str(tmp_path / "query")]
    capsys.readouterr()
    assert run_command(evaluate.main, *asked, *methods) == 0
    told = capsys.readouterr()
    assert "method=retexpan-negative" in told.out
    assert f"lexical: {why}; its figures say nothing" in told.err
    page = (tmp_path / "w" / "runs" / "evaluate" / "lexical" / "report.md").read_text()
    assert f"Note: {why}." in page
    assert run_command(evaluate.main, *asked, "--method", "lexical") == 2
    assert f"error: lexical: {why}" in capsys.readouterr().err


def test_the_page_is_one_file_without_scripts(world: Path, first: dict) -> None:
    page = read(world, "report.html").decode()
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:image/png;base64,)""", page)
    assert 'name="viewport"' in page
    assert "<b>places</b>" not in page, "names are text"
    assert "&lt;b&gt;places&lt;/b&gt;" in page
    text = read(world, "report.md").decode()
    assert "- truth: protocol seedset; 6 true names" in text
    assert "All figures in percent" in text
    for title in ("table 2", "table 4", "table 5", "table 15", "table 18", "fine-grained class"):
        assert title in page
    assert "table 3: main" not in page, "that is MESED's"


@pytest.mark.skipif(not available(), reason="matplotlib is the extra `report`")
def test_figures_are_drawn_into_the_page(
    world: Path, first: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (*FAST, "--sweep", "negatives", "--output", world / "drawn")
    assert report(world, *asked) == 0
    drawn = sorted(path.stem for path in (world / "drawn" / "plots").glob("*.png"))
    assert drawn == ["classes", "curves", "sweep-negatives", "views"]
    page = (world / "drawn" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(drawn)
    told = capsys.readouterr()
    assert f"plots={len(drawn)}" in told.out
    assert "after contrast:" in told.err, "of the contrast view, which the bundle has"


def test_classes_of_all_queries_are_the_truth_of_a_sample(world: Path, first: dict) -> None:
    """Whichever command measured a query first, its class is that of the whole file."""
    asked = ("--no-plots", "--sweep", "none", "--method", "retexpan", "--method", "retexpan+lm-rerank")
    for option in ("--sample", "--sample-generating"):
        assert report(world, *asked, option, 2, "--overwrite", "--output", world / option) == 0
    found = [
        {row["method"]: row for row in json.loads((world / option / "report.json").read_text())["rows"]}
        for option in ("--sample", "--sample-generating")
    ]
    assert found[0]["retexpan+lm-rerank"]["overall"] == found[1]["retexpan+lm-rerank"]["overall"]
    workspace = Workspace.open(world / "w")
    bundle = Bundle.open(workspace)
    queries = read_queries(Store.open(world / "query"), bundle.vocabulary)
    assert (
        measuring(workspace, bundle, queries).digest
        != measuring(workspace, bundle, sample(queries, 2)).digest
    )


def test_what_the_outside_throws_is_a_row_and_a_defect_is_none(
    world: Path, first: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--no-plots", "--sweep", "none", "--method", "retexpan", "--method", "default")
    measure = reporting.measure_cell

    def failing(error: Exception):
        def run(cells_folder, pipeline, *rest):
            if pipeline == METHODS["default"]:
                raise error
            return measure(cells_folder, pipeline, *rest)

        return run

    monkeypatch.setattr(reporting, "measure_cell", failing(OSError(errno.ENOSPC, "full", "lm/weights")))
    assert report(world, *asked, "--output", tmp_path) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "report.json").read_text())["rows"]}
    assert "overall" in rows["retexpan"]
    assert "free space" in rows["default"]["why_not"]
    monkeypatch.setattr(reporting, "measure_cell", failing(ZeroDivisionError()))
    assert report(world, *asked, "--output", tmp_path) == 1


def test_a_setting_of_the_training_is_swept_over_bundles(world: Path, first: dict, tmp_path: Path) -> None:
    own = shutil.copytree(world, tmp_path / "world")
    workspace = Workspace.open(own / "w")
    ours = Bundle.open(workspace)
    views = {"mask": np.random.default_rng(5).normal(size=(N, 4))}
    other = publish_vectors(workspace, ours.vocabulary.names, views)
    point_to(workspace, ours.id)
    given = ("--smoothing", f"0.1={ours.id}", "--smoothing", f"0.2={other.id}", "--mined", f"10={other.id}")
    words = ("--method", "retexpan", "--no-plots", "--sweep", "none")
    assert report(own, *words, *given, "--output", tmp_path) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    (sweep,) = found["sweeps"]
    assert (sweep["name"], sweep["method"], sweep["values"]) == ("smoothing", "retexpan", [0.1, 0.2])
    assert sweep["overall"][0] == first["rows"][0]["overall"] != sweep["overall"][1]
    (left_out,) = found["sweeps_left_out"]
    assert "retexpan+contrast is not among the methods" in left_out["why_not"]


def test_two_reports_are_compared(world: Path, first: dict, tmp_path: Path, capsys) -> None:
    other = json.loads(json.dumps(first))
    other["rows"][0]["overall"]["CombMAP"] -= 1.25
    other["rows"].pop(1)
    other["protocol"] = "mesed"
    (tmp_path / "other.json").write_text(json.dumps(other))
    words = (*FAST, "--no-plots", "--sweep", "none", "--compare", tmp_path / "other.json")
    assert report(world, *words, "--output", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "protocol: seedset, and mesed in the other" in shown
    assert "retexpan-negative: only here" in shown
    assert re.search(r"^retexpan .*\(\+1\.25\)", shown, re.MULTILINE)
    assert "(+1.25)" in (tmp_path / "out" / "report.html").read_text()


def test_a_language_model_is_measured_on_a_sample_and_compared_on_that(world: Path, first: dict) -> None:
    asked = ("--no-plots", "--sweep", "none", "--method", "retexpan", "--method", "retexpan+lm-rerank")
    assert report(world, *asked, "--sample-generating", 2, "--output", world / "sampled") == 0
    base, own = json.loads((world / "sampled" / "report.json").read_text())["rows"]
    assert (base["overall"]["queries"], own["overall"]["queries"], own["against"]["queries"]) == (6, 2, 2)
    assert base["overall"] == first["rows"][0]["overall"]
    assert "were measured on a sample" in (world / "sampled" / "report.md").read_text()


def test_what_expand_wrote_is_a_row(world: Path, first: dict, tmp_path: Path) -> None:
    words = ("--workspace", world / "w", "--queries", world / "query", "--method", "retexpan")
    assert run_command(expand.main, *words, "--output", tmp_path / "results", "--workers", 1) == 0
    asked = ("--no-plots", "--sweep", "none", "--output", tmp_path / "out", "--results", tmp_path / "results")
    (index,) = (world / "w" / "bundles").glob("*/index")
    index.rename(tmp_path / "index")  # names are enough to measure what is there
    try:
        assert report(world, *asked) == 0
    finally:
        (tmp_path / "index").rename(index)
    (row,) = json.loads((tmp_path / "out" / "report.json").read_text())["rows"]
    assert "No tests" not in (tmp_path / "out" / "report.md").read_text()
    direct = first["rows"][0]
    assert row["method"] == "retexpan"
    assert row["overall"].items() <= direct["overall"].items()
    assert row["intervals"] == direct["intervals"]


def test_two_results_of_one_method_are_two_rows(world: Path, first: dict, tmp_path: Path) -> None:
    """The same run again may find other things, as a chat model does: what was written counts."""
    words = ("--workspace", world / "w", "--queries", world / "query", "--method", "retexpan")
    assert run_command(expand.main, *words, "--output", tmp_path / "a" / "out", "--workers", 1) == 0
    for name in ("b", "c"):
        shutil.copytree(tmp_path / "a" / "out", tmp_path / name / "out")
        (file,) = (tmp_path / name / "out").glob("part-*.parquet")
        table = pq.read_table(file)
        backwards = pc.subtract(N - 1, table["entity_id"]).cast(pa.int32())
        place = table.column_names.index("entity_id")
        pq.write_table(table.set_column(place, table.schema.field(place), backwards), file)
    given = [word for name in "abc" for word in ("--results", tmp_path / name / "out")]
    assert report(world, "--no-plots", "--sweep", "none", "--output", tmp_path / "r", *given) == 0
    rows = json.loads((tmp_path / "r" / "report.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["retexpan", "retexpan (out)", "retexpan (out, 2)"]
    assert rows[0]["overall"] != rows[1]["overall"] == rows[2]["overall"]
    assert rows[1]["against"]["difference"] != 0


def test_a_row_may_be_of_another_bundle(world: Path, first: dict, tmp_path: Path) -> None:
    workspace = Workspace.open(world / "w")
    ours = Bundle.open(workspace)
    vectors = np.random.default_rng(5).normal(size=(N, 4))
    other = publish_vectors(workspace, ours.vocabulary.names, {"mask": vectors})
    point_to(workspace, ours.id)
    asked = ("--no-plots", "--sweep", "none", "--method", "retexpan", "--output", tmp_path)
    given = [("--row", f"{name}=retexpan@{other.id}") for name in ("retexpan+ra", "retexpan-untrained")]
    assert report(world, *asked, *itertools.chain(*given)) == 0
    base, row, untrained = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert (row["method"], row["bundle"]) == ("retexpan+ra", other.id)
    assert untrained["overall"] == row["overall"]
    assert base["overall"] == first["rows"][0]["overall"] != row["overall"]
    assert row["against"]["queries"] == 6
    _, _, modules = (tmp_path / "report.md").read_text().partition("## UltraWiki, table 3: modules")
    modules, _, after = modules.partition("## ")
    assert "| retexpan-untrained | Comb |" in modules
    assert "UltraWiki, table 17" in after


def test_methods_that_begin_alike_generate_once_and_go_on_after_a_stop(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that is stopped asks the model for the rest alone, and has the same bytes."""
    monkeypatch.setattr(reporting, "GENERATING_BATCH", 2)
    generated: list[str] = []
    run = Generator.__call__

    def noted(self, expansions):
        if len(generated) == stop_at:
            raise KeyboardInterrupt
        generated.extend(e.query.id for e in expansions)
        return run(self, expansions)

    monkeypatch.setattr(Generator, "__call__", noted)
    small = ("--set", "Generate.k=5", "--set", "Generate.beams=4", "--set", "Generate.max_rounds=2")
    asked = ("--method", "genexpan", "--method", "genexpan-negative", "--sweep", "genexpan-length", *small)
    told = ("--no-plots", "--baseline", "genexpan", *asked)
    stop_at = 2
    assert report(world, *told) != 0
    stop_at = -1
    assert report(world, *told, "--output", tmp_path / "a") == 0
    assert len(generated) == len(set(generated)) == 6
    assert report(world, *told, "--overwrite", "--output", tmp_path / "b") == 0
    assert len(generated) == 12
    assert (tmp_path / "a" / "report.json").read_bytes() == (tmp_path / "b" / "report.json").read_bytes()


def test_a_bundle_of_other_entities_is_refused(world: Path, capsys) -> None:
    workspace = Workspace.open(world / "w")
    ours = Bundle.open(workspace).id
    names = [f"other {i}" for i in range(N)]
    other = publish_vectors(workspace, names, {"mask": np.random.default_rng(0).normal(size=(N, 4))})
    asked = (("--before", other.id), ("--smoothing", f"0.1={other.id}"), ("--row", f"x=default@{other.id}"))
    for option, given in asked:
        assert report(world, "--bundle", ours, option, given) == 2
        assert "has other entities than" in capsys.readouterr().err
    point_to(workspace, ours)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (
            ["--method", "default", "--baseline", "typo"],
            "--baseline typo: not among the report's rows: default",
        ),
        (["--compare", "none.json"], "--compare none.json: No such file"),
        (["--compare", "query/0.json"], "no report of `seedset report`"),
        (["--smoothing", "0.1"], "--smoothing 0.1: write VALUE=BUNDLE"),
        (["--mined", "ten=0123"], "--mined ten=0123: write VALUE=BUNDLE"),
        (["--row", "retexpan@0123"], "write NAME=METHOD@BUNDLE"),
        (["--row", "x=default@0123", "--row", "x=retexpan@0123"], "x is a row of the report already"),
        (["--row", "default=retexpan@0123"], "default is a row of the report already"),
        (["--method", "none"], "--method none: give one of"),
        (["--sweep", "none", "--method", "genexpan+nothing"], "--method genexpan+nothing"),
    ],
)
def test_a_mistake_is_one_line(
    world: Path, extra, words: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    assert report(world, *extra) == 2
    assert words in capsys.readouterr().err


def test_queries_without_negatives_have_meseds_table(tmp_path: Path) -> None:
    method_bundle(tmp_path / "w", n=N, d=4)
    (tmp_path / "query").mkdir()
    truth = [8, 9, *range(20, 26)]
    lines = [json.dumps({"id": f"q{i}", "positive": [i, 9, 8], "pos_gt": truth}) for i in range(4)]
    (tmp_path / "query" / "q.jsonl").write_text("\n".join(lines))
    asked = ("--method", "multiexpan", "--method", "multimodal", "--baseline", "multiexpan", "--no-plots")
    row = {"table": "modalities", "row": "w/o text", "read_out": "multiexpan", "queries": "query"}
    overall = {f"Pos{m}@{k}": 12.34 for m in ("MAP", "P") for k in (10, 20, 50, 100)} | {"PosAvg": 12.34}
    ablated = tmp_path / "w" / "runs" / "ablate" / "report.json"
    ablated.parent.mkdir(parents=True)
    ablated.write_text(json.dumps({"measured": [{**row, "reports": [{"overall": overall}]}]}))
    assert report(tmp_path, *asked, "--protocol", "mesed") == 0
    text = read(tmp_path, "report.md").decode()
    assert "MESED, table 3: main results" in text
    assert "MESED, table 5: modalities, by multiexpan" in text
    assert "| w/o text | 12.3 |" in text
    assert "UltraWiki, table 2" not in text
    found = json.loads(read(tmp_path))
    assert differences(found, found)[1] == ["method", *COMPARED_POSITIVE]
    assert (found["protocol"], found["statistics"]["column"], found["negatives"]) == (
        "mesed",
        "PosMAP",
        False,
    )
    assert found["sweeps"] == []
