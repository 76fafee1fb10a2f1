import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from engine.errors import StorageError, UserError
from engine.images.decode import decode
from engine.images.features import ImageFeatures
from engine.images.fetch import ImageHasher
from engine.images.settings import ImageSettings
from engine.images.worker import ImageWorker
from engine.models.vision import VisionBackbone
from engine.refusals import Code, Refusal
from engine.storage import npy_rows
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.contexts import Contexts
from jobs.settings import Making
from jobs.steps import image_features
from jobs.steps.encoder_training import check_modality
from jobs.steps.image_features import FeatureRunResult, make_image_features
from jobs.workers.executor import Arguments, Executor, LocalExecutor, Result, Task, Worker
from tests.support.bucket_reads import counted_reads
from tests.support.executors import LastFirst
from tests.support.images import backbone, image_bytes, import_images, stored

COLOURS = ["red", "green", "blue", "white", "yellow"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return backbone(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two images, tasks of three addresses."""
    monkeypatch.setattr(image_features, "PART_IMAGES", 2)
    monkeypatch.setattr(image_features, "ADDRESSES_A_TASK", 3)


def make(
    workspace: str | Path,
    model: str,
    force: bool = False,
    executor: Executor | None = None,
    **settings: Any,
) -> FeatureRunResult:
    making = Making(model=model, **settings)
    return make_image_features(Workspace.open(workspace), making, force, executor or LastFirst())


def named(colours: Sequence[str]) -> dict[str, bytes | None]:
    return {stored(content): content for content in map(image_bytes, colours)}


def quarantine(workspace: str | Path) -> dict[str, dict[str, str]]:
    file = Workspace.open(workspace).corpus / "quarantine" / "images.jsonl"
    lines = map(json.loads, file.read_bytes().decode().splitlines()) if file.exists() else []
    return {line["source"]: line for line in lines}


def stamps(workspace: Path, key: str) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (workspace / "images" / key).glob("part-*")}


def test_the_disk_that_they_take_is_told_before(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr("jobs.workers.executor.check_disk", lambda folder, size: told.append(size))
    import_images(tmp_path / "w", tmp_path / "raw", named(COLOURS))
    key = make(tmp_path / "w", model).key
    parts = (tmp_path / "w" / "images" / key).glob("part-*.npy")
    assert told == [sum(np.load(part).nbytes for part in parts)]


def test_features_are_the_backbones_own(tmp_path: Path, model: str) -> None:
    import_images(tmp_path / "w", tmp_path / "raw", named(COLOURS))
    outcome = make(tmp_path / "w", model, batch_size=3)
    assert (outcome.distinct, outcome.made, outcome.kept) == (5, 5, 0)
    assert outcome.key.startswith(f"{Path(model).name}-grid7-")
    opened = ImageFeatures.open(Workspace.open(tmp_path / "w"))
    assert (opened.key, opened.n_patches, opened.dim) == (outcome.key, 49, 6)
    rows = opened.rows_of([*named(COLOURS), None])
    assert rows.dtype == np.int64
    assert sorted(rows) == [-1, 0, 1, 2, 3, 4]
    found = opened.gather(rows)
    assert found.dtype == torch.float32
    loaded = VisionBackbone.load(model)
    pixels = torch.from_numpy(np.stack([decode(image_bytes(c), loaded.side) for c in COLOURS]))
    torch.testing.assert_close(found[:5], loaded.encode(pixels), atol=1e-3, rtol=1e-3)
    assert (found[5] == 0).all()
    torch.testing.assert_close(opened.gather(rows[[3, 3, 0]]), found[[3, 3, 0]])
    assert opened.gather(np.empty(0, np.int64)).shape == (0, 49, 6)


def test_equal_contents_are_one_row(tmp_path: Path, model: str) -> None:
    absolute = tmp_path / "elsewhere.png"
    absolute.write_bytes(image_bytes("red"))
    images = named(["red", "blue"]) | {"pictures/copy.png": image_bytes("red"), str(absolute): None}
    addresses = import_images(tmp_path / "w", tmp_path / "raw", images)
    outcome = make(tmp_path / "w", model)
    assert (outcome.manifest.images, outcome.distinct, outcome.made) == (4, 2, 2)
    red, blue, copy, elsewhere = ImageFeatures.open(Workspace.open(tmp_path / "w")).rows_of(addresses)
    assert red == copy == elsewhere != blue


def test_another_image_under_the_same_address_is_told_from_the_first(tmp_path: Path, model: str) -> None:
    """Runs are named by the digest: the key stands for the backbone alone."""
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(image_bytes("red"))
    import_images(tmp_path / "w", tmp_path / "raw", named(["blue"]) | {str(elsewhere): None})

    def made() -> tuple[str, str]:
        outcome = make(tmp_path / "w", model)
        return outcome.key, ImageFeatures.open(Workspace.open(tmp_path / "w")).digest

    first = made()
    assert made() == first
    elsewhere.write_bytes(image_bytes("green"))
    second = made()
    assert second[0] == first[0]
    assert second[1] != first[1]


def test_an_image_that_a_node_does_not_see_is_not_called_missing(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hasher of a node without the disk finds nothing; where the command runs, one of two is there."""
    elsewhere, gone = tmp_path / "elsewhere.png", tmp_path / "gone.png"
    for path in (elsewhere, gone):
        path.write_bytes(image_bytes("red"))
    import_images(tmp_path / "w", tmp_path / "raw", named(["blue"]) | {str(elsewhere): None, str(gone): None})
    missing = image_features.HashedImage("", Refusal(Code.IMAGE_MISSING, "missing: no such file"))
    hashed = ImageHasher.hashed

    def on_a_node(self: ImageHasher, address: str) -> image_features.HashedImage:
        return missing if address.startswith("/") else hashed(self, address)

    monkeypatch.setattr(ImageHasher, "hashed", on_a_node)
    with pytest.raises(UserError, match=r"elsewhere\.png: this image is there, and was not where a worker"):
        make(tmp_path / "w", model)
    elsewhere.unlink()
    gone.unlink()
    assert make(tmp_path / "w", model).manifest.refused == 2


def test_a_corpus_that_grew_costs_what_is_new(tmp_path: Path, model: str) -> None:
    import_images(tmp_path / "w", tmp_path / "raw", named(COLOURS[:3]))
    first = make(tmp_path / "w", model)
    before = stamps(tmp_path / "w", first.key)
    old = ImageFeatures.open(Workspace.open(tmp_path / "w"))
    features = old.gather(old.rows_of(list(named(COLOURS[:3]))))
    import_images(tmp_path / "w", tmp_path / "raw", named(COLOURS))
    white = stored(image_bytes("white"))
    with pytest.raises(StorageError, match=rf"knows no image .*{white}.*run `seedset image-features"):
        old.rows_of(list(named(COLOURS)))
    second = make(tmp_path / "w", model)
    assert (second.key, second.made, second.kept) == (first.key, 2, 3)
    after = stamps(tmp_path / "w", second.key)
    assert before.items() < after.items()
    opened = ImageFeatures.open(Workspace.open(tmp_path / "w"))
    torch.testing.assert_close(opened.gather(opened.rows_of(list(named(COLOURS[:3])))), features)
    assert make(tmp_path / "w", model).made == 0
    assert stamps(tmp_path / "w", second.key) == after
    assert make(tmp_path / "w", model, force=True).made == 5


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_a_part_that_is_lost_is_made_again(tmp_path: Path, model: str, suffix: str) -> None:
    import_images(tmp_path / "w", tmp_path / "raw", named(COLOURS))
    workspace = Workspace.open(tmp_path / "w")
    first = make(tmp_path / "w", model)
    lost = sorted((tmp_path / "w" / "images" / first.key).glob(f"part-*{suffix}"))[0]
    rows = len(np.load(lost.with_suffix(".npy")))
    before = stamps(tmp_path / "w", first.key)
    lost.unlink()
    with pytest.raises(StorageError, match=rf"1 of 3 parts are missing \({lost.stem}\.parquet\); run"):
        ImageFeatures.open(workspace)
    again = make(tmp_path / "w", model)
    assert (again.made, again.kept) == (rows, 5 - rows)
    assert again.manifest == first.manifest
    after = stamps(tmp_path / "w", first.key)
    assert {n for n in after if after[n] == before[n]} == {n for n in before if lost.stem not in n}
    assert len(set(ImageFeatures.open(workspace).rows_of(list(named(COLOURS))))) == 5


def test_a_corpus_of_images_that_are_all_missing_ends_the_job(tmp_path: Path, model: str) -> None:
    addresses = import_images(tmp_path / "w", tmp_path / "raw", {"a.png": None, "b.png": b"no picture"})
    with pytest.raises(UserError, match=rf"none of its 2 images.* {addresses[0]}: missing"):
        make(tmp_path / "w", model)
    assert list(quarantine(tmp_path / "w")) == addresses
    with pytest.raises(StorageError, match="no image features here yet"):
        ImageFeatures.open(Workspace.open(tmp_path / "w"))


def test_a_training_with_images_needs_one_that_can_be_used(tmp_path: Path) -> None:
    class NoImages:
        features = SimpleNamespace(manifest=SimpleNamespace(images=3, refused=3))

        def usable(self, modality: str) -> list[int]:
            return [] if modality == "image" else [0, 1]

    workspace, data = Workspace.open(tmp_path), cast("Contexts", NoImages())
    check_modality(workspace, data, "text")
    for modality in ("image", "text+image"):
        with pytest.raises(UserError, match=r"no context has an image that can be used \(3 of 3 images"):
            check_modality(workspace, data, modality)


def test_refused_images_are_named_and_their_sentences_stay(tmp_path: Path, model: str) -> None:
    half = image_bytes("green", "BMP")[:500]
    images: dict[str, bytes | None] = {
        "missing.png": None,
        "half.bmp": half,
        "half-again.bmp": half,
        "text.jpg": b"no picture",
        "good.png": image_bytes("red"),
    }
    addresses = import_images(tmp_path / "w", tmp_path / "raw", images)
    outcome = make(tmp_path / "w", model)
    assert (outcome.manifest.refused, outcome.made) == (4, 2)
    found = quarantine(tmp_path / "w")
    assert {Path(a).name: line["reason"].split(":")[0] for a, line in found.items()} == {
        "missing.png": "missing",
        "half.bmp": "truncated",
        "half-again.bmp": "truncated",
        "text.jpg": "not an image in a known format (JPEG, PNG, WEBP, BMP, GIF)",
    }
    assert found[addresses[3]]["position"] == "mention of entity 0 in part-00000.parquet, row 3"
    opened = ImageFeatures.open(Workspace.open(tmp_path / "w"))
    rows = opened.rows_of(addresses)
    assert (rows >= 0).tolist() == [False, False, False, False, True]
    assert (opened.gather(rows)[:4] == 0).all()
    # What could not be decoded is not tried again, and is still named.
    again = make(tmp_path / "w", model)
    assert (again.made, again.kept) == (0, 2)
    assert quarantine(tmp_path / "w") == found
    import_images(tmp_path / "w", tmp_path / "raw", {"good.png": None, "text.jpg": image_bytes("blue")})
    assert make(tmp_path / "w", model).made == 1
    assert quarantine(tmp_path / "w") == {}


def test_other_settings_and_other_weights_go_beside(tmp_path: Path, model: str) -> None:
    import_images(tmp_path / "w", tmp_path / "raw", named(COLOURS[:2]))
    workspace = Workspace.open(tmp_path / "w")
    other = backbone(tmp_path / "other", seed=1)
    made = [make(tmp_path / "w", model, grid=7), make(tmp_path / "w", model, grid=2)]
    made += [make(tmp_path / "w", model, patches="crop"), make(tmp_path / "w", other, grid=2)]
    assert len({outcome.key for outcome in made}) == 4
    assert [ImageFeatures.open(workspace, o.key).n_patches for o in made] == [49, 4, 36, 4]
    assert ImageFeatures.open(workspace).key == made[-1].key


def test_images_and_workspace_in_buckets(
    s3: str, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    images = named(["red", "blue"]) | {f"{s3}/far/green.png": image_bytes("green"), f"{s3}/far/no.png": None}
    import_images(f"{s3}/w", tmp_path / "raw", images)
    outcome = make(f"{s3}/w", model)
    assert (outcome.manifest.images, outcome.made, outcome.manifest.refused) == (4, 3, 1)
    assert quarantine(f"{s3}/w")[f"{s3}/far/no.png"]["reason"] == "missing: no such file"
    opened = ImageFeatures.open(Workspace.open(f"{s3}/w"))
    assert sorted(opened.rows_of(list(images))) == [-1, 0, 1, 2]
    assert opened.gather(opened.rows_of([f"{s3}/far/green.png"])).abs().sum() > 0
    import_images(f"{s3}/w", tmp_path / "raw", {"s3://no-such-bucket/a.png": None} | images)
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket: "):
        make(f"{s3}/w", model)


def test_of_a_bucket_the_features_that_are_asked_for_are_read_and_held_ones_once(
    s3: str, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_features, "PART_IMAGES", len(COLOURS))
    import_images(f"{s3}/w", tmp_path / "raw", named(COLOURS))
    make(f"{s3}/w", model)
    opened, whole = (ImageFeatures.open(Workspace.open(f"{s3}/w")) for _ in range(2))
    read, rows, size = counted_reads(monkeypatch), np.arange(len(COLOURS)), whole.n_patches * whole.dim * 2
    whole.hold(rows[::-1])
    (copy,) = read
    assert read[copy] >= len(COLOURS) * size, "all of a part: its file, for all processes of this machine"
    read.clear()
    everything = whole.gather(rows)
    assert everything.abs().sum() > 0
    third = ImageFeatures.open(Workspace.open(f"{s3}/w"))
    assert third.bytes_to_hold(rows) == third.bytes_to_hold(rows[:1]) == 0
    third.hold(rows[:1])
    torch.testing.assert_close(third.gather(rows), everything)
    assert not read, "what was copied is used"
    Store.open(tmp_path / "cache").delete()
    monkeypatch.setattr(npy_rows, "GAP", 0)
    assert opened.bytes_to_hold(np.array([2, -1, 2, 0])) == 2 * size
    opened.hold(np.array([2, -1, 2, 0]))
    held = read.total()
    assert 2 * size <= held <= 2 * size + 4096, "two rows and the header"
    torch.testing.assert_close(opened.gather(np.array([2, 0, -1, 2]))[:2], everything[[2, 0]])
    assert read.total() == held, "no row is read again"
    torch.testing.assert_close(opened.gather(rows), everything)
    assert read.total() == held + (len(COLOURS) - 2) * size
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_what_is_not_there_names_the_way_out(tmp_path: Path, model: str) -> None:
    workspace = Workspace.open(tmp_path / "w")
    with pytest.raises(StorageError, match=r"no corpus here yet; run `seedset import"):
        make(tmp_path / "w", model)
    import_images(tmp_path / "w", tmp_path / "raw", {})
    with pytest.raises(UserError, match="no mention has an image"):
        make(tmp_path / "w", model)
    with pytest.raises(StorageError, match=r"no image features here yet; run `seedset image-features"):
        ImageFeatures.open(workspace)
    with pytest.raises(StorageError, match=r"no such image features, or not complete; run `seedset"):
        ImageFeatures.open(workspace, "grid")


@pytest.mark.parametrize("gone", [False, True])
def test_a_content_that_changes_meanwhile_stops_the_job(tmp_path: Path, model: str, gone: bool) -> None:
    (address,) = import_images(tmp_path / "w", tmp_path / "raw", {"red.png": image_bytes("red")})

    class ChangesAfterTheFirstPass(LocalExecutor):
        def map(
            self, worker: Worker[Task, Result], arguments: Arguments, tasks: Sequence[Task], gpu: bool = False
        ) -> Iterator[tuple[int, Result]]:
            yield from super().map(worker, arguments, tasks, gpu)
            if worker is ImageHasher:
                Path(address).unlink()
                if not gone:
                    Path(address).write_bytes(image_bytes("blue"))

    with pytest.raises(StorageError, match=r"red\.png: has changed while the job ran; run it again"):
        make(tmp_path / "w", model, executor=ChangesAfterTheFirstPass())


def test_another_backbone_on_a_node_is_refused(tmp_path: Path, model: str) -> None:
    settings = ImageSettings(backbone=VisionBackbone.load(model).fingerprint())
    other = backbone(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match="this node has another model under that name"):
        ImageWorker(str(tmp_path / "w"), other, settings, settings.key(model), batch_size=2)


def test_what_an_earlier_version_wrote_is_read_and_kept(tmp_path: Path, model: str) -> None:
    """Byte for byte as it wrote them: manifest and pointer without a line's end."""
    import_images(tmp_path / "w", tmp_path / "raw", named(COLOURS))
    first = make(tmp_path / "w", model)
    folder = tmp_path / "w" / "images" / first.key
    (folder / "manifest.json").write_text(first.manifest.model_dump_json(indent=1))
    (folder.parent / "CURRENT").write_text(first.key)
    assert sorted(folder.glob("part-*.parquet")) == [
        folder / f"part-{p}.parquet" for p in first.manifest.parts
    ]
    assert ImageFeatures.open(Workspace.open(tmp_path / "w")).manifest == first.manifest
    again = make(tmp_path / "w", model)
    assert (again.made, again.kept, again.manifest) == (0, 5, first.manifest)
