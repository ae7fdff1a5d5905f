# make run | make test: from a fresh clone, with Python >= 3.11 and a package index, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

.PHONY: run test leaderboards soak fuzz paper-scale bench help

help:
	@echo "make run           set up .venv, run the quick suite, show the leaderboards"
	@echo "make test          set up .venv, run all tests"
	@echo "make leaderboards  render leaderboards/ again from the records committed there"
	@echo "make soak          kill runs at random moments, over and over"
	@echo "make fuzz          damaged records, tasks and settings by the thousand"
	@echo "make paper-scale   a few steps of every paper task at its true architecture (long, 20 GB of memory)"
	@echo "make bench         speed, as ratios against stated alternatives"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; name another: make PYTHON=/path/to/python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $(READY)

run: $(READY)
	$(BIN)/fipbench run all --results results
	$(BIN)/fipbench leaderboard --results results --out results/leaderboards --format md,csv,html
	@echo "leaderboards: $(CURDIR)/results/leaderboards"

test: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

leaderboards: $(READY)
	$(BIN)/python leaderboards/refresh.py

soak: $(READY)
	FIPBENCH_SOAK=60 $(BIN)/python -m pytest -s tests/faults/test_kills.py tests/faults/test_concurrent_runs.py

fuzz: $(READY)
	FIPBENCH_FUZZ=2000 $(BIN)/python -m pytest -s tests/faults/test_fuzz_records.py tests/faults/test_fuzz_tasks.py

paper-scale: $(READY)
	$(BIN)/python -m benchmarks.paper_scale

bench: $(READY)
	$(BIN)/python -m benchmarks
