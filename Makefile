PYTHON ?= python3
BIN := .venv/bin
# The demo's size: 7 arms, and 8 seeds because Holm over 5 candidate arms can't reach 0.05 with fewer.
SEEDS ?= 8
DEMO_OUT ?= runs/demo

.PHONY: demo test bench docs clean

demo: .venv/runtime
	rm -rf $(DEMO_OUT)
	$(BIN)/motet compare digits-overlay --seeds $(SEEDS) --out $(DEMO_OUT) --report report.html

test: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/motet methods --markdown | diff docs/methods.md - || (echo "docs/methods.md is stale: run make docs" && exit 1)
	$(BIN)/pytest -n auto --dist loadfile

bench: .venv/dev
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/solvers.py
	$(BIN)/python benchmarks/fidelity.py
	for topic in overhead cost regroup memory noise recovery; do $(BIN)/python benchmarks/grouping.py $$topic; done
	$(BIN)/python benchmarks/optim.py

docs: .venv/dev
	$(BIN)/python -m motet.testing.conformance
	$(BIN)/motet methods --markdown > docs/methods.md

clean:
	rm -rf .venv runs report.html .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

.venv/runtime: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c "import sys; sys.exit(sys.version_info < (3, 11) and 'motet needs Python 3.11 or newer: make PYTHON=python3.11')"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/dev: .venv/runtime requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@
