# Each target makes .venv if it is missing and runs on a fresh machine with Python >= 3.10.
PYTHON ?= python3
BIN := .venv/bin
export OMP_WAIT_POLICY := PASSIVE

BENCHMARKS := $(filter-out benchmarks/gpu.py benchmarks/faults.py benchmarks/_%,$(wildcard benchmarks/*.py))
PARALLEL := -n auto --dist=loadgroup --no-loadscope-reorder

# Documents with tables of scores, which are made from results/*/*.json.
SCORED := README.md docs/reality_check.md

.PHONY: demo test tests check fast bench docs tables

demo: .venv/installed
	$(BIN)/dmlray demo

# Types take one core for a while, beside which the tests run.
test: .venv/installed
	$(MAKE) --no-print-directory --jobs 2 check tests

tests: .venv/installed
	$(BIN)/python -m pytest $(PARALLEL)

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fast: .venv/installed
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

docs: .venv/installed
	$(BIN)/python -m dmlray.reporting.settings_reference docs/settings.md

tables: .venv/installed
	$(BIN)/python -m dmlray.reporting.score_tables $(SCORED)

bench: .venv/installed
	@failed=; for script in $(BENCHMARKS); do \
		echo "== $$script"; begun=$$(date +%s); \
		$(BIN)/python $$script || failed="$$failed $$script"; \
		echo "$$script took $$(($$(date +%s) - begun)) s"; \
	done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

.venv/installed: pyproject.toml setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@
