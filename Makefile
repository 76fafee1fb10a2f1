# Two commands on a fresh machine: `make demo` and `make test`. Both set everything up first.

# For another Python beside the first: make test PYTHON=python3.12 VENV=.venv-3.12
PYTHON ?= python3.11
VENV ?= .venv
# The CPU build, named first: any other request would bring gigabytes of CUDA. With a GPU, set TORCH to
# the requirement that fits the machine.
TORCH ?= torch==2.13.0
# What `make lock` runs, in an environment of its own.
UV ?= uv==0.13.8

BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The tests of the page drive it.
export CHROMIUM ?= /usr/bin/chromium

export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM := false

.PHONY: setup lock demo page browser javascript test test-long crash lint style types docs bench

setup: $(READY)

# The lock's versions and no others. It leaves torch's build to TORCH.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here; name another with PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint requirements.lock "$(TORCH)"
	$(PIP) --requirement requirements.lock
	$(PIP) --no-deps --editable .
	$(BIN)/python -m pip check
	touch $@

# Versions for every Python of requires-python and every platform, written after a change of pyproject.toml.
# Those in the lock stay where they may: LOCK="--upgrade" takes the newest, LOCK="--upgrade-package NAME" one.
LOCK_VENV := .venv-lock
EXTRAS := all demo dev qlora
lock:
	test -x $(LOCK_VENV)/bin/python || $(PYTHON) -m venv $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$(UV)"
	$(LOCK_VENV)/bin/uv pip compile pyproject.toml $(EXTRAS:%=--extra %) --quiet $(LOCK) \
		--universal --python-version 3.11 --no-emit-package torch \
		--custom-compile-command "make lock" --output-file requirements.lock

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

# The generator of a JavaScript client that a test runs; it wants node 20.19 or newer. Where there is none, the
# test is skipped, saying so.
javascript: setup
	@if cmp --silent tests/serve/javascript/package-lock.json $(VENV)/javascript/.ready; then exit 0; \
	elif command -v npm >/dev/null; then \
		mkdir -p $(VENV)/javascript && cp tests/serve/javascript/package*.json $(VENV)/javascript && \
		npm ci --prefix $(VENV)/javascript --ignore-scripts --no-audit --no-fund --loglevel=error && \
		cp tests/serve/javascript/package-lock.json $(VENV)/javascript/.ready; \
	else \
		echo "No npm here: install node (Debian: apt-get install nodejs npm); until then the test of the" \
			"generated JavaScript client is skipped." >&2; \
	fi

# Two slow tests at a time, of different folders: those of one share a cluster or a service (tests/conftest.py).
SLOW := -m slow -n 2 --dist loadscope

# Fast tests first: a mistake shows in seconds.
test: setup browser javascript
	$(BIN)/python -m pytest -m "not slow" -n 2
	$(BIN)/python -m pytest $(SLOW)

# The same, with 500 examples of every property and every kind of request.
test-long: setup browser javascript
	SEEDSET_TEST_EXAMPLES=500 $(BIN)/python -m pytest -m "not slow" -n 2 --timeout 3600
	$(BIN)/python -m pytest $(SLOW)

# Parts of a small cluster die while it works: five minutes, by a new seed. CRASH takes options, such as
# CRASH="--seed 7 --seconds 3600".
crash: setup
	sample=$$(mktemp -d) && trap 'rm -rf "$$sample"' EXIT && \
		$(BIN)/python -m examples.make_sample --class elements --output "$$sample/elements" && \
		$(BIN)/python -m cluster.crasher --source "$$sample/elements" $(CRASH)

lint: style types

# All but the types: seconds.
style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry engine jobs serve cluster
	$(BIN)/deptry tests examples benchmarks docs --ignore DEP002,DEP004

# A minute and a half where nothing is cached.
types: setup
	$(BIN)/mypy

# A dead link, or a page that would load something from a network, fails.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.large_index --entities 1000000
	$(BIN)/python -m benchmarks.cold_vectors
	$(BIN)/python -m benchmarks.encoder_training
	$(BIN)/python -m benchmarks.import_scale
	$(BIN)/python -m benchmarks.memory_scale
	$(BIN)/python -m benchmarks.index_memory
	$(BIN)/python -m benchmarks.training_memory
	$(BIN)/python -m benchmarks.link
	$(BIN)/python -m benchmarks.entity_head
	$(BIN)/python -m benchmarks.lm_pretraining
	$(BIN)/python -m benchmarks.lm_memory --hidden 1024 --inner 2752 --layers 16
	$(BIN)/python -m benchmarks.trie
	$(BIN)/python -m benchmarks.beam_search
	$(BIN)/python -m benchmarks.likelihood
	$(BIN)/python -m benchmarks.whole_query
	$(BIN)/python -m benchmarks.image_features
	$(BIN)/python -m benchmarks.window_search
	$(BIN)/python -m benchmarks.class_probing
	$(BIN)/python -m benchmarks.typing
	$(BIN)/python -m benchmarks.name_search
	$(BIN)/python -m benchmarks.serving_overhead
	$(BIN)/python -m benchmarks.serving_overload
	$(BIN)/python -m benchmarks.serving_faults
	$(BIN)/python -m benchmarks.serving_simulation
	$(BIN)/python -m benchmarks.batch_faults
	$(BIN)/python -m benchmarks.network_partition
	$(BIN)/python -m benchmarks.full_disk
	$(BIN)/python -m benchmarks.cluster_scaling
