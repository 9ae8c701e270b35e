# Two commands are enough: `make demo` and `make test`; both set up what they need.
#
#   make help        list the commands
#
# Everything is installed into this checkout (.venv, .kafka, .promtool); only Maven, if it is missing, comes from the
# system's package manager. Checkouts side by side do not disturb each other.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
KAFKA_POM := app/local/services/kafka-pom.xml
MAVEN_COPY := org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadgroup
EVENTS ?= 60000
DEMO_OPTIONS := --events $(EVENTS) $(if $(REAL_TIME),--real-time)

.PHONY: help setup demo test test-fast simulate runbook-drill mutants outage crash-points crash-sweep chaos restarts hostile fuzz bounds browser tags tracker tracker-build status-drill upgrade-drill lint lists watch boards bench up down clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: .venv/installed .kafka/installed .promtool/installed .venv/kernels  ## install everything into this checkout (quick if it is done already)

demo: setup  ## the whole path in a minute: 60,000 events to the warehouse, compared (REAL_TIME=1: with the true 90 s)
	@$(BIN)/instream demo $(DEMO_OPTIONS)

test: lint  ## run lint, types and every test, with those on the whole stack
	@$(PYTEST)

test-fast: setup  ## run the tests that need no stack
	@$(PYTEST) -m "not stack"

simulate: setup  ## simulate the whole pipeline under faults: SEEDS=1000 FROM=1, or SEED=7 to print one history; UPGRADE=1: two versions; DAMAGE=1: repairs behind each
	@$(BIN)/python -m tests.simulation.simulate $(if $(UPGRADE),--upgrade) $(if $(DAMAGE),--damage) \
	  $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),200) --first $(or $(FROM),1)) $(if $(PROCESSES),--processes $(PROCESSES))

runbook-drill: setup  ## plant the fault of each runbook on a stack, run its commands, see its alert begin and end (ONLY=Quarantine)
	@$(BIN)/python -m tests.rig.runbooks $(if $(ONLY),--only $(ONLY))

mutants: setup  ## plant each of some hundred bugs in a copy of the tree and show which tests catch it
	@$(BIN)/python -m tests.mutants.run

outage: setup  ## check that memory is bounded and nothing is lost while broker, AWS and warehouse stall in turn (MINUTES=10, RATE=500)
	@$(BIN)/python -m tests.rig.outage --minutes $(or $(MINUTES),10) --rate $(or $(RATE),500)

crash-points: setup  ## list every outside call; a test can end a worker before and after each
	@$(BIN)/python -m tests.rig.crash_points

crash-sweep: setup  ## kill every worker at every call to the outside, once and twice in a row: most of an hour (ONLY=sink.s3)
	@$(BIN)/python -m tests.rig.crash_sweep $(if $(ONLY),--only $(ONLY)) $(if $(TIMES),--times $(TIMES)) $(if $(TOGETHER),--together $(TOGETHER))

chaos: setup  ## strike a stack under load with faults of every kind, then check every row (MINUTES=10 SEED=1)
	@$(BIN)/python -m tests.rig.chaos --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

restarts: setup  ## kill the collector while clients post, and show how long they wait for the next one (KILLS=5)
	@$(BIN)/python -m tests.rig.restarts --kills $(or $(KILLS),5)

hostile: setup  ## play hostile and clumsy clients against a collector; show each bound with what was measured (ONLY=large_heads)
	@$(BIN)/python -m tests.rig.hostile $(if $(ONLY),--only $(ONLY))

fuzz: setup  ## feed damaged bytes to every decoder, the collector and the stand-in's SQL (MINUTES=10); TARGET=name SEED=7 plays one case
	@$(BIN)/python -m tests.rig.fuzz --minutes $(or $(MINUTES),10) --first $(or $(FIRST),0) $(if $(TARGET),--target $(TARGET)) $(if $(SEED),--seed $(SEED))

bounds: setup  ## run the tests of the kernels with a check of every bound of an array (the first time compiles them again)
	@NUMBA_BOUNDSCHECK=1 $(PYTEST) tests/unit/kernels

browser: setup  ## let a page of another origin send events in every way, from headless Chromium (which must be there)
	@$(BIN)/python -m tests.rig.browser

tracker: setup  ## let scripted readers of tagged pages end in every way, in headless Chromium (which must be there): SESSIONS=220 SEED=1 ONLY=kill
	@$(BIN)/python -m tests.rig.tracker --sessions $(or $(SESSIONS),220) --seed $(or $(SEED),1) $(if $(ONLY),--only "$(ONLY)")

tracker-build: setup  ## make the scripts in app/tracker/built from app/tracker/source, and show their size
	@$(BIN)/python -m app.tracker.build

tags: setup  ## the unmodified trackers of Snowplow and Segment, from npm, in Chromium: what becomes of each of their events
	@$(BIN)/python -m tests.rig.tags

status-drill: setup  ## plant every fault in a stack under light load; show how soon `instream status` names each (ONLY=frozen)
	@$(BIN)/python -m tests.rig.status $(if $(ONLY),--only "$(ONLY)")

upgrade-drill: setup  ## a stack under load goes to its next version and back, role by role; every row is checked (FROM=rev IDENTICAL=1)
	@$(BIN)/python -m tests.rig.upgrade --rate $(or $(RATE),100) $(if $(FROM),--from $(FROM)) $(if $(IDENTICAL),--identical)

lint: setup  ## ruff and mypy
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy

lists: setup  ## fetch the lists of referrers, crawlers and browsers that others keep (needs npm); look at the differences
	@$(BIN)/python -m tests.lists.update

watch: setup  ## show each alert over the running local stack when it begins and when it ends
	@$(BIN)/python -m app.local.boards.watch

boards: setup  ## write Grafana's pages into compose/grafana/dashboards, from app/local/boards
	@$(BIN)/python -m app.local.boards

bench: setup  ## measure each stage: CPU time an event, in one table
	@$(BIN)/instream bench

up: setup  ## start the local stack in the background
	@$(BIN)/instream up

down: setup  ## stop the local stack
	@$(BIN)/instream down

clean:  ## remove the files of setup and tests (stops the stack first)
	@if [[ -x $(BIN)/instream ]]; then $(BIN)/instream down; fi
	rm -rf .venv .kafka .promtool .instream *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# If the Python of .venv is gone or too old, .venv is made anew.
.venv/installed: pyproject.toml constraints.txt
	@python=""; \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python="$$candidate"; break; \
	  fi; \
	done; \
	if [[ -z "$$python" ]]; then \
	  echo "Python 3.11 or newer (with venv) is needed and none was found: install it, or run make PYTHON=/path/to/python" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "making .venv with $$python"; rm -rf .venv; "$$python" -m venv .venv; \
	fi
	@echo "installing the Python packages into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[local,dev]'
	@touch $@

# The kernels are compiled once, and again when one of them changes.
.venv/kernels: .venv/installed $(wildcard app/kernels/*.py)
	@$(BIN)/python -m app.kernels
	@touch $@

.kafka/installed: $(KAFKA_POM)
	@if ! command -v mvn >/dev/null; then \
	  sudo=""; if [[ $$(id -u) != 0 ]]; then sudo=sudo; fi; \
	  echo "Maven is missing: installing it with the system's package manager"; \
	  if command -v apt-get >/dev/null; then \
	    $$sudo apt-get update -qq; $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq maven >/dev/null; \
	  elif command -v dnf >/dev/null; then $$sudo dnf install -y -q maven; \
	  elif command -v apk >/dev/null; then $$sudo apk add -q maven; \
	  elif command -v brew >/dev/null; then brew install -q maven; \
	  else echo "install Maven (mvn) by hand: no apt-get, dnf, apk or brew here" >&2; exit 1; \
	  fi; \
	fi
	@echo "copying Kafka's jars into .kafka"
	@rm -rf .kafka && mkdir .kafka
	@mvn -q -B -Dstyle.color=never -f $(KAFKA_POM) $(MAVEN_COPY) -DoutputDirectory="$(CURDIR)/.kafka"
	@touch $@

# promtool and prometheus check the alerts of compose/. Debian's package is unpacked, not installed: that needs no root and
# starts no service. Without them everything else works, and the tests of the alerts fail and say what is missing.
.promtool/installed: compose/install-promtool.sh
	@bash compose/install-promtool.sh "$(CURDIR)/.promtool"
