import json
import sys
from pathlib import Path

import pytest

from engine.queries.results import RUN
from engine.storage.store import Store
from jobs import expand
from jobs.evaluate import main
from tests.support.bundles import method_bundle, random_bundle
from tests.support.commands import run_command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random_bundle(tmp_path / "w", n=50, d=4)
    records = [
        {
            "group_id": 1,
            "pos_seeds": ["entity 1", "entity 2"],
            "neg_seeds": ["entity 3"],
            "pos_gt": ["entity 4", "entity 5", "nobody"],
            "neg_gt": ["entity 6"],
        },
        {"group_id": 1, "pos_seeds": ["entity 7"], "pos_gt": ["entity 8"]},
    ]
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "things.json").write_text(json.dumps(records))
    return tmp_path


def evaluate(root: Path, *extra: str) -> int:
    words = ["--workspace", root / "w", "--queries", root / "query"]
    return run_command(main, *words, *extra)


def test_one_method(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = root / "deep" / "r.json"
    assert evaluate(root, "--method", "retexpan", "--json", str(out)) == 0
    report = json.loads(out.read_text())
    assert report["method"] == "retexpan"
    assert report["overall"]["queries"] == report["by_class"]["things"]["queries"] == 2
    assert report["missing_truth"] == 1
    # All 50 entities are ranked within the first 100, so all that exist are found.
    assert report["overall"]["PosP@100"] == pytest.approx((200 / 3 + 100) / 2, abs=1e-3)
    assert report["overall"]["NegP@100"] == 50
    folder = Store.open(root / "w" / "runs" / "evaluate" / "retexpan")
    assert json.loads((folder / "report.json").read_bytes()) == report
    assert "| retexpan | Comb |" in (folder / "report.md").read_bytes().decode()
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith("method=retexpan bundle=")
    assert "1 truth names are not in the vocabulary" in shown.err


def test_settings_and_methods_of_a_users_own(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["from engine.stages.retrieve import Retrieve", "NEAR = Retrieve(k=6)"]
    (root / "near_methods_of_a_test.py").write_text("\n".join(lines))
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", list(sys.path))
    own = "near_methods_of_a_test:NEAR"
    words = ("--method", "retexpan", "--method", own, "--set", "SegmentRerank.length=9")
    assert evaluate(root, *words, "--json", "r.json") == 0
    reports = json.loads((root / "r.json").read_text())
    assert reports["retexpan"]["pipeline"] == "Retrieve() >> SegmentRerank(length=9)"
    assert reports[own]["pipeline"] == "Retrieve(k=6)"
    assert evaluate(root, "--method", own, "--set", "Retrieve.kk=9") == 2
    assert "Retrieve has no such setting; did you mean k?" in capsys.readouterr().err


def test_a_joint_method_gets_the_queries_of_a_class_one_by_one(tmp_path: Path) -> None:
    """In one call only one of the two could find what both want: an entity comes into one set at most."""
    method_bundle(tmp_path / "w", n=50, d=4)
    seeds = ["entity 1", "entity 7"]
    records = [{"group_id": 1, "pos_seeds": [seed], "pos_gt": ["entity 4"]} for seed in seeds]
    (tmp_path / "query").mkdir()
    (tmp_path / "query" / "things.json").write_text(json.dumps(records))
    assert evaluate(tmp_path, "--method", "multiexpan+joint", "--json", str(tmp_path / "r.json")) == 0
    assert json.loads((tmp_path / "r.json").read_text())["overall"]["PosP@100"] == 100


def test_several_methods_make_one_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = root / "r.json"
    several = ["--method", "retexpan", "--method", "retexpan+cds", "--json", str(out)]
    assert evaluate(root, *several) == 0
    assert list(json.loads(out.read_text())) == ["retexpan", "retexpan+cds"]
    assert capsys.readouterr().out.count("retexpan+cds") >= 3


def test_columns_of_other_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(root, "--method", "retexpan", "--json", str(root / "ours.json")) == 0
    file = root / "query" / "things.json"
    for our, their in (("pos_seeds", "wanted"), ("pos_gt", "answers"), ("group_id", "positive")):
        file.write_text(file.read_text().replace(f'"{our}"', f'"{their}"'))
    columns = ("--columns", "positive=wanted,pos_gt=answers")
    assert evaluate(root, "--method", "retexpan", "--json", str(root / "theirs.json"), *columns) == 0
    ours, theirs = (json.loads((root / f"{name}.json").read_text()) for name in ("ours", "theirs"))
    assert theirs["overall"] == ours["overall"]
    assert "columns that are not read, as --columns names others: positive" in capsys.readouterr().err


def test_refused_queries_are_loud_and_strict_fails(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [{"group_id": 2, "pos_seeds": ["entity 1x"], "pos_gt": ["entity 4"]}]
    (root / "query" / "wrong.json").write_text(json.dumps(bad))
    assert evaluate(root, "--method", "retexpan") == 0
    shown = capsys.readouterr()
    assert "REFUSED" in shown.err
    assert "entity 1" in shown.err
    assert "refused=1" in shown.out
    assert evaluate(root, "--method", "retexpan", "--strict") == 2


def test_what_expand_wrote_has_the_figures_of_the_method_itself(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = root / "out"
    words = ("--workspace", root / "w", "--queries", root / "query")
    assert (
        run_command(
            expand.main, *words, "--method", "retexpan", "--output", out, "--part-size", 1, "--workers", 1
        )
        == 0
    )
    assert evaluate(root, "--method", "retexpan") == 0
    folder = root / "w" / "runs" / "evaluate" / "retexpan"
    direct = {name: (folder / name).read_bytes() for name in ("run.trec", "positive.qrels", "negative.qrels")}
    report = json.loads((folder / "report.json").read_text())
    # The bundle's models need not be there: entities are enough.
    (index,) = (root / "w" / "bundles").glob("*/index/mask.faiss")
    index.unlink()
    assert evaluate(root, "--results", str(out)) == 0
    stored = json.loads((folder / "report.json").read_text())
    assert stored.pop("seconds_per_query") is None
    assert report.pop("seconds_per_query") > 0
    recalled = [name for name in report["overall"] if name.startswith("Recall")]
    assert len(recalled) == 14, "what the first stage recalled is in no result"
    for one in (report["overall"], report["by_class"]["things"]):
        for name in recalled:
            del one[name]
    for groups in report["slices"].values():
        for one in groups.values():
            for name in recalled:
                del one[name]
    assert stored == report
    assert {name: (folder / name).read_bytes() for name in direct} == direct
    assert "method=retexpan" in capsys.readouterr().out


def test_results_of_other_queries_are_a_mistake(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--workspace", root / "w", "--queries", root / "query", "--method", "retexpan")
    assert run_command(expand.main, *words, "--output", root / "out", "--workers", 1) == 0
    more = [{"query_id": "late", "pos_seeds": ["entity 1"], "pos_gt": ["entity 4"]}]
    (root / "query" / "more.json").write_text(json.dumps(more))
    assert evaluate(root, "--results", str(root / "out")) == 2
    assert "no result of 'late'" in capsys.readouterr().err
    assert evaluate(root) == 2
    assert "give --method NAME, or --results FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--method", "none"], "--method none: give one of retexpan, "),
        (["--method", "retexpan", "--bundle", "feed"], "no such bundle"),
        (["--method", "lexical"], "lexical.faiss"),
        (["--method", "retexpan", "--queries", "/none"], "no such file"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    root: Path, capsys: pytest.CaptureFixture[str], extra, words
) -> None:
    assert evaluate(root, *extra) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_queries_of_mesed_have_its_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "m" / "gt").mkdir(parents=True)
    (root / "m" / "query_seed=5").mkdir()
    names = [f"entity {49 - i}\t{i}" for i in range(50)]
    (root / "m" / "entity2id.txt").write_text("\n".join(names))
    (root / "m" / "query_seed=5" / "things.txt").write_text("0 1 2 3 4\n5 6 7 8 9\nEXIT\n")
    (root / "m" / "gt" / "things.txt").write_text("".join(f"{i}\tentity {49 - i}\t1\n" for i in range(10)))
    words = ["--workspace", root / "w", "--queries", root / "m" / "query_seed=5", "--method", "retexpan"]
    assert run_command(main, *words) == 0
    shown = capsys.readouterr()
    last = dict(pair.split("=") for pair in shown.out.splitlines()[-1].split())
    assert list(last) == ["method", "bundle", "queries", "refused", "MAP@10", "MAP@100", "Avg"]
    assert (last["queries"], last["refused"]) == ("2", "0")
    report = json.loads((root / "w/runs/evaluate/retexpan/report.json").read_text())
    assert report["overall"]["PosP@100"] == 100, "all entities are ranked"
    assert report["protocol"] == "seedset"
    assert float(last["Avg"]) == report["overall"]["PosAvg"]
    assert "Comb" not in shown.out
    assert run_command(main, *words, "--protocol", "mesed") == 0
    report = json.loads((root / "w/runs/evaluate/retexpan/report.json").read_text())
    assert report["protocol"] == "mesed"
    assert report["overall"]["PosP@100"] == 50, "of ten true entities five are seeds, which no list holds"


def test_no_module_is_imported_because_results_name_it(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {"id": "q", "positive": [1], "pos_gt": [2], "options": {"Retrieve.k": 9}}
    (root / "query" / "things.json").write_text(json.dumps([record]))
    (root / "named_by_a_folder.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(root)
    words = ("--workspace", root / "w", "--queries", root / "query", "--output", root / "out", "--workers", 1)
    assert run_command(expand.main, *words, "--method", "retexpan") == 0
    assert evaluate(root, "--results", str(root / "out")) == 0
    run = root / "out" / RUN
    run.write_text(run.read_text().replace('"retexpan"', '"named_by_a_folder:PIPELINE"'))
    assert evaluate(root, "--results", str(root / "out")) == 2
    assert "measure with --method named_by_a_folder:PIPELINE" in capsys.readouterr().err
