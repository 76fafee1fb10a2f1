"""Measure a query of CGExpan against the plain way to ask its masked language model.

The plain way runs every text through the whole model in the order in which it is asked, in padded batches;
it asks for a word in front of every class name that any text gave, makes the states of all names anew for
every query, and compares states with one entity's mentions at a time. Both ways take the same entities, which
is checked. The floor is the bare model over as many tokens as ours runs, in rows of plain text without
padding, and the product with the vocabulary for every mask whose token is asked for.

The model is the embedded encoder with a head that copies its states and answers plurals alone, and the
states of the entities' mentions are drawn at random around the centres of classes: a query's course depends
on both, what an iteration costs does not.

    python -m benchmarks.class_probing
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch.nn.utils.rnn import pad_sequence
from transformers import BertForMaskedLM

from benchmarks.report import medians, report
from benchmarks.trie import SHARED, titles
from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.generation.hearst import Masked
from engine.models.text import TextEncoder
from engine.query import Query
from engine.retrieval.index import Vectors, unit
from engine.retrieval.mention_states import Floats, MentionStates, best_mean
from engine.stages.cgexpan import CGExpan, ClassGuided
from engine.stages.masked_lm import BATCH, MAX_TOKENS, MaskedLM, Probing
from engine.training.masked_lm import class_nouns
from jobs import console

ENTITIES, MENTIONS, CLASS_SIZE = 4092, 20, 50
BARS = {"cold": 1.0, "warm": 1.5}
"""Ours must be no slower where no name was seen before, as the layers are nearly all of it, and so many times
faster where all were."""

ROW = 17
"""Tokens of a row of the floor: about as many as a text has."""


class PlainModel(MaskedLM):
    """A model that runs every text whole, in the order in which it is asked."""

    def _at_masks(self, texts: Sequence[Masked]) -> Vectors:
        """Return the states at the masks: no order, and every position of the last layer."""
        found = [np.empty((0, self._encoder.dim), np.float32)]
        for start in range(0, len(texts), BATCH):
            inputs = self._masker.encode(*map(list, zip(*texts[start : start + BATCH], strict=True)))
            ids_BL = pad_sequence([torch.tensor(one.input_ids) for one in inputs], batch_first=True)
            lengths_B = torch.tensor([len(one.input_ids) for one in inputs])
            with torch.inference_mode():
                states_BLD = self._encoder.states(ids_BL, lengths_B)
            found.append(states_BLD[range(len(inputs)), [one.mask_index for one in inputs]].numpy())
        return np.concatenate(found)


class PlainMentions(MentionStates):
    """States of mentions that are compared one entity at a time."""

    def nearness(self, queries_QD: Vectors, entities: Sequence[int], k: int, together: int = 1) -> Floats:
        """Return the mean of the k largest cosines, entity by entity."""
        found = np.zeros((len(queries_QD) // together, len(entities)))
        for place, entity in enumerate(entities):
            if self.counts_N[entity] >= k:
                cosines = (queries_QD @ self.of(entity).T).astype(np.float64)
                found[:, place] = best_mean(cosines.reshape(-1, together, cosines.shape[1]).max(axis=1), k)
        return found


class PlainGuided(ClassGuided):
    """A search that asks for a word in front of every name."""

    def name_classes(self) -> Counter[str]:
        """Return the names that any text gave."""
        stage, self.stage = self.stage, self.stage.model_copy(update={"least": 1})
        found = super().name_classes()
        self.stage = stage
        return found


def made_model() -> BertForMaskedLM:
    """Return the embedded encoder with a head that answers plurals."""
    encoder = TextEncoder.load("embedded")
    model = BertForMaskedLM(encoder.model.config)
    model.bert.load_state_dict(encoder.model.state_dict())
    head: Any = model.cls.predictions
    nouns_V = torch.from_numpy(class_nouns(load_tokenizer("embedded")))
    with torch.no_grad():
        head.transform.dense.weight.copy_(torch.eye(encoder.dim))
        head.transform.dense.bias.zero_()
        head.bias[:] = torch.where(nouns_V, 0.0, -1e4)
    return model


def made_mentions(n: int, d: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
    """Return where each entity's mentions begin, and their states around the centre of its class."""
    random = np.random.default_rng(0)
    counts = random.integers(5, 2 * MENTIONS - 4, n)
    owners = np.repeat(np.arange(n), counts)
    centres = random.normal(size=(n // CLASS_SIZE + 1, d))
    states = unit(centres[owners // CLASS_SIZE] + 1.5 * random.normal(size=(len(owners), d)))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), states.astype(np.float16)


def search(probing: Probing, names: Sequence[str], iterations: int, kind: type[ClassGuided]) -> list[int]:
    """Return what a query of three entities of a class takes."""
    seeds = [0, 1, 2]
    free_N = np.ones(len(names), bool)
    free_N[seeds] = False
    grown = kind(CGExpan(iterations=iterations), probing, names, seeds, free_N)
    grown.grow(Query("q", tuple(seeds)), len(names))
    return [entity for entity, _, _ in grown.taken]


class Counted(MaskedLM):
    """A model that counts the tokens that it runs and the masks that it answers."""

    tokens = answered = 0

    def best(self, texts: Sequence[Masked], k: int) -> list[list[str]]:
        """Return the answers, and count the masks."""
        self.answered += len(texts)
        return super().best(texts, k)

    def _at_masks(self, texts: Sequence[Masked]) -> Vectors:
        masker = MentionMasker(self._tokenizer, MAX_TOKENS)
        inputs = masker.encode(*map(list, zip(*texts, strict=True))) if texts else []
        self.tokens += sum(len(one.input_ids) for one in inputs)
        return super()._at_masks(texts)


def floor(model: BertForMaskedLM, tokens: int, answered: int) -> Callable[[], None]:
    """Return the least: so many tokens through the layers, so many masks through the head."""
    ids_RL = torch.randint(1000, 20_000, (tokens // ROW, ROW))
    states_SD = torch.randn(answered, model.config.hidden_size)

    @torch.inference_mode()
    def run() -> None:
        for start in range(0, len(ids_RL), BATCH):
            model.bert(input_ids=ids_RL[start : start + BATCH])
        for start in range(0, answered, BATCH):
            model.cls(states_SD[start : start + BATCH])

    return run


def main(
    iterations: Annotated[int, typer.Option(help="Iterations of a query.")] = 3,
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.")] = 2,
) -> None:
    """Measure a query of CGExpan."""
    if not SHARED.exists():
        print(f"skipped: needs ../{SHARED.name}")
        return
    torch.set_num_threads(threads)
    names, model, tokenizer = titles()[-ENTITIES:], made_model(), load_tokenizer("embedded")
    made = made_mentions(len(names), model.config.hidden_size)
    mentions = MentionStates(*made)
    means_ND = mentions.means()
    ours, seen = MaskedLM(model, tokenizer), Probing(MaskedLM(model, tokenizer), mentions, means_ND)
    counted = Counted(model, tokenizer)
    expected = search(Probing(counted, mentions, means_ND), names, iterations, ClassGuided)
    answers: dict[str, list[int]] = {}

    def kept(name: str, run: Callable[[], list[int]]) -> Callable[[], None]:
        return lambda: answers.update({name: run()})

    def new(model: MaskedLM, mentions: MentionStates) -> Probing:
        return Probing(model, mentions, means_ND)

    plain, plain_mentions = PlainModel(model, tokenizer), PlainMentions(*made)
    seconds = medians(
        {
            "cold": kept("cold", lambda: search(new(ours, mentions), names, iterations, ClassGuided)),
            "warm": kept("warm", lambda: search(seen, names, iterations, ClassGuided)),
            "plain": kept(
                "plain", lambda: search(new(plain, plain_mentions), names, iterations, PlainGuided)
            ),
            "floor": floor(model, counted.tokens, counted.answered),
        },
        rounds,
        warm_up=1,
    )
    assert all(found == expected for found in answers.values()), "the ways take different entities"
    ratios = {name: seconds["plain"] / seconds[name] for name in ("cold", "warm")}
    labels = {"cold": "no class name seen before", "warm": "all of them seen before"}
    floors = {"cold": f"{seconds['cold'] / seconds['floor']:.2f}", "warm": ""}
    report(
        f"CGExpan, a query of {iterations} iterations, {len(names)} entities, MiniLM, float32, "
        f"{threads} threads, seconds (median of {rounds})",
        ["", "ours", "floor", "plain", "ours / floor", "plain / ours"],
        [
            [
                label,
                f"{seconds[name]:.2f}",
                f"{seconds['floor']:.2f}" if name == "cold" else "",
                f"{seconds['plain']:.2f}",
                floors[name],
                f"{ratios[name]:.2f}",
            ]
            for name, label in labels.items()
        ],
        name="class_probing",
        ratio=ratios["cold"],
        ratio_warm=ratios["warm"],
        floor_ratio=seconds["cold"] / seconds["floor"],
        tokens=counted.tokens,
        entities_taken=len(expected),
        holds=all(ratios[name] >= bar for name, bar in BARS.items()),
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.class_probing")
