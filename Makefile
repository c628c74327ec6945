# The commands of this project; `make` alone lists them.
# PYTHON picks the interpreter, VENV the environment, ARGS is handed on to the command behind.

PYTHON ?= python3
VENV ?= $(or $(VIRTUAL_ENV),.venv)
ARGS ?=
export VENV

.DEFAULT_GOAL := help
.PHONY: help run test check bench lock fresh mutants simulate chaos faults chaos-planted

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/make \1\t/p' Makefile | expand -t 20

run:  ## start the gateway with all it needs; Ctrl-C stops everything
	@$(PYTHON) bootstrap.py run
	@exec $(VENV)/bin/quota-gateway serve --demo $(ARGS)

# Compiled files are kept even where the environment forbids it: each worker would compile all tests
# anew, and each process that a test starts the whole program.
test:  ## all of the tests, on three processes: each waits now and then
	@$(PYTHON) bootstrap.py test
	@exec env PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest -n 3 --dist worksteal $(ARGS)

check:  ## format, lint, types, import directions, style
	@$(PYTHON) bootstrap.py test
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	MYPYPATH=. $(VENV)/bin/mypy --explicit-package-bases gateway tests bench bootstrap.py
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest tests/test_style.py tests/test_house.py

bench:  ## measure speed and size, into docs/performance.md (nine minutes; ARGS=cpu for a part)
	@$(PYTHON) bootstrap.py run
	@exec $(VENV)/bin/python -m bench --keep $(ARGS)

# uv because its locks hold on every Python and platform that pyproject.toml allows, not only on
# the one that made them. It asks its own default index; UV_DEFAULT_INDEX names another.
COMPILE = $(VENV)/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --only-binary :all: --custom-compile-command 'make lock' $(ARGS)

lock:  ## write requirements/*.lock anew from pyproject.toml (ARGS=--upgrade for newer versions)
	@$(PYTHON) bootstrap.py tools
	$(COMPILE) --group build -o requirements/build.lock >/dev/null
	$(COMPILE) pyproject.toml -c requirements/build.lock -o requirements/run.lock >/dev/null
	$(COMPILE) pyproject.toml --extra test -c requirements/build.lock -c requirements/run.lock \
		-o requirements/test.lock >/dev/null
	$(COMPILE) --group tools -o requirements/tools.lock >/dev/null

fresh:  ## prove run, test and the Dockerfile in a bare Debian, as root and not (needs root)
	@exec bash tests/fresh/run.sh

mutants:  ## plant faults in copies of the scripts; the tests must notice (ARGS="--seed 2 --count 20")
	@$(PYTHON) bootstrap.py test
	@exec $(VENV)/bin/python -m tests.mutants.run $(ARGS)

SEEDS ?= 2000
simulate:  ## the flow and the jobs in simulated worlds that fail (SEEDS=2000 from SEED=1, all cores)
	@$(PYTHON) bootstrap.py test
	@exec env PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m tests.simulation --seeds $(SEEDS) --seed $(or $(SEED),1) $(ARGS)

MINUTES ?= 5
chaos:  ## break everything on a schedule and audit what came of it (MINUTES=5; SEED=7 for one run)
	@$(PYTHON) bootstrap.py test
	@exec $(VENV)/bin/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

faults:  ## real faults, and the alerts they raise in a real Prometheus, which then end (two minutes)
	@$(PYTHON) bootstrap.py test
	@exec $(VENV)/bin/python -m tests.boards.faults $(ARGS)

chaos-planted:  ## plant faults in running gateways; the audit must report each
	@$(PYTHON) bootstrap.py test
	@exec $(VENV)/bin/python -m tests.chaos.planted.prove
