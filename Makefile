# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN ?= runs/demo
THEORY ?= runs/theory
NUMBERS ?= runs/numbers
MEMORY ?= runs/memory
PYTEST_ARGS ?=

.PHONY: help setup demo theory memory test test-slow lint format gallery numbers check-numbers clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

setup: $(INSTALLED)  ## create .venv and install wtacrs with the pinned constraints

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); wtacrs needs Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "== creating $(VENV) and installing wtacrs with the pinned constraints"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,cluster,tensorboard,dev]'
	@touch $@
	@echo "== installed"

demo: $(INSTALLED)  ## fine-tune a small T5 exactly and with WTA-CRS, compare estimators, write runs/demo/report.html
	$(BIN)/wtacrs demo --out $(RUN)

theory: $(INSTALLED)  ## what is true and what only looks true: exact numbers and a figure for every claim
	$(BIN)/wtacrs theory --out $(THEORY)

test: $(INSTALLED)  ## the whole suite, except what is marked slow
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(PYTEST_ARGS)

test-slow: $(INSTALLED)  ## what is marked slow
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(INSTALLED)  ## ruff, mypy and the layers contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@mkdir -p build/types/wtacrs  # the folders under the name they are installed as, which mypy needs
	@for part in estimators validation figures integration; do ln -sfn ../../../$$part build/types/wtacrs/$$part; done
	$(BIN)/python -m mypy

format: $(INSTALLED)  ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gallery: demo theory  ## refresh the README's figures from the demo's run and the theory
	mkdir -p figures/gallery
	cp $(RUN)/training_curves.png $(RUN)/variance_budget.png $(RUN)/winner_sweep.png figures/gallery/
	cp $(THEORY)/theory_without-replacement.png $(THEORY)/theory_poisson.png $(THEORY)/theory_topk.png figures/gallery/

memory: $(INSTALLED)  ## memory, time and noise of a step, measured and simulated: runs/memory (an hour or two)
	$(BIN)/wtacrs study front --compiled --out $(MEMORY)/8x128
	$(BIN)/wtacrs study front --layers 1 --batch-size 64 --rounds 2 --out $(MEMORY)/64x128
	$(BIN)/wtacrs simulate --model t5-base --batch-size 64 --all-ways --out $(MEMORY)/t5-base
	$(BIN)/wtacrs simulate --model t5-base --batch-size 64 --target-length 8 --all-ways --out $(MEMORY)/t5-base-8
	$(BIN)/wtacrs simulate --model t5-base --batch-size 64 --precision bf16 --all-ways --out $(MEMORY)/t5-base-bf16
	$(BIN)/wtacrs simulate --model t5-large --batch-size 64 --all-ways --out $(MEMORY)/t5-large
	$(BIN)/wtacrs simulate --model t5-3b --batch-size 64 --all-ways --out $(MEMORY)/t5-3b

numbers: $(INSTALLED)  ## measure every number of the README's tables anew and write them there (an hour on one thread)
	PYTHONPATH=tests $(BIN)/python -m readme_numbers.measure --demo $(RUN) --out $(NUMBERS)

check-numbers: demo  ## run the demo afresh and compare it with the README's numbers
	PYTHONPATH=tests $(BIN)/python -m readme_numbers.check --demo $(RUN)

clean:  ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
