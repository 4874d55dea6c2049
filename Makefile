# Two commands: `make demo` shows what Onward does on real data, `make test` runs every check.
# Both set up .venv (the tests also .venv-mindspore) by themselves; nothing is installed outside of
# this folder.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Three processes on two cores: much of the time is waiting for disks and servers.
PYTEST := --numprocesses 3 --dist loadfile
# uv does not read pip's settings. Where pip has no place of its own for wheels, the CPU build of
# torch is asked for, since the default one brings gigabytes of CUDA.
FIND_LINKS := $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
INSTALL := $(if $(FIND_LINKS),UV_FIND_LINKS="$(FIND_LINKS)") $(BIN)/uv pip install --quiet \
      --compile-bytecode $(if $(FIND_LINKS),,--torch-backend=cpu)
UV := $(INSTALL) --python $(BIN)/python --constraint requirements/dev.txt
# MindSpore needs NumPy 1, so that it has an environment of its own, with PyTorch beside it. What is
# tested there is named for it; everything else is tested with NumPy 2.
MINDSPORE_VENV := .venv-mindspore
MINDSPORE_TESTS = $(shell find tests -name 'test_mindspore*.py' | sort)

.PHONY: screenshots
.PHONY: demo test test-all test-main test-mindspore lint types layers clean
.PHONY: bench bench-checkpointing bench-mindspore bench-learning bench-server

demo: $(VENV)/run-ready
	$(BIN)/python examples/demo.py

test: lint types layers test-main test-mindspore

test-all: export ONWARD_TEST_SCALE = full
test-all: test

test-main: $(VENV)/ready
	scripts/install-test-programs
	$(BIN)/python -m pytest $(PYTEST)

test-mindspore: $(MINDSPORE_VENV)/ready
	$(MINDSPORE_VENV)/bin/python -m pytest $(PYTEST) $(MINDSPORE_TESTS)

# Pictures of every page of the console, into docs/console.
screenshots: $(VENV)/ready
	scripts/install-test-programs
	ONWARD_SCREENSHOTS=1 $(BIN)/python -m pytest tests/server/console/test_newcomer.py

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

layers: $(VENV)/ready
	$(BIN)/lint-imports

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks

bench-server: $(VENV)/ready
	$(BIN)/python -m benchmarks.server $(BENCH_OPTIONS)

# The libraries beside which Onward is measured have an environment of their own.
BENCH_VENV := .venv-bench
BENCH_RESULTS := .cache/checkpointing.json

# With options of your own nothing is written into the page: that is for whole runs.
bench-checkpointing: $(BENCH_VENV)/ready
	@mkdir -p $(dir $(BENCH_RESULTS))
	$(BENCH_VENV)/bin/python -m benchmarks.checkpointing --json $(BENCH_RESULTS) $(BENCH_OPTIONS)
	$(if $(BENCH_OPTIONS),,$(BENCH_VENV)/bin/python -m benchmarks.checkpointing.report \
	    $(BENCH_RESULTS) --into docs/benchmarks.md --plot docs/checkpointing.svg)

# Saving from MindSpore, beside MindSpore's own.
MINDSPORE_RESULTS := .cache/mindspore-saving.json

bench-mindspore: $(MINDSPORE_VENV)/ready
	@mkdir -p $(dir $(MINDSPORE_RESULTS))
	$(MINDSPORE_VENV)/bin/python -m benchmarks.checkpointing --scenario m --restored 1 \
	    --json $(MINDSPORE_RESULTS) $(BENCH_OPTIONS)
	$(if $(BENCH_OPTIONS),,$(MINDSPORE_VENV)/bin/python -m benchmarks.checkpointing.report \
	    $(MINDSPORE_RESULTS) --into docs/benchmarks.md)

# Five seeds of everything on two cores take about an hour; stopped, the same command goes on.
bench-learning: $(VENV)/ready
	$(BIN)/python -m benchmarks.learning $(or $(BENCH_OPTIONS),--into docs/benchmarks.md)

$(BENCH_VENV)/ready: $(BIN)/uv pyproject.toml requirements/bench.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(INSTALL) --python $(BENCH_VENV)/bin/python --requirement requirements/bench.txt
	$(INSTALL) --python $(BENCH_VENV)/bin/python --editable '.[torch]'
	@touch $@

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements/dev.txt uv

$(VENV)/run-ready: $(BIN)/uv pyproject.toml requirements/dev.txt
	$(UV) --editable '.[torch,objects]'
	@touch $@

$(VENV)/ready: $(VENV)/run-ready
	$(UV) --editable '.[torch,lightning,transformers,objects,tables,mlflow,tensorboard,server,postgresql,dev]'
	@touch $@

$(MINDSPORE_VENV)/ready: $(BIN)/uv pyproject.toml requirements/mindspore.txt
	$(PYTHON) -m venv $(MINDSPORE_VENV)
	$(INSTALL) --python $(MINDSPORE_VENV)/bin/python --constraint requirements/mindspore.txt \
	    --editable '.[torch,mindspore,objects,tables,dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(MINDSPORE_VENV) $(BENCH_VENV) .cache demo-out .mypy_cache .pytest_cache .ruff_cache .hypothesis
