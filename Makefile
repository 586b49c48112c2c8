# make demo and make test work on a fresh machine: Linux, Python 3.11 or newer, make; root for the containers.
# What is missing is installed: Python packages into .venv, the distribution's packages with apt where there is an apt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYBUILD := $(BIN)/pybuild
PORT ?= 8000
FUZZ_SECONDS ?= 600

.PHONY: help demo demo-web test check bench format docs fuzz clean

help:
	@echo "make demo      build an image from examples/hello and run it"
	@echo "make demo-web  build a web service on Debian, ask it something, stop it (downloads packages)"
	@echo "make test      run the tests"
	@echo "make check     what CI runs: formatting, lint, types, tests"
	@echo "make bench     compare with other builders, and see how times grow (installs them; takes long)"
	@echo "make format    format the code"
	@echo "make docs      write docs/cli.md and docs/rules anew"
	@echo "make fuzz      feed the grammar with inputs that atheris makes up, for FUZZ_SECONDS"
	@echo "make clean     remove the virtual environment and caches"

$(VENV)/.installed: pyproject.toml
	.ci/packages venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	.ci/packages demo
	PATH="$(CURDIR)/$(BIN):$$PATH" .ci/demo

demo-web: $(VENV)/.installed
	.ci/packages demo-web
	PATH="$(CURDIR)/$(BIN):$$PATH" PORT=$(PORT) .ci/demo-web

test: $(VENV)/.installed
	.ci/packages test
	$(BIN)/python -m pytest

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

bench: $(VENV)/.installed
	.ci/packages bench
	status=0; for program in "compare --large" parse growth; do \
		$(BIN)/python -m bench.$$program --write || status=1; \
	done; exit $$status

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed
	$(BIN)/python -m tests.test_docs
	$(BIN)/python -m tests.test_rules

fuzz: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.texts -max_total_time=$(FUZZ_SECONDS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
