"""Test that stages open just what they say they need, and that descriptions import no model."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import BundleError
from engine.methods import METHODS
from engine.stages.base import Stage
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.explain import Explain
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle

STAGES = list(
    dict.fromkeys(
        [s for p in METHODS.values() for s in p.stages if not s.unavailable()]
        + [EncodeNewEntities(views=("joint",)), Explain()]
    )
)


TOLD = {"entities.parquet", "sentences.parquet", "types.parquet"}
"""What a catalogue reads where it is there."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("needs"), n=20)


@dataclasses.dataclass(frozen=True)
class Noted(Bundle):
    """Notes what is asked for; without what it lacks."""

    asked: set[str] = dataclasses.field(default_factory=set)
    lacks: str = ""

    def path(self, name: str) -> Path:
        self.asked.add(name)
        if name == self.lacks:
            raise BundleError(f"no {name}")
        return super().path(name)


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_a_stage_opens_what_it_says_that_it_needs_and_not_without_it(stage: Stage, bundle: Bundle) -> None:
    noted = Noted(bundle.manifest, bundle.folder)
    stage.open(noted)
    assert noted.asked - TOLD == set(stage.needs()) - TOLD
    for name in stage.needs():
        with pytest.raises(BundleError, match=name):
            stage.open(Noted(bundle.manifest, bundle.folder, lacks=name))


def test_describing_a_pipeline_loads_no_library_of_models() -> None:
    program = (
        "import engine.methods, engine.chat.chat, sys; "
        "print([m for m in ('torch', 'transformers', 'openai', 'httpx2') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
