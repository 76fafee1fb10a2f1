"""Mentions labelled by co-expansion: what is written, that it is trained on as it is, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.corpus.inputs.format import InputSettings
from engine.corpus.inputs.masking import fingerprint, load_tokenizer
from engine.errors import QueryError
from engine.query import Expansion, Query, Ranking
from engine.storage.workspace import Workspace
from engine.typing.files import find_data
from engine.typing.mentions import read_mentions
from engine.vocabulary import Vocabulary
from jobs.evaluate_typing import main as evaluate_typing
from jobs.label_mentions import main
from jobs.steps.label_mentions import LabelsManifest, expand_types
from jobs.steps.model_input import preprocess
from jobs.workers.executor import LocalExecutor
from tests.support.bundles import publish_vectors
from tests.support.commands import run_command
from tests.support.corpora import run_import
from tests.support.encoders import write_encoder

ANGLES = {"Oslo": 0, "Rome": 5, "Bern": 12, "Ann": 90, "Bo": 84, "Cy": 77, "Paris": 45}
"""Degrees of each entity's vector; Paris, a city and a name, lies as near to the one as to the other."""
SEEDS = {"city": ["Oslo"], "person": ["Ann"]}
FILES = ("train.jsonl", "types.txt", "entities.parquet", "_manifest.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of seven entities with three sentences each, its model input, and a bundle of vectors."""
    root = tmp_path_factory.mktemp("label")
    texts = ("We met {} at night.", "{} is here.", "Nobody saw {}")
    lines = [json.dumps({"entity": name, "sentence": text.format(name)}) for name in ANGLES for text in texts]
    (root / "raw.jsonl").write_text("\n".join(lines))
    run_import(root / "w", root / "raw.jsonl", "jsonl")
    workspace, encoder = Workspace.open(root / "w"), str(root / "encoder")
    write_encoder(root / "encoder")
    settings = InputSettings(tokenizer=fingerprint(load_tokenizer(encoder)), max_length=64)
    preprocess(workspace, encoder, settings, LocalExecutor())
    names = Vocabulary.read(Path(workspace.entities.path)).names
    radians = np.radians([ANGLES[name] for name in names])
    vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    publish_vectors(workspace, names, {"joint": vectors})
    return root


def label(root: Path, output: Path, seeds: object = SEEDS, *words: object) -> int:
    file = output.parent / "seeds.json"
    file.write_text(json.dumps(seeds))
    asked = ("--workspace", root / "w", "--seeds", file, "--output", output, "--method", "joint")
    return run_command(main, *asked, *words)


def test_mentions_of_what_is_found_are_labelled(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label(made, tmp_path / "out", SEEDS, "--top", 3, "--mentions-per-entity", 2) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1].startswith(
        "types=2 seeds=2 entities=4 mentions=12 to_others=0 ties=2 without_sentence=0 "
    )
    table = [tuple(row.values()) for row in pq.read_table(tmp_path / "out" / "entities.parquet").to_pylist()]
    # By the angle to Oslo: Rome, Bern, Paris; to Ann: Bo, Cy, Paris, which is third in both and gets none.
    assert [row[1:] for row in table] == [
        ("Oslo", "city", 0, 1, 2),
        ("Rome", "city", 1, 1, 2),
        ("Bern", "city", 2, 0.5, 2),
        ("Ann", "person", 0, 1, 2),
        ("Bo", "person", 1, 1, 2),
        ("Cy", "person", 2, 0.5, 2),
    ]
    assert (tmp_path / "out" / "types.txt").read_text() == "city\nperson\n"
    mentions = read_mentions(find_data(str(tmp_path / "out")).mentions)
    types = {row[1]: row[2] for row in table}
    assert [(one.mention.text, one.labels) for one in mentions] == [
        (name, (types[name],)) for name in types for _ in range(2)
    ]
    whole = {
        (" ".join([one.mention.left, one.mention.text, one.mention.right]).strip(), one.mention.text)
        for one in mentions
    }
    assert len(whole) == 12
    for sentence, name in whole:
        assert sentence in (f"We met {name} at night.", f"{name} is here.", f"Nobody saw {name}")


def test_the_same_input_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    def read(name: str) -> list[bytes]:
        return [(tmp_path / name / file).read_bytes() for file in FILES]

    asked = "--top", 2, "--mentions-per-entity", 1
    assert label(made, tmp_path / "a", SEEDS, *asked) == label(made, tmp_path / "b", SEEDS, *asked) == 0
    assert read("a") == read("b")
    assert label(made, tmp_path / "a", SEEDS, *asked) == 0
    assert read("a") == read("b")
    assert label(made, tmp_path / "b", SEEDS, *asked, "--seed", 3, "--overwrite") == 0
    assert read("a")[0] != read("b")[0]
    assert read("a")[2] == read("b")[2], "other mentions of the same entities"


def test_a_typing_model_is_trained_on_them(made: Path, tmp_path: Path) -> None:
    assert label(made, tmp_path / "weak") == 0
    asked = f"--workspace {tmp_path / 't'} --model {made / 'encoder'} --epochs 1 --precision float32"
    files = f"--test {tmp_path / 'weak' / 'train.jsonl'} --train {tmp_path / 'weak'}"
    json_file = tmp_path / "found.json"
    assert run_command(evaluate_typing, *f"{asked} {files} --json {json_file}".split()) == 0
    (row,) = json.loads(json_file.read_text())
    assert row["mentions"] == 12


class Recorded:
    """Stands for a pipeline: keeps the queries of each call, and answers with ranked entities or a fault."""

    def __init__(self, ranked: list[int], batch_dependent: bool) -> None:
        self.ranked, self.batch_dependent = np.array(ranked, np.int32), batch_dependent
        self.calls: list[list[Query]] = []

    def open(self, bundle: object) -> Any:
        def expand(queries: list[Query]) -> list[Expansion]:
            self.calls.append(queries)
            ranking = Ranking(self.ranked, np.zeros(len(self.ranked), np.float32))
            return [Expansion(one, ranking, degraded=() if len(ranking) else ("no view",)) for one in queries]

        return expand


@pytest.mark.parametrize(("batch_dependent", "calls"), [(False, [2, 1]), (True, [3])])
def test_types_are_expanded_against_each_other(
    batch_dependent: bool, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.steps.label_mentions.BATCH", 2)
    seeds = {"a": (0, 1), "b": (2,), "c": (3,)}
    texts = dict.fromkeys(("bundle", "inputs", "pipeline", "seeds_digest"), "")
    about = LabelsManifest(**texts, top=8, mentions_per_entity=1, negative_seeds=9, seed=0)
    pipeline: Any = Recorded([7], batch_dependent)
    bundle: Any = None
    assert expand_types(pipeline, bundle, seeds, about) == {"a": [7], "b": [7], "c": [7]}
    assert [len(one) for one in pipeline.calls] == calls
    queries = [query for one in pipeline.calls for query in one]
    assert [(query.id, query.positive, set(query.negative)) for query in queries] == [
        ("a", (0, 1), {2, 3}),
        ("b", (2,), {0, 1, 3}),
        ("c", (3,), {0, 1, 2}),
    ]
    assert {query.top_k for query in queries} == {10 + 4}, "near ties of the eighth, and seeds"
    none: Any = Recorded([], batch_dependent)
    with pytest.raises(QueryError, match="none of the 3 types has a list; the first: no view"):
        expand_types(none, bundle, seeds, about)


def test_mistakes_are_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(seeds: object, *words: object) -> str:
        assert label(made, tmp_path / "out", seeds, *words) == 2
        return capsys.readouterr().err

    assert "type 'city': unknown entity 'Olso'" in refused({"city": ["Olso"], "person": ["Ann"]})
    assert "--method nearest: give one of" in refused(SEEDS, "--method", "nearest")
    assert "--top" in refused(SEEDS, "--top", 0)
    assert not (tmp_path / "out").exists(), "nothing is written before all is read"
    assert label(made, tmp_path / "out") == 0
    assert "holds mentions that were labelled from other seeds" in refused(SEEDS, "--top", 1)
    assert label(made, tmp_path / "out", SEEDS, "--top", 1, "--overwrite") == 0
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert "holds other files (notes.txt)" in refused(SEEDS, "--overwrite")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.json").write_text("{}")
    capsys.readouterr()
    assert label(made, tmp_path / "mine", SEEDS, "--overwrite") == 2
    assert "holds other files (train.json); name a folder of its own" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["train.json"]


def test_a_bundle_of_other_entities_is_refused(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(made / "w")
    current = workspace.bundles / "CURRENT"
    kept = current.read_bytes()
    other = publish_vectors(workspace, ["Oslo", "Ann"], {"joint": np.eye(2)})
    current.write_bytes(kept)
    assert label(made, tmp_path / "out", SEEDS, "--bundle", other.id) == 2
    assert "its entities are not those of the corpus" in capsys.readouterr().err
