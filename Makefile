PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
TEST_ARGS ?=

.PHONY: install demo test test-all lint docs clean

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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TEST_ARGS)

test-all: install  ## the slow ones too, such as a step of every config
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m '' $(TEST_ARGS)

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/codespell

docs: install  ## the pictures and tables in docs/ that scripts make
	$(BIN)/python docs/figures/sar_idea.py
	$(BIN)/python docs/heads.py

clean:
	rm -rf $(VENV) build *.egg-info
