# Each target does its own set-up once, in .venv. `make study` and `make test` are all a newcomer needs.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NAME ?=
PORT ?= 5000

WORKERS ?= auto
SOURCE ?= .
DIST ?= dist
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8

.PHONY: fuzz study test test-rest test-all docs wheel golden chaos bench bench-data bench-search scale gpu-check lint ui clean

# The hyperparameter study of search_spaces/cluttered_digits.yaml, on real images. Another name: make study NAME=second
study: $(READY)
	$(BIN)/ensdistill-tune launch search_spaces/cluttered_digits.yaml $(if $(NAME),--name $(NAME))

# Style, types, unit tests: no process, no Ray, no server. Less than 5 minutes on two cores.
test: lint
	$(PYTEST) -m "unit and not slow"

# All other tests: the documentation, the full product of pieces, then Ray, MLflow servers, PostgreSQL, Chromium, kills
# and terminals.
test-rest: docs
	$(PYTEST) -m "unit and slow"
	$(PYTEST) -m "not unit" --dist loadfile

# Every test.
test-all: test test-rest

# The documentation site, in build/docs/; a warning is an error. Half a minute. All pages are built each time,
# because they depend on the code.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -E -a -q -b html -d build/doctrees docs build/docs
	@echo "documentation: build/docs/index.html"

# The wheel of a source tree (this one), in dist/.
wheel: $(READY)
	rm -rf $(SOURCE)/build
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir $(DIST) $(SOURCE)

# Records the files of tests/golden again; the commit then gives the reason.
golden: $(READY)
	$(BIN)/python -m tests.golden.record

# Twenty kills of driver, workers and everything in mid-study; then a thousand simulated studies on a faulty disk and with
# a faulty MLflow; then 300 orders of launch, kill, resume, extend, enqueue, stop, move, report and sync. 25 minutes.
chaos: $(READY)
	$(BIN)/python -m tests.end_to_end.chaos --kills 20
	$(BIN)/python -m tests.simulation --seeds 1000
	$(BIN)/python -m tests.study_machine --examples 300

# 500 random edits each of study files, settings, checkpoints, environments, npz files, zip files and folders are loaded
# and checked, 20 of each are distilled: all are accepted or refused in our own words.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --count 500 --distill 20
	$(BIN)/python -m tests.fuzz_data --count 500 --distill 20

# How fast steps and studies are, beside what they are meant to reach. 20 minutes on two cores that do nothing
# else; the tables are kept in studies/bench.
bench: $(READY)
	$(BIN)/python -m tests.benchmarks.bench

# Memory, decoding and batches of 50,000 images of 224 px, beside what they are meant to reach. 15 minutes, 9 GB of disk.
bench-data: $(READY)
	$(BIN)/python -m tests.benchmarks.bench_data

# Searchers of this package and of others on tables of real learning curves, 40 seeds. Hours on one core, 6 GB of disk.
# The command `python -m tests.benchmarks.learning_curves --rows N` extends the tables.
bench-search: $(READY)
	$(BIN)/python -m tests.benchmarks.search_speed --peers

# Studies of 500 to 5,000 trials that train nothing, and of 500 trials of 500 epochs: milliseconds a trial, memory, and
# the time of `status`, `report` and `export`. An hour on two cores that do nothing else.
scale: $(READY)
	$(BIN)/python -m tests.benchmarks.scale
	$(BIN)/python -m tests.benchmarks.scale --trials 500 --epochs 500 --search random

# One GPU: correctness, speed of steps, input, trainings that share it, with a JSON file. At most 8 minutes, no network.
gpu-check: $(READY)
	$(BIN)/python -m tests.benchmarks.gpu_check

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# MLflow's pages of all studies, on this machine only: http://127.0.0.1:5000
ui: $(READY)
	$(BIN)/ensdistill-tune ui --port $(PORT)

# Removes the environment and all caches; studies/ is kept.
clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "ensdistill needs Python 3.11 to 3.13; say which with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up .venv (once; about a minute and 7 GB of disk)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]'
	@touch $(READY)
