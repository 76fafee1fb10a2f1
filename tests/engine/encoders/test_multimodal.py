"""The multi-modal encoder against a plain one: each context by itself, what is absent simply left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.encoders.multimodal import MultimodalConfig, MultimodalEncoder, Predictor
from engine.encoders.text import TextEncoder
from engine.errors import FormatError
from tests.support.encoders import write_encoder

D, P, C = 16, 4, 5


def opened(tmp_path: Path, **sizes: bool) -> tuple[TextEncoder, MultimodalEncoder]:
    write_encoder(tmp_path / "text", D)
    text = TextEncoder.load(str(tmp_path / "text"))
    config = MultimodalConfig(n_patches=P, vision_dim=C, visual_layers=2, cross_layers=2, head_dim=8, **sizes)
    encoder = MultimodalEncoder(text.last, config)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return text, encoder.eval()


def batch() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    lengths, mask = torch.tensor([6, 3, 5]), torch.tensor([2, 1, 3])
    return torch.randn(3, 7, D), lengths, mask, torch.randn(3, P, C), torch.tensor([True, True, False])


@pytest.mark.parametrize("summary", [False, True])
def test_absent_modalities_are_as_if_left_out(tmp_path: Path, summary: bool) -> None:
    _, encoder = opened(tmp_path, summary=summary)
    states, lengths, mask, features, seen = batch()
    with torch.no_grad():
        found = encoder(states, lengths, mask, features, seen)
        for i, n in enumerate(lengths.tolist()):
            text = encoder.last.layer(states[i : i + 1, :n])
            image = encoder.patches(features[i : i + 1])
            for layer in encoder.visual:
                image = layer(image)
            if summary:
                parts = [text[0, mask[i]], text[0].mean(dim=0)] if n > 3 else []
                parts += [image[0].mean(dim=0)] if seen[i] else []
                text = text.clone()
                text[0, mask[i]] = sum(torch.nn.functional.layer_norm(p, (D,)) for p in parts)
            both = torch.cat([text, image], dim=1) if seen[i] else text
            for layer in encoder.cross:
                both = layer(both)
            torch.testing.assert_close(found[i], both[0, mask[i]], rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


def test_what_is_beyond_or_unseen_does_not_matter(tmp_path: Path) -> None:
    _, encoder = opened(tmp_path)
    states, lengths, mask, features, seen = batch()
    spoilt, hidden = states.clone(), features.clone()
    spoilt[0, 6:], spoilt[1, 3:], hidden[2] = 1e3, 1e3, 1e3
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(spoilt, lengths, mask, hidden, seen), encoder(states, lengths, mask, features, seen)
        )


def test_gradients_reach_all_that_learns(tmp_path: Path) -> None:
    text, encoder = opened(tmp_path)
    encoder(*batch()).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0
        for n, p in encoder.named_parameters()
        if "key.bias" not in n
    )
    frozen = [p for n, p in text.model.named_parameters() if "layer.1." not in n]
    assert all(p.grad is None for p in frozen)


def test_a_saved_predictor_is_the_same_again(tmp_path: Path) -> None:
    _, encoder = opened(tmp_path)
    predictor = Predictor(encoder, 9).eval()
    assert predictor.save(tmp_path / "m") == "multimodal.json"
    again = Predictor.load(tmp_path / "m", TextEncoder.load(str(tmp_path / "text")))
    with torch.no_grad():
        torch.testing.assert_close(again(batch()), predictor(batch()))
    with pytest.raises(FormatError, match=r"no multimodal\.json"):
        Predictor.load(tmp_path, TextEncoder.load(str(tmp_path / "text")))
    write_encoder(tmp_path / "other", 2 * D)
    with pytest.raises(FormatError, match="another text encoder"):
        Predictor.load(tmp_path / "m", TextEncoder.load(str(tmp_path / "other")))


def test_features_are_standardised_by_those_that_were_seen(tmp_path: Path) -> None:
    _, encoder = opened(tmp_path)
    features = torch.randn(50, P, C) * 3 + 7
    encoder.patches.fit(features)
    scaled = (features - encoder.patches.mean_C) * encoder.patches.scale_C
    torch.testing.assert_close(scaled.mean(dim=(0, 1)), torch.zeros(C), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std(dim=(0, 1)), torch.ones(C), atol=1e-2, rtol=0)
