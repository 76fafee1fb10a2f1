"""Make a vector of each type label out of its tokens' vectors (FiveFine, section 2.2).

A label's tokens are looked up in the decoder of the masked language model, and pooled by attention with
several heads: a learnt query, to which each head adds a learnt bias of its own, asks for the tokens; a
feed-forward layer follows, then a residual connection and LayerNorm. The residual is around the feed-forward
layer: LayerNorm(p + FF(p)) for a pooled vector p. The paper does not say around what it is; this way it
carries what was pooled.

**Cost.** UFET's 10,331 labels have 7,000 different tokens. Scores and values are computed once for each of
these, not for each place in a label, and nothing is padded: two products of D x D a token or label.

Shape letters: N labels, S tokens of all labels one after another, U different tokens, D dimensions, H heads,
E = D / H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

Tensor = torch.Tensor

HEADS = 4
QUERY_STD = 0.1


class LabelTokens(NamedTuple):
    """The tokens of all labels: the different ones, and for each place which it is and of which label."""

    ids_U: Tensor
    token_S: Tensor
    label_S: Tensor
    n_labels: int
    """Labels, N; each has a token at least."""

    @classmethod
    def of(cls, ids: Sequence[Sequence[int]]) -> LabelTokens:
        """Return the tokens of labels, given the ids of each."""
        flat = torch.tensor([token for own in ids for token in own], dtype=torch.int64)
        ids_U, token_S = torch.unique(flat, return_inverse=True)
        lengths = torch.tensor([len(own) for own in ids])
        return cls(ids_U, token_S, torch.arange(len(ids)).repeat_interleave(lengths), len(ids))

    def to(self, device: torch.device) -> LabelTokens:
        """Return the same on a device."""
        return LabelTokens(
            self.ids_U.to(device), self.token_S.to(device), self.label_S.to(device), self.n_labels
        )


class LabelPooling(nn.Module):
    """Pools token vectors by attention. It begins as about the mean of a label's tokens, normalised.

    Args:
        dim: dimensions of a token's vector, D.
        heads: H, which divide D.
    """

    def __init__(self, dim: int, heads: int = HEADS) -> None:
        super().__init__()
        assert dim % heads == 0, f"{heads} heads do not divide {dim} dimensions"
        self.heads, self.size = heads, dim // heads
        self.query = nn.Parameter(torch.randn(heads, self.size) * QUERY_STD)
        self.bias = nn.Parameter(torch.zeros(heads, self.size))
        self.key = nn.Linear(dim, dim, bias=False)  # a bias would change no attention weight
        self.value = nn.Linear(dim, dim)
        self.feed_forward = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        with torch.no_grad():
            nn.init.normal_(self.key.weight, std=0.02)
            self.value.weight.copy_(torch.eye(dim))
            self.value.bias.zero_()
            self.feed_forward.weight.zero_()
            self.feed_forward.bias.zero_()
            # A state has a norm of about sqrt(D), too: scores begin within a few units, not hundreds.
            self.norm.weight.fill_(dim**-0.5)

    def forward(self, tokens_UD: Tensor, labels: LabelTokens) -> Tensor:
        """Return the vector of each label, [N, D].

        Args:
            tokens_UD: vectors of the labels' different tokens.
            labels: which of them each label has.
        """
        U, D = tokens_UD.shape
        key_HED = self.key.weight.view(self.heads, self.size, D)
        asked_HD = torch.einsum("he,hed->hd", self.query + self.bias, key_HED) * self.size**-0.5
        scores_UH = (tokens_UD @ asked_HD.T).float()
        # Less its largest score over all tokens no exponential overflows, and no weight changes.
        raised_SH = (scores_UH - scores_UH.detach().amax(0)).exp()[labels.token_S]
        sums_NH = raised_SH.new_zeros(labels.n_labels, self.heads).index_add(0, labels.label_S, raised_SH)
        weights_SH = raised_SH / sums_NH[labels.label_S]
        values_UHE = self.value(tokens_UD).float().view(U, self.heads, self.size)
        weighted_SD = (values_UHE[labels.token_S] * weights_SH[:, :, None]).view(-1, D)
        pooled_ND = weighted_SD.new_zeros(labels.n_labels, D).index_add(0, labels.label_S, weighted_SD)
        pooled: Tensor = self.norm(pooled_ND + self.feed_forward(pooled_ND))
        return pooled
