#!/usr/bin/env bash
# `make demo`: set-up, build and run from nothing, saying what it does and how long each took.
set -euo pipefail
cd "$(dirname "$0")/../.."

began=$SECONDS
stage() { printf '\n\033[1m[%s] %s\033[0m\n' "$1" "$2"; }

stage 1/3 "filters: the gateway's decisions as WebAssembly (a fresh machine gets the compiler for it first)"
kong-plugins/filters/build.sh
filters=$((SECONDS - began))

stage 2/3 "build: the mesh command (a fresh machine compiles every dependency: some minutes on two cores)"
# As the Makefile chooses packages: what is compiled here serves `make up` and `make test` too.
cargo build --release --locked --workspace --exclude jwt_auth --exclude rate_limit --exclude task_admission --exclude agent_router --bin mesh
build=$((SECONDS - began - filters))

stage 3/3 "run: gateway, orchestrator, sidecars and agents in one process"
target/release/mesh demo
run=$((SECONDS - began - filters - build))

printf '\nset-up and filters %ds, build %ds, run %ds: %ds in all\n' "$filters" "$build" "$run" "$((SECONDS - began))"
