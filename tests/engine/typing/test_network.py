"""The network: pooling, scores and losses against plain computations, one at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from engine.typing.inputs import InputMaker
from engine.typing.mentions import Mention
from engine.typing.network import TypingNetwork, typing_loss
from engine.typing.pooling import LabelPooling, LabelTokens
from engine.typing.targets import Labelled, QuestionMaker
from tests.support.encoders import draw_weights, letter_tokenizer, write_masked_lm

LABELS = [[7, 9], [5], [9, 9, 8, 7]]


def plain_vector(pooling: LabelPooling, tokens: list[list[float]]) -> np.ndarray:
    """Return a label's vector by loops over heads and tokens, as the paper's equations say."""
    weight = {name: p.detach().double().numpy() for name, p in pooling.named_parameters()}
    E, out = pooling.size, []
    for h in range(pooling.heads):
        rows = slice(h * E, (h + 1) * E)
        query = weight["query"][h] + weight["bias"][h]
        logits = [query @ (weight["key.weight"][rows] @ np.array(t)) / math.sqrt(E) for t in tokens]
        raised = [math.exp(logit - max(logits)) for logit in logits]
        values = [weight["value.weight"][rows] @ np.array(t) + weight["value.bias"][rows] for t in tokens]
        out.append(sum(r / sum(raised) * v for r, v in zip(raised, values, strict=True)))
    pooled = np.concatenate(out)
    summed = pooled + weight["feed_forward.weight"] @ pooled + weight["feed_forward.bias"]
    scaled = (summed - summed.mean()) / np.sqrt(summed.var() + pooling.norm.eps)
    return scaled * weight["norm.weight"] + weight["norm.bias"]


def test_pooling_is_attention_over_a_labels_own_tokens() -> None:
    torch.manual_seed(3)
    pooling, table = LabelPooling(8), torch.randn(12, 8)
    draw_weights(pooling, std=0.7)
    labels = LabelTokens.of(LABELS)
    assert labels.ids_U.tolist() == [5, 7, 8, 9]
    found = pooling(table[labels.ids_U], labels)
    for place, ids in enumerate(LABELS):
        wanted = plain_vector(pooling, table[ids].tolist())
        np.testing.assert_allclose(found[place].detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_the_typing_loss_by_hand() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.0]])
    target, weight = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[5.0, 1.0, 1.0]])
    wanted = 5 * math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1)) + math.log(2)
    assert typing_loss(scores, target, weight).tolist() == pytest.approx([wanted])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> TypingNetwork:
    folder = tmp_path_factory.mktemp("mlm")
    write_masked_lm(folder)
    made = TypingNetwork(AutoModelForMaskedLM.from_pretrained(folder), LabelTokens.of(LABELS))
    draw_weights(made.pooling)
    return made.eval()


MENTIONS = [Mention("a b", "cd", "e f g"), Mention("", "x", "y"), Mention("k", "l", "")]


def questions(masking: bool, next_word: bool, step: int = 0, rows: tuple[int, ...] = (0, 1, 2)) -> tuple:
    maker = InputMaker(letter_tokenizer())
    parts = maker.tokens(MENTIONS)
    labels = [([0, 2], [1]), ([1], []), ([], [0])]
    data = [
        Labelled(own, np.array(mine, np.int64), np.array(added, np.int64))
        for own, (mine, added) in zip(parts, labels, strict=True)
    ]
    tokenizer = letter_tokenizer()
    made = QuestionMaker(maker, tokenizer.mask_token_id, len(tokenizer), 3, 5.0, masking, next_word, seed=2)
    return made.questions([data[row] for row in rows], rows, step), parts, maker


def test_the_loss_is_the_sum_over_mentions_of_what_the_library_computes(network: TypingNetwork) -> None:
    asked, parts, maker = questions(masking=False, next_word=False)
    wanted = 0.0
    vectors = network.label_vectors()
    for place, own in enumerate(parts):
        question = maker.assemble(own)
        out = network.mlm(torch.tensor([question.ids]), output_hidden_states=True)
        state = out.hidden_states[-1][0, question.mask_index]
        transformed = network.mlm.cls.predictions.transform(state)
        one = typing_loss(
            (vectors @ transformed)[None], asked.target_PN[place][None], asked.weight_PN[place][None]
        )
        wanted += float(one.detach())
    assert float(network(asked, 0.1)) == pytest.approx(wanted, rel=1e-4)
    assert asked.target_PN.tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]
    assert asked.weight_PN.tolist() == [[5, 1, 5], [1, 5, 1], [1, 1, 1]]


def test_masked_tokens_and_neighbours_add_their_share(network: TypingNetwork) -> None:
    steps = [questions(masking=True, next_word=True, step=step)[0] for step in range(12)]
    asked = next(one for one in steps if len(one.words_W))
    logits = network.mlm(asked.ids_BL, (asked.ids_BL != 0).long()).logits.log_softmax(-1)
    typed = len(asked.target_PN)
    tokens = 0.0
    for row, place, token, share in zip(*(t.tolist() for t in asked.masked), strict=True):
        tokens -= share * float(logits[row, place, token])
    for twin, word in enumerate(asked.words_W.tolist()):
        tokens -= float(logits[typed + twin, asked.mask_B[typed + twin], word])
    difference = float(network(asked, 1.0)) - float(network(asked, 0.0))
    assert difference == pytest.approx(tokens, rel=1e-4)
    # The shares of a mention's masked tokens are one together.
    assert float(asked.masked[3].sum()) == pytest.approx(typed)


def test_twins_ask_for_the_words_beside_the_mention() -> None:
    tokenizer = letter_tokenizer()
    found = set()
    for step in range(60):
        asked, _, _ = questions(masking=False, next_word=True, step=step)
        for twin, word in enumerate(asked.words_W.tolist()):
            ids = asked.ids_BL[len(asked.target_PN) + twin].tolist()
            text = "".join(tokenizer.convert_ids_to_tokens([i for i in ids if i])).replace("##", "")
            found.add(
                (text.partition("](")[2].partition(":")[0], text[5], tokenizer.convert_ids_to_tokens(word))
            )
    assert found == {
        ("Left", "a", "b"),
        ("Right", "a", "e"),
        ("Right", "[", "y"),
        ("Left", "k", "k"),
    }


def test_what_is_drawn_depends_on_seed_step_and_mention_alone() -> None:
    whole, alone = questions(True, False)[0], questions(True, False, rows=(2,))[0]
    length = int(alone.lengths_B[0])
    assert whole.ids_BL[2, :length].tolist() == alone.ids_BL[0].tolist()
    draws = {tuple(questions(True, False, step=step)[0].masked[1].tolist()) for step in range(9)}
    assert len(draws) > 1
    # Only the texts' tokens are masked, never the question's.
    maker = InputMaker(letter_tokenizer())
    places = [maker.assemble(one).text_places for one in maker.tokens(MENTIONS)]
    for step in range(20):
        row, place, _, _ = questions(True, False, step=step)[0].masked
        assert all(p in places[r] for r, p in zip(row.tolist(), place.tolist(), strict=True))
