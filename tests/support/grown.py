"""A small workspace that has grown: two generations of everything, written by hand, local or in a bucket."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.blocks.format import BlockCounts, BlockManifest, block_parts, open_blocks, write_part
from engine.corpus.blocks.settings import BlockSettings
from engine.corpus.inputs.format import INPUT_SCHEMA, InputManifest, InputSettings, input_parts, open_inputs
from engine.corpus.schema import read_manifest
from engine.evaluation.kept_stages import KeptStages
from engine.query import Query
from engine.stages.base import LocalPipeline
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import MANIFEST, check_files, current_id, listing
from engine.storage.parts import read_pointer, write_model, write_pointer
from engine.storage.publishing import publish
from engine.storage.removal import carry_out
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.contrast_lists import open_lists
from jobs.steps.cleaning import Plan, plan_cleaning
from jobs.workers.summaries import SUMMARY, finished_summary
from tests.support.corpora import run_import, ultrawiki

INPUTS = InputSettings(tokenizer="t")
BLOCKS = BlockSettings(tokenizer="t", vocab_size=64)
STATES = f"cache/{INPUTS.parts_key()}-01234567-bfloat16"


@dataclass(frozen=True)
class Generation:
    """What one round of growing made: a bundle, and what it was made from, by their names."""

    bundle: str
    inputs: str
    blocks: str
    tokenizer: str
    encoder: str
    contrast: str
    model: str
    lists: str


def write(workspace: Workspace, path: str, content: str | dict[str, Any] = "x") -> Store:
    """Write a file below a workspace: a text, or JSON."""
    file = workspace.root / path
    file.write_bytes((content if isinstance(content, str) else json.dumps(content)).encode())
    return file


def write_input(workspace: Workspace, key: str, parts: list[str]) -> None:
    """Write model input, its parts as far as they are not there, and the states of these."""
    folder = input_parts(workspace, INPUTS)
    for name in set(parts) - set(folder.names()):
        counts = {"rows": "0", "tokens": "0", "longest": "0", "clipped": "0"}
        with folder.writing(name) as path:
            pq.write_table(pa.Table.from_pylist([], INPUT_SCHEMA.with_metadata(counts)), path)
        write(workspace, f"{STATES}/part-{name}.npy")
    write(workspace, f"{STATES}/{MANIFEST}")
    manifest = InputManifest(
        settings=INPUTS,
        model="embedded",
        corpus_digest=read_manifest(workspace).digest,
        mentions=0,
        tokens=0,
        longest=0,
        clipped=0,
        parts=dict.fromkeys(parts, 0),
        sources=[f"source {name}" for name in parts],
    )
    write_model(workspace.inputs(key) / MANIFEST, manifest)
    write_pointer(workspace.inputs(), key)


def write_blocks(workspace: Workspace, key: str, parts: list[str]) -> None:
    """Write blocks of a language model, and their parts as far as they are not there."""
    folder = block_parts(workspace, BLOCKS)
    counts = BlockCounts(sentences=0, descriptions=0, held_out=0, blocks=0, tokens=0, padding=0)
    for name in set(parts) - set(folder.names()):
        write_part(folder, name, np.zeros((1, 256), np.uint16), np.zeros(3, np.uint16), counts)
    digest = read_manifest(workspace).digest
    manifest = BlockManifest(settings=BLOCKS, corpus_digest=digest, parts=dict.fromkeys(parts, counts))
    write_model(workspace.inputs(key) / MANIFEST, manifest)


def write_run(workspace: Workspace, job: str, name: str, artifact: str, **summary: Any) -> None:
    """Write a training that has ended, with two checkpoints and events."""
    run = f"runs/{job}/{name}"
    write(workspace, f"{run}/{artifact}/weights.bin", name)
    write(workspace, f"{run}/tensorboard/events.out")
    for step in ("0000000001", "0000000002"):
        write(workspace, f"{run}/checkpoints/{step}/state.json", "{}")
    files = {"weights.bin": len(name)}
    write(workspace, f"{run}/summary.json", {"run": name, "model": "embedded", "files": files, **summary})


def publish_bundle(workspace: Workspace, number: int, **settings: Any) -> str:
    """Publish a bundle of two small files as of a day of January, and return its id."""
    staged = workspace.bundles.staging()
    (staged / "index").mkdir()
    (staged / "entities.parquet").write_text("entities")
    (staged / "index" / "mask.faiss").write_text(f"index {number}")
    manifest = publish(workspace, staged, settings)
    dated = manifest.model_copy(update={"created": f"2026-01-{number:02}T00:00:00+00:00"})
    write_model(workspace.bundles / manifest.id / MANIFEST, dated)
    return manifest.id


def generation(workspace: Workspace, number: int, parts: list[str]) -> Generation:
    """Make everything once more, of these parts."""
    inputs, blocks = f"mask-L128-S30-{number:08}", f"lm-V64-T256-{number:08}"
    tokenizer, lists = f"tokenizer-V64-{number:08}", f"{number:016}"
    encoder, contrast = f"{inputs}-e12-{number:08}", f"{inputs}-e12-1{number:07}"
    model = f"{blocks}-e1-{number:08}"
    write_input(workspace, inputs, parts)
    write_blocks(workspace, blocks, parts)
    write(workspace, f"inputs/{tokenizer}/tokenizer.json")
    write(workspace, f"inputs/{tokenizer}/tokenizer_config.json")
    write(workspace, f"contrast/{lists}/lists.parquet")
    digest = read_manifest(workspace).digest
    write(
        workspace, f"contrast/{lists}/manifest.json", {"corpus_digest": digest, "settings": {}, "queries": 0}
    )
    write_pointer(workspace.contrast(), lists)
    write_run(workspace, "train_encoder", encoder, "encoder", inputs=inputs)
    write_pointer(workspace.runs("train_encoder"), encoder)
    write_run(workspace, "train_contrast", contrast, "encoder", inputs=inputs, contrast_lists=lists)
    write_pointer(workspace.runs("train_contrast"), contrast)
    address = (workspace.inputs(tokenizer)).uri
    write_run(workspace, "pretrain_lm", model, "lm", tokenizer=address, blocks_key=blocks)
    lm = {"run": model, "tokenizer": address}
    bundle = publish_bundle(workspace, number, trained=encoder, inputs=inputs, lm=lm)
    write(workspace, f"runs/cells/{number:016}/report.json", {"bundle": bundle})
    write(workspace, f"runs/cells/{number:016}/scores.parquet")
    stages = KeptStages(workspace.runs("stages"), bundle)
    stages.keeping(LocalPipeline([(Retrieve(k=1, view="mask"), list)]))([Query("q", (0,))])
    return Generation(bundle, inputs, blocks, tokenizer, encoder, contrast, model, lists)


def grown(root: str | Path, raw: Path, generations: int = 3) -> tuple[Workspace, list[Generation]]:
    """Return a workspace of several generations, the oldest first; each has one part of the one before it."""
    run_import(root, ultrawiki(raw, {"iron": ["We know iron."], "gold": ["We know gold."]}), "ultrawiki")
    workspace = Workspace.open(root)
    found = []
    for number in range(1, generations + 1):
        if number > 1 and not workspace.root.is_local:
            time.sleep(1.05 - time.time() % 1)  # a bucket tells times in seconds
        found.append(generation(workspace, number, [f"{number:016}", f"{number + 1:016}"]))
    write(workspace, "expansions/e/part-00000.parquet")
    write(workspace, "chat/answers/a.json")
    write(workspace, "runs/evaluate/default/report.json", "{}")
    return workspace, found


def check_readable(workspace: Workspace) -> None:
    """Open all that readers take for whole, and what the pointers name."""
    bundles, _ = listing(workspace)
    assert current_id(workspace) in {bundle.id for bundle in bundles}
    for bundle in bundles:
        check_files(workspace.bundles / bundle.id, bundle)
    assert open_inputs(workspace).key == read_pointer(workspace.inputs())
    for file in workspace.inputs().files(f"/{MANIFEST}"):
        key = file.parent.name
        if key.startswith("mask"):
            open_inputs(workspace, key)
        else:
            assert open_blocks(workspace, key)
    for file in workspace.contrast().files(f"/{MANIFEST}"):
        assert open_lists(workspace, file.parent.name).file.exists()
    for job, artifact in (("train_encoder", "encoder"), ("train_contrast", "encoder"), ("pretrain_lm", "lm")):
        for file in workspace.runs(job).files(f"/{SUMMARY}"):
            finished_summary(file.parent, artifact)
        if name := read_pointer(workspace.runs(job)):
            assert (workspace.runs(job) / name / SUMMARY).exists()


def contents(workspace: Workspace) -> dict[str, bytes]:
    """Return every file of a workspace, by its path below it."""
    start = len(workspace.root.path) + 1
    return {file.path[start:]: file.read_bytes() for file in workspace.root.files()}


Grown = tuple[Workspace, list[Generation]]


def clean(workspace: Workspace, keep: int = 1) -> Plan:
    """Remove what a workspace can do without; return the plan of that."""
    plan = plan_cleaning(workspace, keep)
    carry_out(workspace.root, plan.removals)
    return plan


def planned(plan: Plan) -> set[tuple[str, str]]:
    """Kind and path of all that goes but the answers of stages, which are named by a digest."""
    return {(one.kind, one.path) for one in plan.removals if one.kind != "answers of a stage"}
