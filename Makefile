# make venv sets up .venv; every other target does so first where it is needed.
.DEFAULT_GOAL := help
.PHONY: help venv system-libraries demo test lint benchmark benchmark-quick results ratios fuzz mutate docs release-check clean

BIN := .venv/bin
ARGS ?=
WORKERS ?= 2
RUNS ?= 2000
OMP_NUM_THREADS ?= 2
export OMP_NUM_THREADS

# Windows in the tests are drawn on a virtual display, which leaves yours alone and looks the same everywhere.
ifeq ($(shell uname -s),Linux)
ON_DISPLAY := env -u WAYLAND_DISPLAY QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1400x900x24 +extension GLX"
endif

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.stamp: pyproject.toml constraints.txt scripts/setup_venv.sh
	scripts/setup_venv.sh

venv: .venv/.stamp ## Make .venv with everything installed (PYTHON=python3.12 chooses the interpreter)

system-libraries: ## Install or name the system libraries that windows need (Linux)
	@scripts/system_libraries.sh

demo: venv system-libraries ## Simulated particles, from training to a map, in napari; writes demo-output
	$(BIN)/napari-cryosphere demo --output demo-output $(ARGS)

test: venv system-libraries ## Run the tests in two processes (ARGS="-k fsc" passes options to pytest, WORKERS=0 runs them in one)
	OMP_NUM_THREADS=1 $(ON_DISPLAY) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: venv ## Check style, types and which package imports which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: venv system-libraries ## Run every side-by-side comparison (hours) and write docs/benchmarks.md (ARGS=--quick: less)
	$(ON_DISPLAY) $(BIN)/python benchmarks/run_all.py $(ARGS)

benchmark-quick: venv ## Run the shortest of them, to see that they work; writes build/benchmarks.md
	$(BIN)/python benchmarks/run_all.py --short --output build/benchmarks.md

results: venv ## Write the README's results and the figures from docs/results
	$(BIN)/python scripts/results.py

ratios: venv ## Ratios of CPU time to other programs (ARGS="--against FILE" fails where one has fallen by 15 %)
	$(BIN)/python benchmarks/ratios.py $(ARGS)

fuzz: venv ## Fuzz the readers of particles and maps for about a minute (Linux)
	$(BIN)/pip install --quiet -c constraints.txt -e ".[fuzz]"
	for kind in star values mrc; do $(BIN)/python fuzz/readers.py $$kind --seeds tests/data --runs $(RUNS) --output build/fuzz; done

mutate: venv ## Put small faults into packages and see whether their tests notice (ARGS="so3 imaging --seed 1")
	$(BIN)/python scripts/mutate $(ARGS)

docs: venv ## Build the documentation into build/site (a warning is an error) and check the top level's links
	$(BIN)/python scripts/check_docs.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

release-check: venv ## Build wheel and sdist, check them, and install them into empty environments
	scripts/check_release.sh
	scripts/check_install.sh

clean: ## Remove .venv, caches and built files (demo-output and runs stay)
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
