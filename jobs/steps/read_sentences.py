"""Find the sentences of a corpus that a model input was made of, and whether a bundle is of that corpus."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from engine.corpus.inputs.format import Inputs
from engine.corpus.schema import read_manifest
from engine.errors import UserError
from engine.storage.bundle import Bundle
from engine.storage.store import machine_cache
from engine.storage.workspace import Workspace
from engine.vocabulary import Vocabulary


def sentence_rows(workspace: Workspace, inputs: Inputs) -> list[npt.NDArray[np.int64]]:
    """Return of each mentions part the rows that the encoders read, ascending, int64 [n].

    Args:
        workspace: with the corpus that the input was made from.
        inputs: whose sentences are meant; contexts without a sentence are left out.
    """
    found = []
    for part, source in zip(inputs.parts, workspace.mentions(), strict=True):
        with part.open_input() as stream:
            rows = np.sort(pq.read_table(stream, columns=["row"])["row"].to_numpy()).astype(np.int64)
        with source.open_input() as stream:
            has_text = pq.read_table(stream, columns=["end"])["end"].to_numpy() > 0
        found.append(rows[has_text[rows]])
    return found


def check_bundle_of_corpus(workspace: Workspace, bundle: Bundle, use: str) -> None:
    """Refuse a bundle of other entities than the corpus', by whose ids its sentences are found.

    Args:
        workspace: with the corpus.
        bundle: to look at.
        use: what the corpus is read for, in the error: "which is trained on".

    Raises:
        UserError: it is one.
        StorageError: there is no corpus.
    """
    read_manifest(workspace)
    if Vocabulary.read(workspace.entities.local_copy(machine_cache())).names != bundle.vocabulary.names:
        raise UserError(
            f"bundle {bundle.id}: its entities are not those of the corpus in {workspace.root.uri}, {use}; "
            "run `seedset build-index` again, or name another --bundle"
        )
