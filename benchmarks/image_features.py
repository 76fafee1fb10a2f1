"""Measure the image step: its speed against the bare backbone, its memory as the corpus grows.

Speed, in one process without Ray: reading, hashing, decoding, resizing, the backbone and writing, against a
loop of the backbone alone on batches that are ready, both with one thread for the model. Two loops: the
library's own model, in the layout and batch that are its fastest on a CPU, and ours, with folded
normalisations (the floor). Measured in turn, once with everything held to one core, and once with two, of
which the step's second thread decodes and the loops leave one idle. The backbone is MobileNet V1 (0.75, 224
pixels) with drawn weights, the pictures are JPEGs of 224 x 168 pixels: speed depends on neither's content.

Memory: pairs of a sentence and a picture of its own, 1,000 and 100,000, through a backbone so small that the
larger run takes minutes. It is the growth that is measured here, not the backbone. The job's own process, an
actor's work and a reader run in a process each; the peak is the kernel's (VmHWM).

    python -m benchmarks.image_features
    python -m benchmarks.image_features --images 64 --large 10000
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from transformers import AutoModel, MobileNetV1Config, MobileNetV1Model, ResNetConfig, ResNetModel
from transformers.utils import logging as transformers_logging

from benchmarks.report import medians, report
from cluster.session import session
from engine.corpus.importing.importer import ImportSettings, import_corpus
from engine.corpus.importing.source import ImportSource
from engine.images.features import ImageFeatures
from engine.images.fetch import ImageHasher
from engine.images.settings import ImageSettings
from engine.images.worker import Contents, ImageWorker
from engine.models.vision import VisionBackbone
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import Making
from jobs.steps.image_features import ADDRESSES_A_TASK, PART_IMAGES, make_image_features
from jobs.workers.executor import RayExecutor

SPEED_BAR = 0.9
"""Images a second of the step over those of the bare backbone."""

GROWTH_BAR_MIB = 160
"""Growth from 1,000 to 100,000 pairs, in MiB, of the process that grows most: the job's own, which holds of
each image its address, its digest and where it is first named, 1.2 KB in all."""

LOOP_BATCH = 4
"""The fastest batch of the bare loop: larger ones leave the memory that the C library keeps."""

_PROCESSES = ("job", "actor", "reader")


def _save(model: Any, folder: Path, side: int) -> None:
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    given = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))


def _photograph(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return smooth shapes with some grain: compresses like a photograph."""
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((smooth + random.integers(-9, 10, smooth.shape)).clip(0, 255).astype(np.uint8))


def speed(folder: Path, images: int, rounds: int, cores: int) -> dict[str, float]:
    """Return the seconds an image of the step and of the two loops, on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = MobileNetV1Config(depth_multiplier=0.75, image_size=224)
    _save(MobileNetV1Model(config, add_pooling_layer=False), folder / "model", 224)
    random = np.random.default_rng(0)
    addresses = [str(folder / f"{i}.jpg") for i in range(images)]
    for address in addresses:
        _photograph(random, 224, 168).save(address, quality=85)
    backbone = VisionBackbone.load(str(folder / "model"))
    plain = AutoModel.from_pretrained(folder / "model", add_pooling_layer=False).eval()
    plain = plain.to(memory_format=torch.channels_last)
    pixels = torch.from_numpy(random.integers(0, 256, (images, 224, 224, 3), np.uint8))
    ready = [backbone.prepared(some) for some in pixels.split(LOOP_BATCH)]
    hasher = ImageHasher(str(folder))
    settings = ImageSettings(backbone=backbone.fingerprint())
    maker = ImageWorker(str(folder), str(folder / "model"), settings, "key", batch_size=32)

    def step() -> None:
        maker(Contents([hasher.hashed(address).sha256 for address in addresses], addresses))

    def loop(model: Callable[[torch.Tensor], object]) -> None:
        with torch.inference_mode():
            for batch in ready:
                model(batch)

    measured = {"step": step, "library": lambda: loop(plain), "folded": lambda: loop(backbone.model)}
    return {name: s / images for name, s in medians(measured, rounds, warm_up=1).items()}


def prepare(folder: Path, pairs: int) -> None:
    """Write a small backbone and a corpus of pairs, each with a picture of its own."""
    torch.manual_seed(0)
    small = ResNetConfig(embedding_size=4, hidden_sizes=[8], depths=[1])
    _save(ResNetModel(small), folder / "model", 32)
    random = np.random.default_rng(0)
    (folder / "raw").mkdir()
    (folder / "pictures").mkdir()
    with (folder / "raw" / "sentences.jsonl").open("w") as file:
        for i in range(pairs):
            path = folder / "pictures" / f"{i}.png"
            stream = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(stream, "PNG")
            path.write_bytes(stream.getvalue())
            entity = f"entity {i // 20}"
            record = {"entity": entity, "sentence": f"Of {entity} we know fact {i}.", "image": str(path)}
            file.write(json.dumps(record) + "\n")
    import_corpus(Workspace.open(folder / "w"), ImportSource(str(folder / "raw")), ImportSettings())


def run_job(folder: Path, pairs: int) -> None:
    """Run the job as it is, on Ray with one actor."""
    making = Making(model=str(folder / "model"), grid=2)
    with session():
        outcome = make_image_features(Workspace.open(folder / "w"), making, executor=RayExecutor(workers=1))
    if outcome.made != pairs:
        raise RuntimeError(f"{outcome.made} of {pairs} images were made")


def run_actor(folder: Path, pairs: int) -> None:
    """Do the work of the actors, both passes, here."""
    addresses = [str(folder / "pictures" / f"{i}.png") for i in range(pairs)]
    hasher = ImageHasher(str(folder / "w"))
    backbone = VisionBackbone.load(str(folder / "model"), grid=2)
    settings = ImageSettings(backbone=backbone.fingerprint(), grid=2)
    maker = ImageWorker(str(folder / "w"), str(folder / "model"), settings, "actor", batch_size=32)
    for chunk in _chunks(addresses, ADDRESSES_A_TASK):
        sha256s = [hasher.hashed(address).sha256 for address in chunk]
        for at in range(0, len(chunk), PART_IMAGES):
            maker(Contents(sha256s[at : at + PART_IMAGES], chunk[at : at + PART_IMAGES]))


def run_reader(folder: Path, pairs: int) -> None:
    """Do what training does: open the features, and gather batches of them."""
    opened = ImageFeatures.open(Workspace.open(folder / "w"))
    addresses = [str(folder / "pictures" / f"{i}.png") for i in range(pairs)]
    rows = np.random.default_rng(0).permutation(opened.rows_of(addresses))
    for batch in _chunks(rows, 256):
        opened.gather(batch)


def _chunks(values: Any, size: int) -> Iterator[Any]:
    return (values[at : at + size] for at in range(0, len(values), size))


def _peak_mib() -> float:
    """Return this process' largest resident size."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("this kernel does not report VmHWM")
    return int(found[1]) / 1024


def _in_process(step: str, folder: str, number: int, rounds: int = 0) -> Any:
    """Run a step in a process of its own and return what its last line says."""
    own = [sys.executable, "-m", "benchmarks.image_features", "--step", step, "--folder", folder]
    sizes = ["--images", str(number), "--rounds", str(max(rounds, 1))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run([*own, *sizes], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def _step(step: str, folder: Path, number: int, rounds: int) -> Any:
    """Do what :func:`_in_process` asks for."""
    if step.startswith("speed"):
        return speed(folder, number, rounds, int(step.removeprefix("speed")))
    {"prepare": prepare, "job": run_job, "actor": run_actor, "reader": run_reader}[step](folder, number)
    return _peak_mib()


def main(
    images: Annotated[int, typer.Option(min=8, help="Pictures of a measurement of speed.")] = 128,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each, in turn.")] = 5,
    small: Annotated[int, typer.Option(min=1, help="Pairs of the small corpus.")] = 1_000,
    large: Annotated[int, typer.Option(min=1, help="Pairs of the large one.")] = 100_000,
    step: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure the speed of the image step and its memory."""
    if step:
        print(json.dumps(_step(step, Path(folder), images, rounds)))
        return
    seconds: dict[int, dict[str, float]] = {}
    for cores in (1, 2):
        with tempfile.TemporaryDirectory() as temporary:
            seconds[cores] = _in_process(f"speed{cores}", temporary, images, rounds)
    peaks: dict[int, dict[str, float]] = {}
    for pairs in (small, large):
        with tempfile.TemporaryDirectory() as temporary:
            _in_process("prepare", temporary, pairs)
            peaks[pairs] = {process: _in_process(process, temporary, pairs) for process in _PROCESSES}
    _report(seconds, peaks, images, rounds)


def _report(
    seconds: dict[int, dict[str, float]], peaks: dict[int, dict[str, float]], images: int, rounds: int
) -> None:
    ratio = {cores: s["library"] / s["step"] for cores, s in seconds.items()}
    floor = {cores: s["step"] / s["folded"] for cores, s in seconds.items()}
    speeds = [
        [
            f"{cores} core{'s' * (cores > 1)}",
            *(f"{1 / s[name]:.1f}" for name in ("step", "library", "folded")),
            f"{ratio[cores]:.2f}",
            f"{1 / floor[cores]:.2f}",
        ]
        for cores, s in seconds.items()
    ]
    small, large = peaks.values()
    growth = {process: large[process] - small[process] for process in _PROCESSES}
    memory = [
        [f"{process}, MiB", *(f"{p[process]:.0f}" for p in peaks.values()), "", f"{growth[process]:+.0f}", ""]
        for process in _PROCESSES
    ]
    report(
        f"image step, MobileNet V1 0.75 at 224 pixels, images a second (median of {rounds} x {images}); then "
        f"peak memory at {' and '.join(f'{pairs:,}' for pairs in peaks)} pairs, and its growth",
        ["", "step", "library's loop", "folded loop", "step / library's", "step / folded"],
        speeds + memory,
        name="image_features",
        ratio=ratio[2],
        ratio_one_core=ratio[1],
        floor_ratio=floor[2],
        floor_ratio_one_core=floor[1],
        bar=SPEED_BAR,
        peak_mib={str(pairs): {k: round(v) for k, v in p.items()} for pairs, p in peaks.items()},
        growth_mib=max(growth.values()),
        growth_bar_mib=GROWTH_BAR_MIB,
        holds=min(ratio.values()) >= SPEED_BAR and max(growth.values()) <= GROWTH_BAR_MIB,
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.image_features")
