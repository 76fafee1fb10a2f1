"""Small models with random weights for tests of the choice of images: a CLIP and three detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConditionalDetrConfig,
    ConditionalDetrForObjectDetection,
    DetrConfig,
    DetrForObjectDetection,
    PreTrainedTokenizerFast,
    ResNetConfig,
    YolosConfig,
    YolosForObjectDetection,
)

WORDS = ["<s>", "</s>", "?", "a", "the", "of", "flag", "red", "blue", "green", "iron", "gold", "is", "."]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
DETR: dict[str, Any] = {
    "use_timm_backbone": False,
    "backbone": None,
    "use_pretrained_backbone": False,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 6,
    "num_labels": 3,
}


def _write_scaling(folder: Path, side: int) -> str:
    given = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": side, "width": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return str(folder)


def clip(folder: Path) -> str:
    """Write a CLIP for pictures of 32 pixels and sentences of 12 words and return its folder."""
    torch.manual_seed(0)
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    ends = {"vocab_size": len(WORDS), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = SMALL | ends | {"max_position_embeddings": 14}
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="?"
    )
    tokenizer.save_pretrained(folder)
    return _write_scaling(folder, 32)


def yolos(folder: Path) -> str:
    """Write a YOLOS for pictures of 32 pixels and return its folder."""
    torch.manual_seed(0)
    seen = {"image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 6, "num_labels": 3}
    YolosForObjectDetection(YolosConfig(**SMALL | seen)).save_pretrained(folder)
    return _write_scaling(folder, 32)


def _resnet() -> ResNetConfig:
    # What a backbone gives is said through the base class, which the signature does not name.
    given: dict[str, Any] = {"out_features": ["stage4"]}
    return ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", **given)


def detr(folder: Path) -> str:
    """Write a DETR on a ResNet that needs no timm and return its folder."""
    torch.manual_seed(0)
    DetrForObjectDetection(DetrConfig(**DETR, backbone_config=_resnet())).save_pretrained(folder)
    return _write_scaling(folder, 64)


def conditional_detr(folder: Path) -> str:
    """Write a conditional DETR, whose classes each have a probability, and return its folder."""
    torch.manual_seed(0)
    config = ConditionalDetrConfig(**DETR, backbone_config=_resnet())
    ConditionalDetrForObjectDetection(config).save_pretrained(folder)
    return _write_scaling(folder, 64)
