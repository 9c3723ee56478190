# Needs only Python 3.11: uv is bootstrapped from the package index where it is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV := $(shell command -v uv || echo .bootstrap/bin/uv)
RUN := $(UV) run --frozen --all-extras

.PHONY: demo test check bench docs clean

demo: .venv/ready  ## simulate a cluster, attribute a week, print the statement, write demo-report.html
	$(RUN) wattkeeper demo

test: .venv/ready  ## all tests
	$(RUN) pytest -q -n auto --dist loadfile

check: .venv/ready  ## style, types, layers, tests with coverage
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) pytest -q -n auto --dist loadfile --cov --cov-report=term-missing:skip-covered

bench: .venv/ready  ## every benchmark, quick
	for b in benchmarks/[a-z]*.py; do $(RUN) --group bench python $$b --quick || exit 1; done

docs: .venv/ready  ## reference pages from the code
	$(RUN) python docs/generate.py

.venv/ready: pyproject.toml uv.lock
	@echo "Setting up .venv with all packages: once, some minutes on a slow line."
	@command -v $(UV) >/dev/null || { $(PYTHON) -m venv .bootstrap && .bootstrap/bin/pip install uv; }
	$(UV) sync --frozen --all-extras --python $(PYTHON)
	@touch $@

clean:
	rm -rf .venv .bootstrap demo-book demo-book-files demo-report.html
