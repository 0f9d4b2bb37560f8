PYTHON ?= python3
BIN := .venv/bin
RUN := runs/digits
# One OpenMP thread a process: two processes with two spinning threads each on two cores run 50 times slower.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: help demo test check format reports install clean

help:
	@echo "make demo    environment, install, a real search on real data, report, chosen config applied"
	@echo "make test    environment, install, all checks and tests"
	@echo "make check   the checks without the tests"
	@echo "make format  put the code into shape"
	@echo "make reports render the reference reports anew from their records"

install: .venv/.installed

# torch first and alone, pinned to its CPU build by constraints.txt; everything else then finds it satisfied.
.venv/.installed: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[examples,dev]"
	touch $@

demo: install
	$(BIN)/autoprune search autoprune/examples/digits.yaml -o $(RUN)
	$(BIN)/autoprune select $(RUN) --max accuracy_drop=0.02 --minimize latency_ms -o $(RUN)/config.yaml
	$(BIN)/autoprune apply $(RUN)/config.yaml --task autoprune.examples.digits:task -o $(RUN)/pruned.safetensors
	@echo "Open $(RUN)/report/index.html in a browser."

check: install
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

reports: install
	$(BIN)/python tests/results/make_golden.py --schema
	for records in reports/*/records.jsonl; do $(BIN)/autoprune report $$(dirname $$records) || exit 1; done

clean:
	rm -rf .venv runs dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
