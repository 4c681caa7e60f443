# make demo | demo-loop | browser | docs | docs-test | dist | sbom | audit | test | test-models | test-lowest | test-newest | test-faults | test-jobs | check | bench | bench-search | bench-search-whole |
# bench-trials | bench-forensics | bench-memory | faults | validate-statistics | validate-interventions | validate-interventions-whole |
# validate-forensics | validate-forensics-whole; everything lives in .venv.
PYTHON ?= python3
DEVICE ?= cpu
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Font caches and those of the tools go into .venv. Byte code lies where every Python looks for it: that which pip compiled must
# also serve .venv/bin/study, or each process, each worker of Ray's too, compiles torch and all the rest anew.
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/cache/matplotlib
export RUFF_CACHE_DIR := $(CURDIR)/$(VENV)/cache/ruff
export MYPY_CACHE_DIR := $(CURDIR)/$(VENV)/cache/mypy

.PHONY: install browser docs docs-test dist sbom audit demo demo-loop test test-models test-lowest test-newest test-faults test-jobs check format bench bench-search bench-search-whole bench-trials bench-forensics bench-memory faults validate-statistics validate-interventions validate-interventions-whole validate-forensics validate-forensics-whole clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $(STAMP)

# Debian's Chromium for the tests of the pages, which are skipped without it (and fail if the environment variable CI is true).
browser:
	command -v chromium > /dev/null || (apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends chromium)

# The documentation as a site in site/.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	PYTHONDONTWRITEBYTECODE=1 NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What the pages of the documentation show exists, and their commands run, but for those that need a cluster.
docs-test: $(STAMP)
	$(BIN)/python -m pytest -p no:cacheprovider --durations=40 tests/docs

# A wheel and a source distribution in dist/.
dist: $(STAMP)
	rm -rf dist
	$(BIN)/uv build --quiet --out-dir dist

# What an environment with the wheel contains: a bill of materials in dist/sbom.json (CycloneDX).
sbom: $(STAMP)
	mkdir -p dist
	$(BIN)/uv tool run --quiet --from cyclonedx-bom cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-file dist/sbom.json

# Known vulnerabilities of what is installed, and what is unsafe in the release workflow.
audit: $(STAMP)
	$(BIN)/uv tool run --quiet pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" --skip-editable
	$(BIN)/uv tool run --quiet zizmor --offline --persona=pedantic .github/workflows

# A small A/B study on planted scenes, from nothing to the report; its folder is made anew.
demo: $(STAMP)
	rm -rf studies/demo
	$(BIN)/study run demo --storage studies

# A study whose interventions find a planted shortcut, swap it away and measure that. Under ten minutes on two cores.
demo-loop: $(STAMP)
	rm -rf studies/demo-loop studies/demo-loop-intervene-*
	$(BIN)/study run demo-loop --storage studies --intervene --only background_swap --only cutmix

# Two workers, which take the tests file by file, in the order of tests/conftest.py.
test: $(STAMP)
	$(BIN)/python -m pytest -p no:cacheprovider --durations=25 -n 2 --dist loadfile --no-loadscope-reorder -m "not long_faults and not all_models and not all_docs"

# The tests on the lowest and on the newest versions of the dependencies, each in an environment of its own, whose versions are
# in .venv/lowest.txt and .venv/newest.txt. PYTHON=python3.13 chooses the interpreter. uv takes the lowest versions that have
# binaries for it; grad-cam has none.
RESOLUTION_lowest := lowest-direct
RESOLUTION_newest := highest
test-lowest test-newest: test-%: $(STAMP)
	$(BIN)/uv pip compile --quiet --python $(PYTHON) --resolution $(RESOLUTION_$*) --only-binary :all: --no-binary grad-cam \
		--extra dev pyproject.toml --output-file $(VENV)/$*.txt
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(VENV)/$*
	$(BIN)/uv pip sync --quiet --python $(VENV)/$*/bin/python $(VENV)/$*.txt
	$(BIN)/uv pip install --quiet --python $(VENV)/$*/bin/python --no-deps --editable .
	OTHER_VERSIONS=$* $(VENV)/$*/bin/python -m pytest -p no:cacheprovider --durations=25 -n 2 --dist loadfile --no-loadscope-reorder -m "not long_faults and not all_models and not all_docs"

# The conformance suite of backbones over the architectures that `make test` leaves out.
test-models: $(STAMP)
	$(BIN)/python -m pytest -p no:cacheprovider --durations=25 -m all_models

# One sample each of trials killed, told to end and stopped, lost nodes, heads and orphans, a full disk, a failing object store, and a
# round of interventions that is killed.
# Twelve minutes on two cores.
test-faults: $(STAMP)
	$(BIN)/python -m pytest -p no:cacheprovider -m long_faults

# Submitting to Ray's job server, and the ports that it opens, in an environment of its own that has Ray's packages for it; writes the
# row R14 of benchmarks/FAULTS.md, which `make faults` alone measures without the job server.
test-jobs: $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(VENV)/jobs
	$(BIN)/uv pip install --quiet --python $(VENV)/jobs/bin/python --editable ".[dev,submit]"
	$(VENV)/jobs/bin/python -m pytest -p no:cacheprovider -m "" tests/study/test_submit.py tests/faults/test_faults.py -k "submit or port"
	$(VENV)/jobs/bin/python -m tests.faults R14

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The default search against stock Ray Tune and random search, replayed on recorded curves with 60 seeds; writes benchmarks/SEARCH.md.
# 12 minutes on two cores.
bench-search: $(STAMP)
	$(BIN)/python -m benchmarks.search.search_goals

# The same with 300 seeds and the other sides, such as wrong priors, and every way to search, which
# benchmarks/SEARCH_GRID.md has. Hours on two cores: a suggestion of a Gaussian process takes a fifth of a second.
bench-search-whole: $(STAMP)
	$(BIN)/python -m benchmarks.search.search_goals --whole
	$(BIN)/python -m benchmarks.search.search_replay

# P8 alone: 10,000 trials that train nothing through the real Ray run. Under 15 minutes on two cores.
bench-trials: bench-P8

# The simulations behind the comparison; writes benchmarks/STATISTICS.md. Under 20 minutes on two cores.
validate-statistics: $(STAMP)
	$(BIN)/python -m benchmarks.validation.validate_statistics

# The level of rounds of interventions that change nothing, and the whole chain on ten planted worlds of each kind; writes
# benchmarks/INTERVENTIONS.md. 58 minutes on two cores. Finished worlds are stored in .venv/cache/worlds.
validate-interventions: $(STAMP)
	$(BIN)/python -m benchmarks.validation.validate_interventions

# The same with thirty worlds of each kind.
validate-interventions-whole: $(STAMP)
	$(BIN)/python -m benchmarks.validation.validate_interventions --whole

# The level and power of the cluster test, and the audits and the root cause on models whose truth is known: a sample of the worlds.
# 40 minutes on two cores. Finished worlds are stored in .venv/cache/worlds, and a run that was stopped resumes.
validate-forensics: $(STAMP)
	$(BIN)/python -m benchmarks.validation.validate_forensics

# The same on all worlds; writes benchmarks/FORENSICS.md. Up to four hours on two cores.
validate-forensics-whole: $(STAMP)
	$(BIN)/python -m benchmarks.validation.validate_forensics --whole

# Faults R1 to R14 at full counts, beside stock Ray Tune; writes benchmarks/FAULTS.md. More than an hour on two cores; as root,
# or the full disk cannot be made.
faults: $(STAMP)
	$(BIN)/python -m tests.faults

# The ratios P1 to P19 but P7 and P12, both sides in one run; writes benchmarks/RESULTS.md. More than an hour on two cores. DEVICE=cuda measures
# P2 to P5, P11 and P15 on a GPU. P13 and P14 keep 20,000 photographs (1.5 GB) in .venv/cache and need 8 GB more while they run.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.performance.bench --device $(DEVICE)

bench-P%: $(STAMP)
	$(BIN)/python -m benchmarks.performance.bench P$* --device $(DEVICE)

# The forensics of 5,000 images, two arms, three seeds. Under 30 minutes on two cores.
bench-forensics: $(STAMP)
	$(BIN)/python -m benchmarks.performance.forensics_speed

# A study on 60,000 images that exceed their memory budget, mapped and streamed, against the same study in memory.
bench-memory: $(STAMP)
	$(BIN)/python -m benchmarks.performance.large_images

clean:
	rm -rf $(VENV)
