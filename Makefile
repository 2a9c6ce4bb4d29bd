# Each target sets up what it needs: Python and make are enough.
#
#   make demo     the example shop sends its emails through a local Truncus
#   make test     all tests, on this Python and the newest Django for it
#   make check    style, types and import rules
#   make chaos    workers killed at random, thousands of emails, all books compared
#   make bench    this package beside its peers, same work, one run
#   make docs     the documentation as a site in build/docs, and every snippet in it tried
#
# PYTHON chooses the interpreter: make test PYTHON=python3.13

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
ARGS ?=
REQUIRE_DATABASES ?=
# How many tests run at a time; JOBS=0 for a debugger.
JOBS ?= 3
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal
# Which tests run on which database; "none" leaves a server out. Those that start processes and kill
# them take most of the time: make test ON_POSTGRESQL= runs them there, too.
ON_DATABASES = tests/admin tests/db tests/forget tests/log tests/metrics tests/outbox tests/quota tests/telemetry \
	tests/test_benchmarks.py
ON_SQLITE ?=
ON_POSTGRESQL ?= not processes
ON_MARIADB ?= not processes

.DEFAULT_GOAL := help
.PHONY: help demo admin emulator test test-sqlite test-databases test-browser check package format chaos chaos-kills chaos-pace bench docs site coverage clean

help:
	@sed -n '3,8p' Makefile | cut -c3-
	@echo '  make admin    serves the log that the demo has filled, in the Django admin'
	@echo '  make emulator a local Truncus on port 8025, with an inbox to look at'
	@echo '  make package  builds sdist and wheel, and looks at them as users get them'
	@echo '  make site, make coverage, make format, make clean'

demo: $(VENV)/.emulator
	$(BIN)/python example_project/manage.py demo $(ARGS)

admin: $(VENV)/.emulator
	$(BIN)/python example_project/manage.py serve_admin $(ARGS)

emulator: $(VENV)/.emulator
	$(BIN)/python -m truncus_django.emulator --port 8025 $(ARGS)

test: test-sqlite
	$(MAKE) --no-print-directory test-databases

test-sqlite: $(VENV)/.test
	$(PYTEST) --ignore tests/browser --ignore tests/packaging -m "$(ON_SQLITE)" $(ARGS)

# What touches a database, once more on each server that answers on this machine.
# REQUIRE_DATABASES="postgresql mariadb" fails where one of them does not.
test-databases: $(VENV)/.test
	@answering="$$($(BIN)/python -m tests.databases)"; \
	for name in $(REQUIRE_DATABASES); do \
		case " $$answering " in *" $$name "*) ;; *) echo "$$name does not answer" >&2; exit 1;; esac; \
	done; \
	for name in $$answering; do \
		case $$name in postgresql) which="$(ON_POSTGRESQL)";; *) which="$(ON_MARIADB)";; esac; \
		echo "On $$name: $${which:-all}"; \
		[ "$$which" = none ] || \
			TEST_DATABASE=$$name $(PYTEST) $(ON_DATABASES) -m "$$which" $(ARGS) || exit 1; \
	done

# The admin in a real browser. Needs Chromium (apt-get install chromium).
test-browser: $(VENV)/.browser
	$(PYTEST) tests/browser $(ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The sdist and the wheel as users get them: files, description, types.
package: $(VENV)/.check
	$(PYTEST) tests/packaging $(ARGS)

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The outbox under workers that are killed and a Truncus full of faults, the last time with a guard,
# suppressed recipients and a fallback mailer; then its pace, in real time. Needs PostgreSQL, MariaDB
# and Redis. ARGS="--seed 7" repeats what was left to chance.
chaos: chaos-kills chaos-pace

chaos-kills: $(VENV)/.test
	$(BIN)/python -m tests.chaos --database sqlite --replay duplicate $(ARGS)
	$(BIN)/python -m tests.chaos --database postgresql --mails 2000 $(ARGS)
	$(BIN)/python -m tests.chaos --database postgresql --runner celery --mails 1000 $(ARGS)
	$(BIN)/python -m tests.chaos --database mariadb --mails 1000 $(ARGS)
	$(BIN)/python -m tests.chaos --database mariadb --mails 1000 --all-features --fault-rate 0.02 $(ARGS)

chaos-pace: $(VENV)/.test
	$(BIN)/python -m tests.chaos --database postgresql --pace --workers 3 --seconds 75 $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

docs: site
	$(PYTEST) tests/test_docs.py tests/test_moving.py tests/test_public_surface.py $(ARGS)

# What it imports to describe it needs the packages of the tests.
site: $(VENV)/.test $(VENV)/.docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going docs build/docs

coverage: $(VENV)/.test
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered $(ARGS)

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf .coverage .coverage.* build dist *.egg-info example_project/demo.sqlite3*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Looks at the version first: an environment that was made is not made again by another Python.
$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "truncus-django needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
		echo "Choose another one: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.13" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	touch $@

$(VENV)/.emulator: $(VENV)/.pip pyproject.toml
	$(PIP) $(DJANGO) --editable '.[emulator,css,otel,prometheus]' opentelemetry-sdk
	touch $@

$(VENV)/.test $(VENV)/.browser $(VENV)/.check $(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: $(VENV)/.pip pyproject.toml
	$(PIP) $(DJANGO) --editable '.[emulator]' --group $*
	touch $@
