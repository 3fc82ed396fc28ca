# make demo   sets everything up and shows a Python node and a BEAM watching each other
# make test   sets everything up and runs all tests; OTP="25 29" on these only (default: 25 27 28 29)
#
# Neither needs root, and neither changes anything outside this folder but the user's cache (~/.cache/zenmon-node).
# Settings: PYTHON=python3.13 (to make the virtual environment with), VENV=folder, OTP="25 29", JOBS=2,
# ZENMON_COMPILE=0 (never compile) or 1 (compile or fail), PYTEST_ARGS="-k name".

SHELL := /bin/sh
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

VENV ?= .venv
PYTHON ?=
OTP ?= 25 27 28 29
# Test processes: three for two processors, since tests beside a BEAM wait about half of the time.
JOBS ?= $(shell echo $$(( ($$(nproc 2>/dev/null || echo 2) * 3 + 1) / 2 )))
PYTEST_ARGS ?=

comma := ,
RELEASES := $(subst $(comma), ,$(OTP))
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMPS := $(VENV)/.make
SOURCES := pyproject.toml hatch_build.py $(shell find src -name '*.py' -o -name '*.c' -o -name py.typed)
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# The two builds under test: the source tree, interpreted, and what is installed, compiled where there is a compiler.
PURE := PYTHONPATH=src ZENMON_BUILD=pure
INSTALLED := env -u PYTHONPATH ZENMON_BUILD=installed
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadgroup
UNIT := tests --ignore tests/interop --ignore tests/realworld

export ZENMON_OTPS := $(RELEASES)
# Compiled modules are kept while their sources stay the same (hatch_build.py).
export ZENMON_COMPILE_CACHE := $(abspath $(VENV))/.make/compiled

.PHONY: help
help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

# ------------------------------------------------------------------------------------------------------------- set-up
$(STAMPS)/venv:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(tools/find_python.sh) && \
	echo "virtual environment: $(VENV), $$($$python --version)" && $$python -m venv "$(VENV)" && mkdir -p $(STAMPS) && touch $@

# The package alone, for `make demo`. An environment made for the tests has it too.
$(STAMPS)/package: $(STAMPS)/venv $(SOURCES)
	@echo "installing zenmon-node"
	@if [ -f $(STAMPS)/tests ]; then $(PIP) '.[test]' && touch $(STAMPS)/tests; else $(PIP) .; fi
	@$(PY) tools/describe_build.py || true
	@touch $@

$(STAMPS)/tests: $(STAMPS)/venv $(SOURCES)
	@echo "installing zenmon-node and what its tests need"
	@$(PIP) '.[test]'
	@$(PY) tools/describe_build.py
	@touch $(STAMPS)/package $@

# What draws the plots, besides.
$(STAMPS)/bench: $(STAMPS)/tests
	@$(PIP) '.[bench]'
	@touch $@

.PHONY: venv otp realworld fixtures
venv: $(STAMPS)/tests

# OTP 25 compiles the fixtures; OTP 28 comes without ssl, and runs with OTP 27's.
otp: $(STAMPS)/tests
	@$(PY) tools/get_otp.py $(sort 25 $(RELEASES) $(if $(filter 28,$(RELEASES)),27))

# What tests/realworld runs with OTP 25: RabbitMQ, Elixir and Erlang's observer, as Debian ships them.
realworld: otp
	@$(PY) tools/get_otp.py --realworld >/dev/null

fixtures: otp
	@$(PY) tools/build_fixtures.py >/dev/null

# --------------------------------------------------------------------------------------------------------------- demo
# Any BEAM will do. Where there is none, OTP 28's is fetched, or Debian's; without one a second Python node steps in.
.PHONY: demo
demo: $(STAMPS)/package
	@$(PY) -c 'from erlang_interop.testing.beam import find_erlang as f; raise SystemExit(f() is None)' \
	|| $(PY) tools/get_otp.py 28 || $(PY) tools/get_otp.py 27 || echo "no Erlang here: the demo uses a second Python node"
	@$(BIN)/zenmon-node demo

# -------------------------------------------------------------------------------------------------------------- tests
.PHONY: test lint types imports unit unit-pure unit-installed interop rules bench golden
test: lint types imports unit-pure fixtures realworld
	$(INSTALLED) $(PYTEST) $(PYTEST_ARGS) --rules-check docs/rules.md tests

lint: $(STAMPS)/tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/tests
	$(BIN)/mypy

imports: $(STAMPS)/tests
	PYTHONPATH=src $(BIN)/lint-imports --no-logo

unit: unit-pure unit-installed

unit-pure: $(STAMPS)/tests
	$(PURE) $(PYTEST) $(PYTEST_ARGS) $(UNIT)

unit-installed: $(STAMPS)/tests
	$(INSTALLED) $(PYTEST) $(PYTEST_ARGS) $(UNIT)

interop: fixtures
	$(INSTALLED) $(PYTEST) $(PYTEST_ARGS) tests/interop

# Which rule of the protocol holds on which OTP, from the results of the tests that show it. Needs all four.
rules: fixtures
	$(INSTALLED) $(PYTEST) $(PYTEST_ARGS) -m rule --rules-table docs/rules.md tests

# ---------------------------------------------------------------------------------------------------------- the rest
# Monitors between BEAMs and nodes of ours, and everything that may happen to them, for so many seconds on each OTP:
# SECONDS=3600; SEED=7 plays that seed again, without it each run is another one; SCRIPT=file plays what a failure left.
SECONDS ?= 600
ifndef SEED
SEED := $(shell od -An -N3 -tu4 /dev/urandom | tr -d ' ')
endif
SCRIPT ?=
.PHONY: soak
soak: fixtures
	@echo "seed $(SEED)"
	$(INSTALLED) $(PYTEST) -rP $(PYTEST_ARGS) tests/interop/test_zenmon_soak.py --soak-seconds $(SECONDS) \
		$(if $(SCRIPT),--soak-script $(SCRIPT),--soak-seed $(SEED))

# The C core under AddressSanitizer against its reference in Python, for so many seconds; SEED=7 plays that seed again.
.PHONY: fuzz
fuzz: $(STAMPS)/tests
	ZENMON_FUZZ_SECONDS=$(SECONDS) ZENMON_FUZZ_SEED=$(SEED) $(PURE) $(PY) -m pytest -rP $(PYTEST_ARGS) tests/unit/test_core.py

# Golden terms are made by each OTP's own term_to_binary, and committed.
golden: fixtures
	$(INSTALLED) $(PY) tools/make_golden.py $(RELEASES)

# The same load on a BEAM and on this node, as installed and interpreted, and on the libraries that come with Erlang.
# ROUNDS=1 for a quick look; BUILD=installed or pure (interpreted) alone; PEERS= without libei and JInterface; WRITE=1
# writes docs/benchmarks.md and docs/benchmarks.json; BENCH_ARGS="--groups zen_proxy,zen_local" measures ZenMonitor alone,
# "--groups calls_in --seconds 2" calls for longer, --render writes the page anew from the figures that are there.
ROUNDS ?= 5
BUILD ?= both
PEERS ?= libei jinterface
BENCH_ARGS ?=
bench: fixtures $(STAMPS)/bench
	$(if $(filter pure,$(BUILD)),$(PURE),$(INSTALLED)) $(PY) -m benchmarks --rounds $(ROUNDS) --build $(BUILD) \
		--peers "$(subst $() ,$(comma),$(strip $(subst $(comma), ,$(PEERS))))" $(if $(WRITE),--write) $(BENCH_ARGS)

# The ratios to a BEAM, measured again and compared with docs/benchmarks.json: names what fell by more than 15 %, and fails
# if anything did. CHECK_ARGS="--groups casts_in,calls_in" compares these alone.
CHECK_ARGS ?=
.PHONY: bench-check growth
bench-check: fixtures
	$(INSTALLED) $(PY) -m benchmarks.check --rounds $(ROUNDS) $(CHECK_ARGS)

# What messages and entries cost with very many connections, monitors, processes, names, links, ...; WRITE=1 writes
# docs/growth.md. GROWTH_ARGS="--messages connections --items names,links" measures these alone.
GROWTH_ARGS ?=
growth: $(STAMPS)/bench
	$(INSTALLED) $(PY) -m benchmarks.growth $(if $(WRITE),--write) $(GROWTH_ARGS)

# A million monitors and a million subscriptions in one node of ours. MONITORS=20000 NODES=2 for a quick look;
# WRITE=1 writes docs/scale.md.
MONITORS ?= 1000000
NODES ?= 4
SCALE_ARGS ?=
.PHONY: scale
scale: fixtures
	$(INSTALLED) $(PY) -m benchmarks.scale --otp $(firstword $(RELEASES)) --monitors $(MONITORS) --nodes $(NODES) \
		$(if $(WRITE),--write) $(SCALE_ARGS)

# Clusters of BEAMs of several OTPs and nodes of ours, in which nodes and links fail. SEED=7 plays that seed again; WRITE=1
# writes docs/partitions.md. PARTITIONS_ARGS="--clusters 0 --modes beam,full --scenarios 'kill beam,cut beams'" is quick.
PARTITIONS_ARGS ?=
.PHONY: partitions
partitions: fixtures
	@echo "seed $(SEED)"
	$(INSTALLED) $(PY) -m benchmarks.partitions --seed $(SEED) $(if $(WRITE),--write) $(PARTITIONS_ARGS)

# Both wheels into dist/, compiled for this platform and pure for any. Each is installed into a fresh environment, and two
# nodes of it talk to each other.
.PHONY: wheel
wheel: $(STAMPS)/venv
	rm -f dist/zenmon_node-*.whl
	ZENMON_COMPILE=0 $(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PY) tools/check_wheel.py dist/zenmon_node-*-none-any.whl interpreted
	ZENMON_COMPILE=1 $(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PY) tools/check_wheel.py dist/zenmon_node-*-cp*.whl compiled

.PHONY: clean
clean:
	rm -rf $(VENV) build dist rebar_fixtures/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
