# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUN ?= runs/demo
THEORY ?= runs/theory
NUMBERS ?= runs/numbers
MEMORY ?= runs/memory
BENCH ?= runs/bench
# of `make bench-cuda`, on a machine that has torch and transformers but not this project
WHEELS ?= dist
DEVICE ?= cuda
CUDA ?= runs/bench-cuda
CUDA_BENCH ?= --rounds 21
PIP_PLATFORM ?=
SITE := $(CURDIR)/build/site
CARRIED := pydantic|pydantic_core|annotated-types|typing-inspection|beartype
PYTEST_ARGS ?=

.PHONY: help setup demo theory docs memory bench wheel bench-cuda test test-slow lint format gallery numbers check-numbers audit clean

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
	cp $(RUN)/comparison.png $(RUN)/training_curves.png $(RUN)/winner_sweep.png figures/gallery/
	cp $(THEORY)/theory_without-replacement.png $(THEORY)/theory_poisson.png $(THEORY)/theory_topk.png figures/gallery/

docs: $(INSTALLED)  ## the documentation site, strict: build/docs/index.html
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@mkdir -p build/types/wtacrs
	@for part in estimators validation figures integration; do ln -sfn ../../../$$part build/types/wtacrs/$$part; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "== built build/docs/index.html"

memory: $(INSTALLED)  ## memory, time and noise of a step, measured and simulated: runs/memory (an hour or two)
	$(BIN)/wtacrs study front --compiled --out $(MEMORY)/8x128
	$(BIN)/wtacrs study front --layers 1 --batch-size 64 --rounds 2 --out $(MEMORY)/64x128
	$(BIN)/wtacrs simulate --model t5-base --batch-size 64 --all-ways --out $(MEMORY)/t5-base
	$(BIN)/wtacrs simulate --model t5-base --batch-size 64 --target-length 8 --all-ways --out $(MEMORY)/t5-base-8
	$(BIN)/wtacrs simulate --model t5-base --batch-size 64 --precision bf16 --all-ways --out $(MEMORY)/t5-base-bf16
	$(BIN)/wtacrs simulate --model t5-large --batch-size 64 --all-ways --out $(MEMORY)/t5-large
	$(BIN)/wtacrs simulate --model t5-3b --batch-size 64 --all-ways --out $(MEMORY)/t5-3b

bench: $(INSTALLED)  ## time, bytes and variance of estimators, and of a whole step, on the CPU: runs/bench (some minutes)
	$(BIN)/wtacrs bench --step --lean attention,head --out $(BENCH)

wheel: $(INSTALLED)  ## our wheel, and what it needs beside torch and transformers, to dist/; PIP_PLATFORM for another machine
	rm -rf build/lib build/bdist*
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEELS) .
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: $(PIP_PLATFORM) --dest $(WHEELS) \
		$$(grep -E '^($(CARRIED))==' constraints.txt)

# every part runs, whatever became of those before it; make fails if one has
bench-cuda:  ## what a machine with a GPU is for, without network, from dist/: CUDA tests, benchmark, memory: runs/bench-cuda
	rm -rf $(SITE)
	$(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --target $(SITE) $(WHEELS)/*.whl
	@export PYTHONPATH=$(SITE); wtacrs="$(PYTHON) -m wtacrs.integration.cli"; failed=; \
	$(PYTHON) -m pytest -m cuda -p no:cacheprovider $$(grep -rl --include='test_*.py' 'mark\.cuda' tests) \
		|| failed="$$failed tests"; \
	$$wtacrs bench --device $(DEVICE) --dtype bf16 --step --lean attention,head $(CUDA_BENCH) --out $(CUDA)/bf16 || failed="$$failed bf16"; \
	$$wtacrs bench --device $(DEVICE) --dtype fp32 $(CUDA_BENCH) --out $(CUDA)/fp32 || failed="$$failed fp32"; \
	$$wtacrs bench --device $(DEVICE) --dtype bf16 --estimator 'systematic(budget=0.3)' --estimator 'systematic(budget=0.3, kernels="triton")' $(CUDA_BENCH) --out $(CUDA)/row-kernels || failed="$$failed row-kernels"; \
	$$wtacrs memory --device $(DEVICE) --estimator 'wta_crs(budget=0.3)' --estimator 'dithered_rows(slots=2.0)' --lean attention,head --out $(CUDA)/memory || failed="$$failed memory"; \
	test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

numbers: $(INSTALLED)  ## measure every number of the README's tables anew and write them there (an hour on one thread)
	PYTHONPATH=tests $(BIN)/python -m readme_numbers.measure --demo $(RUN) --out $(NUMBERS)

check-numbers: demo  ## run the demo afresh and compare it with the README's numbers
	PYTHONPATH=tests $(BIN)/python -m readme_numbers.check --demo $(RUN)

audit: $(INSTALLED)  ## how often wtacrs check finds every kind of defect, and raises an alarm: docs/audit.md (half an hour)
	PYTHONPATH=tests $(BIN)/python -m published_defects.audit

clean:  ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
