"""Keep a bundle's language model where its entities have changed: it scores new names as it does any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.generation.names import name_trie
from engine.generation.tokenizers import load_tokenizer
from engine.storage.bundle import Bundle
from engine.storage.publishing import check_current
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary
from jobs import console

_MODEL = "lm/"


def keep_language_model(workspace: Workspace, staged: Path) -> dict[str, Any]:
    """Put the current bundle's language model beside a vocabulary that grew from its own, if it did.

    The model stays as it is; the trie, which leads to names, is made anew of all of them.

    Args:
        workspace: with the current bundle.
        staged: a folder with the new ``entities.parquet``, which receives ``lm`` and ``trie``.

    Returns:
        The settings that the new bundle has of the model: empty where nothing was kept.
    """
    parent = check_current(workspace)
    if parent is None or not any(name.startswith(_MODEL) for name in parent.files):
        return {}
    entities = "entities.parquet"
    vocabulary = Vocabulary.read(staged / entities)
    before = Bundle.open(workspace, parent.id, (entities,)).vocabulary
    if not vocabulary.grew_from(before) or len(vocabulary) == len(before):
        return {}  # of others nothing fits; of the same all is published beside it as it is
    names = vocabulary.names
    for name in parent.files:
        if name.startswith(_MODEL):
            (workspace.bundles / parent.id / name).link_or_fetch(staged / name)
    console.say(
        f"language model of bundle {parent.id}: kept; trie of {len(names)} names, {len(before)} before"
    )
    name_trie(load_tokenizer(str(staged / _MODEL)), names).save(staged / "trie")
    return {"lm": parent.settings["lm"]} if "lm" in parent.settings else {}
