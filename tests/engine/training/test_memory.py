"""The arithmetic of memory, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from transformers import LlamaConfig

from engine.training.layout import Layout
from engine.training.lm_models import parameters_of, shape_of, trained_of
from engine.training.memory import LLAMA_2, ModelShape, checkpoint_bytes, table, worker_memory
from engine.training.settings import LmSettings

SHAPE = ModelShape(
    parameters=1_000_000_000, largest=60_000_000, hidden=1000, inner=3000, layers=10, vocabulary=30_000
)


def test_a_worker_of_stage_3_holds_a_share_of_everything() -> None:
    memory = worker_memory(SHAPE, Layout(zero_stage=3), workers=4, rows=2, block=100, narrow=False)
    assert (memory.weights, memory.master) == (1_000_000_000, 1_000_000_000)  # 250M of 4 bytes
    assert (memory.gradients, memory.moments) == (1_000_000_000, 2_000_000_000)
    assert memory.gathered == 2 * 4 * 60_000_000
    assert memory.buckets == 4 * (3 * 50_000_000 + 60_000_000)
    assert memory.activations == 10 * 4 * 200 * (10 * 1000 + 4 * 3000)
    assert memory.logits == 2 * 4 * 200 * 30_000
    assert memory.card == memory.total == 5_000_000_000 + 480_000_000 + 840_000_000 + 176_000_000 + 48_000_000


def test_narrow_weights_have_a_float32_share_beside_them_and_can_lie_in_the_host() -> None:
    layout = Layout(zero_stage=3, weights="bfloat16", offload="cpu", activation_checkpointing=True)
    memory = worker_memory(SHAPE, layout, workers=4, rows=2, block=100, narrow=True)
    assert (memory.weights, memory.master) == (500_000_000, 1_000_000_000)
    assert memory.offloaded == 500_000_000 + 1_000_000_000 + 1_000_000_000 + 2_000_000_000
    # One state of float32 a layer, and all of one layer in bfloat16.
    assert memory.activations == 4 * 200 * 1000 * 10 + 2 * 200 * (10 * 1000 + 4 * 3000)
    assert memory.card == 2 * 2 * 60_000_000 + 2 * 210_000_000 + memory.activations + 2 * 2 * 200 * 30_000


def test_a_state_on_a_disk_leaves_weights_gradients_and_a_group_in_the_host() -> None:
    layout = Layout(zero_stage=3, weights="bfloat16", offload="nvme", offload_folder="disk")
    memory = worker_memory(SHAPE, layout, workers=4, rows=2, block=100, narrow=True)
    assert memory.disk == 16 * 250_000_000
    assert memory.swapped == 16 * (100_000_000 + 15_000_000)
    assert memory.offloaded == 500_000_000 + 1_000_000_000 + memory.swapped
    in_memory = Layout(zero_stage=3, weights="bfloat16", offload="cpu")
    other = worker_memory(SHAPE, in_memory, workers=4, rows=2, block=100, narrow=True)
    assert other.total - memory.total == 3_000_000_000 - memory.swapped
    assert memory.card == other.card
    few = worker_memory(SHAPE, layout, workers=4, rows=2, block=100, narrow=True, trained=8_000_000)
    assert few.swapped == few.disk == 16 * 2_000_000


def test_what_is_frozen_has_no_gradient_and_no_state() -> None:
    layout = Layout(zero_stage=3, weights="bfloat16")
    memory = worker_memory(SHAPE, layout, workers=4, rows=1, block=1, narrow=True, trained=8_000_000)
    assert (memory.weights, memory.master) == (500_000_000, 8_000_000)
    assert (memory.gradients, memory.moments) == (8_000_000, 16_000_000)
    assert memory.buckets == 2 * 4 * 8_000_000


def test_adapters_are_counted_without_weights() -> None:
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, vocab_size=300)
    assert trained_of(config, LmSettings(), "it") == parameters_of(config)
    # Rank 16 times both widths: four squares and three of 64 and 96, in two layers.
    assert trained_of(config, LmSettings(lora=True), "it") == 2 * 16 * (4 * 128 + 3 * 160)


@pytest.mark.parametrize(("stage", "gradients"), [(1, 4_000_000_000), (2, 1_000_000_000)])
def test_lower_stages_hold_all_weights(stage: int, gradients: int) -> None:
    layout = Layout.model_validate({"zero_stage": stage})
    memory = worker_memory(SHAPE, layout, workers=4, rows=1, block=1, narrow=False)
    assert (memory.weights, memory.master, memory.gathered) == (4_000_000_000, 1_000_000_000, 0)
    assert (memory.gradients, memory.moments) == (gradients, 2_000_000_000)


def test_the_table_names_every_layout_and_the_published_sizes_are_those_of_the_configurations() -> None:
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, vocab_size=32_000)
    config.tie_word_embeddings = False
    assert shape_of(config) == LLAMA_2["7B"]
    assert parameters_of(config) == LLAMA_2["7B"].parameters
    rows = table(LLAMA_2, workers=8, rows=4, block=256)
    assert [row[0] for row in rows[::6]] == ["7B", "13B", "70B"]
    # 20 bytes a parameter are shared by 8, besides what is gathered and on its way.
    card = float(rows[2][2])
    assert 20 * 6.738 / 8 < card < 20 * 6.738 / 8 + 4
    assert checkpoint_bytes(6_738_415_616) == 80_860_987_392


def test_narrow_weights_are_for_stage_3() -> None:
    with pytest.raises(ValidationError, match="--weights bfloat16 needs --zero-stage 3"):
        Layout(zero_stage=1, weights="bfloat16")
