# Everything a desk or CI does. `make` alone says what there is.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# What finds barriers in a page. Its rules change with its version.
AXE := .venv/axe/node_modules/axe-core/package.json

.PHONY: help demo test check lint format docs chaos compare thorough bench screenshots wheel-test clean

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

demo: $(BIN)/.runs ## run a catalog of 34 garments through the embedded sandbox: no key, no network
	$(BIN)/lamina-batch run pipelines/premium_catalog.yaml --sandbox

test: $(BIN)/.tests $(AXE) ## the tests
	$(BIN)/pytest -q -n 8 --dist worksteal

check: lint test ## lint, types and tests: what must be green before a commit

lint: $(BIN)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(BIN)/.tests ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(BIN)/.tests ## write the generated parts of docs/ again (schemas and commands)
	PYTHONPATH=tests $(BIN)/python -m docs.generated

chaos: $(BIN)/.tests ## kill -9 and faults of every kind, a few hundred runs: is anything bought twice, or lost? (SEEDS=n; SEED=n replays one)
	PYTHONPATH=tests $(BIN)/python -m chaos $(if $(SEED),--seed $(SEED) --times $(or $(TIMES),1),--seeds $(or $(SEEDS),60))

compare: $(BIN)/.tests ## run 200 generated catalogs with the git revision BASE and with this checkout: do they do the same? (CATALOGS=n SEED=n ONLY=name WORDS=1)
	PYTHONPATH=tests $(BIN)/python -m compare $(or $(BASE),$(error BASE=REVISION is missing)) $(if $(CATALOGS),--catalogs $(CATALOGS)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) $(if $(WORDS),--words)

thorough: $(BIN)/.tests ## twenty times as many examples of every property: before a release, or after a change of the ledger
	$(BIN)/pytest -q -n 2 --dist worksteal --timeout 7200 --hypothesis-profile=thorough tests/property tests/unit

bench: $(BIN)/.tests ## what takes minutes: speed as ratios, and real windows
	$(BIN)/pytest -q -s --timeout 900 -o 'norecursedirs=.*' tests/bench

screenshots: $(BIN)/.tests ## the pictures of docs/merchandisers.md, by the tests' browser and LibreOffice (Debian: chromium libreoffice-calc poppler-utils)
	PYTHONPATH=tests:tests/browser $(BIN)/python tests/browser/screenshots.py docs/images

wheel-test: $(BIN)/.tests ## build the wheel, install it alone, and run the end-to-end tests on it outside the checkout
	tests/wheel.sh $(BIN)/python

clean: ## remove what the above made
	rm -rf .venv build dist out .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(AXE):
	if command -v npm >/dev/null || test -n "$$CI"; then npm install --silent --no-audit --no-fund --prefix .venv/axe axe-core@4.14.1; else echo "without npm the test of the report with axe-core is skipped"; fi

$(BIN)/.runs: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lamina-batch needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(BIN)/.tests: $(BIN)/.runs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
