"""Open a trained typing model and type mentions with it; exchange its labels; write it.

A folder holds a masked language model as transformers writes it (safetensors), its tokenizer,
``pooling.safetensors``, and last ``labels.json``: the labels, their words, how long inputs are, and the rule
of prediction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM

from engine.corpus.inputs.masking import load_tokenizer
from engine.errors import FormatError, UserError
from engine.models.fit import check_encoder
from engine.models.hub import NamedModel
from engine.models.mask_states import mask_states
from engine.models.masked_lm import open_masked_lm
from engine.models.plain_text import token_ids
from engine.models.text import TextEncoder
from engine.typing.inputs import MAX_TOKENS, InputMaker
from engine.typing.labels import ancestors
from engine.typing.labels_file import LABELS, LabelsFile, Rule
from engine.typing.mentions import Mention
from engine.typing.network import TypingNetwork
from engine.typing.pooling import LabelTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POOLING = "pooling.safetensors"
BATCH = 256
"""Mentions whose scores exist at a time: with UFET's 10,331 labels 10.6 MB."""

TOGETHER = 4096
"""Mentions that the encoder reads at a time, sorted by length."""


class TypeScore(NamedTuple):
    """A type of a mention, and the model's probability that it holds."""

    label: str
    confidence: float


class TypingModel:
    """A typing network, its tokenizer and its labels.

    Args:
        network: with the labels' tokens in it.
        tokenizer: of the network.
        about: labels and settings.
    """

    def __init__(self, network: TypingNetwork, tokenizer: PreTrainedTokenizerBase, about: LabelsFile) -> None:
        self.network, self.tokenizer, self.about = network, tokenizer, about
        self.inputs = InputMaker(tokenizer, about.max_tokens)

    @classmethod
    def begin(
        cls,
        name: str,
        labels: Sequence[str],
        words: Mapping[str, str] | None = None,
        max_tokens: int = MAX_TOKENS,
        seed: int = 13,
    ) -> TypingModel:
        """Return an untrained model: a masked language model, or an encoder that gets a head.

        Args:
            name: "embedded", a folder, an ``s3://`` folder or a hub name.
            labels: the types.
            words: of some labels, see :func:`engine.typing.labels.label_words`.
            max_tokens: of an input at most.
            seed: of the pooling's weights.

        Raises:
            UserError: the model does not fit, or the labels clash.
        """
        tokenizer = load_tokenizer(name)
        check_encoder(NamedModel.open(name, "--model"), tokenizer, max_tokens, "--max-tokens")
        torch.manual_seed(seed)
        return cls._of(open_masked_lm(name), tokenizer, LabelsFile.of(labels, words, max_tokens))

    @classmethod
    def load(cls, folder: str | Path) -> TypingModel:
        """Load a folder that :meth:`save` wrote.

        Raises:
            UserError: there is none, or it is not whole.
            FormatError: one of its files is not in the form that it should have.
        """
        named = NamedModel.open(folder, "typing model")
        about = LabelsFile.read(folder)
        tokenizer = load_tokenizer(folder, "typing model")
        model = cls._of(named.model(AutoModelForMaskedLM, torch.float32), tokenizer, about)
        file = Path(named.path) / POOLING
        try:
            model.network.pooling.load_state_dict(load_file(file))
        except Exception as error:  # safetensors and torch raise whatever they like
            raise FormatError(f"{file}: not the pooling of labels ({error}); copy the model again") from None
        return model

    @classmethod
    def _of(cls, mlm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, about: LabelsFile) -> TypingModel:
        return cls(TypingNetwork(mlm, _label_tokens(tokenizer, about)), tokenizer, about)

    @property
    def labels(self) -> list[str]:
        """All types that the model knows."""
        return self.about.labels

    def exchange_labels(
        self, labels: Sequence[str], words: Mapping[str, str] | None = None, max_tokens: int | None = None
    ) -> None:
        """Let the model score other types; its weights stay.

        Args:
            labels: the types.
            words: of some labels, see :func:`engine.typing.labels.label_words`.
            max_tokens: of an input from now on; None: as before.

        Raises:
            UserError: the labels clash (:func:`engine.typing.labels.label_words`).
        """
        about = LabelsFile.of(labels, words, max_tokens or self.about.max_tokens)
        self.inputs = InputMaker(self.tokenizer, about.max_tokens)
        self.network.labels = _label_tokens(self.tokenizer, about)
        self.about = about

    def to(self, device: torch.device) -> TypingModel:
        """Move all weights to a device."""
        self.network.to(device)
        return self

    def scores(self, mentions: Sequence[Mention]) -> npt.NDArray[np.float32]:
        """Return every label's score (a logit) for each mention, [n, N]."""
        return self.states_and_scores(mentions)[1]

    def states_and_scores(
        self, mentions: Sequence[Mention]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return each mention's state, [n, D], and every label's score for it (a logit), [n, N].

        A score is the product of the state with the label's vector.
        """
        blocks = list(self._blocks(mentions))
        if not blocks:
            dim, n_labels = self.network.tokens_VD.shape[1], len(self.labels)
            return np.empty((0, dim), np.float32), np.empty((0, n_labels), np.float32)
        states, scores = zip(*blocks, strict=True)
        return np.concatenate(states), np.concatenate(scores)

    def _blocks(
        self, mentions: Sequence[Mention]
    ) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Yield states and scores of :data:`BATCH` mentions at a time, in order."""
        self.network.eval()
        encoder = TextEncoder(self.network.mlm.base_model)  # which freezes it
        device = self.network.tokens_VD.device
        with torch.inference_mode():
            vectors_ND = self.network.label_vectors()
        for first in range(0, len(mentions), TOGETHER):
            parts = self.inputs.tokens(mentions[first : first + TOGETHER])
            asked = [self.inputs.assemble(one) for one in parts]
            states_nD = mask_states(encoder, [one.ids for one in asked], [one.mask_index for one in asked])
            for start in range(0, len(asked), BATCH):
                with torch.inference_mode():
                    states_BD = torch.from_numpy(states_nD[start : start + BATCH]).to(device)
                    transformed_BD = self.network.transformed(states_BD)
                    scores_BN = transformed_BD @ vectors_ND.T
                yield transformed_BD.float().cpu().numpy(), scores_BN.float().cpu().numpy()

    def types(self, mentions: Sequence[Mention], rule: Rule | None = None) -> list[list[TypeScore]]:
        """Return the types of each mention, most confident first (parents of a single one before it).

        Args:
            mentions: to type.
            rule: how types are chosen; None: the model's own.
        """
        places = {label: place for place, label in enumerate(self.labels)}
        found = []
        for _, scores_BN in self._blocks(mentions):
            for scores_N in scores_BN:
                chosen = chosen_labels(scores_N, self.labels, rule or self.about.rule)
                # A parent that is no label itself is as sure as the label below it.
                own = np.array([scores_N[places.get(one, places[chosen[-1]])] for one in chosen], np.float64)
                confidence = 1 / (1 + np.exp(-own))
                found.append([TypeScore(*pair) for pair in zip(chosen, confidence.tolist(), strict=True)])
        return found

    def save(self, folder: Path) -> str:
        """Write the model into an existing folder.

        Returns:
            The file that is to arrive last.
        """
        self.network.mlm.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        weights = {name: t.contiguous() for name, t in self.network.pooling.state_dict().items()}
        save_file(weights, folder / POOLING)
        (folder / LABELS).write_text(self.about.model_dump_json(indent=1), encoding="utf-8")
        return LABELS


def chosen_labels(scores_N: npt.NDArray[np.float32], labels: Sequence[str], rule: Rule) -> list[str]:
    """Return the labels that a rule chooses by their scores (:data:`Rule`)."""
    best = int(scores_N.argmax())
    if rule == "single":
        return [*ancestors(labels[best]), labels[best]]
    above = np.flatnonzero(scores_N > 0)
    order = above[np.argsort(-scores_N[above], kind="stable")] if len(above) else [best]
    return [labels[place] for place in order]


def _label_tokens(tokenizer: PreTrainedTokenizerBase, about: LabelsFile) -> LabelTokens:
    """Return the tokens of the labels' words.

    Raises:
        UserError: a label has no token, or two labels are the same tokens.
    """
    ids = token_ids(tokenizer, [f" {words}" for words in about.words])
    first: dict[tuple[int, ...], str] = {}
    for label, own in zip(about.labels, ids, strict=True):
        if not own:
            raise UserError(f"labels: {label!r} has no token; give it other words with --label-words")
        other = first.setdefault(tuple(own), label)
        if other != label:
            raise UserError(
                f"labels: {other!r} and {label!r} are the same tokens to this model's tokenizer, so it could "
                "not tell them apart; give one of them other words with --label-words"
            )
    return LabelTokens.of(ids)
