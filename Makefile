# Needs a Python of 3.11 or newer and make, nothing else. `make help` lists the targets.
#
#   make setup PYTHON=/path/to/python3.12    build the environment with that Python

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# Without PYTHON=..., the first of these that is new enough; a name may exist and still not run.
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13 python3.14; do \
	if $$name -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then echo $$name; exit; fi; done; echo python3)

.PHONY: help setup check-python demo test test-wide test-slow style quality coverage

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1	/p' Makefile | expand -t 12

setup: $(STAMP)  ## build .venv with the tested versions of everything (again only if they change)

ifeq ($(origin PYTHON),command line)
# A Python that is named is looked at even if .venv stands already.
setup: check-python
endif

define CHECK_PYTHON
if ! command -v "$(PYTHON)" >/dev/null; then \
  echo "$(PYTHON) was not found, and hf_maskgit needs Python 3.11 or newer." \
    "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
elif ! "$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null; then \
  echo "hf_maskgit needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." \
    "Install a newer one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
elif ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
  echo "$(PYTHON) cannot build a virtual environment: its venv module is missing." \
    "On Debian and Ubuntu install it with: apt install python3-venv" >&2; exit 1; \
fi
endef

check-python:
	@$(CHECK_PYTHON)

# A .venv that works is kept, whoever made it. torch comes first and with its progress shown: it is
# most of the download. The rest says only what goes wrong.
$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -c 'import pip; $(NEW_ENOUGH)' 2>/dev/null || { $(CHECK_PYTHON); \
	  echo "Building $(VENV) with $(PYTHON); torch first, the largest download."; \
	  "$(PYTHON)" -m venv --clear $(VENV) && $(PIP) install -c constraints.txt torch; }
	@echo "Installing hf_maskgit and what its tests and demonstration need (a minute or two)."
	@$(PIP) install --quiet -c constraints.txt -e ".[dev,demo]"
	@touch $@
	@echo "Ready: $(VENV) with $$($(BIN)/python --version)."

demo: setup  ## train a small generator and fill masks with it
	@$(BIN)/python -m scripts.demo

# What is compiled is kept, whatever the environment says: every process that a test starts would
# compile all modules anew, and every process that runs tests all tests.
unexport PYTHONDONTWRITEBYTECODE

# A process begins with tests that stand together, and takes over others' last ones when it has none
# left: fixtures of a module are made once or twice. More than four processes spend their time
# importing torch.
PYTEST := $(BIN)/python -m pytest
EVERY_CORE := -n auto --maxprocesses=4 --dist worksteal
DEFAULT := "not slow and not wide"

test: setup  ## run the default tests (no network, no GPU)
	@$(PYTEST) -m $(DEFAULT) $(EVERY_CORE)

test-wide: setup  ## run the rest of the large grids, and what takes longer
	@$(PYTEST) -m "wide and not slow" $(EVERY_CORE)

test-slow: setup  ## run what takes long
	@$(PYTEST) -m slow

style: setup  ## format the code and repair what can be repaired
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

quality: setup  ## check style, docstrings and types; changes nothing
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

coverage: setup  ## run the default tests and list the lines they miss
	@$(PYTEST) -m $(DEFAULT) --cov --cov-report=term-missing
