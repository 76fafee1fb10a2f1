import subprocess
import sys
from pathlib import Path

import pytest

from engine.storage.store import Store
from engine.storage.workspace import Workspace
from tests.support.corpora import jsonl, run_import, ultrawiki

ROOT = Path(__file__).parents[2]


def job(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.import_corpus", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_the_last_line_counts_and_mistakes_are_one_line(tmp_path: Path) -> None:
    source = ultrawiki(tmp_path / "raw", {"iron": ["Iron.", "Iron.", "Tin."], "gold": []})
    done = job("--workspace", tmp_path / "w", "--source", source)
    assert done.returncode == 0, done.stderr
    last = dict(pair.split("=", 1) for pair in done.stdout.split())
    counted = {k: last[k] for k in ("entities", "mentions", "refused", "duplicates")}
    assert counted == {"entities": "2", "mentions": "1", "refused": "1", "duplicates": "1"}
    assert last["quarantine"] == f"{tmp_path}/w/corpus/quarantine"
    assert "1 × duplicate sentence" in done.stderr
    again = job("--workspace", tmp_path / "w", "--source", source)
    assert again.returncode == 2
    assert again.stderr.splitlines() == [
        f"error: {tmp_path}/w/corpus: a corpus is there already, and what was made from it depends on it; "
        "add --append to add to it, --overwrite to replace it, or name another --workspace"
    ]
    strict = job("--workspace", tmp_path / "s", "--source", source, "--strict")
    assert strict.returncode == 2
    assert "Traceback" not in strict.stderr
    assert not (tmp_path / "s").exists()


def test_the_help_documents_the_columns() -> None:
    text = job("--help").stdout
    for word in ("ent2sents.json", "entity", "sentence", "start", "image", "aliases", "Examples:"):
        assert word in text


@pytest.mark.parametrize("form", ["ultrawiki", "jsonl"])
def test_from_bucket_to_bucket(s3: str, tmp_path: Path, form: str) -> None:
    if form == "ultrawiki":
        local = ultrawiki(tmp_path / "raw", {"iron": ["Iron.", "Tin."]})
    else:
        local = tmp_path / "raw"
        rows = [{"entity": "iron", "sentence": s, "image_bytes": "QQ=="} for s in ("Iron.", "Tin.")]
        jsonl(local / "sentences/a.jsonl", rows)
    for file in (p for p in local.rglob("*") if p.is_file()):
        name = file.relative_to(local).as_posix()
        (Store.open(f"{s3}/raw") / name).write_bytes(file.read_bytes())
    got = run_import(f"{s3}/work", f"{s3}/raw", form)
    assert got.held == [("iron", "Iron")]
    assert [r for _, r in got.reasons] == ["does not hold its entity's name"]
    assert got.manifest.digest == run_import(tmp_path / "w", local, form).manifest.digest
    names = {f.name for f in Store.open(f"{s3}/work").files()}
    assert {"manifest.json", "entities.parquet", "part-00000.parquet"} <= names
    for image in filter(None, (m["image"] for m in got.mentions)):
        assert Workspace.open(f"{s3}/work").image(image).read_bytes() == b"A"
    smaller = run_import(f"{s3}/work", f"{s3}/raw", form, overwrite=True)
    assert smaller.manifest == got.manifest
