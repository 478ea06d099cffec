# Every target needs only python3 (3.11 or newer) and make; it builds .venv itself.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Compiled modules are kept: without them each process that a test starts takes a second longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo run test test-quick test-pythons servers browser bench shape lint format lock clean

help:
	@echo "make install  build .venv and install the commands receiver, submitter and sandbox in it;"
	@echo "            then type: . .venv/bin/activate (make demo, run and test install them too)"
	@echo "make demo   set everything up, then run the main job against the sandbox (KEEP=1 leaves it running;"
	@echo "            DATABASE_URL=postgresql://... uses that database, DATABASE=postgres a server of its own)"
	@echo "make test   set everything up, then run every test (ARGS=\"-k word\" passes options to pytest;"
	@echo "            BUSY=8 keeps the CPU busy with eight loops meanwhile)"
	@echo "make test-quick    the unit and contract tests on SQLite only"
	@echo "make test-pythons  the quick tests on each other supported Python that is found"
	@echo "make run    migrate, then serve: web, worker and poller, until Ctrl-C"
	@echo "            (BIND=127.0.0.1:8001 listens there instead of at 127.0.0.1:8000)"
	@echo "make bench  measure us beside others, within 10 minutes (BENCH_FULL=1: 60); WRITE=1 keeps the tables"
	@echo "make shape  check the limits on the code: files and functions per callback and delivery, class"
	@echo "            names, import cycles, lines (CALLS=1 lists the functions)"
	@echo "make lint   ruff, mypy, import contracts"
	@echo "make lock   compile requirements*.txt from pyproject.toml (EXTRAS=\"postgres s3 apprise\" adds those)"

# A database is used only if it is named on this command line, so that the demo never uses a real record.
DEMO := $(BIN)/python -m sandbox demo $(if $(KEEP),--keep)
ifeq ($(DATABASE),postgres)
demo: $(VENV)/.dev
	@$(BIN)/python -m tests.support.postgres_server $(DEMO) --database-url
else ifeq ($(origin DATABASE_URL),command line)
demo: $(VENV)/.runtime
	@$(DEMO) --database-url '$(DATABASE_URL)'
else
demo: $(VENV)/.runtime
	@$(DEMO)
endif

install: $(VENV)/.runtime
	@echo "make: installed; in each terminal, type: . $(BIN)/activate"

run: $(VENV)/.runtime
	@$(BIN)/python -m receiver migrate
	@exec $(BIN)/python -m receiver serve $(if $(BIND),--bind '$(BIND)')

# The tests run in several processes, because most of them spend most of their time waiting.
PYTEST := $(if $(BUSY),$(BIN)/python -m tests.support.busy $(BUSY) )$(BIN)/python -m pytest --processes auto
test: $(VENV)/.dev servers browser
	@$(PYTEST) $(ARGS)

test-quick: $(VENV)/.dev
	@$(PYTEST) --without-postgres tests/contract tests/unit $(ARGS)

# The quick tests on each other Python that is found; each has a virtual environment of its own. Their
# packages are installed side by side. This project is not, because that writes into the checkout.
test-pythons: $(VENV)/.dev
	@pythons="$$($(BIN)/python -m tests.support.interpreters)" || exit 1; \
	set -- $$pythons; while [ $$# -gt 0 ]; do \
	  $(MAKE) --no-print-directory .venv/python$$1/.packages PYTHON="$$2" VENV=.venv/python$$1 & \
	  shift 2; done; wait; \
	set -- $$pythons; while [ $$# -gt 0 ]; do \
	  echo "make: the quick tests on Python $$1"; \
	  $(MAKE) --no-print-directory test-quick PYTHON="$$2" VENV=.venv/python$$1 || exit 1; \
	  shift 2; done

# The programs that tests need: from the PATH, otherwise from Debian's packages, which are unpacked
# below .venv/debian and not installed. The clients of the providers' APIs come from the package
# indexes into .venv/vendors. If a program or client is unavailable, its tests are skipped.
SERVERS := nginx caddy promtool redis-server rabbitmq-server pgbouncer
servers: $(VENV)/.dev
	@$(BIN)/python -m tests.support.vendor_clients & \
	$(BIN)/python -m tests.support.programs $(SERVERS); wait

browser: $(VENV)/.dev
	@$(BIN)/python -m tests.support.programs chromium

bench: $(VENV)/.dev
	@$(BIN)/python -m bench $(if $(WRITE),--write)

shape: $(VENV)/.dev
	@$(BIN)/python -m tests.support.shape $(if $(CALLS),--calls)

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --config pyproject.toml

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# No index and no host may enter the lock files: they are read by hosts with indexes of their own.
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
  --no-header --python-version 3.11 --upgrade
EXTRAS := postgres
lock: $(VENV)/.dev
	$(LOCK) $(EXTRAS:%=--extra %) --group build --output-file requirements.txt pyproject.toml
	$(LOCK) --group dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: this python3 has no venv module; install it with: apt-get install python3-venv"; exit 1; }
	@echo "make: building $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)

# The project itself is also installed, so that `receiver`, `submitter` and `sandbox` are commands.
$(VENV)/.runtime: requirements.txt pyproject.toml | $(VENV)/bin/python
	@echo "make: installing the locked packages of requirements.txt, and this project"
	@$(PIP) install --require-hashes -r requirements.txt
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "make: for the commands receiver, submitter and sandbox, type: . $(BIN)/activate"

# Most of these modules are never imported, so they are compiled at their first import.
INSTALL_DEV = $(PIP) install --no-compile --require-hashes -r requirements-dev.txt

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@echo "make: installing the locked packages of requirements-dev.txt"
	@$(INSTALL_DEV)
	@touch $@

$(VENV)/.packages: requirements-dev.txt | $(VENV)/bin/python
	@echo "make: installing the locked packages of requirements-dev.txt in $(VENV)"
	@$(INSTALL_DEV)
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
