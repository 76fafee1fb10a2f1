"""Small corpora, their import, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.importing.importer import ImportSettings, import_corpus
from engine.corpus.importing.source import ImportSource
from engine.corpus.schema import CorpusManifest
from engine.storage.workspace import Workspace


class Imported(NamedTuple):
    """A corpus as it was published."""

    manifest: CorpusManifest
    entities: list[dict[str, Any]]
    mentions: list[dict[str, Any]]
    quarantine: list[dict[str, str]]

    @property
    def held(self) -> list[tuple[str, str]]:
        """(entity, what its mention holds) of every mention."""
        names = [e["name"] for e in self.entities]
        return [(names[m["entity_id"]], m["sentence"][m["start"] : m["end"]]) for m in self.mentions]

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """(position, reason) of every refusal."""
        return [(q["position"], q["reason"]) for q in self.quarantine]


def run_import(workspace: str | Path, source: str | Path, form: str, **settings: Any) -> Imported:
    """Import a corpus and read what was published."""
    place = Workspace.open(workspace)
    manifest = import_corpus(place, ImportSource(str(source), form), ImportSettings(**settings))
    with place.entities.open_input() as stream:
        entities = pq.read_table(stream).to_pylist(maps_as_pydicts="strict")
    mentions = []
    for part in place.mentions():
        with part.open_input() as stream:
            mentions += pq.read_table(stream).to_pylist()
    lines = [f.read_bytes().splitlines() for f in place.corpus_files("quarantine").values()]
    return Imported(manifest, entities, mentions, [json.loads(line) for file in lines for line in file])


def ultrawiki(folder: Path, sentences: Any, names: list[str] | None = None, **more: Any) -> Path:
    """Write a folder in UltraWiki's layout; ``more`` are other JSON files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = names if names is not None else list(sentences)
    (folder / "entities.txt").write_text("".join(f"{n}\n" for n in listed), encoding="utf-8")
    raw = sentences if isinstance(sentences, bytes) else json.dumps(sentences, ensure_ascii=False).encode()
    (folder / "ent2sents.json").write_bytes(raw)
    for name, value in more.items():
        (folder / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return folder


def jsonl(path: Path, rows: list[Any]) -> Path:
    """Write JSON lines; bytes and texts are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def parquet(path: Path, **columns: Any) -> Path:
    """Write a Parquet file of the given columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path
