# make install | demo | test | check | format | coverage | docs | bench | gpu-wheels | gpu | faults | browser | clean; everything lives in
# .venv, but for `make gpu`.
PYTHON ?= python3
DEVICE ?= cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two workers, which take the tests file by file, in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest --durations=25 -n 2 --dist loadfile --no-loadscope-reorder

MKDOCS := PYTHONDONTWRITEBYTECODE=1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

# Font caches and those of the tools go into .venv. Byte code lies where every Python looks for it: that which pip compiled must
# also serve .venv/bin/study, or each process, each worker of Ray's too, compiles torch and all the rest anew.
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/cache/matplotlib
export RUFF_CACHE_DIR := $(CURDIR)/$(VENV)/cache/ruff
export MYPY_CACHE_DIR := $(CURDIR)/$(VENV)/cache/mypy

.PHONY: install demo test check format coverage docs bench gpu-wheels gpu faults browser clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $(STAMP)

# A small A/B study on planted scenes, from nothing to the report; its folder is made anew.
demo: $(STAMP)
	rm -rf studies/demo
	$(BIN)/study run demo --storage studies

test: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MKDOCS) build --strict --site-dir $(VENV)/cache/site

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The tests again, with the lines that they run, in the terminal and in htmlcov/. Processes that a test starts do not count.
coverage: $(STAMP)
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html

# The documentation as a site in site/.
docs: $(STAMP)
	$(MKDOCS) build --strict

# The ratios of benchmarks/RESULTS.md, both sides in one run. More than an hour on two cores; DEVICE=cuda measures on a GPU.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.performance.bench --device $(DEVICE)

# A first look at a GPU, in eight minutes and without a network: with PYTHON's own torch, and with the wheels that gpu-wheels
# downloaded before.
gpu-wheels:
	$(PYTHON) -m benchmarks.performance.gpu_kit wheels

gpu:
	$(PYTHON) -m benchmarks.performance.gpu_kit

# Every fault at its full count, beside stock Ray Tune; writes benchmarks/FAULTS.md. More than an hour on two cores; as root, or
# the full disk cannot be made.
faults: $(STAMP)
	$(BIN)/python -m tests.faults

# Debian's Chromium, where no Chromium or Chrome is installed. Without one the tests of the pages are skipped, or fail if the
# environment variable CI is true.
browser:
	command -v chromium > /dev/null || command -v google-chrome > /dev/null || \
		(apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends chromium)

clean:
	rm -rf $(VENV)
