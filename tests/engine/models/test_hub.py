"""Every loader of a model or a tokenizer: on a model in a bucket, and on all that can be wrong with one."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ElectraConfig, ElectraModel

from engine.corpus.inputs import masking
from engine.errors import StorageError, UserError
from engine.generation import tokenizers
from engine.generation.model import LanguageModel
from engine.models.clip import ClipEncoder
from engine.models.detector import ObjectFinder
from engine.models.hub import NamedModel
from engine.models.text import TextEncoder
from engine.models.vision import VisionBackbone
from engine.storage.store import Store
from engine.training.lm_models import Origin, config_of, open_model
from tests.support import choice_models
from tests.support.encoders import write_encoder
from tests.support.language_models import tiny_model, tiny_tokenizer


def write_language_model(folder: Path) -> None:
    tiny_model("gpt2").model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@dataclass(frozen=True)
class Loader:
    """One way to load a model by its name."""

    load: Callable[[str], Any]
    write: Callable[[Path], object]
    """Writes a model that it can load."""
    role: str
    """Name of what the model is for, as errors say it."""
    config: bool = True
    """True if it reads the configuration."""
    weights: bool = True
    tokenizer: bool = False


LOADERS = {
    "text encoder": Loader(TextEncoder.load, write_encoder, "encoder"),
    "tokenizer for masking": Loader(
        masking.load_tokenizer, write_encoder, "--model", config=False, weights=False, tokenizer=True
    ),
    "vision backbone": Loader(VisionBackbone.load, choice_models.clip, "backbone"),
    "CLIP": Loader(ClipEncoder.load, choice_models.clip, "--clip", tokenizer=True),
    "detector": Loader(ObjectFinder.load, choice_models.yolos, "--detector"),
    "language model": Loader(LanguageModel.load, write_language_model, "language model", tokenizer=True),
    "its tokenizer": Loader(
        tokenizers.load_tokenizer,
        write_language_model,
        "tokenizer",
        config=False,
        weights=False,
        tokenizer=True,
    ),
    "model to train": Loader(lambda name: open_model(Origin(name=name), 0), write_language_model, "--model"),
    "its configuration": Loader(
        lambda name: config_of(Origin(name=name)), write_language_model, "--model", weights=False
    ),
}
WITH_CONFIG = [name for name, loader in LOADERS.items() if loader.config]
WITH_WEIGHTS = [name for name, loader in LOADERS.items() if loader.weights]
WITH_TOKENIZER = [name for name, loader in LOADERS.items() if loader.tokenizer]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """A whole model for each way to write one."""
    folders = {}
    for loader in LOADERS.values():
        if loader.write not in folders:
            folders[loader.write] = tmp_path_factory.mktemp("model")
            loader.write(folders[loader.write])
    return folders


@pytest.fixture
def damaged(models: dict[Any, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Returns a loader's model as a copy that a test may spoil."""
    return lambda name: Path(shutil.copytree(models[LOADERS[name].write], tmp_path / "model"))


def refusal(name: str, model: object) -> str:
    """The one line that says why a loader does not load a model; it begins with the model as it was given."""
    with pytest.raises(UserError) as error:
        LOADERS[name].load(str(model))
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert text.startswith(f"{LOADERS[name].role} {model}: ")
    assert "; " in text, "names no way out"
    return text


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    return s3


def contents(loaded: Any) -> Any:
    """Return what of a loaded model must not depend on where it came from."""
    if hasattr(loaded, "get_vocab"):
        return loaded.get_vocab()
    if hasattr(loaded, "to_diff_dict"):
        return {k: v for k, v in loaded.to_diff_dict().items() if k != "_name_or_path"}
    model = getattr(loaded, "model", loaded)
    return {key: tensor.tolist() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", LOADERS)
def test_a_model_in_a_bucket_is_the_one_that_was_put_there(
    name: str, models: dict[Any, Path], bucket: str
) -> None:
    loader = LOADERS[name]
    folder = models[loader.write]
    target = Store.open(f"{bucket}/models/mine")
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    # What sorts before the model's files, and lies in a folder of its own.
    (target / "a-sub-folder" / "config.json").write_bytes(b"{}")
    found, expected = loader.load(f"{bucket}/models/mine"), loader.load(str(folder))
    assert contents(found) == contents(expected)
    assert getattr(found, "fingerprint", 0) == getattr(expected, "fingerprint", 0) or callable(
        found.fingerprint
    )


@pytest.mark.parametrize("name", LOADERS)
def test_a_bucket_or_a_folder_in_it_that_is_not_there(name: str, bucket: str) -> None:
    assert f"{bucket}/nothing: no such folder" in refusal(name, f"{bucket}/nothing")
    with pytest.raises(StorageError, match=r"s3://not-there: .*check the bucket's name"):
        LOADERS[name].load("s3://not-there/model")
    assert "gs:// is only read from" in refusal(name, "gs://bucket/model")


@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_that_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_bytes(pickle.dumps({}))
    assert "no such folder" in refusal(name, tmp_path / "nowhere")
    assert "no such folder" in refusal(name, "./no/where")
    assert "name the folder" in refusal(name, tmp_path / "a-file")


@pytest.mark.parametrize("name", LOADERS)
def test_an_empty_folder(name: str, tmp_path: Path) -> None:
    text = refusal(name, tmp_path)
    assert ("no config.json in it" if LOADERS[name].config else "no tokenizer can be loaded") in text


@pytest.mark.parametrize("name", LOADERS)
def test_a_hub_name_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is refused by this machine itself, and nobody waits between attempts."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    text = refusal(name, "nobody-here/no-model-here")
    assert "couldn't connect to 'http" in text
    assert "the network" in text


@pytest.mark.parametrize("name", WITH_CONFIG)
@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"model_type": "x"}'])
def test_a_configuration_that_is_none(name: str, content: str | None, damaged: Callable[[str], Path]) -> None:
    folder = damaged(name)
    (folder / "config.json").unlink()
    if content:
        (folder / "config.json").write_text(content)
    assert "cannot be loaded" in refusal(name, folder)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_pickled_weights_are_not_read(name: str, damaged: Callable[[str], Path]) -> None:
    folder = damaged(name)
    (folder / "model.safetensors").unlink()
    assert "no weights (model.safetensors) in it" in refusal(name, folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    text = refusal(name, folder)
    assert "no weights in safetensors; pytorch_model.bin is not read" in text
    assert "save_pretrained" in text


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights_that_are_broken(name: str, damaged: Callable[[str], Path]) -> None:
    folder = damaged(name)
    whole = (folder / "model.safetensors").read_bytes()
    for content in (b"", b"x" * 100, whole[:-50]):
        (folder / "model.safetensors").write_bytes(content)
        assert "SafetensorError" in refusal(name, folder)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_named(file: str, damaged: Callable[[str], Path]) -> None:
    folder = damaged(WITH_WEIGHTS[0])
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / file).write_text(pointer)
    text = refusal(WITH_WEIGHTS[0], folder)
    assert f"{file} is a pointer of Git LFS" in text
    assert "git lfs pull" in text


@pytest.mark.parametrize("name", WITH_TOKENIZER)
def test_a_tokenizer_of_another_version_says_so(name: str, damaged: Callable[[str], Path]) -> None:
    folder = damaged(name)
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["model"]["type"] = "OfTheNextVersion"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert "another version of the library tokenizers" in refusal(name, folder)


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_weights_of_another_model_are_not_taken_for_random_ones(
    name: str, damaged: Callable[[str], Path]
) -> None:
    file = damaged(name) / "model.safetensors"
    weights = load_file(file)
    # One that every loader takes: a CLIP's text tower is none of a vision backbone's.
    key = min(k for k in weights if not k.startswith(("text_", "logit_")) and "projection" not in k)
    save_file({k: w for k, w in weights.items() if k != key}, file, {"format": "pt"})
    text = refusal(name, file.parent)
    assert "(1 of its " in text
    # A backbone names it as it is within CLIP's vision tower.
    assert any(f"weights are missing, {k} first" in text for k in (key, key.removeprefix("vision_model.")))
    save_file(weights | {key: torch.zeros(2, 3, 5)}, file, {"format": "pt"})
    assert "has the sizes [2, 3, 5]" in refusal(name, file.parent)


@pytest.mark.parametrize("name", WITH_TOKENIZER)
@pytest.mark.parametrize("content", [None, "{", "[]", '{"version": "1.0"}'])
def test_a_tokenizer_that_is_none(name: str, content: str | None, damaged: Callable[[str], Path]) -> None:
    """transformers makes one without words for a known model without its file."""
    folder = damaged(name)
    for path in folder.glob("tokenizer*.json"):
        path.unlink()
    if content:
        (folder / "tokenizer.json").write_text(content)
    assert "no tokenizer can be loaded from it" in refusal(name, folder)


def test_a_library_that_is_not_here(damaged: Callable[[str], Path]) -> None:
    folder = damaged("detector")
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 6}
    config = {"model_type": "detr", "use_timm_backbone": True, "backbone": "resnet18", **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    text = refusal("detector", folder)
    assert "timm" in text
    assert "use a YOLOS" in text


def test_the_option_is_named_where_it_is_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^--vision {tmp_path}: cannot be loaded"):
        VisionBackbone.load(str(tmp_path), role="--vision")
    with pytest.raises(UserError, match=f"^--tokenizer {tmp_path}: no tokenizer"):
        tokenizers.load_tokenizer(tmp_path, "--tokenizer")


def test_the_embedded_encoder_is_a_name_for_every_loader() -> None:
    assert masking.load_tokenizer("embedded").mask_token == "[MASK]"
    assert NamedModel.open("embedded", "--model").config().model_type == "bert"


def test_an_electra_is_an_encoder_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ElectraConfig(
        hidden_size=16,
        embedding_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=50,
    )
    electra = ElectraModel(config).eval()
    electra.save_pretrained(tmp_path)
    encoder = TextEncoder.load(str(tmp_path))
    ids, lengths, position = torch.arange(1, 7)[None], torch.tensor([6]), torch.tensor([2])
    with torch.no_grad():
        found = encoder.last(encoder.lower_states(ids, lengths), lengths, position)
        expected = electra(input_ids=ids).last_hidden_state[:, 2]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["text encoder", "model to train"])
def test_layers_that_the_configuration_does_not_have_are_not_left_out(
    name: str, damaged: Callable[[str], Path]
) -> None:
    folder = damaged(name)
    config = json.loads((folder / "config.json").read_text())
    layers = "n_layer" if "n_layer" in config else "num_hidden_layers"
    (folder / "config.json").write_text(json.dumps(config | {layers: config[layers] - 1}))
    text = refusal(name, folder)
    assert ".1." in text
    assert "of a layer that its config.json does not have" in text
