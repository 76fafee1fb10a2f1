"""A pre-training on two workers, in a program of its own, for a test that stops it."""

from __future__ import annotations

from engine.corpus.blocks.format import BlockSettings
from engine.storage.workspace import Workspace
from engine.training.lm import LmSettings
from jobs.pretrain_lm import pretrain, start


def main(place: str, config: str, settings: str) -> None:
    """Train, with a checkpoint about every third of a second."""
    workspace, texts = Workspace.open(place), BlockSettings(tokenizer="", vocab_size=0, block=16)
    begin = start(workspace, None, config, None, 300, texts)
    pretrain(workspace, begin, LmSettings.model_validate_json(settings), workers=2, checkpoint_seconds=0.3)
