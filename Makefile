PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
TEST_ARGS ?=
# Processes that run tests at the same time; the tests of a file stay together, as they share what their fixtures make.
TEST_PROCESSES ?= 2
PYTEST := -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

PYTHONS ?= python3.10 python3.11 python3.12 python3.13
UPSTREAM := .venv-upstream

.PHONY: install demo test test-all test-faults test-upstream test-matrix $(PYTHONS:%=test-%) lint docs site clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt $(wildcard requirements/*.txt) setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo 'make install needs Python 3.10 to 3.13; name one with PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps -e .
	@touch $@

demo: install  ## train and compare the quickstart models
	$(BIN)/python tools/demo.py $(DEMO_ARGS)

test: install  ## the tests that take seconds each
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) $(TEST_ARGS)

test-all: install  ## the slow ones too, such as a step of every config
	OMP_NUM_THREADS=1 $(BIN)/python $(PYTEST) -m '' $(TEST_ARGS)

test-faults: install  ## kills, damaged files, wrong configs and bad data: writes docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python docs/reliability.py

test-upstream: $(UPSTREAM)/.installed  ## the tests and the demo on the upstream OpenMMLab packages; compiles mmcv
	OMP_NUM_THREADS=1 $(UPSTREAM)/bin/python $(PYTEST) $(TEST_ARGS)
	$(UPSTREAM)/bin/python tools/demo.py $(DEMO_ARGS)

# PyTorch and what compiles mmcv have to be there before mmcv.
$(UPSTREAM)/.installed: export PIP_CONSTRAINT := $(CURDIR)/requirements/constraints-upstream.txt
$(UPSTREAM)/.installed: $(wildcard requirements/*.txt) setup.py
	$(PYTHON) -m venv $(UPSTREAM)
	$(UPSTREAM)/bin/python -m pip install setuptools wheel ninja psutil torch torchvision
	$(UPSTREAM)/bin/python -m pip install --no-build-isolation mmcv
	$(UPSTREAM)/bin/python -m pip install $(foreach name,openmmlab runtime optional tests,-r requirements/$(name).txt)
	$(UPSTREAM)/bin/python -m pip install --no-deps --no-build-isolation -e .
	@touch $@

test-matrix: $(PYTHONS:%=test-%)  ## the tests with each Python of PYTHONS and the newest packages; make -j2 runs two at a time

$(PYTHONS:%=test-%): test-%:
	$(MAKE) test PYTHON=$* VENV=.venv-$*

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell && $(BIN)/mypy

docs: install  ## the pictures and tables in docs/ that scripts make
	$(BIN)/python docs/figures/sar_idea.py
	$(BIN)/python docs/figures/architecture.py
	$(BIN)/python docs/figures/reading_the_log.py
	$(BIN)/python docs/heads.py

# Not in requirements.txt: only this target, and the tests of the site, need it.
site: install  ## the documentation as a web site, build/site/index.html; a warning is an error
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements/docs.txt
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site

clean:
	rm -rf $(VENV) $(UPSTREAM) $(PYTHONS:%=.venv-%) build docs/configs *.egg-info
