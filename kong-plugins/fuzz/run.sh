#!/usr/bin/env bash
# Runs every fuzz target (or the ones named), each for FUZZ_SECONDS (60). What it finds stays in
# target/fuzz/corpus/TARGET and is where the next run begins; what breaks a promise is written to
# target/fuzz/found/TARGET and printed.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/target/fuzz
seconds=${FUZZ_SECONDS:-60}

if [ $# -gt 0 ]; then
    targets=("$@")
else
    targets=()
    for file in "$here"/fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for target in "${targets[@]}"; do
    if [ ! -e "$here/fuzz/fuzz_targets/$target.rs" ]; then
        echo "fuzz: no target $target in kong-plugins/fuzz/fuzz/fuzz_targets" >&2
        exit 2
    fi
done

# The flags of cargo-fuzz are unstable ones of rustc; any toolchain takes them with this.
export RUSTC_BOOTSTRAP=1
cargo_fuzz() { (cd "$here" && cargo fuzz "$@"); }

if [ ! -d "$out" ]; then echo "fuzz: building the targets (several minutes the first time)"; fi
mkdir -p "$out"
cargo_fuzz build --target-dir "$out"

failed=()
for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "$out/found/$target"
    log=$out/$target.log
    if cargo_fuzz run --target-dir "$out" "$target" "$out/corpus/$target" "$here/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$out/found/$target/" >"$log" 2>&1; then
        awk -v target="$target" '
            / cov: [0-9]+ / { for (i = 1; i < NF; i++) if ($i == "cov:") edges = $(i + 1) }
            /stat::number_of_executed_units/ { runs = $2 }
            END { printf "fuzz: %-10s %9d executions, %5d edges, nothing found\n", target, runs, edges }' "$log"
    else
        failed+=("$target")
        grep -E "panicked at|ERROR: |SUMMARY: |Test unit written" -A 2 "$log" >&2 || tail -n 20 "$log" >&2
        echo "fuzz: $target broke, see $log; the input is in $out/found/$target" >&2
    fi
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: broken: ${failed[*]}" >&2; exit 1; }
