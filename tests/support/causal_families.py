"""Tiny causal language models of many families, with random weights and windows shorter than a text."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 320

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.2,
}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
}
_WINDOW = {"sliding_window": 6}

EXACT: dict[str, dict[str, Any]] = {
    "biogpt": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "codegen": {"rotary_dim": 4, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "cohere": {"logit_scale": 0.2},
    "cohere2": _WINDOW,
    "deepseek_v2": _LATENT | _EXPERTS,
    "deepseek_v3": _LATENT | _EXPERTS,
    "diffllama": {},
    "ernie4_5": {},
    "exaone4": _WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "falcon": {},
    "gemma": {},
    "gemma2": _WINDOW | {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0},
    "gemma3_text": _WINDOW,
    "gemma4_text": _WINDOW
    | {
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 8,
        "num_kv_shared_layers": 0,
    },
    "glm4": {},
    "glm4_moe": _EXPERTS,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 6,
    },
    "gpt_neox": {},
    "gpt_oss": _WINDOW | _EXPERTS,
    "gptj": {"rotary_dim": 4, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.2},
    "llama": {},
    "minicpm3": _LATENT | {"scale_depth": 1.4, "dim_model_base": 16, "scale_emb": 12},
    "mistral": _WINDOW,
    "mixtral": _EXPERTS,
    "modernbert-decoder": {"local_attention": 6},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64},
    "nemotron": {},
    "olmo2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": _WINDOW,
    "qwen2": _WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen3": {},
    "qwen3_moe": _EXPERTS,
    "smollm3": {},
    "stablelm": {},
    "starcoder2": _WINDOW,
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
}
"""Families that compute here what they compute themselves, and what makes a tiny model of each."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "bart": ({}, "does not continue a text"),
    "bert": ({}, "does not continue a text"),
    "bert-generation": ({}, "reads what comes after a token"),
    "cpmant": ({"dim_model": 32, "dim_head": 8, "dim_ff": 48}, "reads what comes after a token"),
    "falcon_mamba": ({}, "cannot be run on padded prompts, with a cache"),
    "mamba": ({}, "cannot be run on padded prompts, with a cache"),
    "openai-gpt": (
        {"n_embd": 32, "n_layer": 2, "n_head": 4},
        "cannot be run on padded prompts, with a cache",
    ),
    "rwkv": ({}, "computes something else on padded prompts, with a cache"),
    "xlm-roberta": ({}, "does not continue a text"),
}
"""Models that cannot be used, what makes a tiny one of each, and what is said."""


def tiny_config(kind: str) -> Any:
    """Return the configuration of a tiny model of one of the families above."""
    without = {"gpt_neo": "num_hidden_layers", "falcon": "head_dim"}.get(kind)
    sizes = {name: size for name, size in _SIZES.items() if name != without}
    return AutoConfig.for_model(kind, **sizes | (EXACT.get(kind) or REFUSED.get(kind, ({}, ""))[0]))


def tiny_causal_model(kind: str) -> Any:
    """Return a model of :func:`tiny_config` with random weights and buffers, each of some size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(kind), dtype=torch.float32)
        # Corrections and scales begin at 0 and 1, where a lost one would not show.
        kept = model.state_dict().keys()
        for name, buffer in model.named_buffers():
            if name in kept and buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return model.eval()
