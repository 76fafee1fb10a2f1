"""Make parts of the model input, wherever it runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.inputs.format import INPUT_SCHEMA, InputSettings, Stats, input_parts
from engine.corpus.inputs.masking import MentionMasker, fingerprint, load_tokenizer
from engine.errors import UserError
from engine.models.fit import unknown_tokens
from engine.storage.workspace import Workspace


class InputTask(NamedTuple):
    """The rows that one part is made from.

    Attributes:
        name: of the part.
        part: number of the mentions part.
        rows: int64, which of the part's mentions were drawn.
    """

    name: str
    part: int
    rows: npt.NDArray[np.int64]


class InputWorker:
    """A worker that reads a mentions part, masks and tokenises its drawn rows, and writes the inputs part.

    Args:
        workspace: its address.
        model: whose tokenizer it is.
        settings: made with that tokenizer's fingerprint.

    Raises:
        UserError: the tokenizer of that name is another one here.
    """

    def __init__(self, workspace: str, model: str, settings: InputSettings) -> None:
        tokenizer = load_tokenizer(model)
        if fingerprint(tokenizer) != settings.tokenizer:
            raise UserError(
                f"--model {model}: this node has another tokenizer under that name than the driver"
            )
        place = Workspace.open(workspace)
        self._settings, self._mentions, self._tokenizer = settings, place.mentions(), tokenizer
        self._parts = input_parts(place, settings)
        self._masker = MentionMasker(tokenizer, settings.max_length, settings.window)
        with place.entities.open_input() as stream:
            self._entities = pq.read_table(stream, columns=["name", "aliases", "description"])

    def __call__(self, task: InputTask) -> Stats:
        """Write a part and return its counts."""
        with self._mentions[task.part].open_input() as stream:
            columns = ["entity_id", "sentence", "start", "end"]
            table = pq.read_table(stream, columns=columns).take(pa.array(task.rows))
        entity_ids = table["entity_id"].to_numpy()
        sentences, starts, ends = (table[c].to_pylist() for c in columns[1:])
        inputs = self._masker.encode(sentences, starts, ends, self._description_tokens(entity_ids))
        lengths = [len(i.input_ids) for i in inputs]
        stats = {
            "rows": len(inputs),
            "tokens": sum(lengths),
            "longest": max(lengths, default=0),
            "clipped": sum(i.clipped for i in inputs),
            "unknown": sum(unknown_tokens(self._tokenizer, [i.input_ids for i in inputs])),
        }
        made = pa.table(
            {
                "entity_id": entity_ids,
                "row": task.rows,
                "input_ids": [i.input_ids for i in inputs],
                "mask_index": [i.mask_index for i in inputs],
            },
            schema=INPUT_SCHEMA,
        ).replace_schema_metadata({k: str(v) for k, v in stats.items()})
        with self._parts.writing(task.name) as path:
            pq.write_table(made, path)
        return stats

    def _description_tokens(self, entity_ids: np.ndarray) -> list[list[int]] | None:
        """Return the description's tokens of each row; None where the settings want none."""
        if not self._settings.descriptions:
            return None
        unique, places = np.unique(entity_ids, return_inverse=True)
        entities = self._entities.take(pa.array(unique)).to_pylist()
        texts = [entity["description"] or "" for entity in entities]
        if self._settings.description_names == "kept":
            tokens = self._masker.tokens(texts)
        else:
            spellings = [[entity["name"], *(entity["aliases"] or [])] for entity in entities]
            tokens = self._masker.encode_descriptions(texts, spellings)
        return [tokens[p] for p in places]
