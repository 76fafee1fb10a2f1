"""Join the texts of each entity: its description, and the sentences that mention it."""

from __future__ import annotations

import pyarrow.parquet as pq

from engine.corpus.blocks.format import read_descriptions
from engine.corpus.terms import DESCRIPTION_WEIGHT
from engine.storage.workspace import Workspace


def documents(workspace: Workspace) -> list[str]:
    """Return each entity's texts: its description several times, then its sentences, each once."""
    documents = [[text] * DESCRIPTION_WEIGHT if text else [] for text in read_descriptions(workspace)]
    seen: set[int] = set()
    for part in workspace.mentions():
        with part.open_input() as stream:
            for batch in pq.ParquetFile(stream).iter_batches(columns=["entity_id", "sentence"]):
                columns = batch.to_pydict()
                for entity, sentence in zip(*columns.values(), strict=True):
                    # A sentence with several images is still one sentence.
                    if (key := hash((entity, sentence))) not in seen:
                        seen.add(key)
                        documents[entity].append(sentence)
    return [" ".join(texts) for texts in documents]
