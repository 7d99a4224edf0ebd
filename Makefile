# `make` or `make help` lists the targets.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist loadscope --no-loadscope-reorder
VENV := .venv
PACKAGING := setup.cfg setup.py pyproject.toml

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
# pip uses the certificates of the system; uv only when told to.
export UV_SYSTEM_CERTS ?= true
# uv installs faster than pip. Where it cannot be had, or does not know the package index that pip does, pip does it.
define INSTALL
@{ $(VENV)/bin/python -m pip install --quiet 'uv>=0.8' && $(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --editable '$(1)'; } \
  || $(VENV)/bin/python -m pip install --quiet --editable '$(1)'
endef
# Without bytecode, pytest rewrites every test in every process, which takes longer than collecting them.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all planted-faults fuzz bench notebooks notebooks-full docs lint format verify pretrained wheel clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.runtime ## Load and evaluate a pretrained posterior, plot its least certain predictions, train it again
	$(VENV)/bin/tfp-bnn demo

test: $(VENV)/.dev ## Run the quick tests and doctests (PYTEST_ARGS="-n 2 --dist loadscope --no-loadscope-reorder")
	$(VENV)/bin/python -m pytest -m "not slow and not thorough" $(PYTEST_ARGS)

test-all: $(VENV)/.dev ## Run all tests and doctests, including slow and thorough ones
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

planted-faults: $(VENV)/.dev ## Plant known faults in a copy of the code, and check that their tests catch them
	$(VENV)/bin/python tests/planted_faults/run.py --jobs 2

fuzz: $(VENV)/.dev ## Damage an artifact in 2,000 ways, and see that each is refused in words or loaded as it is written
	$(VENV)/bin/python -m pytest -s tests/zoo/hub/test_fuzz.py

bench: $(VENV)/.dev ## Measure speed and memory beside every peer, and how costs grow (BENCH_ARGS="--torch-python PATH" or "--quick")
	$(VENV)/bin/python benchmarks/bench/run.py $(BENCH_ARGS)
	$(VENV)/bin/python benchmarks/bench/run.py --growth $(BENCH_ARGS)

notebooks: $(VENV)/.dev ## Execute every notebook with small parameters (minutes)
	$(VENV)/bin/python notebooks/run.py --small

notebooks-full: $(VENV)/.dev ## Execute every notebook with its own parameters, and write notebooks/*.ipynb (long)
	$(VENV)/bin/python notebooks/run.py

docs: $(VENV)/.dev ## Build the site into build/docs; warnings and links that lead nowhere are errors (DOCS=FOLDER)
	$(VENV)/bin/python docs/site/build.py $(DOCS)

lint: $(VENV)/.dev ## Check style, formatting and types
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check
	$(VENV)/bin/python -m mypy

format: $(VENV)/.dev ## Fix style and formatting where possible
	$(VENV)/bin/python -m ruff check --fix
	$(VENV)/bin/python -m ruff format

verify: $(VENV)/.runtime ## Measure the numbers of the bundled models' cards again (a few minutes); exit code 1 if one fails
	$(VENV)/bin/tfp-bnn verify

pretrained: $(VENV)/.runtime ## Train every recipe into saved_models/ (hours), and update the manifest, the results and the README's table
	for recipe in zoo/recipes/*.yaml; do \
	  name=$$(basename "$$recipe" .yaml); \
	  $(VENV)/bin/tfp-bnn train "$$name" --out "saved_models/$$name" --overwrite || exit; \
	done
	$(VENV)/bin/python -m zoo.hub.manifest
	$(VENV)/bin/tfp-bnn verify --full --results zoo/results
	$(VENV)/bin/python -m zoo.evaluation.results_table

wheel: $(VENV)/.dev ## Build dist/*.whl and the source distribution, and check them
	$(VENV)/bin/python -m build --outdir dist .
	$(VENV)/bin/python -m twine check --strict dist/*

clean: ## Remove the environment, caches and build products
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .coverage htmlcov
	find tfp_bnn zoo tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "tfp_bnn needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." \
	    "Choose another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.python $(PACKAGING)
	@echo "Installing TensorFlow, Keras and the rest into $(VENV): about a minute and two gigabytes."
	$(call INSTALL,.)
	@touch $@

$(VENV)/.dev: $(VENV)/.python $(PACKAGING)
	@echo "Installing TensorFlow, Keras and the development tools into $(VENV): about a minute and two gigabytes."
	$(call INSTALL,.[dev])
	@touch $(VENV)/.runtime $@
