# Vitascope's commands. `make help` lists them.
PYTHON ?= python3
PORT ?= 30010
MODEL ?= vitascope/demo
TORCH_INDEX ?=
# How many tests run at once: most of them wait for other processes, so two keep two cores busy.
JOBS ?= 2
# Where `make cluster` keeps its state; by default nowhere.
STATE ?=
# Length of `make nemesis`; its seed, drawn and told if not given; where its history goes.
SECONDS ?= 120
SEED ?=
HISTORY ?=

BIN := .venv/bin
PACKAGES := libs/core libs/platform libs/frames libs/models libs/weights services/gateway services/denoiser services/interpolator services/upscaler \
	services/uploader services/cli
READY := .venv/ready
PROTOS := protos/vitascope_platform/v1/records.proto
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Tests and tools never reach for a model hub.
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1

.DEFAULT_GOAL := help
.PHONY: help setup dev cluster nemesis test test-all check format protos bench clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12
	@echo
	@echo "PORT=$(PORT) and MODEL=$(MODEL) set what 'make dev' and 'make cluster' serve; the cluster also takes"
	@echo "REPLICAS_GATEWAY=, REPLICAS_DENOISER=, REPLICAS_INTERPOLATOR=, REPLICAS_UPSCALER=, REPLICAS_UPLOADER=, STATE=folder and SECURED=1 (credentials for each service)."
	@echo "'make setup TORCH_INDEX=URL' takes another torch build."

setup: $(READY) ## Make .venv with everything pinned; TORCH_INDEX=URL chooses another build of torch
ifneq ($(TORCH_INDEX),)
	@test "$$(cat .venv/torch-index)" = "$(TORCH_INDEX)" || { \
	  $(PIP) install --force-reinstall --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' constraints.txt) \
	  && echo "$(TORCH_INDEX)" > .venv/torch-index; }
endif
	@echo "Ready: .venv"

$(READY): constraints.txt requirements-dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Vitascope needs Python 3.11 or newer; name one with PYTHON=")'
	@echo "Setting up .venv (a few minutes the first time; torch is large) ..."
	$(PYTHON) -m venv .venv
ifneq ($(TORCH_INDEX),)
	$(PIP) install --no-deps --index-url $(TORCH_INDEX) $$(grep '^torch==' constraints.txt)
endif
# What builds our packages, and those of others that come as sources only (nkeys).
	$(PIP) install -c constraints.txt hatchling editables setuptools
	$(PIP) install -c constraints.txt --no-build-isolation -r requirements-dev.txt $(addprefix -e ,$(PACKAGES))
	@echo "$(TORCH_INDEX)" > .venv/torch-index
	@touch $(READY)

dev: $(READY) ## Serve the embedded model with all stages in one process
	@$(BIN)/vitascope serve --port $(PORT) --model-path $(MODEL)

cluster: $(READY) ## Run broker, store and every service as processes of their own, until Ctrl-C
	@PORT='$(PORT)' MODEL='$(MODEL)' STATE='$(STATE)' $(BIN)/python -m tools.cluster

nemesis: $(READY) ## Break a working cluster at random for SECONDS=120 and look whether anything is lost; SEED= replays
	@$(BIN)/python -m tools.nemesis --seconds '$(SECONDS)' --seed '$(SEED)' --history '$(HISTORY)'

test: check ## Check and test everything (under 15 minutes on two cores)
	$(OFFLINE) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not long"

test-all: check ## The same with the long grids
	$(OFFLINE) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

check: $(READY) ## Lint, types, import contracts, generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(addsuffix /src,$(PACKAGES)) tools
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=.venv --pyi_out=.venv $(PROTOS)
	@for file in records_pb2.py records_pb2.pyi; do \
	  cmp .venv/vitascope_platform/v1/$$file libs/platform/src/vitascope_platform/v1/$$file \
	  || { echo "generated code is stale: run 'make protos'"; exit 1; }; done

format: $(READY) ## Format the code and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

protos: $(READY) ## Generate code from protos/
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=libs/platform/src --pyi_out=libs/platform/src $(PROTOS)

bench: $(READY) ## Measure; every figure is a ratio within one run
	$(OFFLINE) $(BIN)/python -m bench

clean: ## Remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist outputs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
