# Every target sets up what it needs: the first one makes .venv and installs the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo pacs test check format serve bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo [SERVE=1]        the whole annotator loop on made-up studies; SERVE=1 leaves the server up"
	@echo "make pacs                  Orthanc with made-up studies, the server beside it, for OHIF and 3D Slicer"
	@echo "make serve STUDIES=folder  the MONAI Label server on a folder of studies (or a DICOMweb URL)"
	@echo "make test                  all tests, with the real server"
	@echo "make check                 lint, format, types, import rules"
	@echo "make bench                 speed, as ratios against the plain way"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "fewshot needs Python 3.11 or 3.12: make PYTHON=python3.11 ...")'
	@echo "Installing the tested versions into $(VENV); this takes a few minutes once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[server,pretrain,test,check]'
	@touch $@

setup: $(READY)

demo: $(READY)
	$(BIN)/fewshot demo $(if $(SERVE),--serve)

pacs: $(READY)
	$(BIN)/fewshot demo --dicom --by-hand

serve: $(READY)
	@test -n "$(STUDIES)" || { echo "Say which studies: make serve STUDIES=folder"; exit 2; }
	$(BIN)/fewshot serve "$(STUDIES)"

test: $(READY)
	$(BIN)/python -m pytest --numprocesses=logical --maxprocesses=4

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo-output build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
