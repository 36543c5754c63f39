# Everything on a fresh machine with Python 3.11, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores, four at most: tests of whole services wait for each other's processes now and then.
TESTERS = $(shell $(BIN)/python -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))")

# Where it is set, each of the hundreds of processes of the tests would compile all modules and rewrite all assertions.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(VENV)/.base ## Install, start the service, search on real digits, print the front, stop
	$(BIN)/skyline demo

serve: $(VENV)/.base ## Install and start the service on http://127.0.0.1:8765 (Ctrl-C stops it)
	$(BIN)/skyline serve

test: $(VENV)/.dev ## Install with test tools and run the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

fuzz: $(VENV)/.dev ## Ask the API and the readers of files at random, 200 examples each (about ten minutes)
	SKYLINE_FUZZ_EXAMPLES=200 $(BIN)/python -m pytest tests/api/test_schemathesis.py tests/api/test_forged.py \
		tests/api/test_jobspecs.py tests/nas_core/test_checkpoint.py tests/nas_core/test_hostile_files.py \
		tests/nas_core/test_architecture.py

chaos: $(VENV)/.dev ## Kill everything at random moments, ten times each, on both databases (about an hour)
	$(BIN)/python -m tests.chaos --rows build/chaos.jsonl

check: $(VENV)/.dev ## Format, lint, types, imports, reference pages, fast tests
	$(MAKE) --no-print-directory --jobs 2 --output-sync lint quick

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/make_reference.py --check

quick: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -p no:schemathesis -n 2 --dist loadfile -m "not e2e and not slow" \
		tests/nas_core tests/worker tests/deploy tests/skyline/test_imports.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[onnx]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build

.PHONY: help demo serve test fuzz chaos check lint quick clean
