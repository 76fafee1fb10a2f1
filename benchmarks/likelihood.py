"""Measure GenExpan's scoring against the plain way, which runs the model anew for every pair or name.

One query: 23 rounds score 40 candidates each (half of them seen before) by 3 positive seeds, then 200
candidates by 3 negative ones. The plain way runs all pairs of a round as one padded batch and remembers
nothing, as the authors' program does; padding is on the right, its best case. Then every name of 1,000
candidates after one prompt: the plain way runs each name after the prompt, in padded batches (which
serve both kinds of probabilities).

Both ways give the same scores, which is checked. The floor of each is the bare model over as many tokens
as there are distinct prefixes, in rows of plain text, and the output layer where a token is scored; that
of a query holds only what was not seen before. The model is a LLaMA with random weights, float32.

    python -m benchmarks.likelihood
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from benchmarks.report import medians, report
from benchmarks.trie import SHARED, titles
from engine.generation.likelihood import Likelihood
from engine.generation.model import LanguageModel
from engine.generation.trie import Trie
from engine.generation.trie_scores import Normalise, name_logprobs
from engine.query import Ids, Scores
from jobs import console

Tensor = torch.Tensor

TOKENIZER = SHARED / "models/llama-tokenizer"
ENTITIES = 4000
ROUNDS, PER_ROUND, FINAL, SEEDS = 23, 40, 200, 3
RECALLED = 1000
ROW = 256
"""Tokens of a row of the floor."""
PLAIN_BATCH = 128
"""Names of a padded batch of the plain way."""
BARS = {"query": 4.0, "allowed": 10.0, "vocabulary": 5.0}
"""Ours must be so many times faster."""


def random_llama(folder: Path) -> LanguageModel:
    """Return a LLaMA of 24 million parameters, random weights, with the tokenizer of ``folder``."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=1024,
    )
    return LanguageModel(LlamaForCausalLM(config), tokenizer, "random")


class Round(NamedTuple):
    """Candidates [n] that are scored by some seeds."""

    candidates: Ids
    seeds: list[int]


def rounds_of_a_query(entities: int) -> list[Round]:
    """Draw what a query scores: from its second round on, half of the candidates were seen before."""
    random = np.random.default_rng(0)
    order = random.permutation(entities).astype(np.int32)
    positive, negative, fresh = order[:SEEDS], order[SEEDS : 2 * SEEDS], order[2 * SEEDS :]
    half = PER_ROUND // 2
    drawn, seen = [fresh[:PER_ROUND]], PER_ROUND
    for _ in range(ROUNDS - 1):
        again = random.choice(fresh[:seen], half, replace=False)
        drawn.append(np.concatenate([again, fresh[seen : seen + half]]))
        seen += half
    rounds = [Round(candidates, positive.tolist()) for candidates in drawn]
    return [*rounds, Round(random.choice(fresh[:seen], FINAL, replace=False), negative.tolist())]


@torch.inference_mode()
def plain_forward(
    model: LanguageModel, prefixes: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Return each target's next-token log-probabilities, [tokens, V]: one padded batch, the whole model.

    Logits of places that all rows have in their prefixes are left out.
    """
    longest = max(len(p) + len(t) for p, t in zip(prefixes, targets, strict=True))
    first = min(map(len, prefixes)) - 1
    ids_BL = torch.zeros(len(prefixes), longest, dtype=torch.long)
    mask_BL = torch.zeros_like(ids_BL)
    for row, (prefix, target) in enumerate(zip(prefixes, targets, strict=True)):
        ids_BL[row, : len(prefix) + len(target)] = torch.tensor([*prefix, *target])
        mask_BL[row, : len(prefix) + len(target)] = 1
    kept = longest - first
    output = model.model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False, logits_to_keep=kept)
    logprobs_BLV = output.logits.log_softmax(-1)
    return [
        logprobs_LV[len(p) - 1 - first :][: len(t)]
        for logprobs_LV, p, t in zip(logprobs_BLV, prefixes, targets, strict=True)
    ]


def plain_round(model: LanguageModel, names: Sequence[str], one: Round) -> Scores:
    """Return a round's matrix of scores, all its pairs in one batch."""
    prefixes = [model.encode(f"{names[e]} is similar to") for e in one.candidates]
    targets = model.encode_after([f" {names[e]}" for e in one.seeds], "to")
    pairs = targets * len(prefixes)
    found = plain_forward(model, [p for p in prefixes for _ in targets], pairs)
    each = [float(lp[range(len(t)), t].mean().exp()) for lp, t in zip(found, pairs, strict=True)]
    return np.array(each, np.float32).reshape(len(prefixes), len(targets))


def plain_names(
    model: LanguageModel,
    prompt: Sequence[int],
    sequences: Sequence[Sequence[int]],
    allowed: Mapping[tuple[int, ...], list[int]],
) -> dict[Normalise, list[float]]:
    """Return log P(name | prompt) of both kinds, each name after the whole prompt, padded batches.

    Args:
        model: the language model.
        prompt: its tokens.
        sequences: tokens of the names.
        allowed: what may follow each prefix.
    """
    found: dict[Normalise, list[float]] = {"allowed": [], "vocabulary": []}
    for start in range(0, len(sequences), PLAIN_BATCH):
        batch = sequences[start : start + PLAIN_BATCH]
        logprobs = plain_forward(model, [prompt] * len(batch), batch)
        for logprobs_LV, sequence in zip(logprobs, batch, strict=True):
            found["vocabulary"].append(float(logprobs_LV[range(len(sequence)), sequence].sum()))
            choices = [(i, allowed[tuple(sequence[:i])]) for i in range(len(sequence))]
            found["allowed"].append(
                sum(
                    float(logprobs_LV[i, sequence[i]] - logprobs_LV[i, tokens].logsumexp(0))
                    for i, tokens in choices
                    if len(tokens) > 1
                )
            )
    return found


def followers(sequences: Sequence[Sequence[int]]) -> dict[tuple[int, ...], list[int]]:
    """Return the tokens that follow each prefix."""
    found: dict[tuple[int, ...], set[int]] = {}
    for sequence in sequences:
        for i, token in enumerate(sequence):
            found.setdefault(tuple(sequence[:i]), set()).add(token)
    return {prefix: sorted(tokens) for prefix, tokens in found.items()}


def floor(model: LanguageModel, tokens: int, scored: int) -> Callable[[], Any]:
    """Return the least: ``tokens`` through the layers as plain text, ``scored`` through the output layer."""
    ids_RL = torch.randint(0, 32_000, (max(1, round(tokens / ROW)), min(tokens, ROW)))
    hidden_SD = torch.randn(max(scored, 1), model.model.config.hidden_size)

    @torch.inference_mode()
    def run() -> None:
        for start in range(0, len(ids_RL), 16):
            model.model.base_model(input_ids=ids_RL[start : start + 16], use_cache=False)
        for start in range(0, scored, ROW):
            model.logits(hidden_SD[start : start + ROW])

    return run


def query_floor(model: LanguageModel, names: Sequence[str], rounds: Sequence[Round]) -> Callable[[], Any]:
    """Return the floor of a query: every candidate once for the positive seeds, 200 for the negative."""
    tokens = scored = 0
    for part in (rounds[:-1], rounds[-1:]):
        candidates = np.unique(np.concatenate([one.candidates for one in part]))
        prefixes = [model.encode(f"{names[e]} is similar to") for e in candidates]
        read = len(followers(model.encode_after([f" {names[e]}" for e in part[0].seeds], "to")))
        tokens += sum(map(len, prefixes)) + len(prefixes) * (read - 1)
        scored += len(prefixes) * read
    return floor(model, tokens, scored)


def main(
    rounds: Annotated[int, typer.Option(help="Measurements of each, in turn.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads of PyTorch.")] = 2,
) -> None:
    """Measure a query's likelihoods and the scoring of all names of a trie."""
    if not TOKENIZER.exists():
        print(f"skipped: needs ../shared/{TOKENIZER.relative_to(SHARED)}")
        return
    torch.set_num_threads(threads)
    # The titles of wikispeedia come last.
    names, model = titles()[-ENTITIES:], random_llama(TOKENIZER)
    query = rounds_of_a_query(len(names))
    sequences = model.encode_after([f" {name}.\n" for name in names], "and")
    recalled = np.random.default_rng(1).choice(len(names), RECALLED, replace=False).astype(np.int32)
    trie, chosen = Trie.build(sequences).restrict(recalled), [sequences[e] for e in np.sort(recalled)]
    prompt = model.encode(f"iron, copper, aluminum and zinc.\n{names[0]}, {names[1]}, {names[2]} and")
    allowed = followers(chosen)
    shared = Counter(tuple(s[:i]) for s in chosen for i in range(len(s)))
    inner = sum(count > 1 for count in shared.values())
    answers: dict[str, Any] = {}

    def ours(remembers: bool) -> list[Scores]:
        score, found = Likelihood(model, names), []
        for one in query:
            score = score if remembers else Likelihood(model, names)
            found += score([one])
        return found

    def kept(name: str, run: Callable[[], Any]) -> Callable[[], None]:
        return lambda: answers.update({name: run()})

    seconds = medians(
        {
            "query": kept("query", lambda: ours(True)),
            "forgetful": lambda: ours(False),
            "query plain": kept("query plain", lambda: [plain_round(model, names, one) for one in query]),
            "query floor": query_floor(model, names, query),
            "allowed": kept("allowed", lambda: name_logprobs(model, [prompt], [trie])),
            "allowed floor": floor(model, len(prompt) + inner - 1, 0),
            "vocabulary": kept("vocabulary", lambda: name_logprobs(model, [prompt], [trie], "vocabulary")),
            "vocabulary floor": floor(model, len(prompt) + len(allowed) - 1, len(allowed)),
            "names plain": kept("names plain", lambda: plain_names(model, prompt, chosen, allowed)),
        },
        rounds,
        warm_up=0,
    )
    for matrix, expected in zip(answers["query"], answers["query plain"], strict=True):
        np.testing.assert_allclose(matrix, expected, rtol=1e-4)
    for kind, expected in answers["names plain"].items():
        np.testing.assert_allclose(answers[kind][0].logprobs, expected, rtol=1e-4)
        seconds[f"{kind} plain"] = seconds["names plain"]
    seconds |= {f"forgetful {rival}": seconds[f"query {rival}"] for rival in ("plain", "floor")}
    show(seconds, threads, rounds)


def show(seconds: Mapping[str, float], threads: int, rounds: int) -> None:
    """Print the table and the figures."""
    labels = {
        "query": f"one query: {ROUNDS} rounds x {PER_ROUND} x {SEEDS}, then {FINAL} x {SEEDS}",
        "forgetful": "  the same, nothing remembered between rounds",
        "allowed": f"{RECALLED} names of a trie, over allowed tokens",
        "vocabulary": f"{RECALLED} names of a trie, over the vocabulary",
    }
    ratios = {name: seconds[f"{name} plain"] / seconds[name] for name in labels}
    floors = {name: seconds[name] / seconds[f"{name} floor"] for name in labels if name != "forgetful"}
    report(
        f"likelihood, LLaMA of 24M parameters, float32, {threads} threads, seconds (median of {rounds})",
        ["", "ours", "floor", "plain", "ours / floor", "plain / ours"],
        [
            [
                label,
                *(f"{seconds[name + rival]:.2f}" for rival in ("", " floor", " plain")),
                f"{seconds[name] / seconds[f'{name} floor']:.2f}",
                f"{ratios[name]:.1f}",
            ]
            for name, label in labels.items()
        ],
        name="likelihood",
        ratio=ratios["query"],
        **{f"ratio_{name}": ratio for name, ratio in ratios.items()},
        floor_ratio=max(floors.values()),
        **{f"floor_ratio_{name}": ratio for name, ratio in floors.items()},
        holds=all(ratios[name] >= bar for name, bar in BARS.items()),
    )


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.likelihood")
