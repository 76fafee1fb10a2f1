"""Makes one part of the model input: the work of one actor, which knows nothing of the cluster."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.inputs.format import INPUT_SCHEMA, InputSettings, part_name
from engine.corpus.inputs.masking import MentionMasker, fingerprint, load_tokenizer
from engine.corpus.schema import read_manifest
from engine.errors import UserError
from engine.storage.store import Store
from engine.storage.workspace import Workspace

Stats = dict[str, int]
"""rows, tokens, longest and clipped of one part; kept in its Parquet footer, so that a rerun can add up."""


class PartMaker:
    """Reads a mentions part, masks and tokenises its drawn rows, and writes the inputs part.

    An actor of ``jobs.preprocess``. Everything is opened on first use, not when the actor is made: an error
    then reaches the driver as itself.
    """

    def __init__(self, workspace: str, model: str, settings: InputSettings, key: str) -> None:
        self._uri, self._model, self._settings, self._key = workspace, model, settings, key

    @cached_property
    def _workspace(self) -> Workspace:
        return Workspace.open(self._uri)

    @cached_property
    def _parts(self) -> list[Store]:
        return self._workspace.mentions()

    @cached_property
    def _borders(self) -> np.ndarray:
        return np.cumsum([0, *read_manifest(self._workspace).parts])

    @cached_property
    def _masker(self) -> MentionMasker:
        tokenizer = load_tokenizer(self._model)
        if fingerprint(tokenizer) != self._settings.tokenizer:
            raise UserError(
                f"--model {self._model}: this node has another tokenizer under that name than the driver"
            )
        return MentionMasker(tokenizer, self._settings.max_length)

    @cached_property
    def _entities(self) -> pa.Table:
        with self._workspace.entities.open_input() as stream:
            return pq.read_table(stream, columns=["name", "aliases", "description"])

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[int]]:
        """Make the part of a batch of one and return its counts."""
        part = int(batch["part"][0])
        stats = self.make(part, np.frombuffer(batch["rows"][0], np.int64))
        return {"part": [part]} | {k: [v] for k, v in stats.items()}

    def make(self, part: int, rows: np.ndarray) -> Stats:
        """Write ``inputs/<key>/part-NNNNN.parquet`` from the given rows of a mentions part."""
        with self._parts[part].open_input() as stream:
            columns = ["entity_id", "sentence", "start", "end"]
            table = pq.read_table(stream, columns=columns).take(pa.array(rows))
        entity_ids = table["entity_id"].to_numpy()
        sentences, starts, ends = (table[c].to_pylist() for c in columns[1:])
        inputs = self._masker.encode(sentences, starts, ends, self._described(entity_ids))
        lengths = [len(i.input_ids) for i in inputs]
        stats = {
            "rows": len(inputs),
            "tokens": sum(lengths),
            "longest": max(lengths, default=0),
            "clipped": sum(i.clipped for i in inputs),
        }
        made = pa.table(
            {
                "entity_id": entity_ids,
                "mention": rows + self._borders[part],
                "input_ids": [i.input_ids for i in inputs],
                "mask_index": [i.mask_index for i in inputs],
            },
            schema=INPUT_SCHEMA,
        ).replace_schema_metadata({k: str(v) for k, v in stats.items()})
        with (self._workspace.inputs(self._key) / part_name(part)).writing() as path:
            pq.write_table(made, path)
        return stats

    def _described(self, entity_ids: np.ndarray) -> list[list[int]] | None:
        """Return the description's tokens of each row; None where the settings want none."""
        if not self._settings.descriptions:
            return None
        unique, places = np.unique(entity_ids, return_inverse=True)
        told = self._entities.take(pa.array(unique)).to_pylist()
        spellings = [[entity["name"], *(entity["aliases"] or [])] for entity in told]
        tokens = self._masker.described([entity["description"] or "" for entity in told], spellings)
        return [tokens[p] for p in places]
