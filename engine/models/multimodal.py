"""Encode a sentence and an image as one mask representation (MESED, section "Methods").

The sentence's frozen states pass the text encoder's last layer (equation 2), the image's frozen patch
features a projection and a visual transformer (equations 3 and 4), and both together a cross-modal
transformer (equation 5), of whose last layer only the mask representation is computed. A modality that a
context lacks is masked out of attention. Knows nothing of objectives, files of features, or training.

Where contexts are few, layers that begin at random overfit to them. So, unlike the paper's, all new layers
begin as the identity (their last products are zero), and the mask representation begins as an LDA
projection of both modalities (:mod:`engine.models.lda`): before the first step the result already is as
similar to others as its text and its image are. (The text encoder's own mask representation, which is less
similar among entities of a class, is a part of its mean.) ``summary=False, identity=False`` is the
paper's way. For the same reason entities are predicted by the nearest mean state after the training, unless
the settings ask for the trained head (:meth:`PredictionHead.set_to_means`).

The authors' program differs in what the paper leaves open: their transformer layers normalise what a
sublayer returns and then add it, have 12 heads and an inner size of four times the states' (ours are the
text encoder's kind); their position vectors begin with a deviation of 1 (ours 0.02); image features are
not standardised; and a share of 0.2 of the logits is dropped (``logit_dropout``, none by default). The patch
projection is theirs: Linear, Dropout, LayerNorm, GELU, and positions added after these.

Shape letters: B contexts, L tokens, P patches, C features of a patch, D dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertLayer

from engine.errors import FormatError
from engine.models.baselines import ENCODERS, Baseline
from engine.models.image_tower import ImageTower
from engine.models.lda import LdaProjection
from engine.models.settings import MultimodalConfig
from engine.models.text import (
    BARE_TOKENS,
    MaskPositionLayer,
    TextEncoder,
    layer_at_position,
    padding_mask,
    run_layer,
)
from engine.models.vision import load_tower

Tensor = torch.Tensor

WEIGHTS, CONFIG, VISION = "multimodal.safetensors", "multimodal.json", "vision"


class PatchProjection(nn.Module):
    """The projection Linear(C, D) -> Dropout -> LayerNorm -> GELU, plus learnt positions: [B, P, D].

    Features are standardised first, by the mean and deviation over the training images: features of
    one backbone share a large common part that says nothing of the image.
    """

    mean_C: Tensor
    scale_C: Tensor

    def __init__(self, config: MultimodalConfig, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_C", torch.zeros(config.vision_dim))
        self.register_buffer("scale_C", torch.ones(config.vision_dim))
        self.project = nn.Linear(config.vision_dim, dim)
        nn.init.orthogonal_(self.project.weight)
        self.dropout = nn.Dropout(config.dropout)
        self.LayerNorm = nn.LayerNorm(dim)
        self.position_PD = nn.Parameter(torch.randn(config.n_patches, dim) * 0.02)

    def fit(self, features_NPC: Tensor) -> None:
        """Take the mean and deviation of some images' features."""
        flat = features_NPC.float().flatten(0, 1)
        self.mean_C.copy_(flat.mean(dim=0))
        self.scale_C.copy_(1 / (flat.std(dim=0) + 1e-3))

    def scaled(self, features_BPC: Tensor) -> Tensor:
        """Return the features standardised."""
        return (features_BPC - self.mean_C) * self.scale_C

    def forward(self, scaled_BPC: Tensor) -> Tensor:
        """Return the patches' first states, of standardised features."""
        return F.gelu(self.LayerNorm(self.dropout(self.project(scaled_BPC)))) + self.position_PD


class MultimodalEncoder(nn.Module):
    """A multi-modal encoder: the last text layer, the patch projection and both transformers."""

    def __init__(self, last: MaskPositionLayer, config: MultimodalConfig) -> None:
        super().__init__()
        self.config = config
        self.last = last
        self.last.requires_grad_(True)
        self.patches = PatchProjection(config, last.dim)
        self.lda = LdaProjection(last.dim, config.vision_dim) if config.summary else None
        self.visual = nn.ModuleList(_layer(config, last.dim) for _ in range(config.visual_layers))
        self.cross = nn.ModuleList(_layer(config, last.dim) for _ in range(config.cross_layers))
        self.register_load_state_dict_pre_hook(_rename_weights)

    @property
    def dim(self) -> int:
        """Dimensions of a state, D."""
        return self.last.dim

    @property
    def pretrained(self) -> list[nn.Parameter]:
        """What learns and does not begin anew."""
        return list(self.last.parameters())

    @property
    def fitted(self) -> list[nn.Module]:
        """What is fitted to some contexts before the training begins."""
        return [part for part in (self.patches, self.lda) if part is not None]

    def train(self, mode: bool = True) -> MultimodalEncoder:
        """Set the mode; the text layer has no dropout, as the cached states below it had none."""
        super().train(mode)
        self.last.eval()
        return self

    def forward(
        self, states_BLD: Tensor, lengths_B: Tensor, mask_B: Tensor, features_BPC: Tensor, has_image_B: Tensor
    ) -> Tensor:
        """Return the mask representation of each context, [B, D].

        Args:
            states_BLD: states below the text encoder's last layer.
            lengths_B: tokens of each sentence; three (begin, mask, end) where there is no text.
            mask_B: position of the mask token.
            features_BPC: patch features from the backbone.
            has_image_B: bool, whether the context has an image; features of others are ignored.
        """
        padding_BL = padding_mask(lengths_B, states_BLD.shape[1])
        text_BLD = self.last.every_position(states_BLD, lengths_B)
        scaled_BPC = self.patches.scaled(features_BPC)
        image_BPD = self._image_states(scaled_BPC)
        if self.lda is not None:
            whole_BD = self.lda(
                _mean(text_BLD, lengths_B), lengths_B > BARE_TOKENS, scaled_BPC.mean(dim=1), has_image_B
            )
            places_L = torch.arange(text_BLD.shape[1], device=mask_B.device)
            at_mask_BL1 = (places_L == mask_B[:, None])[:, :, None]
            text_BLD = torch.where(at_mask_BL1, whole_BD[:, None].to(text_BLD.dtype), text_BLD)
        both_BSD = torch.cat([text_BLD, image_BPD], dim=1)
        unseen_BP = ~has_image_B[:, None].expand(-1, image_BPD.shape[1])
        absent_BS = torch.cat([padding_BL, unseen_BP], dim=1)
        for layer in self.cross[:-1]:
            both_BSD = run_layer(layer, both_BSD, absent_BS)
        return layer_at_position(self.cross[-1], both_BSD, absent_BS, mask_B)

    def _image_states(self, scaled_BPC: Tensor) -> Tensor:
        """Return the patches' states after the visual transformer, [B, P, D] (equation 4)."""
        states_BPD = self.patches(scaled_BPC)
        nothing_BP = torch.zeros(states_BPD.shape[:2], dtype=torch.bool, device=states_BPD.device)
        for layer in self.visual:
            states_BPD = run_layer(layer, states_BPD, nothing_BP)
        return states_BPD

    def text_means(self, states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the mean of the last text layer's states, [B, D]: what the summary's map is fitted to."""
        return _mean(self.last.every_position(states_BLD, lengths_B), lengths_B)


def _rename_weights(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the projection's weights of earlier files their name of today."""
    former = f"{prefix}summary."
    for name in [name for name in weights if name.startswith(former)]:
        weights[f"{prefix}lda.{name.removeprefix(former)}"] = weights.pop(name)


class PredictionHead(nn.Sequential):
    """The head Linear(D, D) -> Dropout -> LayerNorm -> GELU -> Linear(D, N): logits [B, N] of [B, D].

    Where the authors have another Dropout after the last layer, ours drops ``logit_dropout`` of the logits.
    """

    SHIFT, SCALE = 2.0, 10.0
    """Of a nearest-mean classifier: where GELU is entered, which is almost linear there, and the logit of an
    entity's own mean state."""

    def __init__(self, dim: int, n_entities: int, dropout: float, logit_dropout: float = 0.0) -> None:
        super().__init__(
            nn.Linear(dim, dim),
            nn.Dropout(dropout),
            nn.LayerNorm(dim),
            nn.GELU(),
            nn.Linear(dim, n_entities),
            nn.Dropout(logit_dropout),
        )

    @torch.no_grad()
    def set_to_means(self, means_ND: Tensor, present_N: Tensor) -> None:
        """Make it a classifier by the nearest mean: a logit says how similar a state is to an entity's mean.

        Ours. iCaRL (Rebuffi et al., CVPR 2017) predicts by the nearest mean of what another head has
        trained; Qi et al. ("Low-Shot Learning with Imprinted Weights", CVPR 2018) write means into the last
        layer, as is done here. The first layer takes the mean over entities off, and an entity's weights in
        the last one are its features there, less their mean over entities, all of one length. With f the
        layers before the last, m_e the mean states, and c the mean of f(m_e) over the entities,

            logit_e(x) = SCALE / mean |f(m) - c| * (f(x) - c) . (f(m_e) - c) / |f(m_e) - c|

        Args:
            means_ND: mean state of each entity over its contexts.
            present_N: bool, which entities have one; the logit of others is zero.
        """
        first, _, norm, gelu, last, _ = self
        assert isinstance(first, nn.Linear)
        assert isinstance(norm, nn.LayerNorm)
        assert isinstance(last, nn.Linear)
        nn.init.eye_(first.weight)
        first.bias.copy_(-means_ND[present_N].mean(dim=0))
        nn.init.ones_(norm.weight)
        nn.init.constant_(norm.bias, self.SHIFT)
        features_ND = gelu(norm(first(means_ND)))
        centre_D = features_ND[present_N].mean(dim=0)
        own_ND = torch.where(present_N[:, None], features_ND - centre_D, 0)
        # Where all means are the same, as of one entity, all logits are zero.
        length_N1 = own_ND.norm(dim=1, keepdim=True).clamp_min(1e-6)
        last.weight.copy_(self.SCALE / length_N1[present_N].mean() * own_ND / length_N1)
        last.bias.copy_(-last.weight @ centre_D)


Encoder = MultimodalEncoder | Baseline


def make_encoder(last: MaskPositionLayer, config: MultimodalConfig, tower: ImageTower | None) -> Encoder:
    """Return the encoder of an architecture, not trained.

    Args:
        last: the text encoder's last layer.
        config: says which architecture.
        tower: the image side of a baseline; MultiExpan has none.
    """
    if config.architecture == "multiexpan":
        return MultimodalEncoder(last, config)
    assert tower is not None, "the image side of a baseline"
    return ENCODERS[config.architecture](last, tower, config)


class EntityPredictionModel(nn.Module):
    """A model that predicts the masked entity: the encoder and the head. The teacher is a copy of it."""

    def __init__(self, encoder: Encoder, n_entities: int) -> None:
        super().__init__()
        self.encoder, self.dim = encoder, encoder.dim
        config = encoder.config
        self.head = PredictionHead(encoder.dim, n_entities, config.dropout, config.logit_dropout)

    def forward(self, context: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the states [B, D] and the logits [B, N] of some contexts."""
        states_BD = self.encoder(*context)
        return states_BD, self.head(states_BD)

    def save(self, folder: Path) -> str:
        """Write weights and sizes, and return the name of the file written last.

        The text encoder lies beside them, as a folder of its own; so does a baseline's backbone.
        """
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.contiguous() for n, t in self.state_dict().items()}, folder / WEIGHTS)
        if isinstance(self.encoder, Baseline):
            self.encoder.tower.save(folder / VISION)
        (folder / CONFIG).write_text(self.encoder.config.model_dump_json(indent=1), encoding="utf-8")
        return CONFIG

    @classmethod
    def load(cls, folder: Path, text: TextEncoder) -> EntityPredictionModel:
        """Read what :meth:`save` wrote; the text encoder's last layer takes the weights that are there.

        Raises:
            FormatError: the folder holds no multi-modal encoder, or one of another text encoder.
        """
        if not (folder / CONFIG).exists():
            raise FormatError(f"{folder}: no {CONFIG}, so no multi-modal encoder")
        config = MultimodalConfig.model_validate_json((folder / CONFIG).read_bytes())
        found = load_file(folder / WEIGHTS)
        n_entities = len(found["head.4.bias"])
        tower = None if config.architecture == "multiexpan" else load_tower(str(folder / VISION))
        predictor = cls(make_encoder(text.last, config, tower), n_entities)
        try:
            predictor.load_state_dict(found)
        except RuntimeError as error:
            raise FormatError(f"{folder}: made with another text encoder ({error})") from None
        return predictor.eval()


def _layer(config: MultimodalConfig, dim: int) -> BertLayer:
    """Return a new transformer layer of the text encoder's kind."""
    sizes = BertConfig(
        hidden_size=dim,
        num_attention_heads=max(1, dim // config.head_dim),
        intermediate_size=config.inner * dim,
        hidden_dropout_prob=config.dropout / 2,
        attention_probs_dropout_prob=config.dropout / 2,
    )
    sizes._attn_implementation = "sdpa"
    layer: Any = BertLayer(sizes)
    for module in layer.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    if config.identity:
        nn.init.zeros_(layer.attention.output.dense.weight)
        nn.init.zeros_(layer.output.dense.weight)
    return layer


def _mean(states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the mean over each sentence's tokens, [B, D]."""
    within_BL1 = ~padding_mask(lengths_B, states_BLD.shape[1])[:, :, None]
    return torch.where(within_BL1, states_BLD, 0).sum(dim=1) / lengths_B[:, None]
