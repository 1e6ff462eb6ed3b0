# `make quickstart` and `make test` need Python 3.10+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: quickstart test slow lowest lint tables docs checkpoints device-kit clean

# Installed again when the pins or the package's requirements change.
$(VENV)/installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

quickstart: $(VENV)/installed
	$(RUN) examples/quickstart.py

# A process for each core, each with one thread; one that has nothing left takes tests of another.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --maxprocesses 8 --dist worksteal

# Without network the tests of tests/conformance are skipped, which needs what the first line fetches.
slow: $(VENV)/installed
	-$(RUN) tests/conformance/fetch.py
	$(RUN) -m pytest -m slow

# The lowest versions that pyproject.toml promises, in an environment of their own, with the torch of .venv.
lowest: $(VENV)/installed
	$(RUN) tests/lowest_versions.py .venv-lowest --torch_of $(VENV)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Rewrites docs/results.md, and the tables of README.md, docs/ and model_cards/, from benchmarks/results.
tables: $(VENV)/installed
	$(RUN) benchmarks/device/tables.py
	$(RUN) benchmarks/results_page.py
	$(RUN) benchmarks/markdown_tables.py

# The pages of docs/ into docs/_build (Python 3.11 or later); any warning is an error.
docs: $(VENV)/installed
	$(RUN) -m sphinx -W --keep-going -q -b html docs docs/_build

# The checkpoints of docs/checkpoints.md into outputs/checkpoints, two hours of two cores; goes on where it was stopped.
checkpoints: $(VENV)/installed
	$(RUN) benchmarks/checkpoints.py

# What a GPU machine without network lacks, into .device-kit/ (benchmarks/device/README.md).
device-kit: $(VENV)/installed
	$(RUN) benchmarks/device/kit.py make

clean:
	rm -rf $(VENV) outputs docs/_build
