# longtail-bench: `make quick` shows what it does, `make test` checks it.
PYTHON ?= python3
BIN := .venv/bin
RECIPE ?= quick
OUT ?= build/gpu/out
MINUTES ?= 9
# What touches the packages that change most: pandas, pydantic, typer, rich, jinja2, timm (whose newest families
# are left out).
LOWEST := test_api test_backbones cli/test_cli cli/test_report_commands test_ledger leaderboard/test_leaderboard metrics/test_metrics \
  recipe/test_recipe recipe/test_recipe_errors report/test_report test_published test_records

.PHONY: help quick test lint format type unit slow slurm lowest gpu bench report docs clean

help:            ## list the targets
	@grep -E '^[a-z]+: *.*##' Makefile | sed -E 's/: *[^#]*## */\t/' | expand -t 12

quick: .venv/ok  ## train the quick recipe (real digits, no download) and write its report
	$(BIN)/python run_bench.py run $(RECIPE)

test: lint type unit  ## lint, types and tests

lint: .venv/ok   ## ruff, check only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/ok ## ruff, mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: .venv/ok   ## mypy
	$(BIN)/mypy

unit: .venv/ok   ## pytest on all cores, without what takes minutes
	$(BIN)/python -m pytest -n auto -m "not slurm and not slow"

slow: .venv/ok   ## the tests that take minutes or much memory: every family of timm's models
	$(BIN)/python -m pytest -m slow

slurm: .venv/ok  ## the tests on a Slurm of their own, which root can bring up where it is installed
	$(BIN)/python -m pytest -m slurm -rs

lowest:          ## tests with the lowest version of each dependency that pyproject.toml allows, in build/lowest
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e ".[tensorboard]" pytest hypothesis matplotlib
	build/lowest/bin/python -m pytest -k "not family" $(LOWEST:%=tests/%.py)

bench: .venv/ok  ## measure speed; prints tables, writes benchmarks/results/
	for name in augment throughput grid scale; do $(BIN)/python benchmarks/$$name.py || exit 1; done

gpu: .venv/ok    ## all that wants a GPU, in MINUTES (9), into OUT; TINY=1 rehearses it on a CPU
	PYTHONPATH=. $(BIN)/python benchmarks/gpu.py $(OUT) --minutes $(MINUTES) $(if $(TINY),--tiny --recipe quick --only label=ce)

report: .venv/ok ## render every page in reports/ from results/
	$(BIN)/python run_bench.py report

docs: .venv/ok   ## build the documentation site, with the leaderboard, in build/site
	$(BIN)/mkdocs build --strict
	$(BIN)/python run_bench.py report --reports build/site/reports

clean:           ## remove the environment and caches; results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info

.venv/ok: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	touch $@
