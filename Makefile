# Two commands on a fresh machine: `make demo` and `make test`. Both set everything up first.

PYTHON ?= python3.11
# The CPU build, named first: any other request would bring gigabytes of CUDA. With a GPU, set TORCH to
# the requirement that fits the machine.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The tests of the page drive it.
export CHROMIUM ?= /usr/bin/chromium

export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM := false

.PHONY: setup demo page browser test test-long lint bench

setup: $(READY)

$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here; name another with PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[embedded,demo,dev]"
	touch $@

# DEMO takes options, such as DEMO="--language-model smollm2".
demo: setup
	$(BIN)/python -m examples.demo $(DEMO)

# What the demo built, with its page.
page: setup
	@test -e demo-workspace/workspace/bundles/CURRENT || \
		{ echo "There is nothing to serve yet: run \`make demo\` first" >&2; exit 2; }
	@echo "Open http://127.0.0.1:8000 in a browser once it is served"
	$(BIN)/python -m serve.run --workspace demo-workspace/workspace --port 8000

# Where it cannot be installed, the tests that need it are skipped, saying so.
browser:
	@if [ -x "$(CHROMIUM)" ]; then exit 0; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update --quiet --quiet && \
		apt-get install --quiet --quiet --yes --no-install-recommends chromium; \
	else \
		echo "No browser at $(CHROMIUM): install Chromium (Debian: apt-get install chromium) or name one with" \
			"CHROMIUM=...; until then the tests of the page are skipped." >&2; \
	fi

# Fast tests first: a mistake shows in seconds.
test: setup browser
	$(BIN)/python -m pytest -m "not slow" -n 2
	$(BIN)/python -m pytest -m slow

# The same, with 500 examples of every property and every kind of request.
test-long: setup browser
	SEEDSET_TEST_EXAMPLES=500 $(BIN)/python -m pytest -m "not slow" -n 2 --timeout 3600
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
	$(BIN)/python -m benchmarks.image_features
	$(BIN)/python -m benchmarks.window_search
	$(BIN)/python -m benchmarks.serving_overhead
	$(BIN)/python -m benchmarks.serving_overload
	$(BIN)/python -m benchmarks.serving_faults
