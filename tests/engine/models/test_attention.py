from __future__ import annotations

import pytest
import torch

from engine.models.attention import AttentionAtPosition

B, L, H, K = 5, 7, 3, 4
D = H * K
Tensor = torch.Tensor


def inputs(dtype: torch.dtype, learning_states: bool = True) -> tuple[list[Tensor], Tensor]:
    """Queries, both weights and the states, and which places are absent."""
    torch.manual_seed(0)
    shapes = (B, D), (D, D), (D, D), (B, L, D)
    tensors = [torch.randn(shape, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]
    tensors[3].requires_grad_(learning_states)
    lengths = torch.tensor([7, 1, 4, 6, 7])
    return tensors, torch.arange(L)[None] >= lengths[:, None]


def plain(tensors: list[Tensor], absent_BL: Tensor) -> Tensor:
    """The same as textbooks have it: keys and values of every token."""
    q_BD, key_DD, value_DD, states_BLD = tensors
    q_BHK = q_BD.view(B, H, K)
    key_BLHK = (states_BLD @ key_DD.T).view(B, L, H, K)
    value_BLHK = (states_BLD @ value_DD.T).view(B, L, H, K)
    scores_BHL = torch.einsum("bhk,blhk->bhl", q_BHK, key_BLHK)
    weights_BHL = scores_BHL.masked_fill(absent_BL[:, None], -torch.inf).softmax(dim=-1)
    return torch.einsum("bhl,blhk->bhk", weights_BHL, value_BLHK).reshape(B, D)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)]
)
def test_contexts_and_gradients_are_those_of_the_plain_attention(
    dtype: torch.dtype, tolerance: float
) -> None:
    tensors, absent = inputs(dtype)
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found, expected = AttentionAtPosition.apply(*tensors, absent, H), plain(wide, absent)
    assert found.dtype == dtype
    upstream = torch.randn(B, D).to(dtype)
    gradients = torch.autograd.grad(found, tensors, upstream)
    for one, other in zip(
        (found, *gradients),
        (expected, *torch.autograd.grad(expected, wide, upstream.double())),
        strict=True,
    ):
        assert (one.double() - other).norm() <= tolerance * other.norm()


def test_gradients_are_those_of_finite_differences() -> None:
    tensors, absent = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda *t: AttentionAtPosition.apply(*t, absent, H), tensors)


def test_absent_places_get_no_gradient_and_frozen_states_none() -> None:
    tensors, absent = inputs(torch.float32)
    (by_states,) = torch.autograd.grad(AttentionAtPosition.apply(*tensors, absent, H).sum(), tensors[3:])
    assert not by_states[absent].any()
    assert by_states[~absent].any(dim=-1).all()
    frozen, absent = inputs(torch.float32, learning_states=False)
    AttentionAtPosition.apply(*frozen, absent, H).sum().backward()
    assert frozen[3].grad is None
    assert all(tensor.grad is not None for tensor in frozen[:3])


def test_under_autocast_products_are_narrow_and_gradients_as_wide_as_the_weights() -> None:
    tensors, absent = inputs(torch.float32)
    narrow = [tensor.detach().bfloat16().requires_grad_() for tensor in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        found = AttentionAtPosition.apply(*tensors, absent, H)
    expected = AttentionAtPosition.apply(*narrow, absent, H)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    upstream = torch.randn(B, D).bfloat16()
    for tensor, one, other in zip(
        tensors,
        torch.autograd.grad(found, tensors, upstream),
        torch.autograd.grad(expected, narrow, upstream),
        strict=True,
    ):
        assert one.dtype == tensor.dtype
        assert torch.equal(one, other.float())
