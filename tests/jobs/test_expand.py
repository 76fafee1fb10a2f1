import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.methods import method
from engine.queries.formats import iter_queries, read_queries
from engine.queries.results import ExpansionFolder, RunDescription
from engine.query import Expansion, NewEntity, Query, Ranking
from engine.refusals import Code, Refusal
from engine.stages.options import change
from engine.storage.bundle import Bundle
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs.expand import expand as batch_expand
from jobs.expand import main
from jobs.steps.query_spool import MAX_PART, QuerySpool, default_part_size
from jobs.steps.routing import Router
from jobs.workers.chain import Row
from jobs.workers.part_rows import pack, unpack
from jobs.workers.stage_run import BatchExpansion, BundleRef
from tests.support.bundles import publish_vectors
from tests.support.commands import run_command
from tests.support.executors import LastFirst
from tests.support.language_models import tiny_model

ROOT = Path(__file__).parents[2]
N = 120
QUERIES = 23


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random entities, of which the last has no vector, and queries; one has no answer at all."""
    root = tmp_path_factory.mktemp("expand")
    random = np.random.default_rng(1)
    vectors = random.normal(size=(N, 8))
    vectors[-1] = 0
    names = [f"entity {i}" for i in range(N)]
    publish_vectors(Workspace.open(root / "w"), names, {"mask": vectors})
    records = [{"id": "empty", "positive": [N - 1], "negative": [0]}]
    for i in range(QUERIES - 1):
        seeds = random.choice(N, 6, replace=False).tolist()
        cut = 1 + i % 5
        record = {"id": f"q{i}", "positive": seeds[:cut], "negative": seeds[cut:], "top_k": 5 + i}
        records.append(record)
    lines = [*map(json.dumps, records), '{"id": "bad", "positive": ["entity 1x"]}']
    (root / "q.jsonl").write_text("\n".join(lines))
    return root


def expand(root: Path, output: object, *extra: object) -> int:
    words = ["--workspace", root / "w", "--queries", root / "q.jsonl", "--output", output]
    method_given = () if "--method" in extra else ("--method", "retexpan")
    return run_command(main, *words, *method_given, *extra)


def local_rows(root: Path) -> list[dict]:
    """What the local runtime answers, as rows of the output."""
    bundle = Bundle.open(Workspace.open(root / "w"))
    queries = read_queries(Store.open(root / "q.jsonl"), bundle.vocabulary).queries
    rows: list[dict] = []
    for e in method("retexpan").open(bundle)([labelled.query for labelled in queries]):
        if not len(e.ranking):
            rows.append({"query_id": e.query.id, "rank": 0, "entity_id": None, "score": None})
        for place, entity in enumerate(e.ranking.ids.tolist()):
            row = {
                "query_id": e.query.id,
                "rank": place + 1,
                "entity_id": entity,
                "score": float(e.ranking.scores[place]),
                "name": bundle.vocabulary.names[entity],
                "evidence": [(k, float(c[place])) for k, c in e.ranking.evidence.items()],
                "images": [],
                "reasoning": [],
                "counts": [],
                "explanation": None,
                "facets": None,
            }
            rows.append(row)
    return rows


def batch_rows(output: str | Path) -> list[dict]:
    return [
        {key: row[key] for key in wanted}
        for row, wanted in (
            (row, list(row) if row["rank"] else ["query_id", "rank", "entity_id", "score"])
            for row in pq.read_table(output).drop_columns(["degraded"]).to_pylist()
        )
    ]


def same(rows: list[dict], others: list[dict]) -> None:
    assert len(rows) == len(others)
    for one, other in zip(rows, others, strict=True):
        assert one == other


@pytest.mark.parametrize(("batch_size", "part_size"), [(1, 6), (7, 8), (64, 1024)])
def test_batch_and_local_runtime_rank_alike(root, tmp_path, batch_size, part_size):
    output = tmp_path / "out"
    sizes = ("--batch-size", batch_size, "--part-size", part_size)
    assert expand(root, output, "--workers", 1, *sizes) == 0
    same(batch_rows(output), local_rows(root))
    manifest = json.loads((output / "_manifest.json").read_text())
    assert (manifest["queries"], manifest["empty"], manifest["refused"]) == (QUERIES, 1, 1)
    assert len(manifest["parts"]) == -(-QUERIES // part_size)
    refused = json.loads((output / "_refused.jsonl").read_text())
    assert (refused["position"], refused["query_id"]) == (QUERIES + 1, "bad")
    empty = pq.read_table(output).slice(0, 1).to_pylist()[0]
    assert empty["degraded"] == [f"Retrieve: positive seed {N - 1} has no sentence and was not used"]


@pytest.mark.slow
@pytest.mark.ray
def test_the_pools_of_stages_write_the_same(ray_local, root, tmp_path):
    """The contract of the workers on Ray: a pool of actors, which also write."""
    sizes = ("--batch-size", 4, "--part-size", 6)
    assert expand(root, tmp_path / "there", *sizes) == 0
    source = BundleRef(str(root / "w"), Bundle.open(Workspace.open(root / "w")).id)
    router = Router(source.open(), "retexpan", method("retexpan"))
    spool = QuerySpool(tmp_path / "spool", batch_size=4)
    spool.folder.mkdir()
    spool.fill(iter_queries(Store.open(root / "q.jsonl"), source.open().vocabulary), router)
    job = BatchExpansion(router.chain, source, str(tmp_path / "here"), batch_size=4)
    run = RunDescription.model_validate_json((tmp_path / "there" / "_run.json").read_bytes())
    target = ExpansionFolder(Store.open(tmp_path / "here"))
    assert batch_expand(job, spool, run, target, LastFirst()).made == 4
    for part in run.parts:
        there = pq.read_table(tmp_path / "there" / f"part-{part}.parquet")
        here = pq.read_table(tmp_path / "here" / f"part-{part}.parquet")
        assert there.schema.equals(here.schema, check_metadata=True)
        assert there.to_pylist() == here.to_pylist()
    same(batch_rows(tmp_path / "there"), local_rows(root))


@pytest.mark.parametrize("name", ["genexpan+cot-class-given", "retexpan+lm-rerank", "composed"])
def test_a_language_models_lists_are_those_of_the_local_runtime(tmp_path, name):
    names = [f"entity {i}" for i in range(24)]
    vectors = np.random.default_rng(2).normal(size=(len(names), 4))
    views = {"mask": vectors, "joint": np.random.default_rng(3).normal(size=(len(names), 4))}
    hubs = {"joint": np.linspace(0, 1, len(names))}
    bundle = publish_vectors(Workspace.open(tmp_path / "w"), names, views, hubs, model=tiny_model())
    seeds = [{"id": f"q{i}", "positive": [i, i + 1, i + 2], "negative": [i + 3]} for i in range(5)]
    queries = [{**one, "class": "odd_things"} for one in seeds]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, queries)))
    assert expand(tmp_path, tmp_path / "out", "--workers", 1, "--method", name) == 0
    asked = [Query(f"q{i}", (i, i + 1, i + 2), (i + 3,), class_name="odd things") for i in range(5)]
    for expansion in method(name).open(bundle)(asked):
        rows = [r for r in batch_rows(tmp_path / "out") if r["query_id"] == expansion.query.id]
        assert [r["entity_id"] for r in rows] == expansion.ranking.ids.tolist()
        assert rows[0]["reasoning"] == list(expansion.reasoning.items())
        assert bool(expansion.reasoning) == name.startswith("genexpan")
        np.testing.assert_allclose([r["score"] for r in rows], expansion.ranking.scores, rtol=1e-4)


def test_a_group_of_processes_without_a_language_model_is_refused(root, tmp_path, capsys):
    assert expand(root, tmp_path / "out", "--tensor-parallel", 2, "--workers", 1) == 2
    assert "tensor_parallel 2: no stage of these methods holds" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert expand(root, tmp_path / "out", "--tensor-parallel", 2, "--gpu", 0.5) == 2
    assert "0.5 GPUs for a language model that is split over 2 processes" in capsys.readouterr().err


def test_a_table_of_which_every_query_is_refused_is_an_error(root, tmp_path, capsys):
    """No seed has a vector: each row only says so. One other query, and the output is what it is."""
    lines = [json.dumps({"id": f"q{i}", "positive": [N - 1]}) for i in range(3)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    words = ("--queries", tmp_path / "q.jsonl", "--part-size", 2, "--workers", 1)
    assert expand(root, tmp_path / "out", *words) == 2
    shown = capsys.readouterr()
    assert "queries=3 rows=3 empty=3 degraded=3" in shown.out
    assert f"none of the 3 queries has an answer; the first: Retrieve: positive seed {N - 1}" in shown.err
    (tmp_path / "q.jsonl").write_text("\n".join([*lines, '{"id": "good", "positive": [1]}']))
    assert expand(root, tmp_path / "other", *words) == 0
    assert " empty=3 degraded=3 " in capsys.readouterr().out


def test_a_rerun_makes_only_what_is_missing(root, tmp_path, capsys):
    output = tmp_path / "out"
    assert expand(root, output, "--part-size", 6, "--workers", 1) == 0
    made = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
    (output / "part-00002.parquet").unlink()
    (output / "_manifest.json").unlink()
    capsys.readouterr()
    assert expand(root, output, "--workers", 1) == 0  # the size of parts is the first run's
    shown = capsys.readouterr()
    assert "3 of 4 parts are there already" in shown.err
    assert shown.out.endswith("parts=4 made=1\n")
    kept = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
    assert [name for name in made if made[name] != kept[name]] == ["part-00002.parquet"]
    same(batch_rows(output), local_rows(root))
    assert expand(root, output, "--method", "retexpan+cds") == 2
    assert "method: retexpan, not retexpan+cds" in capsys.readouterr().err


def test_changed_settings_are_recorded_and_are_another_run(root, tmp_path, capsys):
    output, words = tmp_path / "out", ("--workers", 1, "--set", "SegmentRerank.length=9")
    assert expand(root, output, *words) == 0
    run = json.loads((output / "_manifest.json").read_text())
    assert (run["method"], run["pipeline"]) == ("retexpan", "Retrieve() >> SegmentRerank(length=9)")
    bundle = Bundle.open(Workspace.open(root / "w"))
    queries = [q.query for q in read_queries(Store.open(root / "q.jsonl"), bundle.vocabulary).queries]
    answers = change(method("retexpan"), {"SegmentRerank.length": 9}).open(bundle)(queries)
    ranked = [row["entity_id"] for row in batch_rows(output) if row["rank"]]
    assert ranked == [i for e in answers for i in e.ranking.ids.tolist()]
    assert ranked != [row["entity_id"] for row in local_rows(root) if row["rank"]]
    assert expand(root, output, "--workers", 1) == 2
    assert "SegmentRerank(length=9), not Retrieve() >> SegmentRerank()" in capsys.readouterr().err
    assert expand(root, output, *words, "--set", "Retrieve.k=0") == 2
    assert "Retrieve.k: 0: Input should be greater" in capsys.readouterr().err


def test_without_an_output_other_settings_have_another_folder(root, tmp_path, capsys):
    words = ("--workspace", root / "w", "--queries", root / "q.jsonl", "--workers", 1)
    folders = set()
    for more in ((), ("--set", "Retrieve.k=9"), ("--set", "Retrieve.k=8"), ("--set", "Retrieve.k=8")):
        assert run_command(main, *words, "--method", "retexpan", *more) == 0
        folders.add(capsys.readouterr().out.split("output=")[1].split()[0])
    assert len(folders) == 3


def test_rows_may_change_settings_for_themselves(root, tmp_path):
    seeds = {"positive": [1, 2, 3], "negative": [4, 5], "top_k": 20}
    several: list[dict[str, Any]] = [{}, {"SegmentRerank.length": 9}, {"SegmentRerank.confidence": 0.2}]
    several.append({"Retrieve.view": 1})
    records = [{"id": f"q{i}", **seeds, "options": options} for i, options in enumerate(several)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, records)))
    maps = [pa.array([list(one.items()) for one in several], pa.map_(pa.string(), pa.float64()))]
    columns = {name: [record[name] for record in records] for name in ("id", "positive", "negative", "top_k")}
    pq.write_table(pa.table({**columns, "options": maps[0]}), tmp_path / "q.parquet")
    for file in ("q.jsonl", "q.parquet"):
        output = tmp_path / f"out-{file}"
        assert expand(root, output, "--queries", tmp_path / file, "--workers", 1) == 0
        rows = batch_rows(output)
        for i, options in enumerate(several[:-1]):
            opened = change(method("retexpan"), options).open(Bundle.open(Workspace.open(root / "w")))
            (expected,) = opened([Query("q", (1, 2, 3), (4, 5), 20)])
            found = [row["entity_id"] for row in rows if row["query_id"] == f"q{i}"]
            assert found == expected.ranking.ids.tolist()
        refused = json.loads((output / "_refused.jsonl").read_text())
        assert refused["query_id"] == "q3"
        assert "options: Retrieve.view: no query may change it" in refused["reason"]


def test_options_cross_processes_and_tell_tables_apart(root, tmp_path):
    asked = Query("q", (1,), options=(("Retrieve.hubness", 0.5), ("SegmentRerank.confidence", None)))
    ((_, (back,)),) = unpack(pack("0", [Row(Expansion(asked), "retexpan")]))
    assert back.expansion.query == asked
    vocabulary = Bundle.open(Workspace.open(root / "w")).vocabulary
    digests = set()
    for options in ({}, {"Retrieve.k": 5}, {"Retrieve.k": 6}):
        record = {"id": "a", "positive": [1], "options": options}
        (tmp_path / "q.jsonl").write_text(json.dumps(record))
        digests.add(read_queries(Store.open(tmp_path / "q.jsonl"), vocabulary).digest)
    assert len(digests) == 3


# The two tests below take an actor away or make it fail: in processes and clusters of their own, so that no
# actor that Ray brings back takes cores from the tests that follow.
def submitted(root: Path, output: object, *extra: object) -> subprocess.Popen[str]:
    words = ["--workspace", root / "w", "--queries", root / "q.jsonl", "--output", output]
    command = [sys.executable, "-m", "jobs.expand", *words, "--method", "retexpan", *extra]
    return subprocess.Popen([str(w) for w in command], cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.faults
def test_a_worker_killed_in_the_middle_loses_and_repeats_nothing(root, tmp_path):
    n, output = 3000, tmp_path / "out"
    lines = [json.dumps({"id": f"q{i}", "positive": [i % 100], "top_k": 3}) for i in range(n)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    sizes = ("--workers", 2, "--batch-size", 1, "--part-size", 50)  # one would work in the job's process
    job = submitted(root, output, "--queries", tmp_path / "q.jsonl", *sizes)
    while job.poll() is None and not list(output.glob("part-*")):
        time.sleep(0.01)
    children = psutil.Process(job.pid).children(recursive=True)
    next(p for p in children if "StageActor" in " ".join(p.cmdline())).kill()
    _, errors = job.communicate(timeout=200)
    assert job.returncode == 0, errors
    table = pq.read_table(output)
    assert table.num_rows == 3 * n
    answered = table.filter(pc.equal(table["rank"], 1))["query_id"].to_pylist()
    assert answered == [f"q{i}" for i in range(n)]


@pytest.mark.faults
def test_a_stopped_job_leaves_nothing_behind_and_goes_on(root, tmp_path, monkeypatch):
    """SIGTERM is what `ray job stop` sends."""
    lines = [json.dumps({"id": f"q{i}" if i != 7 else "held", "positive": [i]}) for i in range(12)]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    (tmp_path / "held").touch()
    monkeypatch.setenv("HELD", str(tmp_path / "held"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ("--method", "tests.support.own_methods:HELD", "--workers", 1, "--part-size", 4)
    job = submitted(root, tmp_path / "out", "--queries", tmp_path / "q.jsonl", *words)
    while job.poll() is None and not (tmp_path / "out" / "_attempts" / "00001-0.json").exists():
        time.sleep(0.05)
    made = (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns
    job.terminate()
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 128 + signal.SIGTERM, errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "tmp").iterdir())
    assert not list((tmp_path / "out" / "_attempts").iterdir()), "it is no death"
    (tmp_path / "held").unlink()
    assert expand(root, tmp_path / "out", "--queries", tmp_path / "q.jsonl", *words) == 0
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns == made
    assert len(set(pq.read_table(tmp_path / "out")["query_id"].to_pylist())) == 12


ON_ONE_GPU = """
import sys, ray
ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
from jobs.expand import main
main.run()
"""


@pytest.mark.slow
@pytest.mark.ray
def test_actors_with_a_language_model_share_a_gpu_and_no_others_ask_for_one(root, tmp_path, monkeypatch):
    """Ray counts a GPU that is not there; a pool that did not fit would wait for ever."""
    monkeypatch.setenv("MET", str(tmp_path / "met"))
    (tmp_path / "met").mkdir()
    words = ["--workspace", root / "w", "--queries", root / "q.jsonl", "--output", tmp_path / "out"]
    words += ["--method", "tests.support.own_methods:RESERVED", "--workers", 2, "--gpu", 0.5]
    words += ["--part-size", 4]
    command = [sys.executable, "-c", ON_ONE_GPU, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    notes = {note for row in pq.read_table(tmp_path / "out")["degraded"].to_pylist() for note in row}
    assert {note for note in notes if note.startswith(("True", "False"))} == {"False 0", "True 0.5"}
    assert " failed=0 " in done.stdout, "two actors met on the card"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.faults
def test_a_query_that_kills_its_worker_is_left_out_and_the_others_are_answered(root, tmp_path):
    lines = [json.dumps({"id": f"q{i}", "positive": [i], "top_k": 3}) for i in range(20)]
    lines[7] = lines[7].replace("q7", "killer")
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    words = ("--method", "tests.support.own_methods:DEADLY", "--workers", 2, "--part-size", 5)
    job = submitted(root, tmp_path / "out", "--queries", tmp_path / "q.jsonl", *words)
    _, errors = job.communicate(timeout=200)
    assert job.returncode == 0, errors
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [r["query_id"] for r in rows if r["rank"] == 1] == [f"q{i}" for i in range(20) if i != 7]
    (line,) = (tmp_path / "out" / "_refused.jsonl").read_text().splitlines()
    assert (json.loads(line)["query_id"], json.loads(line)["code"]) == ("killer", "worker_died")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.faults
def test_a_mistake_met_by_an_actor_is_one_line(ray_local, root, tmp_path, capsys):
    assert expand(root, tmp_path / "out", "--method", "lexical", "--part-size", 6) == 2
    check_one_line(capsys.readouterr().err, tmp_path / "out")


def test_a_mistake_met_in_this_process_is_one_line(root, tmp_path, capsys):
    assert expand(root, tmp_path / "out", "--method", "lexical", "--workers", 1) == 2
    check_one_line(capsys.readouterr().err, tmp_path / "out")


def check_one_line(shown, output):
    errors = [line for line in shown.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert "holds no 'index/lexical.faiss'" in errors[0]
    assert not (output / "_manifest.json").exists()


def test_a_method_whose_answers_depend_on_the_call_is_refused(root, tmp_path, capsys):
    assert expand(root, tmp_path / "out", "--method", "multiexpan+joint") == 2
    assert "measure it with `seedset evaluate`" in capsys.readouterr().err


def test_a_part_crosses_processes_exactly():
    scores = np.array([0.1, -1 / 3, np.float32(1e-40)], np.float32)
    ranking = Ranking(np.array([2**31 - 1, 0, 7], np.int32), scores, {"a b": scores * 3})
    said, reasoning = (("a", ("b", "c")),), {"class_name": "ü", "positive": ""}
    new = (NewEntity("ö", ("ö.", "Ö!"), {"mask": scores}), NewEntity("x", ("x",)))
    query = Query("ü", (1, -2), (2, 3, -1), 9, said, new, class_name="ü", positive_attributes=said)
    one = Expansion(query, ranking, {"Retrieve": 0.1 + 0.2}, ("note",), reasoning)
    empty = Expansion(Query("e", (1,)))
    # As it comes out of a file or another process.
    sink = pa.BufferOutputStream()
    refusal = Refusal(Code.TIMEOUT, "late")
    rows = [
        Row(one, "m", True, 0.25, place=("q.jsonl", 2**40)),
        Row(empty, "retexpan", refusal=refusal),
    ]
    with pa.ipc.new_stream(sink, pack("00003", rows).schema) as writer:
        writer.write_table(pack("00003", rows))
    ((part, crossed),) = unpack(pa.ipc.open_stream(sink.getvalue()).read_all())
    assert part == "00003"
    back, none = (row.expansion for row in crossed)
    assert replace(crossed[0], expansion=one) == rows[0]
    assert replace(crossed[1], expansion=empty) == rows[1]
    (vectors, _) = (dict(entity.vectors) for entity in back.query.new)
    np.testing.assert_array_equal(vectors.pop("mask"), scores)
    plain = replace(one.query, new=tuple(replace(entity, vectors={}) for entity in new))
    assert replace(back.query, new=tuple(replace(e, vectors={}) for e in back.query.new)) == plain
    assert not vectors
    assert (back.seconds, back.degraded) == (one.seconds, one.degraded)
    assert back.reasoning == reasoning
    np.testing.assert_array_equal(back.ranking.ids, ranking.ids)
    np.testing.assert_array_equal(back.ranking.scores, scores)
    np.testing.assert_array_equal(back.ranking.evidence["a b"], scores * 3)
    assert (len(none.ranking), none.query) == (0, empty.query)


@given(st.integers(1, 10**7), st.integers(1, 4096))
def test_parts_hold_a_batch_and_not_too_much(queries, batch_size):
    size = default_part_size(queries, batch_size)
    assert batch_size <= size <= max(batch_size, MAX_PART)
