"""Plans of `seedset clean` for each kind of thing, and for this machine's cache."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from engine.corpus.blocks.format import read_descriptions
from engine.corpus.schema import read_manifest
from engine.storage.local_files import temporary_beside
from engine.storage.parts import write_pointer
from engine.storage.publishing import point_to
from engine.storage.removal import JOURNAL, carry_out
from engine.storage.workspace import Workspace
from jobs.clean import main
from jobs.steps.cleaning import plan_cleaning
from jobs.steps.description_view import named_chunks
from jobs.steps.survey import DAY
from tests.support.commands import run_command
from tests.support.grown import (
    INPUTS,
    STATES,
    Grown,
    check_readable,
    clean,
    contents,
    grown,
    planned,
    publish_bundle,
    write,
    write_input,
    write_run,
)


def test_an_unfinished_training_stays_with_its_input_until_it_is_given_up(work: Grown) -> None:
    workspace, (_, _, third) = work
    write_input(workspace, "mask-L128-S30-young", ["young"])
    write(workspace, "runs/train_encoder/mask-L128-S30-young-e3-0/checkpoints/0000000001/state.json")
    write_pointer(workspace.inputs(), third.inputs)
    mine = {"inputs/mask-L128-S30-young", "runs/train_encoder/mask-L128-S30-young-e3-0"}
    assert not mine & {one.path for one in plan_cleaning(workspace, 1, now=time.time() + 6 * DAY).removals}
    later = plan_cleaning(workspace, 1, now=time.time() + 8 * DAY)
    assert mine <= {one.path for one in later.removals}
    assert {one.reason for one in later.removals if one.path in mine and one.kind == "run"} == {
        "unfinished, and untouched for 7 days"
    }
    soon = plan_cleaning(workspace, 1, unfinished_s=5 * DAY, now=time.time() + 6 * DAY)
    assert mine <= {one.path for one in soon.removals}


def test_a_training_that_was_begun_again_and_is_current_stays(work: Grown) -> None:
    workspace, (_, _, third) = work
    (workspace.runs("train_encoder") / third.encoder / "summary.json").delete()
    plan = plan_cleaning(workspace, 1, now=time.time() + 30 * DAY)
    assert f"runs/train_encoder/{third.encoder}" not in {one.path for one in plan.removals}


def test_states_none_of_which_is_needed_go_with_the_manifest_that_says_what_made_them(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    other = STATES.replace("01234567", "89abcdef")
    for name in ("part-gone.npy", "manifest.json"):
        write(workspace, f"{other}/{name}")
    plan = clean(workspace)
    assert [one.steps for one in plan.removals] == [(f"{other}/part-gone.npy", f"{other}/manifest.json")]
    assert plan.unknown == []


def test_parts_that_no_input_named_yet_stay_for_a_day_with_their_states(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    write(workspace, f"inputs/{INPUTS.parts_key()}/part-new.parquet")
    write(workspace, f"{STATES}/part-new.npy")
    assert plan_cleaning(workspace, 1).removals == []
    later = plan_cleaning(workspace, 1, now=time.time() + 2 * DAY)
    assert [one.steps for one in later.removals] == [
        (f"inputs/{INPUTS.parts_key()}/part-new.parquet",),
        (f"{STATES}/part-new.npy",),
    ]


def test_checkpoints_stay_where_what_was_trained_is_not_whole(work: Grown) -> None:
    workspace, (_, _, third) = work
    write(workspace, f"runs/train_encoder/{third.encoder}/encoder/weights.bin", "cut")
    plan = plan_cleaning(workspace, 1)
    assert ("checkpoints", f"runs/train_encoder/{third.encoder}") not in planned(plan)
    assert ("checkpoints", f"runs/pretrain_lm/{third.model}") in planned(plan)


def test_checkpoints_of_ray_train_go_with_its_record_first(work: Grown) -> None:
    workspace, (_, _, third) = work
    run = f"runs/train_encoder/{third.encoder}"
    for name in ("checkpoint_1/state.json", "checkpoint_2/state.json", "checkpoint_manager_snapshot.json"):
        write(workspace, f"{run}/{name}")
    (removal,) = (one for one in plan_cleaning(workspace, 1).removals if one.path == run)
    names = ("checkpoint_manager_snapshot.json", "checkpoints", "checkpoint_1", "checkpoint_2")
    assert removal.steps == tuple(f"{run}/{name}" for name in names)


def test_typing_models_stay_and_lose_their_checkpoints(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    write_run(workspace, "train_typing", "train-24-0", "model")
    assert planned(plan_cleaning(workspace, 1)) == {("checkpoints", "runs/train_typing/train-24-0")}


def test_the_last_language_model_stays_though_it_was_not_published(work: Grown) -> None:
    workspace, (_, _, third) = work
    write_run(workspace, "pretrain_lm", "lm-V64-T256-00000003-e2-0", "lm", blocks_key=third.blocks)
    newest = {("checkpoints", "runs/pretrain_lm/lm-V64-T256-00000003-e2-0")}
    kept = {("checkpoints", f"runs/pretrain_lm/{third.model}")}
    assert newest | kept <= planned(plan_cleaning(workspace, 1))


def test_what_a_kept_bundle_names_may_be_missing(work: Grown) -> None:
    workspace, (_, _, third) = work
    (workspace.runs("train_encoder") / third.encoder).delete()
    (workspace.inputs(third.tokenizer)).delete()
    assert clean(workspace).bundles == [third.bundle]


def test_what_is_not_known_is_left_and_named(work: Grown, capsys: pytest.CaptureFixture[str]) -> None:
    workspace, _ = work
    mine = {
        "notes.txt": "notes.txt",
        "old/a.txt": "old",
        "bundles/notes.txt": "bundles/notes.txt",
        "bundles/future/manifest.json": "bundles/future",
        "cache/other/part-0.npy": "cache/other",
        "inputs/other/a": "inputs/other",
        f"inputs/{INPUTS.parts_key()}/notes.txt": f"inputs/{INPUTS.parts_key()}/notes.txt",
        "runs/mine/a": "runs/mine",
        "runs/train_encoder/notes.txt": "runs/train_encoder/notes.txt",
        "runs/cells/odd/report.json": "runs/cells/odd",
        "corpora/x/manifest.json": "corpora",
        "images/notes.txt": "images/notes.txt",
    }
    for path in mine:
        write(workspace, path)
    assert run_command(main, "--workspace", workspace.root.path, "--keep", 1) == 0
    assert contents(workspace).keys() >= mine.keys()
    said = capsys.readouterr().err
    assert f"left alone: {', '.join(sorted(set(mine.values())))}\n" in said


def test_parts_of_an_input_of_another_version_stay(work: Grown) -> None:
    workspace, (first, _, _) = work
    file = workspace.inputs(first.inputs) / "manifest.json"
    future = json.loads(file.read_bytes())
    future["settings"]["unheard_of"] = True
    file.write_bytes(json.dumps(future).encode())
    plan = clean(workspace)
    assert plan.unknown == [f"inputs/{first.inputs}"]
    for number, there in ((1, True), (2, True), (3, True), (4, True)):
        part = f"inputs/{INPUTS.parts_key()}/part-{number:016}.parquet"
        assert (workspace.root / part).exists() == there


def test_a_bundle_that_is_made_current_meanwhile_stays(work: Grown) -> None:
    workspace, (first, _, third) = work
    plan = plan_cleaning(workspace, 1)
    point_to(workspace, first.bundle)
    left = []
    carry_out(workspace.root, plan.removals, lambda one, gone: left.append(one.path) if not gone else None)
    assert left == [f"bundles/{first.bundle}"]
    point_to(workspace, first.bundle)
    point_to(workspace, third.bundle)


def test_a_half_removed_thing_that_is_made_again_is_not_removed(work: Grown) -> None:
    workspace, (first, _, _) = work
    run = f"runs/train_encoder/{first.encoder}"
    write(workspace, JOURNAL, {"steps": [run]})
    (workspace.root / run / "summary.json").delete()
    assert ("run", run) in planned(plan_cleaning(workspace, 1))
    time.sleep(0.02)
    write(workspace, f"{run}/checkpoints/0000000003/state.json")
    assert ("run", run) not in planned(plan_cleaning(workspace, 1))


def test_leftovers_of_killed_programs_go_after_a_day(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    root = Path(workspace.root.path)
    alive = temporary_beside(root / "bundles" / "alive")
    dead = root / "bundles" / alive.name.replace("alive", "dead").replace(f"-{os.getpid()}-", "-999999999-")
    aside, only = root / f".corpus-old-{0:032}", root / "images" / f".gone-old-{0:032}"
    for folder in (alive, dead, aside, only):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    assert plan_cleaning(workspace, 1).removals == []
    later = plan_cleaning(workspace, 1, now=time.time() + 2 * DAY)
    assert {one.path for one in later.removals} == {f"bundles/{dead.name}", aside.name}
    assert {one.bytes for one in later.removals} == {1}
    assert later.unknown == []


def test_bytes_that_a_kept_bundle_shares_are_not_counted(work: Grown) -> None:
    workspace, (first, _, third) = work
    folder = Path(workspace.bundles.path)
    for name in ("shared", "old"):
        (folder / first.bundle / name).write_bytes(b"x" * 1000)
    os.link(folder / first.bundle / "shared", folder / third.bundle / "shared")
    (removal,) = (
        one for one in plan_cleaning(workspace, 1).removals if one.path == f"bundles/{first.bundle}"
    )
    sizes = {path.name: path.stat().st_size for path in (folder / first.bundle).rglob("*") if path.is_file()}
    assert removal.bytes == sum(sizes.values()) - 1000


def test_a_link_to_another_place_is_left_with_what_is_in_it(work: Grown, tmp_path: Path) -> None:
    workspace, (first, _, _) = work
    run = Path(workspace.root.path) / "runs" / "train_encoder" / first.encoder
    shutil.move(run, tmp_path / "elsewhere")
    run.symlink_to(tmp_path / "elsewhere")
    plan = clean(workspace)
    assert plan.unknown == [f"runs/train_encoder/{first.encoder}"]
    assert (tmp_path / "elsewhere" / "summary.json").exists()


def test_a_folder_that_links_into_itself_is_listed_once(work: Grown) -> None:
    workspace, _ = work
    (Path(workspace.root.path) / "runs" / "evaluate" / "again").symlink_to(Path(workspace.root.path) / "runs")
    clean(workspace)
    check_readable(workspace)


def test_masked_language_models_of_other_corpora_go(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    folder = Path(workspace.runs("masked-lm").path)
    folder.mkdir()
    weights = {"w": np.zeros(1, np.float32)}
    save_file(weights, folder / "now.safetensors", {"corpus": read_manifest(workspace).digest})
    save_file(weights, folder / "former.safetensors", {"corpus": "another"})
    save_file(weights, folder / "silent.safetensors")
    (folder / "cut.safetensors").write_bytes(b"x" * 20)
    gone = {("masked language model", "runs/masked-lm/former.safetensors")}
    assert planned(plan_cleaning(workspace, 1)) == gone
    publish_bundle(workspace, 4, corpus="another")
    plan = plan_cleaning(workspace, 1)
    assert not [one for one in plan.removals if one.kind == "masked language model"]
    assert plan.unknown == []


def test_types_stay_while_a_kept_bundle_was_typed_with_their_model(work: Grown) -> None:
    workspace, _ = work
    typed = publish_bundle(workspace, 4, types={"model": "m", "fingerprint": "01"})
    for fingerprint in ("01", "02"):
        write(workspace, f"cache/types-{fingerprint}/part-0.parquet")
    clean(workspace)
    assert plan_cleaning(workspace, 1).bundles == [typed]
    assert (workspace.root / "cache/types-02/part-0.parquet").exists(), "its bundle may be under way"
    later = plan_cleaning(workspace, 1, now=time.time() + 2 * DAY)
    assert [one.path for one in later.removals] == ["cache/types-02"]


def test_a_teachers_labels_stay_as_long_as_a_training_may_go_on(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    write(workspace, "cache/taught-01/part-0.parquet")
    now = time.time()
    young, old = (plan_cleaning(workspace, 1, now=now + days * DAY) for days in (6, 8))
    assert young.unknown == []
    assert "cache/taught-01" not in {one.path for one in young.removals}
    assert "cache/taught-01" in {one.path for one in old.removals}


def test_image_features_and_lists_that_nothing_names_go(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    write_run(workspace, "train_multimodal", "m-e1-0", "encoder", features="named")
    write_pointer(workspace.runs("train_multimodal"), "m-e1-0")
    for key in ("named", "current", "former"):
        write(workspace, f"images/{key}/part-0.npy")
        write(workspace, f"images/{key}/manifest.json", {"settings": {}})
    write(workspace, "images/begun/part-0.npy")
    write_pointer(workspace.root / "images", "current")
    write(workspace, "contrast/begun/lists.parquet")
    gone = {("image features", "images/former"), ("checkpoints", "runs/train_multimodal/m-e1-0")}
    assert planned(plan_cleaning(workspace, 1)) == gone
    begun = {("contrast lists", "contrast/begun")}
    assert planned(plan_cleaning(workspace, 1, now=time.time() + 2 * DAY)) == gone | begun
    begun |= {("image features", "images/begun")}
    assert planned(plan_cleaning(workspace, 1, now=time.time() + 8 * DAY)) == gone | begun


def test_the_bundles_of_an_ablation_stay_with_their_runs_and_cells(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    write_run(workspace, "train_multimodal", "m-e1-0", "encoder", features="f")
    place = Workspace(workspace.runs("ablate") / "m-e1-0")
    ablated = publish_bundle(place, 1, trained="m-e1-0")
    write(workspace, "runs/cells/of-it/report.json", {"bundle": ablated})
    write(workspace, "runs/cells/of-none/report.json", {"bundle": "gone"})
    assert planned(plan_cleaning(workspace, 1)) == {
        ("checkpoints", "runs/train_multimodal/m-e1-0"),
        ("evaluations", "runs/cells"),
    }
    clean(workspace)
    assert (workspace.root / "runs/cells/of-it/report.json").exists()
    assert not (workspace.root / "runs/cells/of-none").exists()


def test_what_a_former_version_kept_of_stages_goes_by_its_age(work: Grown) -> None:
    workspace, _ = work
    clean(workspace)
    for name, year in (("old", 2025), ("new", 2027)):
        file = Path(workspace.root.path) / "runs" / "stages" / name / "0.parquet"
        file.parent.mkdir()
        pq.write_table(pa.table({"query_id": ["q"]}), file)
        when = datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp()
        os.utime(file, (when, when))
    assert [one.path for one in plan_cleaning(workspace, 1).removals] == ["runs/stages/old"]


def cached(cache: Path, path: str, days: float, content: str = "xx") -> Path:
    """Write a file that was read so many days ago, and written long before."""
    file = cache / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    os.utime(file, (time.time() - days * DAY, time.time() - 400 * DAY))
    return file


def test_copies_that_were_not_used_leave_this_machines_cache(
    work: Grown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, (_, _, third) = work
    cache = tmp_path / "cache"
    monkeypatch.setenv("SEEDSET_CACHE", str(cache))
    gone = [
        cached(cache, "bucket/w/old.npy", 31),
        cached(cache, ".made-of/bucket/w/old.npy.json", 1),
        cached(cache, ".made-of/bucket/w/lost.npy.json", 1),
        cached(cache, "bundles/0123456789abcdef/index/a", 31),
        cached(cache, "bundles/0123456789abcdef/index/b", 31),
    ]
    stay = [
        cached(cache, "bucket/w/new.npy", 29),
        cached(cache, ".made-of/bucket/w/new.npy.json", 99),
        cached(cache, "bundles/1123456789abcdef/index/a", 31),
        cached(cache, "bundles/1123456789abcdef/index/b", 29),
        cached(cache, f"bundles/{third.bundle}/index/a", 99),
        cached(cache, "mine/notes.txt", 99),
    ]
    words = ("--workspace", workspace.root.path, "--keep", 1)
    assert run_command(main, *words) == 0
    assert run_command(main, *words, "--caches", 30, "--dry-run") == 0
    assert all(file.exists() for file in gone + stay)
    said = capsys.readouterr()
    assert "cached copies bundles/0123456789abcdef  2 of 2 files, not used for so long" in said.err
    assert "cached copies bucket                    2 of 3 files, not used for so long" in said.err
    assert run_command(main, *words, "--caches", 30) == 0
    assert [file for file in gone if file.exists()] == []
    assert [file for file in stay if not file.exists()] == []
    assert "removals=2 removed=2 " in capsys.readouterr().out
    assert run_command(main, *words, "--caches", 30) == 0
    assert "removals=0 removed=0 " in capsys.readouterr().out
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "none"))
    assert run_command(main, *words, "--caches", 30) == 0
    assert not (tmp_path / "none").exists()


def test_parts_of_an_earlier_versions_input_stay_and_go_with_it(work: Grown) -> None:
    workspace, (_, _, third) = work
    clean(workspace)
    folder = "inputs/parts-mask-L128-00000000"
    for key in (third.inputs, "mask-L128-S30-former"):
        file = workspace.inputs(third.inputs) / "manifest.json"
        manifest = json.loads(file.read_bytes()) | {"sources": [], "parts": {key: 0}}
        write(workspace, f"inputs/{key}/manifest.json", manifest)
        write(workspace, f"{folder}/part-{key}.parquet")
        write(workspace, f"cache/parts-mask-L128-00000000-01234567-bfloat16/part-{key}.npy")
    plan = clean(workspace)
    assert plan.unknown == []
    assert {path for path in contents(workspace) if "00000000-0123" in path or path.startswith(folder)} == {
        f"{folder}/part-{third.inputs}.parquet",
        f"cache/parts-mask-L128-00000000-01234567-bfloat16/part-{third.inputs}.npy",
    }


def test_a_run_that_has_ended_does_not_keep_the_one_that_it_began_with(work: Grown) -> None:
    workspace, (_, second, third) = work
    summary = {"inputs": third.inputs, "warm_start": second.encoder}
    write_run(workspace, "train_encoder", third.encoder, "encoder", **summary)
    assert ("run", f"runs/train_encoder/{second.encoder}") in planned(plan_cleaning(workspace, 1))


def test_vectors_of_descriptions_that_the_corpus_has_not_go(tmp_path: Path) -> None:
    workspace, _ = grown(tmp_path / "w", tmp_path / "raw")
    ((name, _),) = named_chunks(read_descriptions(workspace))
    for part in (name, "0" * 16):
        for suffix in (".npy", ".json"):
            write(workspace, f"cache/descriptions-abc/part-{part}{suffix}")
    plan = clean(workspace)
    assert [(one.path, one.reason) for one in plan.removals if one.kind == "cached descriptions"] == [
        ("cache/descriptions-abc", "1 of 2: the corpus has others")
    ]
    there = {file.name for file in workspace.cache("descriptions-abc").files()}
    assert there == {f"part-{name}.npy", f"part-{name}.json"}
    assert not plan.unknown
