#!/usr/bin/env bash
# Renders the example into deploy/compose and deploy/kubernetes: what anyone may read of it.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
apart=$(mktemp -d)
trap 'rm -rf "$apart"' EXIT
for target in compose kubernetes; do
    "$root/target/release/mesh" render "$target" "$root/deploy/examples/sutazai/mesh.yaml" --out "$apart/$target" --root ../.. >/dev/null
done
cp "$apart/compose/docker-compose.yml" "$root/deploy/compose/"
mkdir -p "$root/deploy/kubernetes"
rm -rf "$apart/kubernetes/base/secrets" "$root/deploy/kubernetes/base" "$root/deploy/kubernetes/overlays"
cp -r "$apart/kubernetes/base" "$apart/kubernetes/overlays" "$apart/kubernetes/prometheus-adapter.yaml" "$root/deploy/kubernetes/"
