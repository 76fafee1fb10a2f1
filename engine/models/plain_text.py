"""Tokenise what others wrote as text and nothing else: an entity called ``<s>`` is no begin of an input.

Special tokens are looked for in a text by most tokenizers, and some vocabularies hold their spellings as
pieces besides. Where a control token comes of a text all the same, its spelling is cut in two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of plain texts; a text that spells a special token gets none.

    Args:
        tokenizer: a fast one.
        texts: of any content.
    """
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    controls = _controls(tokenizer)
    for place, own in enumerate(ids):
        if not controls.isdisjoint(own):
            offsets = encoded.encodings[place].offsets
            ids[place] = _in_pieces(tokenizer, texts[place], own, offsets, controls)
    return ids


def _controls(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids that no text may have: those of all special tokens but the unknown one."""
    return set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}


def _in_pieces(
    tokenizer: Any, text: str, ids: list[int], offsets: Sequence[tuple[int, int]], controls: set[int]
) -> list[int]:
    """Return the ids of a text that is cut inside of what became control tokens.

    A special token of one sign is left: a tokenizer that pads with a sign means it where it stands.
    """
    cuts = [
        (begin + end + 1) // 2
        for token, (begin, end) in zip(ids, offsets, strict=True)
        if token in controls and end - begin > 1
    ]
    if not cuts:
        return ids
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return [token for piece in token_ids(tokenizer, pieces) for token in piece]


def without_controls(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Return texts in which a space parts the spelling of every special token.

    For tokenizers that are called with templates and padding: of a text without such spellings nothing
    changes.

    Args:
        tokenizer: of any kind.
        texts: of any content.
    """
    spellings = sorted((t for t in tokenizer.all_special_tokens if len(t) > 1), key=len, reverse=True)
    if not spellings:
        return list(texts)
    either = re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE)
    return [either.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text) for text in texts]
