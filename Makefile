# demo: the whole chain on the built-in phantom. test: lint, types, all tests and the share of lines that they run.
# mutants: faults put into a copy of the package one at a time; the tests must notice each. All set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-dev

.PHONY: demo test lint mutants install clean

demo: $(VENV)/.installed
	$(BIN)/duomod demo --output demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term

mutants: $(INSTALLED)
	$(BIN)/python tests/mutants/run.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed

# torch first and pinned: unpinned, its CUDA build pulls gigabytes.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[report]'
	touch $@

$(INSTALLED): $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
