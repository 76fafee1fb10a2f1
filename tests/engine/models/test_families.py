"""Every family of encoders: the frozen layers and the last one, one after the other, are the whole model."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from transformers import AlbertConfig, AlbertModel

from engine.errors import UserError
from engine.models.families import FAMILIES, position_limit
from engine.models.text import OnePositionLayer, TextEncoder
from tests.support.encoders import POSITIONS, tiny_model

LENGTHS = torch.tensor([30, 17, 9, 5])
POSITION = torch.tensor([20, 16, 1, 3])
ROWS = torch.arange(4)


@pytest.fixture(params=FAMILIES)
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    encoder = TextEncoder(tiny_model(request.param))
    # As a trainer does: a layer that learns has no dropout all the same.
    encoder.last.requires_grad_(True).train()
    return encoder


def ids() -> torch.Tensor:
    return torch.randint(5, 90, (4, 30), generator=torch.Generator().manual_seed(1))


def test_both_parts_are_the_whole_model(encoder: TextEncoder) -> None:
    with torch.no_grad():
        whole_BLD = encoder.states(ids(), LENGTHS)
        lower_BLD = encoder.lower_states(ids(), LENGTHS)
        lower_BLD[torch.arange(30) >= LENGTHS[:, None]] = 0  # as the cache gives it back
        every_BLD = encoder.last.every_position(lower_BLD, LENGTHS)
        torch.testing.assert_close(encoder.last(lower_BLD, LENGTHS, POSITION), whole_BLD[ROWS, POSITION])
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(every_BLD[row, :length], whole_BLD[row, :length])
    assert whole_BLD.std() > 0.1
    assert not torch.allclose(lower_BLD[0], whole_BLD[0], atol=0.1)


def test_a_sentence_does_not_depend_on_its_batch(encoder: TextEncoder) -> None:
    with torch.no_grad():
        at_mask = encoder.last(encoder.lower_states(ids(), LENGTHS), LENGTHS, POSITION)
        for row, length in enumerate(LENGTHS.tolist()):
            lower = encoder.lower_states(ids()[row : row + 1, :length], LENGTHS[row : row + 1])
            alone = encoder.last(lower, LENGTHS[row : row + 1], POSITION[row : row + 1])
            torch.testing.assert_close(alone[0], at_mask[row])


def test_the_gradients_are_those_of_the_whole_model(encoder: TextEncoder) -> None:
    wanted = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    plain = copy.deepcopy(encoder)
    (plain.states(ids(), LENGTHS)[ROWS, POSITION] * wanted).sum().backward()
    with torch.inference_mode():
        cached = encoder.lower_states(ids(), LENGTHS)
    (encoder.last(cached.clone(), LENGTHS, POSITION) * wanted).sum().backward()
    found = dict(encoder.model.named_parameters())
    learns = {name for name, parameter in found.items() if parameter.requires_grad}
    assert len(learns) == len(list(encoder.last.parameters()))
    for name, parameter in plain.model.named_parameters():
        assert (parameter.grad is not None) == (name in learns)
        if parameter.grad is not None:
            # The keys' bias changes nothing, and is not computed where one query is.
            gradient = torch.zeros_like(parameter) if found[name].grad is None else found[name].grad
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)


def test_both_parts_run_in_bfloat16(encoder: TextEncoder) -> None:
    """As they do where that is fast: states stored in 16 bits, weights in 32, products in 16."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            with torch.inference_mode():
                lower_BLD = encoder.lower_states(ids(), LENGTHS).to(dtype)
            at_mask_BD = encoder.last(lower_BLD.clone(), LENGTHS, POSITION)
        at_mask_BD.float().square().sum().backward()
        found.append(at_mask_BD.detach().float())
    exact, narrow = found
    torch.testing.assert_close(narrow, exact, rtol=0.02, atol=0.02)
    assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.last.parameters())


def test_what_learns_is_no_part_of_the_fingerprint(encoder: TextEncoder) -> None:
    before = encoder.lower_fingerprint()
    with torch.no_grad():
        for parameter in encoder.last.parameters():
            parameter.add_(1)
    assert encoder.lower_fingerprint() == before
    with torch.no_grad():
        encoder.model.get_input_embeddings().weight.add_(1)
    assert encoder.lower_fingerprint() != before


def test_a_checkpoint_holds_what_learns_alone(encoder: TextEncoder) -> None:
    named = encoder.last.state_dict()
    assert {n.split(".")[0] for n in named} <= {"layer", "final_norm"}
    assert len(named) == len(list(encoder.last.parameters()))


def test_the_whole_upper_part_moves_with_what_learns(encoder: TextEncoder) -> None:
    encoder.last.to(torch.float64)
    with torch.no_grad():
        found = encoder.last.every_position(torch.zeros(1, 4, 16, dtype=torch.float64), torch.tensor([4]))
    assert found.dtype == torch.float64


def test_every_family_takes_an_input_of_its_limit_and_loads_from_its_folder(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    encoder.save(tmp_path)
    again = TextEncoder.load(str(tmp_path))
    longest = position_limit(encoder.model.config)
    ids, lengths = torch.full((1, longest), 7), torch.tensor([longest])
    assert POSITIONS - 2 <= longest <= POSITIONS
    with torch.no_grad():
        torch.testing.assert_close(again.states(ids, lengths), encoder.states(ids, lengths))
    if encoder.model.config.model_type == "roberta":
        with pytest.raises((IndexError, RuntimeError)):  # so the limit is no lower than it must be
            encoder.states(torch.full((1, longest + 1), 7), lengths + 1)


def test_families_like_bert_compute_one_position() -> None:
    fast = {kind for kind in FAMILIES if isinstance(TextEncoder(tiny_model(kind)).last, OnePositionLayer)}
    assert fast == {"bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta"}


def test_the_documents_name_every_family() -> None:
    page = (Path(__file__).parents[3] / "docs" / "encoders.md").read_text(encoding="utf-8")
    table = page.split("## Families")[1].split("So e5")[0].split("| --- |")[1]
    assert set(re.findall(r"`([\w-]+)`", table)) == FAMILIES.keys()


def test_a_family_that_cannot_be_split_is_named_with_those_that_can() -> None:
    config = AlbertConfig(
        vocab_size=9, hidden_size=8, num_attention_heads=2, intermediate_size=8, embedding_size=8
    )
    with pytest.raises(UserError, match=r"'albert'.*share one set of weights.*modernbert"):
        TextEncoder(AlbertModel(config))
