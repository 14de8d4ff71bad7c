# Everything runs in .venv, built from exact versions; `make install` does nothing when nothing changed.
PYTHON ?= python3.11
BIN := .venv/bin
PACKAGES := intentstream stream learner state monitor tests benchmarks examples

.PHONY: run test lint format install reference clean

run: install
	$(BIN)/intentstream run

test: install lint
	$(BIN)/pytest

lint: install
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/mypy

format: install
	$(BIN)/ruff format $(PACKAGES)
	$(BIN)/ruff check --fix $(PACKAGES)

reference: install
	$(BIN)/intentstream reference docs

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
