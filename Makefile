# Two commands on a fresh machine: `make demo` and `make test`. Both set everything up first.

PYTHON ?= python3.11
# The CPU build, named first: any other request would bring gigabytes of CUDA. With a GPU, set TORCH to
# the requirement that fits the machine.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo test lint bench

setup: $(READY)

$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here; name another with PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[embedded,dev]"
	touch $@

demo: setup
	$(BIN)/python -m examples.demo

# Fast tests first: a mistake shows in seconds.
test: setup
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.encoder_training
	$(BIN)/python -m benchmarks.import_scale
	$(BIN)/python -m benchmarks.lm_pretraining
	$(BIN)/python -m benchmarks.trie
	$(BIN)/python -m benchmarks.beam_search
	$(BIN)/python -m benchmarks.likelihood
	$(BIN)/python -m benchmarks.whole_query
