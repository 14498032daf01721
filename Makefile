# The verbs people type. `make` alone lists them.
#
# Three environments make themselves when a verb needs them: .venv for the project, and .venv-sam and .venv-checkov for
# SAM CLI and checkov, which each pin their own boto3. A stamp in each says which requirements it was brought up to.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

STACK ?= rushes-$(ENV)
ENV ?= dev
export SAM_CLI_TELEMETRY := 0
# Python keeps what it has compiled, whatever the shell says: the tests start many processes with the same modules.
unexport PYTHONDONTWRITEBYTECODE

PYTHON := .venv/bin/python
# First on the PATH, so that `sam build` finds the Python that it was installed with: the one Lambda runs.
SAM := PATH="$(CURDIR)/.venv-sam/bin:$$PATH" sam

local := .venv/local.stamp
dev := .venv/dev.stamp
sam := .venv-sam/stamp
checkov := .venv-checkov/stamp

.PHONY: help demo dev test test-batch test-page simulate openapi bench chaos check static fmt lint types validate drift \
  build sam-local test-sam environments reference compile costs deploy stack-name lint-workflows clean

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

# ----------------------------------------------------------------------------------------------------------------------
# On one machine
# ----------------------------------------------------------------------------------------------------------------------

demo: $(local) ## one request and one dropped file, from order to clip, on this machine (REQUEST=file.json for your own)
	@.venv/bin/rushes demo $(if $(REQUEST),"$(REQUEST)")

dev: $(local) ## the same stack, staying up
	@.venv/bin/rushes dev

# ----------------------------------------------------------------------------------------------------------------------
# Before every commit
# ----------------------------------------------------------------------------------------------------------------------

test: $(dev) ## the tests (ARGS="-k webhook" for some of them)
	@$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-page: $(dev) ## the gallery in Chromium, as a person uses it; pictures land in out/gallery
	@scripts/install-browser
	@$(PYTHON) -m pytest -m browser -n 2 --dist loadfile tests/gallery $(ARGS)

test-batch: $(dev) ## what takes minutes: a file of a thousand lines, every schedule, the tutorial, more chaos
	@$(PYTHON) -m pytest -q -m batch -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

simulate: $(dev) ## every stop and race in memory, and the figures (FOR=600: seconds of random histories on top)
	@SIMULATE_SECONDS="$(or $(FOR),0)" $(PYTHON) -m pytest -q -m "" tests/simulation

costs: $(dev) ## what a clip costs besides Runware's price: counted, printed, written to docs/costs.md
	@$(PYTHON) -m scripts.cost_report

openapi: $(dev) ## the schema of a task, from the model's data, written into docs/openapi.json
	@$(PYTHON) -m scripts.openapi

bench: $(dev) ## cold and warm starts beside small handlers, into docs/benchmarks.md (QUICK=1 judges and writes nothing)
	@$(PYTHON) -m scripts.cold_start $(if $(QUICK),--quick)

chaos: $(dev) ## the local stack while everything fails at once, then the judgement (FOR=120 SEED=7)
	@$(PYTHON) -m tests.chaos --for "$(or $(FOR),60)" $(if $(SEED),--seed "$(SEED)")

check: static test ## everything that CI checks, but the SAM tests

# Side by side, with what each prints in one piece: none of them takes more than one core.
static:
	@$(MAKE) -j2 --output-sync=target lint types validate drift

fmt: $(dev) ## format the code and mend what ruff can mend
	@$(PYTHON) -m ruff format
	@$(PYTHON) -m ruff check --fix

lint: $(dev) lint-workflows ## format and style, without touching files
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m ruff check

lint-workflows: $(dev) ## the workflows of CI: whether they are valid, and what they give away
	@.venv/bin/actionlint .github/workflows/*.yml
	@.venv/bin/zizmor --offline --quiet .github/workflows

types: $(dev) ## mypy, strict
	@$(PYTHON) -m mypy

validate: $(sam) $(checkov) ## the template: SAM's own rules, cfn-lint's and checkov's
	@$(SAM) validate
	@.venv-sam/bin/cfn-lint template.yaml
	@scripts/scan

drift: $(dev)
	@scripts/compile --check

# ----------------------------------------------------------------------------------------------------------------------
# SAM
# ----------------------------------------------------------------------------------------------------------------------

build: $(sam) ## what would be deployed, into .aws-sam/build
	@$(SAM) build
	@.venv-sam/bin/python scripts/pack.py .aws-sam/build

sam-local: $(local) $(sam) ## the demo through Lambda containers, as built (needs a container engine)
	@PATH="$(CURDIR)/.venv-sam/bin:$$PATH" .venv/bin/rushes demo --sam $(if $(REQUEST),"$(REQUEST)")

test-sam: $(dev) $(sam) ## the built functions in Lambda containers (needs a container engine)
	@PATH="$(CURDIR)/.venv-sam/bin:$$PATH" $(PYTHON) -m pytest -m sam $(ARGS)

# ----------------------------------------------------------------------------------------------------------------------
# In an AWS account (ENV=dev or prod; credentials and region as the AWS tools find them)
# ----------------------------------------------------------------------------------------------------------------------

deploy: stack-name build ## build and deploy (ENV=dev or prod)
	@$(SAM) deploy --config-env "$(ENV)" --stack-name "$(STACK)"

# Rules are named after the stack, in at most 64 characters: refused here, and not when half of the stack is made.
stack-name:
	@name="$(STACK)"; [ $${#name} -le 54 ] || \
	  { echo "A stack's name has at most 54 characters: $$name has $${#name}." >&2; exit 1; }

# ----------------------------------------------------------------------------------------------------------------------
# Housekeeping
# ----------------------------------------------------------------------------------------------------------------------

reference: $(dev) ## docs/cli.md, from the command itself
	@$(PYTHON) -m scripts.reference

compile: $(dev) ## pyproject.toml into the requirements files (ARGS=--upgrade for newer versions)
	@scripts/compile $(ARGS)

clean: ## remove environments, builds and caches
	rm -rf .venv .venv-sam .venv-checkov .aws-sam out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find cli functions layers local tests scripts -name __pycache__ -prune -exec rm -rf {} +

environments: $(dev) $(sam) $(checkov)

# The project and its command go in without their dependencies: the requirements file has them, with hashes.
# One after the other: an older version of the project that is replaced takes its `rushes` with it.
install = $(PYTHON) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation
install_project = $(install) -e . && $(install) -e ./cli

$(local): requirements-local.txt pyproject.toml cli/pyproject.toml scripts/make-venv
	@scripts/make-venv .venv requirements-local.txt
	@$(install_project)
	@touch $@

# The dev requirements hold the local ones at the same versions, so either stamp will do for the demo.
$(dev): requirements-dev.txt pyproject.toml cli/pyproject.toml scripts/make-venv
	@scripts/make-venv .venv requirements-dev.txt
	@$(install_project)
	@touch $(local) $@

$(sam): requirements-sam.txt scripts/make-venv
	@scripts/make-venv .venv-sam requirements-sam.txt 3.13
	@touch $@

$(checkov): requirements-checkov.txt scripts/make-venv
	@scripts/make-venv .venv-checkov requirements-checkov.txt
	@touch $@
