# Everything a fresh clone needs: git, make and Python 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check bench crash simulate clean lock

demo: .venv/.made
	@$(BIN)/watchbill demo

# Many tests wait for what they started: five workers keep two cores busy.
test: .venv/.made
	$(BIN)/python -m pytest -q -n $(or $(WORKERS),$(shell $(PYTHON) -c "import os; print((os.cpu_count() or 2) * 5 // 2)")) $(PYTEST_ARGS)

check: .venv/.made
	$(BIN)/ruff format --check lib tests bin examples
	$(BIN)/ruff check lib tests bin examples
	$(BIN)/mypy

# Every boundary and no fewer, then N random kills and six hosts with fifty issues; what happened goes to REPORT.
crash: .venv/.made
	@mkdir -p dist
	WATCHBILL_CRASH_THOROUGH=1 $(BIN)/python -m pytest -q -n auto tests/crash tests/firing/test_stop.py tests/firing/test_github_limits.py tests/test_several_hosts.py
	$(BIN)/python tests/crash/chance.py --n $(or $(N),200) --seed $(or $(SEED),$(shell date +%s)) --report $(or $(REPORT),dist/crash-report.json)

bench: .venv/.made
	$(BIN)/python tests/bench/bench.py

# Caps under fire: N processes reserve, spend, overspend, are killed and settle; then two naive ways, and their overshoot.
.PHONY: caps
caps: .venv/.made
	@PYTHONPATH=tests $(BIN)/python -m caps --n $(or $(N),64) --seed $(or $(SEED),0) $(ARGS)

# Many schedules of a modelled fleet, on all cores: make simulate N=100000 [DEPTH=claims|whole] [SEED=0] [ABLATE=name]
simulate: .venv/.made
	@PYTHONPATH=tests $(BIN)/python -m simulation --n $(or $(N),1000) --depth $(or $(DEPTH),claims) --seed $(or $(SEED),0) --ablate "$(ABLATE)" $(ARGS)

# The environment, from locked and hashed packages only; the package itself is installed editable, without asking anybody.
.venv/.made: requirements.lock pyproject.toml
	@echo "setting up .venv (once) ..."
	@$(PYTHON) -c 'import sys; sys.exit("Watchbill needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# Needs the network; commit the result.
lock:
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --strip-extras \
		--output-file requirements.lock pyproject.toml requirements-dev.in

clean:
	rm -rf .venv dist
