#!/bin/sh
# Builds every filter of this directory to target/filters/NAME.wasm, its NAME.meta.json beside it.
#
# The compiler is rustup's where it has the target wasm32-unknown-unknown. Elsewhere it is Debian's
# (packages rustc-web, cargo-web, rust-web-src, lld), which are installed if they are missing.
# Cargo builds what changed; a second run takes a second.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$root/target/filters
target=wasm32-unknown-unknown
limit=614400 # bytes: what a gateway compiles at every start stays small

say() { printf 'filters: %s\n' "$*"; }
fail() { printf 'filters: %s\n' "$*" >&2; exit 1; }

# Debian's parts, in the order: compiler, cargo, standard library's source, linker.
debian_ready() {
    [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && command -v wasm-ld >/dev/null 2>&1 &&
        [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]
}

debian_install() {
    command -v apt-get >/dev/null 2>&1 ||
        fail "no target $target here: run 'rustup target add $target', then again"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || fail "installing Debian's compiler for wasm needs root or sudo"
        sudo=sudo
    fi
    say "this toolchain has no $target: installing rustc-web cargo-web rust-web-src lld from Debian (about a minute)"
    log=$root/target/wasm/apt.log
    mkdir -p "$root/target/wasm"
    { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y \
        --no-install-recommends rustc-web cargo-web rust-web-src lld; } >"$log" 2>&1 ||
        { tail -n 5 "$log" >&2; fail "apt-get failed, see $log; or run 'rustup target add $target'"; }
    debian_ready || fail "Debian's packages are installed but not complete; or run 'rustup target add $target'"
}

names=
packages=
# A filter with a profile of its own is built apart.
apart=
for manifest in "$here"/*/Cargo.toml; do
    name=$(basename "$(dirname "$manifest")")
    names="$names $name"
    if [ -e "$here/$name/profile.toml" ]; then
        apart="$apart $name"
    else
        packages="$packages -p $name"
    fi
done

build() {
    "$@" $packages
    for name in $apart; do
        "$@" --config "$here/$name/profile.toml" -p "$name"
    done
}

set -- build --profile filter --config "$here/profile.toml" --locked \
    --target "$target" --target-dir "$root/target/wasm"

cd "$root"
sysroot=$(rustc --print sysroot 2>/dev/null || true)
if [ -n "$sysroot" ] && [ -d "$sysroot/lib/rustlib/$target" ]; then
    say "building$names with $(rustc --version)"
    build cargo "$@"
else
    debian_ready || debian_install
    say "building$names with Debian's $(/usr/bin/rustc --version | cut -d' ' -f1,2), standard library included (a few minutes the first time)"
    build env PATH="/usr/bin:$PATH" RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 \
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld \
        /usr/bin/cargo "$@" -Zbuild-std=std,panic_abort -Zbuild-std-features=
fi

mkdir -p "$out"
for name in $names; do
    module=$root/target/wasm/$target/filter/$name.wasm
    size=$(wc -c <"$module")
    [ "$size" -le "$limit" ] || fail "$name.wasm has $size bytes, the limit is $limit"
    # Such a module needs a JavaScript host; no gateway loads it.
    ! grep -aq '__wbindgen' "$module" || fail "$name.wasm imports wasm-bindgen: a dependency takes the target for a browser"
    # In place by rename: a gateway that starts now reads the old module or the new one.
    for file in "$module" "$here/$name/$name.meta.json"; do
        to=$out/$(basename "$file")
        cmp -s "$file" "$to" || { cp "$file" "$to.tmp" && mv "$to.tmp" "$to"; }
    done
    say "target/filters/$name.wasm, $((size / 1024)) KB"
done
