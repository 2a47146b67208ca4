# The two README commands and the checks of .ci/run, by name. PYTHON chooses the interpreter.
PYTHON ?= python

.PHONY: help install install-dev demo test test-slow torture lint type check bench wheel

help:
	@echo "demo       install what is pinned and run the whole job on the CPU (minutes)"
	@echo "test       install the test tools and run the default test suite"
	@echo "test-slow  the slow tests too"
	@echo "torture    kill every trainer at random moments (more than 50 kills) and compare"
	@echo "lint type  ruff; mypy"
	@echo "check      lint, type and the default tests, on what is installed"
	@echo "bench      the accelerator check of benchmarks/"
	@echo "wheel      build dist/*.whl"

install:
	$(PYTHON) -m pip install -r requirements.txt

install-dev:
	$(PYTHON) -m pip install -r requirements-dev.txt

demo: install
	$(PYTHON) run_modern_rlhf.py --config cpu-test

test: install-dev
	$(PYTHON) -m pytest

test-slow: install-dev
	$(PYTHON) -m pytest -m "not torture"

torture: install-dev
	$(PYTHON) -m pytest -m torture tests/trainer

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

type:
	$(PYTHON) -m mypy

check: lint type
	$(PYTHON) -m pytest

bench:
	$(PYTHON) -m benchmarks.gpu_check

wheel:
	$(PYTHON) -m pip wheel --no-deps --wheel-dir dist .
