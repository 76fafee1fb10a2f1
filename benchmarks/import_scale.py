"""Measure an import of UltraWiki's size: time and peak memory, against reading everything at once.

Makes a corpus of 394,097 sentences of 50,973 entities in UltraWiki's layout (invented names and words) and
runs ``python -m jobs.import_corpus`` on it. Compared with the plain way (``json.load`` of the whole file, one
regular expression for every entity, the same Parquet parts) and with the floor (reading the bytes and writing
the same parts, nothing else). Each runs in a process of its own; its peak is what the kernel reports.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import typer
from rich.table import Table

from benchmarks.invented import WORDS_PER_SENTENCE, invented_names, invented_sentence, invented_word
from engine.corpus.importing.writer import MentionWriter
from jobs import console

ENTITIES, SENTENCES, SEED = 50_973, 394_097, 11
PEAK_LIMIT_MIB = 2048
EXAMPLES = """
  python -m benchmarks.import_scale
  python -m benchmarks.import_scale --entities 5000 --sentences 40000
"""


def _members(values: Iterator[tuple[str, object]]) -> Iterator[str]:
    yield "{"
    for i, (name, value) in enumerate(values):
        yield ("," if i else "") + f"\n {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}"
    yield "\n}\n"


def generate(
    folder: Path, entities: int, sentences: int, seed: int, words_per_sentence: int = WORDS_PER_SENTENCE
) -> None:
    """Write a corpus in UltraWiki's layout, one entity at a time."""
    rng = random.Random(seed)
    words = [invented_word(rng) for _ in range(20_000)]
    names = invented_names(rng, words, entities)
    cuts = sorted(rng.sample(range(1, sentences), entities - 1))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, sentences], strict=True)]
    (folder / "entities.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    with (folder / "ent2sents.json").open("w", encoding="utf-8") as file:
        groups = (
            (n, [invented_sentence(rng, words, n, words_per_sentence) for _ in range(k)])
            for n, k in zip(names, sizes, strict=True)
        )
        file.writelines(_members(groups))
    with (folder / "ent2text.json").open("w", encoding="utf-8") as file:
        file.writelines(_members((n, f"{n} is {' '.join(rng.choices(words, k=40))}.") for n in names))


def plain(source: Path, target: Path) -> None:
    """Import the plain way: the whole file in memory, a regular expression for every entity."""
    import re

    names = (source / "entities.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    ids = {name: i for i, name in enumerate(names)}
    sentences = json.loads((source / "ent2sents.json").read_text(encoding="utf-8"))
    descriptions = json.loads((source / "ent2text.json").read_text(encoding="utf-8"))
    rows = []
    for name, texts in sentences.items():
        for text in texts:
            found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
            if found:
                rows.append((ids[name], text, found.start(), found.end(), None))
    writer = MentionWriter(target / "mentions")
    for row in rows:
        writer.add(*row)
    writer.flush()
    (target / "entities.json").write_text(json.dumps([(n, descriptions.get(n)) for n in names]))


def floor(source: Path, target: Path) -> None:
    """Read the source's bytes and copy the parts of a finished import: nobody can do less."""
    import pyarrow.parquet as pq

    for name in ("entities.txt", "ent2sents.json", "ent2text.json"):
        (source / name).read_bytes()
    started, cpu = time.perf_counter(), time.process_time()
    tables = [pq.read_table(p) for p in sorted((target / "corpus").rglob("*.parquet"))]
    spare = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    for i, table in enumerate(tables):
        pq.write_table(table, target / f"floor-{i}.parquet")
    print(json.dumps(spare))


class Cost(NamedTuple):
    """The cost of a process: CPU seconds (fair on a machine that others use too), seconds, peak MiB."""

    cpu: float
    seconds: float
    peak_mib: float
    last_line: str


def _measured(command: list[str]) -> Cost:
    """Run a command and return its cost.

    It runs below a small process of its own, so that the peak of an earlier one is not counted.
    """
    wrapper = (
        "import json,resource,subprocess,sys,time; t=time.perf_counter(); "
        "r=subprocess.run(sys.argv[1:],stdout=subprocess.PIPE,text=True); s=time.perf_counter()-t; "
        "u=resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(json.dumps([r.returncode,u.ru_utime+u.ru_stime,s,u.ru_maxrss,r.stdout.strip()]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", wrapper, *command], stdout=subprocess.PIPE, text=True, check=True
    )
    status, cpu, seconds, peak_kib, output = json.loads(run.stdout)
    if status:
        raise RuntimeError(f"{command}: ended with status {status}")
    return Cost(cpu, seconds, peak_kib / 1024, (output.splitlines() or [""])[-1])


def main(
    entities: int = typer.Option(ENTITIES, min=2, help="Entities of the invented corpus."),
    sentences: int = typer.Option(SENTENCES, help="Sentences of it."),
    step: str = typer.Option("", hidden=True),
    folder: str = typer.Option("", hidden=True),
) -> None:
    """Measure an import of UltraWiki's size."""
    if step:
        {"plain": plain, "floor": floor}[step](Path(folder) / "source", Path(folder) / step_target(step))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in ("source", "ours", "plain"):
            (root / name).mkdir()
        generate(root / "source", entities, sentences, SEED)
        size = sum(f.stat().st_size for f in (root / "source").iterdir()) / 2**20
        own = [sys.executable, "-m", "benchmarks.import_scale", "--folder", temporary, "--step"]
        job = [sys.executable, "-m", "jobs.import_corpus", "--workspace", str(root / "ours")]
        ours = _measured([*job, "--source", str(root / "source")])
        naive = _measured([*own, "plain"])
        lowest = _measured([*own, "floor"])
    spare = json.loads(lowest.last_line)
    lowest = lowest._replace(cpu=lowest.cpu - spare["cpu"], seconds=lowest.seconds - spare["seconds"])
    report(size, ours, naive, lowest)


def step_target(step: str) -> str:
    """Return the folder that a step works on: the floor copies the parts of our import."""
    return "ours" if step == "floor" else step


def report(size: float, ours: Cost, naive: Cost, lowest: Cost) -> None:
    """Print the table for people and the line for scripts."""
    title = f"Import of {size:.0f} MiB in UltraWiki's layout"
    table = Table("", "CPU seconds", "seconds", "peak MiB", title=title)
    rows = {
        "jobs.import_corpus": ours,
        "plain: everything in memory": naive,
        "floor: read, write": lowest,
    }
    for name, cost in rows.items():
        table.add_row(name, f"{cost.cpu:.1f}", f"{cost.seconds:.1f}", f"{cost.peak_mib:.0f}")
    console.console.print(table)
    console.say(ours.last_line)
    line = {
        "name": "import_scale",
        "ratio": round(naive.cpu / ours.cpu, 2),
        "memory_ratio": round(naive.peak_mib / ours.peak_mib, 2),
        "floor_ratio": round(ours.cpu / lowest.cpu, 2),
        "holds": ours.peak_mib < PEAK_LIMIT_MIB,
        "cpu_seconds": round(ours.cpu, 2),
        "seconds": round(ours.seconds, 2),
        "peak_mib": round(ours.peak_mib),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    console.run(main, EXAMPLES)
