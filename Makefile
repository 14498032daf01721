# The developers' verbs. `make` lists them.
#
# Four environments are created on first use: .venv for the project, .venv-sam and .venv-checkov for SAM CLI and
# checkov, which pin different versions of boto3, and .venv-swift for the second S3 server of the tests. A stamp file in
# each records its last update.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

STACK ?= rushes-$(ENV)
ENV ?= dev
export SAM_CLI_TELEMETRY := 0
# Python caches bytecode regardless of the shell's setting: the tests start many processes with the same modules.
unexport PYTHONDONTWRITEBYTECODE

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# First on the PATH, so that `sam build` uses the Python of its environment, which is Lambda's version.
SAM := PATH="$(CURDIR)/.venv-sam/bin:$$PATH" sam

local := .venv/local.stamp
dev := .venv/dev.stamp
sam := .venv-sam/stamp
checkov := .venv-checkov/stamp
swift := .venv-swift/stamp

.PHONY: help demo dev test test-stack test-batch test-page test-s3 test-table simulate models openapi bench whole-way \
  bursts chaos check static fmt lint types validate drift build sam-local test-sam environments reference compile costs \
  deploy stack-name lint-workflows clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

# ----------------------------------------------------------------------------------------------------------------------
# On one machine
# ----------------------------------------------------------------------------------------------------------------------

demo: $(local) ## order clips by request and by file on this machine (REQUEST=file.json for your own request)
	@.venv/bin/rushes demo $(if $(REQUEST),"$(REQUEST)")

# 130 is the exit status after Ctrl-C, which is no error here. The trap keeps the shell alive for that check.
dev: $(local) ## run the same stack until Ctrl-C (ARGS="--limit-usd 200")
	@trap : INT; .venv/bin/rushes dev $(ARGS) || [ $$? -eq 130 ]

# ----------------------------------------------------------------------------------------------------------------------
# Before every commit
# ----------------------------------------------------------------------------------------------------------------------

test: $(dev) ## run the tests of rules and adapters (ARGS="-k webhook" for a selection)
	@$(PYTEST) tests/unit tests/contract tests/simulation tests/bursts tests/package $(ARGS)

test-stack: $(dev) ## run the tests of handlers, local stack and command, which start processes
	@$(PYTEST) tests/functions tests/stack tests/cli $(ARGS)

test-page: $(dev) ## test the gallery in Chromium; screenshots are in out/gallery
	@scripts/install-browser
	@$(PYTHON) -m pytest -m browser -n 2 --dist loadfile tests/gallery $(ARGS)

# Each night and before a release. A sample of them is in `make check`.
test-batch: $(dev) ## run the slow tests: a file of a thousand lines, every schedule, the tutorial, more chaos
	@$(PYTEST) -q -m batch $(ARGS)

# -rs prints each test that the server does not allow, with the reason.
test-s3: $(dev) $(swift) ## run the tests of uploads against OpenStack Swift (S3_ENDPOINT=https://… for another S3)
	@S3_ENDPOINT="$(or $(S3_ENDPOINT),swift)" $(PYTHON) -m pytest -q -rs tests/contract/test_uploads.py \
	  tests/contract/test_rescue.py $(ARGS)

test-table: $(dev) ## test the table and the functions on another DynamoDB (ENDPOINT=http://…, or aws with ACCOUNT=…)
	@$(PYTHON) -m tests.remote_table --endpoint "$(ENDPOINT)" --account "$(ACCOUNT)" -- $(ARGS)

simulate: $(dev) ## simulate every crash and race in memory (FOR=600: seconds of additional random histories)
	@SIMULATE_SECONDS="$(or $(FOR),0)" $(PYTHON) -m pytest -q -m "" tests/simulation

costs: $(dev) ## measure the AWS cost of a clip, print it and write docs/costs.md
	@$(PYTHON) -m scripts.cost_report

models: $(dev) ## validate the model catalog and write docs/models.md
	@$(PYTHON) -m scripts.model_files

openapi: $(dev) ## write the schema of a task from the model catalog into docs/openapi.json
	@$(PYTHON) -m scripts.openapi

bench: $(dev) ## measure cold and warm starts for docs/benchmarks.md (QUICK=1 checks no limits and writes nothing)
	@$(PYTHON) -m scripts.cold_start $(if $(QUICK),--quick)

whole-way: $(dev) ## measure a clip's whole way for docs/benchmarks.md, in ten minutes (QUICK=1 shortens it and writes nothing)
	@$(PYTHON) -m scripts.whole_way $(if $(QUICK),--quick)

bursts: $(dev) ## model many purchases at once, with DynamoDB's conflicts, and print how many succeed and when
	@$(PYTHON) -m tests.bursts

chaos: $(dev) ## run the local stack with random faults and check the result (FOR=120 SEED=7)
	@$(PYTHON) -m tests.chaos --for "$(or $(FOR),60)" $(if $(SEED),--seed "$(SEED)")

check: static test test-stack ## run the checks before a commit

# In parallel, each with its output in one piece: none of them takes more than one core.
static:
	@$(MAKE) -j2 --output-sync=target lint types validate drift

fmt: $(dev) ## format the code and apply ruff's fixes
	@$(PYTHON) -m ruff format
	@$(PYTHON) -m ruff check --fix

lint: $(dev) lint-workflows ## check format and style without changing files
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m ruff check

lint-workflows: $(dev) ## check the CI workflows for errors and security problems
	@.venv/bin/actionlint .github/workflows/*.yml
	@.venv/bin/zizmor --offline --quiet .github/workflows

types: $(dev) ## run mypy in strict mode
	@$(PYTHON) -m mypy

validate: $(sam) $(checkov) ## check the template with SAM, cfn-lint and checkov
	@$(SAM) validate
	@.venv-sam/bin/cfn-lint template.yaml
	@scripts/scan

drift: $(dev)
	@scripts/compile --check
	@$(PYTHON) -m scripts.model_files --check

# ----------------------------------------------------------------------------------------------------------------------
# SAM
# ----------------------------------------------------------------------------------------------------------------------

build: $(sam) ## build the deployment package in .aws-sam/build
	@$(SAM) build
	@.venv-sam/bin/python scripts/pack.py .aws-sam/build

sam-local: $(local) $(sam) ## run the demo with the built functions in Lambda containers (needs a container engine)
	@PATH="$(CURDIR)/.venv-sam/bin:$$PATH" .venv/bin/rushes demo --sam $(if $(REQUEST),"$(REQUEST)")

test-sam: $(dev) $(sam) ## test the built functions in Lambda containers (needs a container engine)
	@PATH="$(CURDIR)/.venv-sam/bin:$$PATH" $(PYTHON) -m pytest -m sam $(ARGS)

# ----------------------------------------------------------------------------------------------------------------------
# In an AWS account (ENV=dev or prod; default AWS credentials and region)
# ----------------------------------------------------------------------------------------------------------------------

deploy: stack-name build ## build and deploy (ENV=dev or prod)
	@$(SAM) deploy --config-env "$(ENV)" --stack-name "$(STACK)"

# Rules are named after the stack, with at most 64 characters: checked here, before a part of the stack is created.
stack-name:
	@name="$(STACK)"; [ $${#name} -le 54 ] || \
	  { echo "The stack's name must have at most 54 characters: $$name has $${#name}." >&2; exit 1; }

# ----------------------------------------------------------------------------------------------------------------------
# Housekeeping
# ----------------------------------------------------------------------------------------------------------------------

reference: $(dev) ## generate docs/cli.md from the command
	@$(PYTHON) -m scripts.reference

compile: $(dev) ## compile pyproject.toml into the requirements files (ARGS=--upgrade for newer versions)
	@scripts/compile $(ARGS)

clean: ## remove environments, builds and caches
	rm -rf .venv .venv-sam .venv-checkov .venv-swift .aws-sam out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find cli functions layers local tests scripts -name __pycache__ -prune -exec rm -rf {} +

environments: $(dev) $(sam) $(checkov) $(swift)

# The project and its command are installed without dependencies: the requirements file has them, with hashes.
# The command is second: replacing an older version of the project removes its `rushes` script.
install = $(PYTHON) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation
install_project = $(install) -e . && $(install) -e ./cli

$(local): requirements-local.txt pyproject.toml cli/pyproject.toml scripts/make-venv
	@scripts/make-venv .venv requirements-local.txt
	@$(install_project)
	@touch $@

# The dev requirements include the local ones at the same versions, so either stamp is valid for the demo.
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

$(swift): requirements-swift.txt scripts/make-venv
	@scripts/make-venv .venv-swift requirements-swift.txt
	@touch $@
