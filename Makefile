# The only entry point. `make demo` and `make test` do all their set-up on a fresh Debian machine.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

CARGO ?= cargo
# Packages are chosen in one way, so that shared dependencies have one set of features and are compiled
# once. The filters are built for wasm.
ALL := --release --locked --workspace --exclude jwt_auth --exclude rate_limit --exclude task_admission --exclude agent_router
FILE ?= mesh.yaml

.PHONY: help containers setup filters build demo up test verdicts verdicts-kong verdicts-echo chaos fuzz check bench fmt

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

build: filters ## every program, into target/release
	@$(CARGO) build $(ALL) --bins

demo: ## one task across the whole mesh, in one process, from nothing
	@deploy/demo/run.sh

up: filters ## the mesh of ./mesh.yaml in one process, in the foreground (FILE=other.yaml)
	@$(CARGO) build $(ALL) --bin mesh
	@exec target/release/mesh up $(FILE)

test: setup filters ## every test, with a real RabbitMQ, Redis, Consul, Prometheus, Envoy and OpenTelemetry collector
	@$(CARGO) test $(ALL)

VERDICTS = $(CARGO) build $(ALL) --quiet --bin verdicts && exec target/release/verdicts

verdicts: ## one verdict everywhere: native, local gateway, Envoy (or GATEWAY=http://host:port ECHO=host:port; ONLY=words)
	@$(if $(GATEWAY),,deploy/setup.sh envoy && kong-plugins/filters/build.sh)
	@$(VERDICTS) run $(if $(GATEWAY),--gateway $(GATEWAY) --echo $(ECHO)) $(if $(ONLY),--only "$(ONLY)")

verdicts-kong: filters ## what a Kong needs to be asked the same: OUT=directory (ECHO=host:port)
	@$(VERDICTS) kong --out $(OUT) $(if $(ECHO),--echo $(ECHO))

verdicts-echo: ## the upstream for it, on 127.0.0.1:18081 (ECHO=host:port)
	@$(VERDICTS) echo $(if $(ECHO),--listen $(ECHO))

chaos: setup filters ## every part fails under load, every task is counted; the last line is JSON (TASKS=10000 RATE=11 KILL_EVERY=10 SEED=n)
	@$(CARGO) build $(ALL) --bins
	@target/release/chaos play $(if $(TASKS),--tasks $(TASKS)) $(if $(RATE),--rate $(RATE)) $(if $(KILL_EVERY),--kill-every $(KILL_EVERY)) $(if $(SEED),--seed $(SEED))

fuzz: ## random input for tokens, keys, bodies, routes, headers, configurations: FUZZ_SECONDS=60 each (ONLY=target)
	@deploy/setup.sh cargo-fuzz
	@FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) kong-plugins/fuzz/run.sh $(ONLY)

check: ## formatting, lints, crate boundaries, licences
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@deploy/setup.sh cargo-deny
	@$(CARGO) deny --workspace check --hide-inclusion-graph bans licenses sources

bench: setup filters ## side-by-side measurements, one table (ONLY=name for one row)
	@$(CARGO) build $(ALL) --bins
	@benches/setup.sh
	@target/release/bench $(if $(ONLY),--only $(ONLY))

filters: ## the filters as .wasm, into target/filters
	@kong-plugins/filters/build.sh

setup: ## the servers that tests run (RabbitMQ 3 and 4, Redis, Consul, Prometheus, Envoy, an OpenTelemetry collector), pika and Ollama's client
	@deploy/setup.sh servers

containers: ## deploy/compose and deploy/kubernetes anew from deploy/examples/sutazai/mesh.yaml
	@$(CARGO) build $(ALL) --quiet --bin mesh
	@deploy/compose/render.sh

fmt: ## format everything
	@$(CARGO) fmt --all
