# Everything runs inside .venv, which the first target that needs it makes from the lock files.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH_READY := $(VENV)/.ready-bench
WHEEL_VENV := $(VENV)/clean

# for `make chaos`, `make test`, `make demo`
MINUTES ?= 10
ARGS ?=
KEEP ?=
SOURCE ?=
WORKERS ?= 2

# The flows of the tests start hundreds of times: keep what Python compiles.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test test-fast lint format gen-proto proto-breaking types chaos bench bench-quick lock dist clean

help: ## this text
	@echo "make TARGET, with Python 3.11 or 3.12 and nothing else prepared:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile
	@echo "PYTHON=/path/to/python chooses the interpreter for the first set-up."

setup: $(READY) ## make .venv from the lock files (done by itself, and again when they change)

demo: $(READY) ## the whole way on servers of its own, for 20 s; KEEP=1 goes on; SOURCE=mariadb or rest
	@exec env KEEP=$(KEEP) DEMO_SOURCE=$(SOURCE) $(BIN)/python -m control.demo

test: $(READY) ## all tests, with coverage, by two WORKERS (0: by none); ARGS="-k name" chooses
	@rm -f .coverage .coverage.*
	$(BIN)/python -m pytest --cov -n $(WORKERS) --dist loadgroup --no-loadscope-reorder \
	  --max-worker-restart 0 $(ARGS)

test-fast: $(READY) ## the unit and contract tests, done within a minute
	$(BIN)/python -m pytest -q -m "not slow" tests/unit tests/contract $(ARGS)

lint: $(READY) ## style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(READY) ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gen-proto: $(READY) ## write control/pb anew from proto/, and check its style
	$(BIN)/buf lint proto
	proto/generate.sh

proto-breaking: $(READY) ## check that proto/ breaks no client of what main has
	@proto/breaking.sh

types: $(READY) ## mypy, strict
	$(BIN)/mypy

chaos: $(READY) ## kill everything at random for MINUTES=10, then compare; SOURCE=mysql or mariadb
	$(BIN)/python -m tests.e2e.$(if $(filter mysql mariadb,$(SOURCE)),binlog_chaos --source $(SOURCE),chaos) \
	  --minutes $(MINUTES) $(ARGS)

bench: $(BENCH_READY) ## the table of speeds, latencies and memory (Debezium's rows need Java)
	$(BIN)/python -m bench $(ARGS)

bench-quick: $(BENCH_READY) ## the same table from smaller runs, in some minutes
	$(BIN)/python -m bench --quick $(ARGS)

lock: $(READY) ## write requirements/*.txt anew from pyproject.toml; UPGRADE=1 takes newer versions
	requirements/lock.sh $(VENV)/lock

dist: $(READY) ## build the wheel into dist/, install it into a clean environment, import it there
	rm -rf dist $(WHEEL_VENV)
	$(BIN)/pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps -w dist .
	$(BIN)/python -m venv $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(WHEEL_VENV)/bin/pip install -q --disable-pip-version-check --no-deps dist/*.whl
	cd dist && ../$(WHEEL_VENV)/bin/python -c \
	  "import connectors.registry, control.demo.deployment, dataflows.spec"
	rm -rf $(WHEEL_VENV)

clean: ## remove everything that make made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.* bench/latest.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/dev.txt requirements/setup.sh pyproject.toml
	@requirements/setup.sh $(VENV) requirements/dev.txt
	@touch $@

# The bench lock holds everything of the other one and more.
$(BENCH_READY): requirements/bench.txt requirements/setup.sh pyproject.toml
	@requirements/setup.sh $(VENV) requirements/bench.txt
	@touch $(READY) $@
