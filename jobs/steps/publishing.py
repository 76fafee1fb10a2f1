"""Publish what a command made beside what the current bundle holds, and say what does not go together.

What ``build_index`` and ``pretrain_lm`` share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.corpus.schema import check_same_corpus, check_whole
from engine.storage.bundle import Manifest
from engine.storage.parts import MANIFEST
from engine.storage.publishing import check_current, derive
from engine.storage.workspace import Workspace
from jobs import console

_INDEX = "index", "build-index"
_MODEL = "language model", "pretrain-lm"


def check_before_work(workspace: Workspace, makes: str) -> None:
    """Check that the result can be published, and say what will not go together with it.

    Args:
        workspace: with the corpus of which something is to be made.
        makes: "index" or "language model".

    Raises:
        StorageError: there is no corpus, or it is not whole.
        BundleError: what the current bundle holds is gone or damaged.
    """
    corpus = check_whole(workspace).digest
    current = check_current(workspace)
    if current is not None:
        others = {
            about: digest for about, digest in _corpora(workspace, current).items() if about[0] != makes
        }
        _say_if_others(current, others, corpus)


def publish_beside(
    workspace: Workspace,
    staged: Path,
    settings: dict[str, Any],
    replaces: Sequence[str],
    corpus: str,
    owns: Sequence[str] = (),
) -> Manifest:
    """Publish a staged folder as :func:`engine.storage.publishing.derive` does, and say what there is to say.

    Args:
        workspace: of the bundle.
        staged: is consumed.
        settings: of what is staged.
        replaces: see ``derive``.
        corpus: digest of the corpus that all that is staged was made from.
        owns: see ``derive``.

    Raises:
        StorageError: that corpus was replaced meanwhile: its entities may be others.
    """
    check_same_corpus(workspace, corpus)
    manifest, left_out = derive(workspace, staged, settings, replaces, owns)
    if left_out:
        console.say(left_out)
    _say_if_others(manifest, _corpora(workspace, manifest), corpus)
    return manifest


def _say_if_others(bundle: Manifest, corpora: dict[tuple[str, str], str], corpus: str) -> None:
    for (name, command), digest in corpora.items():
        if digest != corpus:
            console.say(
                f"bundle {bundle.id}: its {name} is of another corpus than the one that is there now, "
                f"whose entities it has; run `seedset {command}` again to make it anew"
            )


def _corpora(workspace: Workspace, bundle: Manifest) -> dict[tuple[str, str], str]:
    """Return the digests of the corpora that the index and the language model were made from, where known."""
    index, model = bundle.settings, bundle.settings.get("lm", {})
    inputs, blocks = index.get("inputs"), str(model.get("run", "")).rpartition("-e")[0]
    found = {
        _INDEX: index.get("corpus") or _corpus_of(workspace, inputs),
        _MODEL: model.get("corpus") or _corpus_of(workspace, blocks),
    }
    return {about: digest for about, digest in found.items() if digest}


def _corpus_of(workspace: Workspace, key: object) -> str | None:
    """Return the corpus of some model input: bundles of an earlier version do not name theirs."""
    content = (workspace.inputs(key) / MANIFEST).read_if_there() if isinstance(key, str) and key else None
    try:
        return str(json.loads(content)["corpus_digest"]) if content else None
    except (ValueError, KeyError):
        return None
