"""Compute attention of one position a sentence over all its states, without projecting the states.

For one query the keys and values of all tokens need not be projected:

    score_j   = (Wk^T q) . h_j               (q . bk is the same for every j: softmax drops it)
    context   = Wv (sum_j a_j h_j) + bv      (the a_j sum to 1)

which costs H*L*D products a sentence in place of L*D*D, for H heads, L tokens, D dimensions.

The projections are products per head, [H, B, ...], the two sums over tokens are products per sentence,
[B, H, ...]. Autograd would copy every result from one order to the other, there and back, and derive by
states that are frozen. So both passes are written out, and each product is written straight into the
order in which the next one reads it.

Shape letters: B sentences, L tokens, D dimensions, H heads, K dimensions a head (D = H*K).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Tensor = torch.Tensor


class AttentionAtPosition(torch.autograd.Function):
    """The contexts of one query a sentence, without the bias of the values.

    Forward, with q the scaled query and every product per head:

        keyed = q Wk,  weights = softmax(keyed h^T),  mixed = weights h,  context = mixed Wv^T

    Backward, with d the gradient by what follows it:

        dWv = dcontext^T mixed        dmixed = dcontext Wv           dweights = dmixed h^T
        dscores = weights * (dweights - sum_j weights_j dweights_j)  dkeyed = dscores h
        dWk = q^T dkeyed              dq = dkeyed Wk^T
        dh = dscores^T keyed + weights^T dmixed                      (only if the states learn)
    """

    @staticmethod
    def forward(
        ctx: Any,
        q_BD: Tensor,
        key_DD: Tensor,
        value_DD: Tensor,
        states_BLD: Tensor,
        absent_BL: Tensor,
        n_heads: int,
    ) -> Tensor:
        """Return the contexts of all heads side by side, [B, D], in the type of the products.

        Args:
            ctx: what backward needs is kept here.
            q_BD: the queries of all heads side by side, scaled.
            key_DD: weight of the keys' projection, Wk.
            value_DD: weight of the values' projection, Wv.
            states_BLD: what is attended to, h.
            absent_BL: bool, the places that nobody attends to.
            n_heads: H.
        """
        B, _, D = states_BLD.shape
        dtype = _product_type(states_BLD)
        states_BLD = states_BLD.to(dtype)
        q_HBK = q_BD.to(dtype).view(B, n_heads, -1).transpose(0, 1).contiguous()
        key_HKD, value_HKD = (weight.to(dtype).view(n_heads, -1, D) for weight in (key_DD, value_DD))
        keyed_BHD = _swapped_bmm(q_HBK, key_HKD)
        wide = torch.promote_types(dtype, torch.float32)
        bias_BL = torch.zeros_like(absent_BL, dtype=wide).masked_fill_(absent_BL, -torch.inf)
        scores_BHL = torch.bmm(keyed_BHD, states_BLD.transpose(1, 2)) + bias_BL[:, None]
        weights_BHL = scores_BHL.softmax(dim=-1).to(dtype)
        mixed_HBD = _swapped_bmm(weights_BHL, states_BLD)
        ctx.save_for_backward(q_HBK, key_HKD, value_HKD, states_BLD, keyed_BHD, weights_BHL, mixed_HBD)
        return _swapped_bmm(mixed_HBD, value_HKD.transpose(1, 2)).view(B, D)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dcontext_BD: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients by the queries, both weights and, if they learn, the states."""
        q_HBK, key_HKD, value_HKD, states_BLD, keyed_BHD, weights_BHL, mixed_HBD = ctx.saved_tensors
        B, _, D = states_BLD.shape
        dcontext_HBK = dcontext_BD.view(B, len(key_HKD), -1).transpose(0, 1).contiguous()
        dvalue_HKD = torch.bmm(dcontext_HBK.transpose(1, 2), mixed_HBD)
        dmixed_BHD = _swapped_bmm(dcontext_HBK, value_HKD)
        dweights_BHL = torch.bmm(dmixed_BHD, states_BLD.transpose(1, 2))
        wide = torch.promote_types(states_BLD.dtype, torch.float32)
        part_BHL = weights_BHL.to(wide) * dweights_BHL
        dscores_BHL = part_BHL - weights_BHL * part_BHL.sum(dim=-1, keepdim=True)
        dscores_BHL = dscores_BHL.to(states_BLD.dtype)
        dkeyed_HBD = _swapped_bmm(dscores_BHL, states_BLD)
        dkey_HKD = torch.bmm(q_HBK.transpose(1, 2), dkeyed_HBD)
        dq_BHK = _swapped_bmm(dkeyed_HBD, key_HKD.transpose(1, 2))
        dstates_BLD = None
        if ctx.needs_input_grad[3]:
            dstates_BLD = torch.bmm(dscores_BHL.transpose(1, 2), keyed_BHD)
            dstates_BLD.baddbmm_(weights_BHL.transpose(1, 2), dmixed_BHD)
        return dq_BHK.view(B, D), dkey_HKD.view(D, D), dvalue_HKD.view(D, D), dstates_BLD, None, None


def dropped_attention(
    q_BD: Tensor,
    key: nn.Linear,
    value: nn.Linear,
    states_BLD: Tensor,
    absent_BL: Tensor,
    n_heads: int,
    dropout: float,
) -> Tensor:
    """Return the contexts of one query a sentence, [B, D], with dropout of the attention weights.

    Weights that were dropped do not sum to 1, so that the values' bias is weighed by their sum. Derived by
    autograd: dropout is not the usual case.

    Args:
        q_BD: the queries of all heads side by side, scaled.
        key: the keys' projection; its bias is the same for all places, and softmax drops it.
        value: the values' projection.
        states_BLD: what is attended to.
        absent_BL: bool, the places that nobody attends to.
        n_heads: H.
        dropout: share of the weights that is dropped.
    """
    B, _, D = states_BLD.shape
    q_BHK = q_BD.view(B, n_heads, -1)
    key_HKD, value_HKD = key.weight.view(n_heads, -1, D), value.weight.view(n_heads, -1, D)
    keyed_BHD = torch.einsum("bhk,hkd->bhd", q_BHK, key_HKD)
    scores_BHL = torch.einsum("bhd,bld->bhl", keyed_BHD, states_BLD)
    weights_BHL = scores_BHL.float().masked_fill(absent_BL[:, None], -torch.inf).softmax(dim=-1)
    weights_BHL = F.dropout(weights_BHL, dropout).to(scores_BHL.dtype)
    mixed_BHD = torch.einsum("bhl,bld->bhd", weights_BHL, states_BLD)
    context_BHK = torch.einsum("bhd,hkd->bhk", mixed_BHD, value_HKD)
    bias_HK = value.bias.view(n_heads, -1)
    return (context_BHK + weights_BHL.sum(dim=-1, keepdim=True) * bias_HK).reshape(B, D)


def _product_type(states: Tensor) -> torch.dtype:
    """Return the type in which products with some states run: autocast's, else the states' own."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def _swapped_bmm(a_XYK: Tensor, b_XKZ: Tensor) -> Tensor:
    """Return the product of two batches of matrices, [X, Y, Z], stored as [Y, X, Z]."""
    product_YXZ = a_XYK.new_empty(a_XYK.shape[1], a_XYK.shape[0], b_XKZ.shape[2])
    torch.bmm(a_XYK, b_XKZ, out=product_YXZ.transpose(0, 1))
    return product_YXZ
