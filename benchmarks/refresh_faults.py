"""Kill appends, refreshes and cleanings at drawn moments, and compare with an undisturbed run.

A small corpus of invented sentences has grown, and `seedset import --append`, `refresh` (which trains the
encoder on) and `clean` follow, each as a process of its own. SIGKILL ends it at a moment that is drawn from a
seed, in processor seconds since it holds the workspace, of those that it took undisturbed; the same command
follows, and may be killed again. In the end nothing may be lost, twice or stale: the corpus' files, the
bundle's, and the names of all others must be those of the undisturbed run, and nothing is left to be done.

    python -m benchmarks.refresh_faults --kills 20
    python -m benchmarks.refresh_faults --kills 20 --bucket
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer

from benchmarks.invented import invented_names, invented_sentence, invented_word
from benchmarks.report import report
from benchmarks.serving import verdict
from cluster.crashing.commands import once, seedset
from cluster.processes import SHOWN
from engine.corpus.schema import read_manifest
from engine.errors import UserError
from engine.storage.bundle import current_id, manifest_of
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console

ENTITIES, SENTENCES, NEW_ENTITIES = 40, 8, 2
AGAIN = 0.4
"""Chance that a command is killed once more, before it may run to its end."""
LOOK_S = 0.005

_STEP = re.compile(r"^\d+ of \d+: ([\w-]+)", re.MULTILINE)
_CHANGING = re.compile(r"(?<=^bundles/)[^/]+|(?<=^corpora/)[^/]+|tensorboard/.*")
"""What is named by its time, or written by each life of a training."""


class Killed(NamedTuple):
    """A command that was killed.

    Args:
        command: its name.
        during: the step of a refresh that it had begun; "" of others.
        share: of its processor seconds that it had had.
    """

    command: str
    during: str
    share: float


@dataclass
class Found:
    """What all runs have come to."""

    kills: list[Killed] = field(default_factory=list)
    missed: int = 0
    """Commands that ended before they were to be killed."""
    runs: int = 0
    differences: list[str] = field(default_factory=list)


def write_sources(folder: Path, seed: int) -> tuple[Path, Path]:
    """Write a corpus, and what is appended to it, as JSON lines."""
    rng = random.Random(seed)
    words = [invented_word(rng) for _ in range(400)]
    names = invented_names(rng, words, ENTITIES + NEW_ENTITIES)

    def said(name: str, count: int) -> list[dict[str, str]]:
        return [{"entity": name, "sentence": invented_sentence(rng, words, name, 12)} for _ in range(count)]

    base = [row for name in names[:ENTITIES] for row in said(name, SENTENCES)]
    late = [row for name in names[ENTITIES - 3 :] for row in said(name, SENTENCES)]
    files = []
    for name, rows in (("base", base), ("late", [*late, *base[:5]])):
        files.append(folder / f"{name}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return files[0], files[1]


def make_base(root: str, source: Path) -> None:
    """Import a corpus, train an encoder on it, and publish an index."""
    for words in (
        ["import", "--source", source],
        ["preprocess"],
        ["train-encoder", "--epochs", 1],
        ["build-index"],
    ):
        once(*words, "--workspace", root)


def copy_of(root: str, target: str) -> str:
    """Copy a workspace, and return where the copy is."""
    source = Store.open(root)
    if source.is_local:
        shutil.copytree(root, target)
        return target
    for file in source.files():
        (Store.open(target) / file.path[len(source.path) + 1 :]).write_bytes(file.read_bytes())
    return target


def commands(root: str, more: Path, epochs: int) -> list[list[str]]:
    """Return the commands that follow what has grown, by their words."""
    return [
        seedset("import", "--workspace", root, "--source", more, "--append"),
        seedset("refresh", "--workspace", root, "--epochs", epochs, "--pool", 1),
        seedset("clean", "--workspace", root, "--keep", 1),
    ]


def run(words: Sequence[str], root: str, until: float | None) -> tuple[bool, float, str]:
    """Run a command to its end, or kill it.

    Args:
        words: the command.
        root: its workspace.
        until: processor seconds since it holds the workspace, after which it is killed; None: it is not.

    Returns:
        Whether it was killed, the processor seconds that it had then or at the end, and what it wrote.

    Raises:
        UserError: it failed by itself.
    """
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    locks = Workspace.open(root).locks
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(words, env=alone, stdout=output, stderr=subprocess.STDOUT)
        held, had, start = False, 0.0, 0.0
        before = {file.name for file in locks.files()}
        while process.poll() is None:
            times = _processor_seconds(process.pid, had)
            if not held:
                held, start = bool({file.name for file in locks.files()} - before), times
            had = times
            if held and until is not None and had - start >= until:
                process.kill()
            time.sleep(LOOK_S)
        output.seek(0)
        written = output.read().decode(errors="replace")
    if process.returncode not in (0, -signal.SIGKILL):
        raise UserError(f"{' '.join(words[2:])}: {written[-SHOWN:].strip()}")
    return process.returncode != 0, had - start, written


def _processor_seconds(pid: int, before: float) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return before
    return float(times.user + times.system) or before


def state(root: str) -> dict[str, str]:
    """Return what a workspace has: names of files, and digests of those that answers depend on."""
    workspace = Workspace.open(root)
    manifest, bundle = read_manifest(workspace), manifest_of(workspace, current_id(workspace))
    found = {"corpus": manifest.digest, "mentions": str(manifest.counts.mentions)}
    for folder in ("mentions", "images", "quarantine"):
        for name, file in workspace.corpus_files(folder).items():
            found[f"corpus: {name}"] = file.sha256()
    found |= {f"bundle: {name}": str(one) for name, one in bundle.files.items()}
    start = len(workspace.root.path) + 1
    paths = Counter(_CHANGING.sub("*", file.path[start:]) for file in workspace.root.files())
    # Where the parts of a corpus in a bucket lie depends on which import wrote them.
    return found | {path: "there" for path in paths if not path.startswith("corpora/")}


def left_over(root: str) -> list[str]:
    """Return what the commands would still do, where there should be nothing."""
    stale = once("refresh", "--workspace", root, "--dry-run")
    unneeded = once("clean", "--workspace", root, "--keep", 1, "--dry-run")
    found = [] if "stale=0" in stale else [f"refresh: {stale.strip()}"]
    return found if "removals=0" in unneeded else [*found, f"clean: {unneeded.strip()}"]


def disturbed(
    root: str, work: list[list[str]], taken: list[float], drawn: random.Random, found: Found
) -> None:
    """Run the commands in turn, each killed once or more often before it runs to its end."""
    for words, seconds in zip(work, taken, strict=True):
        kill = True
        while kill:
            was_killed, had, written = run(words, root, drawn.uniform(0, seconds))
            if not was_killed:
                found.missed += 1
                break
            steps = _STEP.findall(written)
            found.kills.append(Killed(words[3], steps[-1] if steps else "", had / seconds))
            kill = drawn.random() < AGAIN
        run(words, root, None)
    found.runs += 1


@contextmanager
def s3_server() -> Iterator[str]:
    """Start an S3 server on loopback, and yield the address of a bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    os.environ |= keys | {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "no_proxy": "127.0.0.1"}
    bucket = f"faults-{uuid.uuid4().hex}"
    try:
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
            Bucket=bucket
        )
        yield f"s3://{bucket}"
    finally:
        server.stop()


def measure(place: str, folder: Path, kills: int, seed: int, epochs: int) -> Found:
    """Kill commands until so many were, and return what was found."""
    base, more = write_sources(folder, seed)
    console.say("the base")
    make_base(f"{place}/base", base)
    plain = copy_of(f"{place}/base", f"{place}/plain")
    taken = [run(words, plain, None)[1] for words in commands(plain, more, epochs)]
    console.say(f"undisturbed: {', '.join(f'{one:.1f}' for one in taken)} processor seconds")
    wanted, drawn, found = state(plain), random.Random(seed), Found()
    while len(found.kills) < kills and found.missed <= kills:
        root = copy_of(f"{place}/base", f"{place}/run-{found.runs}")
        disturbed(root, commands(root, more, epochs), taken, drawn, found)
        got = state(root)
        names = sorted(name for name in wanted | got if wanted.get(name) != got.get(name))
        found.differences += [
            f"run {found.runs}, {name}: {got.get(name)}, undisturbed {wanted.get(name)}" for name in names
        ]
        found.differences += [f"run {found.runs}, {one}" for one in left_over(root)]
        console.say(f"run {found.runs}: {len(found.kills)} killed, {len(found.differences)} differences")
        Store.open(root).delete()
    return found


def main(
    kills: Annotated[int, typer.Option(help="Commands that are killed, at least.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the sources and the moments.")] = 1,
    epochs: Annotated[int, typer.Option(help="For which `refresh` trains the encoder on.")] = 2,
    bucket: Annotated[bool, typer.Option(help="The workspace lies in a bucket of a server here.")] = False,
) -> None:
    """Kill append, refresh and clean at drawn moments, and compare with an undisturbed run."""
    with tempfile.TemporaryDirectory() as name, s3_server() if bucket else nullcontext(name) as place:
        os.environ["SEEDSET_CACHE"] = f"{name}/cache"
        found = measure(place, Path(name), kills, seed, epochs)
    met = Counter((one.command, one.during) for one in found.kills)
    for difference in found.differences[:20]:
        console.say(difference)
    holds = not found.differences and bool(found.kills)
    report(
        f"append, refresh, clean {'in a bucket' if bucket else 'on a disk'}, {len(found.kills)} times killed "
        f"in {found.runs} runs (seed {seed})",
        ["killed", "times", ""],
        [[" ".join(filter(None, key)), str(times), ""] for key, times in sorted(met.items())]
        + [["ended before", str(found.missed), ""]]
        + [["lost, twice or stale", str(len(found.differences)), verdict(holds)]],
        name="refresh_faults",
        bucket=bucket,
        seed=seed,
        kills=len(found.kills),
        runs=found.runs,
        differences=len(found.differences),
        shares=[round(one.share, 2) for one in found.kills],
        holds=holds,
    )
    if not holds:
        raise typer.Exit(1)


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.refresh_faults --kills 20")
