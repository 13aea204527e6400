# Every target sets itself up: from a bare clone, `make train` and `make test` need Python 3.11-3.13 and PyPI, no more.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c 'import sys; sys.exit(not (3,11)<=sys.version_info[:2]<(3,14))' 2>/dev/null && echo $$p && break; done)
ARGS ?= experiment=quickstart
BIN := .venv/bin

.PHONY: train test bench bench-check notebooks lock clean
train: .venv/.ready
	@$(BIN)/python -m src.train $(ARGS)

test: .venv/.ready
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

bench: .venv/.ready
	@$(BIN)/python -m bench.all

bench-check: .venv/.ready
	@$(BIN)/python -m bench.check

# Fills the notebooks with the figures of the newest runs and sweep under runs/, or of those that CROSSRANK_* name.
notebooks: .venv/.ready
	@$(BIN)/python -m notebooks.execute $(NAMES)

# The stamp is written last: an install that failed or was interrupted leaves none, and the next call starts afresh.
.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and none was found on PATH; name one with PYTHON=..."; exit 1; }
	@rm -f $@
	@$(BIN)/python -c 'import sys; sys.exit(not (3,11)<=sys.version_info[:2]<(3,14))' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1 \
	  || { echo "creating .venv"; rm -rf .venv; $(PYTHON) -m venv .venv; }
	@echo "installing from pyproject.toml with constraints.txt (about 2 minutes the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip check -q --disable-pip-version-check
	@$(BIN)/python -c 'import torch, lightning, transformers, crossrank'
	@touch $@

# Regenerates constraints.txt from an environment that passed `make test`.
lock: .venv/.ready
	@$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check | sed -e 's/+cpu$$//' -e 's/+cu[0-9]*$$//' > constraints.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
