"""`seedset clean`: what goes, what stays, and what a kill at any moment leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest

from engine.errors import UserError
from engine.storage.publishing import point_to
from engine.storage.removal import JOURNAL
from engine.storage.s3 import unfinished_uploads, versions
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs.clean import main
from jobs.steps.cleaning import plan_cleaning
from jobs.steps.unfinished_uploads import give_up_uploads
from tests.support.commands import run_command
from tests.support.grown import (
    BLOCKS,
    INPUTS,
    STATES,
    Generation,
    Grown,
    check_readable,
    clean,
    contents,
    grown,
    planned,
    publish_bundle,
    write,
)
from tests.support.kills import Killed
from tests.support.s3_proxy import Fault, S3Proxy


def of_old(old: Generation) -> set[tuple[str, str]]:
    """What goes of a generation that nothing names any more, without its parts."""
    return {
        ("bundle", f"bundles/{old.bundle}"),
        ("run", f"runs/train_encoder/{old.encoder}"),
        ("run", f"runs/train_contrast/{old.contrast}"),
        ("run", f"runs/pretrain_lm/{old.model}"),
        ("contrast lists", f"contrast/{old.lists}"),
        ("model input", f"inputs/{old.inputs}"),
        ("model input", f"inputs/{old.blocks}"),
        ("tokenizer", f"inputs/{old.tokenizer}"),
    }


def checkpoints_of(new: Generation) -> set[tuple[str, str]]:
    runs = (f"train_encoder/{new.encoder}", f"train_contrast/{new.contrast}", f"pretrain_lm/{new.model}")
    return {("checkpoints", f"runs/{run}") for run in runs}


SHARED = {
    ("evaluations", "runs/cells"),
    ("input parts", f"inputs/{INPUTS.parts_key()}"),
    ("input parts", f"inputs/{BLOCKS.parts_key()}"),
    ("cached states", STATES),
}


def test_what_nothing_kept_was_made_from_goes_and_the_rest_stays(work: Grown) -> None:
    workspace, (first, second, third) = work
    before = contents(workspace)
    plan = clean(workspace)
    assert planned(plan) == of_old(first) | of_old(second) | checkpoints_of(third) | SHARED
    assert sum(one.kind == "answers of a stage" for one in plan.removals) == 2
    assert plan.bundles == [third.bundle]
    assert plan.unknown == []
    after = contents(workspace)
    assert sum(one.bytes for one in plan.removals) == sum(map(len, before.values())) - sum(
        map(len, after.values())
    )
    assert {path: before[path] for path in after} == after
    for path in ("corpus/manifest.json", "expansions/e/part-00000.parquet", "chat/answers/a.json"):
        assert path in after
    run = f"runs/pretrain_lm/{third.model}"
    kept = {path.removeprefix(f"{run}/") for path in after if path.startswith(run)}
    assert kept == {"lm/weights.bin", "summary.json", "tensorboard/events.out"}
    parts = {path.rsplit("/", 1)[1] for path in after if path.startswith(f"inputs/{INPUTS.parts_key()}/")}
    assert parts == {f"part-{number:016}.parquet" for number in (3, 4)}
    assert {path.rsplit("/", 1)[1] for path in after if path.startswith(STATES)} == {
        "manifest.json",
        *(f"part-{number:016}.npy" for number in (3, 4)),
    }
    assert {path for path in after if path.startswith("runs/cells")} == {
        f"runs/cells/{3:016}/{name}" for name in ("report.json", "scores.parquet")
    }
    check_readable(workspace)
    assert plan_cleaning(workspace, 1).removals == []


def test_the_newest_bundles_are_kept_with_what_they_name(work: Grown) -> None:
    workspace, (first, second, third) = work
    plan = clean(workspace, keep=2)
    assert plan.bundles == [third.bundle, second.bundle]
    # The lists of the second were read by a contrastive training that no bundle names.
    gone = of_old(first) | checkpoints_of(third) | SHARED
    gone |= {("checkpoints", f"runs/train_encoder/{second.encoder}")}
    gone |= {("checkpoints", f"runs/pretrain_lm/{second.model}")}
    gone |= {
        ("run", f"runs/train_contrast/{second.contrast}"),
        ("contrast lists", f"contrast/{second.lists}"),
    }
    assert planned(plan) == gone
    check_readable(workspace)
    assert plan_cleaning(workspace, 2).removals == []


@pytest.mark.parametrize(("keep", "kept"), [(1, [0]), (2, [2, 0]), (3, [2, 1, 0]), (9, [2, 1, 0])])
def test_the_current_bundle_counts_among_those_that_are_kept(work: Grown, keep: int, kept: list[int]) -> None:
    workspace, generations = work
    (workspace.bundles / "CURRENT").write_bytes(generations[0].bundle.encode())
    assert plan_cleaning(workspace, keep).bundles == [generations[place].bundle for place in kept]
    clean(workspace, keep)
    point_to(workspace, generations[0].bundle)  # which checks every byte
    check_readable(workspace)


def test_bundles_of_the_same_second_are_ordered_by_their_manifests(work: Grown) -> None:
    workspace, _ = work
    same = [publish_bundle(workspace, 9, seed=seed) for seed in range(3)]
    for place, name in enumerate(same):
        os.utime(workspace.bundles.path + f"/{name}/manifest.json", (1e9 + place, 1e9 + place))
    assert plan_cleaning(workspace, 3).bundles == same[::-1]


def test_a_dry_run_lists_everything_and_changes_nothing(
    work: Grown, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, (first, _, _) = work
    before = contents(workspace)
    assert run_command(main, "--workspace", workspace.root.path, "--keep", 2, "--dry-run") == 0
    said = capsys.readouterr()
    plan = plan_cleaning(workspace, 2)
    for one in plan.removals:
        assert f"{one.kind} {one.path} " in said.err
        assert one.reason in said.err
    assert f"bundle bundles/{first.bundle} " in said.err
    assert f"bundles_kept=2 removals={len(plan.removals)} removed=0 " in said.out
    assert contents(workspace) == before
    assert not (workspace.root / JOURNAL).exists()


def test_the_command_removes_and_a_rerun_has_nothing_to_do(
    work: Grown, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, (_, _, third) = work
    plan = plan_cleaning(workspace, 1)
    assert run_command(main, "--workspace", workspace.root.path, "--keep", 1) == 0
    assert f"removals={len(plan.removals)} removed={len(plan.removals)} " in capsys.readouterr().out
    assert [path.name for path in Path(workspace.bundles.path).glob("*/manifest.json")] == ["manifest.json"]
    assert (workspace.bundles / third.bundle / "manifest.json").exists()
    assert run_command(main, "--workspace", workspace.root.path, "--keep", 1) == 0
    said = capsys.readouterr()
    assert "nothing to remove" in said.err
    assert "removals=0 removed=0 mib=0.0 cache_mib=0.0 left_alone=0" in said.out


@contextmanager
def killed_after(deletions: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Delete file by file, as a disk does, and a bucket, and end after so many."""
    left, delete_one = deletions, Store.delete

    def delete(self: Store) -> None:
        nonlocal left
        if self.is_local:
            path = Path(self.path)
            below = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
            files = [Store.open(one) for one in below]
        else:
            files = self.files() or [self]
        for file in files:
            if not left:
                raise Killed
            left -= 1
            delete_one(file)
        if self.is_local:
            shutil.rmtree(self.path, ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", delete)
        yield


def test_a_kill_after_any_deletion_leaves_nothing_broken_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, _ = grown(tmp_path / "original", tmp_path / "raw", generations=2)
    done = Workspace.open(tmp_path / "done")
    shutil.copytree(original.root.path, done.root.path)
    clean(done)
    wanted = contents(done)
    deletions = len(contents(original)) - len(wanted)
    assert deletions > 30
    for n in range(deletions):
        workspace = Workspace.open(tmp_path / "w")
        shutil.copytree(original.root.path, workspace.root.path)
        with killed_after(n, monkeypatch), pytest.raises(Killed):
            clean(workspace)
        check_readable(workspace)
        clean(workspace)
        assert contents(workspace) == wanted, f"after {n} deletions"
        assert plan_cleaning(workspace, 1).removals == []
        shutil.rmtree(workspace.root.path)


def test_in_a_bucket_also_after_kills(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, (old, new) = grown(f"{s3}/w", tmp_path / "raw", generations=2)
    write(workspace, "corpora/20200101T000000-00000000/manifest.json")
    write(workspace, "corpora/20200102T000000-00000000/manifest.json")
    write(workspace, "corpora/mine/manifest.json")
    before, states = contents(workspace), versions(workspace.root.path)
    assert run_command(main, "--workspace", f"{s3}/w", "--keep", 1, "--dry-run") == 0
    assert versions(workspace.root.path) == states
    plan = plan_cleaning(workspace, 1)
    former = {("corpus", "corpora/20200101T000000-00000000")}
    assert planned(plan) == of_old(old) | checkpoints_of(new) | SHARED | former
    for deletions in (2, 9):
        with killed_after(deletions, monkeypatch), pytest.raises(Killed):
            clean(workspace)
        check_readable(workspace)
    assert run_command(main, "--workspace", f"{s3}/w", "--keep", 1) == 0
    assert "left alone: corpora/mine" in capsys.readouterr().err
    after = contents(workspace)
    assert sum(one.bytes for one in plan.removals) == sum(map(len, before.values())) - sum(
        map(len, after.values())
    )
    assert {path: before[path] for path in after} == after
    check_readable(workspace)
    assert plan_cleaning(workspace, 1).removals == []


def test_uploads_that_a_killed_writer_left_are_given_up(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], s3_proxy: S3Proxy
) -> None:
    workspace = Workspace.open(f"{s3}/w")
    write(workspace, "corpora/20200101T000000-00000000/manifest.json")
    client, key = boto3.client("s3"), {"Bucket": s3.removeprefix("s3://"), "Key": "w/bundles/large"}
    begun = client.create_multipart_upload(**key)["UploadId"]
    client.upload_part(**key, UploadId=begun, PartNumber=1, Body=b"x")
    words = ("--workspace", f"{s3}/w")
    assert run_command(main, *words, "--dry-run") == 0
    assert f"unfinished upload {s3}/w/bundles/large, begun " in capsys.readouterr().err
    assert len(unfinished_uploads(workspace.root.path)) == 1
    assert give_up_uploads(workspace.root, False, now=unfinished_uploads(workspace.root.path)[0].begun) == (
        0,
        0,
    )
    s3_proxy.faults = [Fault(403, "AccessDenied", matches="uploads")]
    assert run_command(main, *words) == 0
    assert "not looked for: s3://" in (said := capsys.readouterr().err)
    assert "ListMultipartUploads needs the right s3:ListBucketMultipartUploads" in said
    s3_proxy.faults = []
    assert run_command(main, *words) == 0
    assert "removals=1 removed=1 " in capsys.readouterr().out
    assert unfinished_uploads(workspace.root.path) == []


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (lambda folder: None, (), "no workspace here; check the address given with --workspace"),
        (lambda folder: (folder / "w" / "photos").mkdir(parents=True), (), "no workspace here"),
        (lambda folder: None, ("--keep", 0), "--keep 0: give a whole number, at least 1"),
    ],
)
def test_mistakes_are_named(
    make: Callable[[Path], None], words: tuple[object, ...], message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(UserError) as caught:
        main.function(main.parse(["--workspace", tmp_path / "w", *words]))
    assert message in str(caught.value)


def test_a_workspace_of_a_corpus_alone_has_nothing_to_remove(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(Workspace.open(tmp_path), "corpus/manifest.json")
    assert run_command(main, "--workspace", tmp_path) == 0
    said = capsys.readouterr()
    assert "nothing to remove" in said.err
    assert said.out.startswith("bundles_kept=0 removals=0 removed=0 ")
