#!/usr/bin/env bash
# The benchmarks, each beside its peers in one run.
#
#   bench.sh [PART…] [--short] [ARGUMENTS…]
#
# worker: celery-worker beside a bare lapin loop, Python Celery and celery-rs.
# http: producer-api beside the smallest confirming actix publisher, Flask + Celery and Flower's send-task.
# monitor: flower-lite beside Flower; its state and its history by themselves.
# The other arguments go to each part: name one part with them.
# Without a part: all of them. --short only shows that everything runs: with debug builds, and without celery-rs.
set -euo pipefail
cd "$(dirname "$0")/../../.."

parts=()
args=()
short=
for arg in "$@"; do
    case $arg in
        worker | http | monitor) parts+=("$arg") ;;
        --short) short=$arg ;;
        *) args+=("$arg") ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(worker http monitor)

target=${CARGO_TARGET_DIR:-target}
profile=release
if [ -n "$short" ]; then profile=dev; fi
cargo build --profile $profile -p celery-worker -p producer-api -p flower-lite --bins

worker() {
    if [ -z "$short" ]; then
        # Not part of the workspace: its dependencies are old, and nobody else needs them.
        cargo build --release --manifest-path broker/testkit/benches/celery-rs/Cargo.toml --target-dir "$target/peers"
        cp "$target/peers/release/celery-rs-peer" "$target/release/"
    fi
    cargo bench --profile $profile -p celery-testkit --bench worker -- ${short:+"$short"} "${args[@]}"
}

http() {
    broker/testkit/scripts/peers.sh
    cargo bench --profile $profile -p celery-testkit --bench http -- ${short:+"$short"} "${args[@]}"
}

monitor() {
    cargo bench --profile $profile -p flower-lite --bench beside -- ${short:+"$short"} "${args[@]}"
    if [ -z "$short" ]; then
        cargo bench -p flower-lite --bench monitor -- "${args[@]}"
    fi
}

for part in "${parts[@]}"; do
    "$part"
done
