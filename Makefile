# The first use of any target sets up the environment in .venv. New users need only `make study` and `make test`.
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

# Runs the hyperparameter study of search_spaces/cluttered_digits.yaml on real images. NAME=second sets the name of the
# study.
study: $(READY)
	$(BIN)/ensdistill-tune launch search_spaces/cluttered_digits.yaml $(if $(NAME),--name $(NAME))

# Checks style and types, and runs the unit tests, which start no other processes, no Ray and no servers. Takes less
# than five minutes on two cores.
test: lint
	$(PYTEST) -m "unit and not slow"

# Builds the documentation and runs all other tests: all combinations of components, then the tests that use Ray, MLflow
# servers, PostgreSQL, Chromium, killed processes and terminals.
test-rest: docs
	$(PYTEST) -m "unit and slow"
	$(PYTEST) -m "not unit" --dist loadfile

# Runs all tests.
test-all: test test-rest

# Builds the documentation site in build/docs/; a warning is an error. All pages are built each time, because they
# depend on the code. Takes half a minute.
docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -E -a -q -b html -d build/doctrees docs build/docs
	@echo "documentation: build/docs/index.html"

# Builds a wheel from a source tree (by default this one) and writes it to dist/.
wheel: $(READY)
	rm -rf $(SOURCE)/build
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir $(DIST) $(SOURCE)

# Regenerates the golden files in tests/golden; the commit must state the reason.
golden: $(READY)
	$(BIN)/python -m tests.golden.record

# Kills the driver, workers or all processes of running studies twenty times. Then simulates a thousand studies with a
# faulty disk and a faulty MLflow server. Finally, runs 300 random sequences of launch, kill, resume, extend, enqueue,
# stop, move, report and sync. Takes 25 minutes.
chaos: $(READY)
	$(BIN)/python -m tests.end_to_end.chaos --kills 20
	$(BIN)/python -m tests.simulation --seeds 1000
	$(BIN)/python -m tests.study_machine --examples 300

# Loads and checks 500 randomly edited inputs of each kind (study files, settings, checkpoints, environments, npz files,
# zip files, folders), and trains a student with 20 inputs of each kind. Each input must be accepted, or refused with a
# clear error.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --count 500 --distill 20
	$(BIN)/python -m tests.fuzz_data --count 500 --distill 20

# Measures the speed of training steps and of studies, and compares both with the targets. The tables are kept in
# studies/bench. Takes 20 minutes on two cores that are otherwise idle.
bench: $(READY)
	$(BIN)/python -m tests.benchmarks.bench

# Measures memory use, decoding speed and batch delivery with 50,000 images of 224x224 pixels, and compares the results
# with the targets. Takes 15 minutes and 9 GB of disk.
bench-data: $(READY)
	$(BIN)/python -m tests.benchmarks.bench_data

# Compares the searchers of this package with those of other packages on tables of real learning curves, with 40 seeds.
# Takes hours on one core, and 6 GB of disk. `python -m tests.benchmarks.learning_curves --rows N` extends the tables.
bench-search: $(READY)
	$(BIN)/python -m tests.benchmarks.search_speed --peers

# Runs studies that train no networks: studies of 500 to 5,000 trials, and of 500 trials with 500 epochs each. Measures
# milliseconds per trial, memory, and the time of `status`, `report` and `export`. Takes an hour on two otherwise idle
# cores.
scale: $(READY)
	$(BIN)/python -m tests.benchmarks.scale
	$(BIN)/python -m tests.benchmarks.scale --trials 500 --epochs 500 --search random

# Checks one GPU: correctness, speed of training steps, data loading, and training runs that share the GPU. Writes a
# JSON file. Takes at most 8 minutes and requires no network.
gpu-check: $(READY)
	$(BIN)/python -m tests.benchmarks.gpu_check

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Serves the MLflow pages of all studies, on this machine only: http://127.0.0.1:5000
ui: $(READY)
	$(BIN)/ensdistill-tune ui --port $(PORT)

# Removes the environment and all caches; studies/ is kept.
clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "ensdistill requires Python 3.11 to 3.13; choose one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up .venv (once; about a minute and 7 GB of disk)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]'
	@touch $(READY)
