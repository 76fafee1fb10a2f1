"""Compare once, when a language model is loaded, what is computed here with what the model itself computes.

Generation does not call a model as one does to read a text: it runs the body and the output layer apart,
keeps states in a cache, pads prompts on the left, and lays whole trees of names into one row. In some
families a part of the model lies between these, or the attention is of a kind that looks at the row. So each
way is tried on a short text, against ``model(...).logits`` of the plain text, and a model that gives
something else in any of them is refused by name before there is work to lose. The trees alone have another
way, level by level with the cache, which is then taken.

Shape letters: T tokens of the text, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from engine.errors import UserError
from engine.generation.model import LanguageModel
from engine.generation.prefix_trees import PrefixTrees
from engine.generation.tree_pass import takes_tree_masks, tensor, tree_pass, whole_rows
from engine.models.fit import LANGUAGE_MODELS

Tensor = torch.Tensor

TEXT = "iron, copper, aluminum and zinc.\nmath, physics, chemistry and biology.\n"
"""The text that is read; what it says does not matter, but that it is text."""

LENGTH = 20
"""Tokens that are read of it."""

LEAST = 8
"""Tokens that a model must take at least."""

ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Share of the logits' mean deviation by which two ways may differ, by the type of the weights."""

SHORT_ROUNDING = 0.1
"""The same for types of 16 bits."""


def check_forward(model: LanguageModel, label: str) -> None:
    """Compare every way in which a model is run here with its own; choose how trees of names are run.

    Takes seven passes over at most :data:`LENGTH` tokens.

    Args:
        model: loaded.
        label: the begin of an error.

    Raises:
        UserError: a way gives something else than the model itself, or does not work with it.
    """
    _Comparison(model, label).run()


@contextmanager
def as_it_was(module: Any) -> Iterator[None]:
    """Give a module back its mode and what of it learns, after the block made a language model of it."""
    training, learns = module.training, [p.requires_grad for p in module.parameters()]
    try:
        yield
    finally:
        module.train(training)
        for parameter, own in zip(module.parameters(), learns, strict=True):
            parameter.requires_grad_(own)


class _Comparison:
    """A comparison of one model with itself."""

    def __init__(self, model: LanguageModel, label: str) -> None:
        self._model = model
        self._name = f"{label}: a model of type {model.model.config.model_type!r}"
        length = min(LENGTH, model.max_positions)
        if length < LEAST:
            raise UserError(f"{self._name} that takes {length} tokens at most; name {LANGUAGE_MODELS}")
        vocabulary = model.model.config.vocab_size
        ids = model.encode(TEXT)[:length]
        self._ids = [*ids, *(i % vocabulary for i in range(length - len(ids)))]
        self._cut = length // 2
        """Tokens of the prompt; the rest is what follows it."""
        self._other = (self._ids[self._cut] + 1) % vocabulary
        """A token that does not follow the prompt in the text."""

    @torch.inference_mode()
    def run(self) -> None:
        """Compare all ways."""
        ids, cut = self._ids, self._cut
        self._plain_TV = self._tried("in one plain pass", lambda: self._plain(ids))
        if not bool(self._plain_TV.isfinite().all()):
            raise UserError(
                f"{self._name} whose logits are not finite numbers: its weights are broken, or do not fit "
                "its config.json; copy the model again, or name another"
            )
        turned = [*ids[:cut], self._other]
        self._branch_V = self._tried("in one plain pass", lambda: self._plain(turned))[-1]
        self._check_order()
        self._compare("from its body's hidden states", self._plain_TV, lambda: self._parts(None))
        some = torch.tensor(sorted({*ids, self._other}))
        self._compare(
            "for some tokens only",
            self._plain_TV[:, some.to(self._plain_TV.device)],
            lambda: self._parts(some),
        )
        self._compare("on padded prompts, with a cache", self._followed(), self._cached)
        self._choose_trees()

    def _plain(self, ids: Sequence[int]) -> Tensor:
        """Return the logits after each token as the model itself computes them, [T, V]."""
        ids_1T = torch.tensor([list(ids)], device=self._model.device)
        logits: Tensor = self._model.model(input_ids=ids_1T).logits[0]
        return logits.float()

    def _check_order(self) -> None:
        """Refuse a model whose logits depend on tokens that come later."""
        shorter_TV = self._tried("in one plain pass", lambda: self._plain(self._ids[: self._cut]))
        off = self._distance(self._plain_TV[: self._cut], shorter_TV)
        if not off <= self._rounding:
            raise UserError(
                f"{self._name} reads what comes after a token (its logits differ by {off:.1%} with it), so "
                f"it cannot continue a text; name {LANGUAGE_MODELS}"
            )

    def _parts(self, some: Tensor | None) -> Tensor:
        """Return the logits after each token by the body, and then the output part, [T, V]."""
        ids_1T = torch.tensor([self._ids], device=self._model.device)
        hidden_TD = self._model.body(input_ids=ids_1T, use_cache=False).last_hidden_state[0]
        return self._model.logits(hidden_TD, some)

    def _followed(self) -> Tensor:
        """Return what :meth:`_cached` is to return."""
        at = [len(self._ids) - 1, self._cut - 1, self._cut + 2]
        return torch.cat([self._plain_TV[at], self._branch_V[None]])

    def _cached(self) -> Tensor:
        """Return the logits after the text, after its prompt, after three tokens more, and after another one.

        The text and its prompt are prefilled together, so the prompt is padded. The prompt's row is then
        continued twice, one token alone and some at once, as a search continues it.
        """
        model, ids, cut = self._model, self._ids, self._cut
        state = model.prefill([ids, ids[:cut]])
        found = [model.logits(state.hidden_BD)]
        state = model.advance(state, torch.tensor([1, 1]), torch.tensor([ids[cut], self._other]))
        branch_1V = model.logits(state.hidden_BD[1:])
        state = model.advance(state, torch.tensor([0]), torch.tensor([ids[cut + 1 : cut + 3]]))
        return torch.cat([*found, model.logits(state.hidden_BD), branch_1V])

    def _choose_trees(self) -> None:
        """Let trees be run level by level where a tree in one row gives something else."""
        if not takes_tree_masks(self._model, len(self._ids)):
            return
        expected = torch.cat([self._plain_TV[self._cut - 1 :], self._branch_V[None]])
        try:
            off = self._distance(self._tree(), expected)
        except Exception:  # a mask of four dimensions is more than some classes foresee
            off = float("inf")
        self._model.takes_tree_masks = off <= self._rounding

    def _tree(self) -> Tensor:
        """Return the logits after the prompt, along the rest of the text, and after the other token."""
        model, cut = self._model, self._cut
        rest, other = self._ids[cut:], self._other
        # One token more, so that the last ones of interest are inner ones.
        sequences = sorted([[*rest, 0], [other, 0]])
        lengths = np.array([len(s) for s in sequences])
        trees = PrefixTrees.build(
            [self._ids[:cut]], np.concatenate(sequences), lengths, np.zeros(2, np.int64)
        )
        rows = whole_rows(trees)
        read, hidden_RD = tree_pass(model, trees, rows)
        # The prompt has the last number; then come the edges in order, of which the other token's is moved.
        order = [int(np.flatnonzero(read == len(trees.token_E))[0])]
        edges = [int(place) for place in np.argsort(read) if place != order[0]]
        order += edges[1:] + edges[:1] if sequences[0][0] == other else edges
        return model.logits(hidden_RD[tensor(np.array(order), model)])

    def _compare(self, way: str, expected: Tensor, compute: Callable[[], Tensor]) -> None:
        off = self._distance(self._tried(way, compute), expected)
        if not off <= self._rounding:
            raise UserError(
                f"{self._name} computes something else {way} than in one plain pass (its logits differ by "
                f"{off:.1%}), so names would be scored wrongly; name {LANGUAGE_MODELS}"
            )

    def _tried(self, way: str, compute: Callable[[], Tensor]) -> Tensor:
        try:
            return compute()
        except (MemoryError, torch.OutOfMemoryError, UserError):
            raise
        except Exception as error:  # the classes of so many families raise whatever they like
            text = (str(error).strip() or "no reason given").splitlines()[0].rstrip(" .:;")
            raise UserError(
                f"{self._name} cannot be run {way} ({type(error).__name__}: {text}); name {LANGUAGE_MODELS}"
            ) from None

    @property
    def _rounding(self) -> float:
        return ROUNDING.get(self._model.model.dtype, SHORT_ROUNDING)

    def _distance(self, found: Tensor, expected: Tensor) -> float:
        """Return how far logits are from others, in the mean deviation of these: at the worst token.

        With 16 bits over all tokens, as there one token may take other experts by rounding alone.
        """
        spread = (expected - expected.mean(-1, keepdim=True)).abs().mean()
        off_T = (found.to(expected) - expected).abs().mean(-1) / spread.clamp(min=1e-12)
        off = off_T.max() if self._model.model.dtype in ROUNDING else off_T.mean()
        return float(off) if bool(off.isfinite()) else float("inf")
