"""Ask before the work whether a tokenizer has the words of a corpus.

What a vocabulary lacks becomes one and the same unknown token, whatever it was: with a tokenizer of another
script or language, most of what is said of an entity is lost, and nothing fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import UserError
from engine.models.fit import unknown_tokens
from engine.models.plain_text import token_ids
from engine.storage.workspace import Workspace
from jobs import console

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLED_PARTS, SAMPLED_ROWS = 8, 64
"""Parts that a sample is read from, and sentences of each."""

WARNING_SHARE = 0.03
"""Share of unknown tokens above which they are reported: rare signs alone stay below it."""

TOO_MANY = 0.5
"""Share at which there is no point in going on."""

ANOTHER_ENCODER = "an encoder of the corpus's language (a multilingual one is xlm-roberta-base)"

SHOWN = 120
"""Characters of an example."""


def check_words(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, label: str, another: str = ANOTHER_ENCODER
) -> None:
    """Say how much of a sample of texts a tokenizer does not know, if that is more than a little.

    Args:
        texts: of the corpus (:func:`sampled_sentences`).
        tokenizer: of the model.
        label: the model as it was given, for what is said.
        another: what would know the corpus's words.

    Raises:
        UserError: more than half of the tokens are unknown.
    """
    ids = token_ids(tokenizer, texts)
    unknown, total = unknown_tokens(tokenizer, ids), sum(map(len, ids))
    share = sum(unknown) / max(1, total)
    if share <= WARNING_SHARE:
        return
    worst = max(range(len(texts)), key=lambda place: unknown[place] / max(1, len(ids[place])))
    found = (
        f"{label}: {share:.0%} of the tokens of {len(texts)} sentences are unknown to its tokenizer, such as "
        f"in {texts[worst][:SHOWN]!r}"
    )
    if share > TOO_MANY:
        raise UserError(f"{found}; name {another}, or correct the corpus's encoding")
    console.say(f"{found}; another one may know more")


def sampled_sentences(
    workspace: Workspace, rows: Mapping[int, npt.NDArray[np.int64]] | None = None
) -> list[str]:
    """Return sentences of parts that are spread evenly over the corpus.

    Args:
        workspace: with the corpus.
        rows: which of each part's sentences are used; None: all are.
    """
    mentions, texts = workspace.mentions(), list[str]()
    filled = [part for part in range(len(mentions)) if rows is None or len(rows[part])]
    step = max(1, -(-len(filled) // SAMPLED_PARTS))
    for part in filled[::step]:
        with mentions[part].open_input() as stream:
            sentences = pq.read_table(stream, columns=["sentence"])["sentence"]
        used = np.arange(len(sentences)) if rows is None else rows[part]
        spread = used[:: max(1, len(used) // SAMPLED_ROWS)][:SAMPLED_ROWS]
        texts += sentences.take(pa.array(spread)).to_pylist()
    return [text for text in texts if text]
