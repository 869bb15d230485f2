# make run          set up, run the pipeline on the demo data set, query one of its songs
# make test         set up and run the tests; make test-fast runs those without the mark slow
# make experiments  table of DVC's experiments: the changed params and two scores of one model (MODEL=merged)
.PHONY: setup run experiments test test-fast lint format bench dist docs fuzz audit lock
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
COMPILE = $(UV) compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url
export PATH := $(CURDIR)/$(BIN):$(PATH)
export VIRTUAL_ENV := $(CURDIR)/$(VENV)# uv would install into another one that is activated
export PYTHONHASHSEED := 0
export TF_CPP_MIN_LOG_LEVEL ?= 2
export USER ?= user# DVC fails for a user without a passwd entry otherwise
# With loadfile, xdist can wait for ever for the worker that replaces a dead one, so the run ends instead.
XDIST := -n 2 --dist loadfile --max-worker-restart 0

FIRST_TEST_SONG := 'from pathlib import Path; from genre.audio import manifest; \
	print(next(row.source for row in manifest.read(Path("chunks")) if row.split == "test"))'

setup: $(VENV)/.installed

# The lock pins every package with its hashes. The Vamp host must be compiled; where that fails, it is left out, and the
# built-in engine computes the features. Compiling all packages to bytecode takes half a minute and saves seconds at every
# start.
$(VENV)/.installed: requirements.lock requirements-vamp.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(UV) install --quiet --compile-bytecode --require-hashes -r requirements.lock
	@$(UV) install --quiet --no-build-isolation --require-hashes -r requirements-vamp.lock \
		|| echo 'note: the package "vamp" could not be built (is there a C++ compiler?); the other engines work without it'
	@touch $@

run: setup
	@git rev-parse --git-dir > /dev/null 2>&1 || dvc config --local core.no_scm true  # an archive without git
	python -m stages.fetch --check
	dvc repro
	@echo
	song="$$(python -c $(FIRST_TEST_SONG))" && python -m stages.query "$$song"

MODEL ?= ensemble
LOSS := $(if $(filter mfcc spectral_contrast merged,$(MODEL)),validation_loss,log_loss)
EXPERIMENT_COLUMNS := Experiment$$|scores/$(MODEL).json:(accuracy|$(LOSS))|[a-z]+\.[a-z_.]+$$

experiments: setup
	dvc exp show --only-changed --drop '^(?!$(EXPERIMENT_COLUMNS))'

test: setup
	python -m pytest $(XDIST)

test-fast: setup
	python -m pytest $(XDIST) -m 'not slow'

lint: setup
	ruff check .
	ruff format --check .
	mypy

format: setup
	ruff check --fix .
	ruff format .

# make bench FULL=--full measures all sizes, for hours.
bench: setup
	python -m benchmarks $(FULL)

# The wheel of the command `genre` (docs/install.md).
dist: setup
	$(BIN)/uv build --wheel --out-dir dist

# Reference pages of the Python interface, from its docstrings: reference/genre/project.html.
docs: setup
	python -m pdoc --output-directory reference genre.project genre.models.query genre.search.identify genre.search.similar \
		genre.models.predict genre.features.numpy_engine

N_INPUTS ?= 2000

fuzz: setup
	N_INPUTS=$(N_INPUTS) python -m pytest -n 2 --timeout 3600 tests/test_fuzz.py

# List the known vulnerabilities of the pinned versions (needs a network).
audit: setup
	pip-audit --disable-pip --require-hashes -r requirements.lock

# Pin the newest versions that pyproject.toml allows (needs a network). The files name no package index.
lock:
	$(COMPILE) $(addprefix --extra ,baselines cluster data dev train urls) -o requirements.lock pyproject.toml
	$(COMPILE) --extra urls -c requirements.lock -o requirements-serve.lock pyproject.toml
	echo 'vamp>=1.1' | $(COMPILE) --no-deps -o requirements-vamp.lock -
