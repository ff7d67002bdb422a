.DEFAULT_GOAL := help
SHELL := bash

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup demo test check bench chaos clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything needed

demo: $(STAMP) ## the whole story in a minute: no key, no set-up
	@$(BIN)/perdure demo

test: $(STAMP) ## all tests; JOBS=2: in two processes
	$(BIN)/pytest $(if $(JOBS),-n $(JOBS) --dist worksteal)

check: $(STAMP) ## format, lint, types, import layers
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-bench ## benchmarks
	$(BIN)/python -m benchmarks

chaos: $(STAMP) ## kill, pause and cut off workers at random: ARGS="--kills 1000 …"
	$(BIN)/python -m chaos $(ARGS)

clean: ## remove .venv and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests chaos benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an installation that broke half-way is begun again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.installed-bench: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,bench]'
	@touch $@
