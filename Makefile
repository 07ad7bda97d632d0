# Everything runs from here; .venv is made when it is missing or older than what it is made from.
USABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c '$(USABLE)' 2>/dev/null && { command -v $$p; break; }; done)
BIN := .venv/bin

.PHONY: demo test test-all bench-search bench-ensemble bench-serve bench-cluster check format clean
.DEFAULT_GOAL := test

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "consilium needs Python 3.11 or newer with its venv module;" \
	  "install one, or name it with make PYTHON=..."; exit 2; }
	@echo "installing into .venv (some minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/installed  ## search, ensemble and endpoint on synthetic lesions
	@$(BIN)/consilium demo $(ARGS)

test: .venv/installed  ## the tests, without the slow ones
	$(BIN)/python -m pytest $(ARGS)

test-all: .venv/installed  ## what is slow: faults, servers, browser, real data
	$(BIN)/python -m pytest -m slow $(ARGS)

check: .venv/installed  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-search: .venv/installed  ## how fast and how large a search is: tables, and a line of JSON
	@$(BIN)/python -m tests.benchmarks.search $(ARGS)

bench-ensemble: .venv/installed  ## selection, calibration, bootstrap: a table, and a line of JSON
	@$(BIN)/python -m tests.benchmarks.ensemble $(ARGS)

bench-serve: .venv/installed  ## the service beside its limit and other servers: tables, and a line of JSON
	@$(BIN)/python -m tests.benchmarks.serve $(ARGS)

bench-cluster: .venv/installed  ## what faults cost, and how fast tables are scored: tables, a line of JSON
	@$(BIN)/python -m tests.benchmarks.cluster $(ARGS)

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .venv-peers outputs build *.egg-info
