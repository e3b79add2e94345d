# Two commands for a new user: `make demo` and `make test`. Each sets up what it needs in .venv first.
PYTHON ?= python3
VENV ?= .venv
# Installed before the package: where the index offers a CPU build of this version, no GPU libraries come along.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin

.PHONY: demo test lint types contract check clean

demo: $(VENV)/.installed
	$(BIN)/selfinv demo --output demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

contract: $(VENV)/.installed-dev
	$(BIN)/lint-imports

check: lint types contract test

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "selfinv needs Python 3.11 or newer; try: make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
