#!/usr/bin/env bash
# Installs the peers of `make bench`: Envoy, nginx, HAProxy and the load, and target/bench-venv with those in Python.
# Does nothing where they are there already.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[2m==> %s\033[0m\n' "$*" >&2; }

# The packages' own servers are not started; measurements run theirs, on free ports and in directories of their own.
deploy/setup.sh packages nginx-light haproxy wrk
deploy/setup.sh envoy

wanted=benches/peers/requirements.txt
venv=target/bench-venv
cmp -s "$wanted" "$venv/installed.txt" && exit 0
python3 -c 'import ensurepip, venv' 2>/dev/null || deploy/setup.sh packages python3-venv
say "installing the benchmark's peers into $venv"
python3 -m venv --clear "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
cp "$wanted" "$venv/installed.txt"
