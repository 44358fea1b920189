# `make` lists what there is. Everything runs in .venv, made on first use from the hashed lock files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FUZZED = $(shell find tests -name 'test_fuzzed_*.py')

.DEFAULT_GOAL := help

help:  ## what you can do here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 12

$(STAMP): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "The venv module is missing; on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }
	@echo "Installing into $(VENV) ... (a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

setup: $(STAMP)  ## make .venv with everything in it

demo: $(STAMP)  ## the main job, live, against the simulated vendor (SECONDS=30 to stop by itself)
	@$(BIN)/bibwire demo $(if $(SECONDS),--seconds $(SECONDS))

test: $(STAMP)  ## all tests
	@$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

check: format-check lint types imports  ## what CI checks before the tests

format-check: $(STAMP)
	@$(BIN)/ruff format --check .

lint: $(STAMP)
	@$(BIN)/ruff check .

types: $(STAMP)
	@$(BIN)/mypy

imports: $(STAMP)  ## imports point down only
	@$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## format and mend what can be mended
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

fuzz: $(STAMP)  ## odd answers, settings and arguments, random histories, twenty kills of a backfill (EXAMPLES=50000 HISTORIES=5000)
	@BIBWIRE_FUZZ_EXAMPLES=$(or $(EXAMPLES),5000) $(BIN)/python -m pytest -n auto $(FUZZED) --timeout 0
	@BIBWIRE_FUZZ_HISTORIES=$(or $(HISTORIES),2000) $(BIN)/python -m pytest -n auto tests/e2e/test_random_histories.py tests/e2e/test_season.py tests/e2e/test_backfill_scale.py --timeout 0

soak: $(STAMP)  ## ten minutes of troubles on real processes, then seasons of all shapes in moved time (HOURS=2 SEED=1)
	@$(BIN)/python -m tests.ordeal --seed $(or $(SEED),1) --minutes 10
	@$(BIN)/python -m tests.seasons --seed $(or $(SEED),1) --real-hours $(or $(HOURS),1)

mutants: $(STAMP)  ## known bugs, and how many seasons each takes to be caught (SEEDS=15)
	@$(BIN)/python -m tests.mutations --seeds $(or $(SEEDS),15)

bench: $(STAMP)  ## the figures of docs/performance.md
	@$(BIN)/python -m bench

lock: $(STAMP)  ## renew requirements/*.txt from pyproject.toml
	@requirements/lock.sh $(BIN)

clean:  ## remove what this Makefile made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup demo test check format-check lint types imports format fuzz soak mutants bench lock clean
