#!/usr/bin/env bash
# Installs what is missing, and only that: Debian packages by apt-get.
#
#   deps.sh [base] [demo] [bench] [browser] [manifests]
#
# base: build and test; demo: also curl; bench: also wrk and valgrind; browser: also Chromium; manifests: also what judges them.
# The servers' own services are not started: the project runs private instances on free ports.
set -euo pipefail

say() { printf 'deps: %s\n' "$*"; }

rust() {
    local here want have
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null; then
        say "Rust is missing. Install it with rustup (https://rustup.rs), open a new shell, and run this again." >&2
        exit 1
    fi
    here=$(rustc --version)
    have=$(printf '%s' "$here" | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -1)" != "$want" ]; then
        say "Rust $want or newer is needed, this is $here: run 'rustup update stable'." >&2
        exit 1
    fi
}

missing=()
need() { missing+=("$@"); }

base() {
    command -v cc >/dev/null || need build-essential
    command -v pkg-config >/dev/null || need pkg-config
    command -v git >/dev/null || need git
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -n "${CELERIAC_RABBITMQ_DIR:-}" ] || need rabbitmq-server
    command -v redis-server >/dev/null && command -v redis-cli >/dev/null || need redis-server
    command -v python3 >/dev/null || need python3
    python3 -c 'import venv, ensurepip' 2>/dev/null || need python3-venv
    [ -e /etc/ssl/certs/ca-certificates.crt ] || need ca-certificates
    command -v openssl >/dev/null || need openssl
}

for part in "${@:-base}"; do
    case $part in
        base) base ;;
        demo) base; command -v curl >/dev/null || need curl ;;
        bench)
            base
            command -v wrk >/dev/null || need wrk
            command -v valgrind >/dev/null || need valgrind
            ;;
        browser) base; command -v chromium >/dev/null || command -v google-chrome >/dev/null || need chromium ;;
        manifests)
            base
            command -v promtool >/dev/null || need prometheus
            command -v systemd-analyze >/dev/null || need systemd
            command -v curl >/dev/null || need curl
            command -v jq >/dev/null || need jq
            command -v nsenter >/dev/null || need util-linux
            ;;
        *) say "unknown part: $part" >&2; exit 2 ;;
    esac
done

if [ ${#missing[@]} -gt 0 ]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    if ! command -v apt-get >/dev/null; then
        say "please install: ${missing[*]} (these are Debian's names; there is no apt-get here)" >&2
        exit 1
    fi
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { say "run as root: apt-get install ${missing[*]}" >&2; exit 1; }
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    # Debian starts a service when it installs one, unless this file forbids it.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
        "${as_root[@]}" chmod 755 $policy
        trap '"${as_root[@]}" rm -f $policy' EXIT
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"
fi

rust
