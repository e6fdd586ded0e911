#!/usr/bin/env bash
# The benchmarks, each beside its peers in one run.
#
#   bench.sh [PART…] [--short] [ARGUMENTS…]
#
# worker: celery-worker beside a bare lapin loop, Python Celery and celery-rs (the other arguments go there).
# Without a part: all of them. --short only shows that everything runs: with debug builds, and without celery-rs.
set -euo pipefail
cd "$(dirname "$0")/../../.."

parts=()
args=()
short=
for arg in "$@"; do
    case $arg in
        worker) parts+=("$arg") ;;
        --short) short=$arg ;;
        *) args+=("$arg") ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=(worker)

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

for part in "${parts[@]}"; do
    "$part"
done
