PYTHON ?= python3
OUT ?= examples/quickstart/out

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
KENLM := $(VENV)/.kenlm

.DEFAULT_GOAL := help
.PHONY: help test test-gpu quickstart lint tables clean

help:
	@echo "make test        style checks and all tests (installs what it needs into $(VENV))"
	@echo "make test-gpu    the Triton kernels on a GPU, where there is one"
	@echo "make quickstart  train, prune, evaluate and generate on CPU; results in OUT=$(OUT)"
	@echo "make lint        style checks only"
	@echo "make tables      rewrite the result tables of the READMEs from the JSON results"
	@echo "make clean       remove $(VENV), caches and the examples' output"
	@echo "With PYTHON=python3.11 $(VENV) is made of that one; 3.11 or newer"

# The constraints are the tested versions; what else pip might take is not known to work together.
$(INSTALLED): setup.py pyproject.toml constraints.txt $(wildcard fairseq_rnnprune/sparse/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --constraint constraints.txt --editable '.[fairseq,text,speech,plot,triton,test]'
	touch $@

# The one package that has to be compiled here: where it cannot be, its tests are skipped.
$(KENLM): $(INSTALLED)
	-$(RUN) -m pip install --constraint constraints.txt kenlm
	touch $@

# Many small tensors and several processes at once: more threads only get in each other's way.
test: export OMP_NUM_THREADS ?= 1
test: lint $(KENLM)
	$(RUN) -m pytest tests --numprocesses 2 --dist loadfile

# With another interpreter, such as one that has torch for ROCm: make test-gpu RUN=python
test-gpu: $(if $(filter $(VENV)/%,$(RUN)),$(INSTALLED))
	@PYTHONPATH=. $(RUN) tests/triton_parity.py

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

quickstart: $(INSTALLED)
	$(RUN) examples/quickstart/run.py --out $(OUT)

tables: $(INSTALLED)
	$(RUN) examples/tables.py

clean:
	rm -rf $(VENV) examples/*/out build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
