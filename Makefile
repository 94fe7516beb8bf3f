# make app | test | lint | bench: each does all set-up by itself, once.

PYTHON := $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
ARGS ?=

# Bits change with the number of threads; and threads that wait by spinning make two jobs on two cores slow one
# another three times over (measured), so a test has one thread and the app's processes wait asleep.
TEST_THREADS ?= 1
TEST_PROCESSES ?= 2
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: app test lint format bench audit browser

app: $(VENV)/.installed
	@$(BIN)/python app.py $(ARGS)

test: $(VENV)/.installed-dev browser
	@OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

format: $(VENV)/.installed-dev
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks.loop_gain $(ARGS)

# Asks a public database about known faults of the pinned versions; the only target that needs a network each time.
audit: $(VENV)/.installed-dev
	@$(BIN)/pip-audit --requirement requirements-dev.txt --no-deps --disable-pip

# The browser tests drive the system's Chromium.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null 2>&1 && exit 0; \
	done; \
	echo "Installing Chromium for the browser tests."; \
	as_root=; [ "$$(id -u)" = 0 ] || as_root="sudo -n"; \
	{ $$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends chromium; } \
		</dev/null >/dev/null 2>&1 || { \
		echo "The browser tests need Chromium, which could not be installed here. Install it, then run make test again."; \
		exit 1; }

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed and was not found. Install it, then run make again."; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "Installing what the app needs (once)."
	@$(PIP) --requirement requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what the tests and checks need (once)."
	@$(PIP) --requirement requirements-dev.txt
	@touch $@
