# Two commands for a new user: `make demo` and `make test`. Both set up what they need in .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
READY_DEV := .venv/ready-dev

.PHONY: demo serve test lint kernels tables clean

demo: $(READY)
	@$(BIN)/haast generate --prompt "What is a bald eagle?"

serve: $(READY)
	@$(BIN)/haast serve

test: $(READY_DEV) lint kernels
	$(BIN)/pytest

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

kernels: $(READY_DEV)
	$(BIN)/python -m haast.cuda.build

# README's tables from bench/results; a test says when they differ.
tables:
	$(PYTHON) tools/make_tables.py

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(READY_DEV): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $(READY) $@

clean:
	rm -rf .venv build *.egg-info haast/cuda/cubins
