"""Ask before the work whether a tokenizer has the words of a corpus.

What a vocabulary lacks becomes one and the same unknown token, whatever it was: with a tokenizer of another
script or language, most of what is said of an entity is lost, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.inputs.worker import InputTask
from engine.errors import UserError
from engine.models.fit import unknown_tokens
from engine.models.plain_text import token_ids
from engine.storage.workspace import Workspace
from jobs import console

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLED_PARTS, SAMPLED_ROWS = 8, 64
"""Parts that a sample is read from, and sentences of each."""

WORTH_A_WORD = 0.03
"""Share of unknown tokens above which they are reported: rare signs alone stay below it."""

TOO_MANY = 0.5
"""Share at which there is no point in going on."""

SHOWN = 120
"""Characters of an example."""


def check_words(
    workspace: Workspace, tasks: Sequence[InputTask], tokenizer: PreTrainedTokenizerBase, label: str
) -> None:
    """Say how much of a sample of sentences a tokenizer does not know, if that is more than a little.

    Args:
        workspace: with the corpus.
        tasks: which sentences were drawn.
        tokenizer: of the encoder.
        label: the model as it was given, for what is said.

    Raises:
        UserError: more than half of the tokens are unknown.
    """
    texts = _sample(workspace, tasks)
    ids = token_ids(tokenizer, texts)
    unknown, total = unknown_tokens(tokenizer, ids), sum(map(len, ids))
    share = sum(unknown) / max(1, total)
    if share <= WORTH_A_WORD:
        return
    worst = max(range(len(texts)), key=lambda place: unknown[place] / max(1, len(ids[place])))
    found = (
        f"{label}: {share:.0%} of the tokens of {len(texts)} sentences are unknown to its tokenizer, such as "
        f"in {texts[worst][:SHOWN]!r}"
    )
    if share > TOO_MANY:
        raise UserError(
            f"{found}; name an encoder of the corpus's language (a multilingual one is xlm-roberta-base), or "
            "correct the corpus's encoding"
        )
    console.say(f"{found}; another encoder may know more")


def _sample(workspace: Workspace, tasks: Sequence[InputTask]) -> list[str]:
    """Return sentences of parts that are spread evenly over the corpus."""
    filled = [task for task in tasks if len(task.rows)]
    step = max(1, -(-len(filled) // SAMPLED_PARTS))
    mentions, texts = workspace.mentions(), list[str]()
    for task in filled[::step]:
        with mentions[task.part].open_input() as stream:
            table = pq.read_table(stream, columns=["sentence"])
        spread = task.rows[:: max(1, len(task.rows) // SAMPLED_ROWS)][:SAMPLED_ROWS]
        texts += table.take(pa.array(spread))["sentence"].to_pylist()
    return texts
