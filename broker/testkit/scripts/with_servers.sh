#!/usr/bin/env bash
# Runs a command with a private RabbitMQ and Redis, in CELERY_BROKER_URL and CELERY_RESULT_BACKEND; RABBITMQCTL is the
# program that controls the former.
set -euo pipefail
top=$(cd "$(dirname "$0")/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$top/target}

cargo build -q --manifest-path "$top/Cargo.toml" -p celery-testkit --example servers
addresses=$(mktemp)
"$target/debug/examples/servers" >"$addresses" &
servers=$!
trap 'kill $servers 2>/dev/null || true; wait $servers 2>/dev/null || true; rm -f "$addresses"' EXIT
for _ in $(seq 240); do
    grep -q READY "$addresses" && break
    kill -0 $servers || { echo "the private servers did not start" >&2; exit 1; }
    sleep 0.5
done
grep -q READY "$addresses" || { echo "the private servers were not ready in 120 s" >&2; exit 1; }
CELERY_BROKER_URL=$(sed -n 's/^CELERY_BROKER_URL=//p' "$addresses")
CELERY_RESULT_BACKEND=$(sed -n 's/^CELERY_RESULT_BACKEND=//p' "$addresses")
RABBITMQCTL=$(sed -n 's/^RABBITMQCTL=//p' "$addresses")
export CELERY_BROKER_URL CELERY_RESULT_BACKEND RABBITMQCTL
"$@"
