#!/usr/bin/env bash
# Celery's own integration suite against our example worker, on private servers.
#
#   conformance.sh [options of run.py]      e.g. --tier A, or -- t/integration/test_canvas.py -k chord
#
# WORKER_CMD names another worker, e.g. WORKER_CMD=broker/testkit/conformance/py_worker.sh for Celery's own.
# The suite is fetched from PyPI into target/conformance; nothing of it is kept in the repository.
set -euo pipefail
top=$(cd "$(dirname "$0")/../../.." && pwd)
here=$top/broker/testkit/conformance
target=${CARGO_TARGET_DIR:-$top/target}
work=$target/conformance
mkdir -p "$work"

if [ ! -d "$work/suite/t/integration" ]; then
    echo "conformance: fetching Celery's suite from PyPI"
    PYTHON=$top/.venv/bin/python SUITE_DIR=$work/suite "$here/get_suite.sh"
fi
if [ -z "${WORKER_CMD:-}" ]; then
    echo "conformance: building the example worker"
    cargo build --release -p celery-worker --example integration_tasks
    WORKER_CMD=$target/release/examples/integration_tasks
fi

cargo build -q -p celery-testkit --example servers
addresses=$(mktemp)
"$target/debug/examples/servers" >"$addresses" &
servers=$!
trap 'kill $servers 2>/dev/null || true; wait $servers 2>/dev/null || true; rm -f "$addresses"' EXIT
for _ in $(seq 120); do
    grep -q READY "$addresses" && break
    kill -0 $servers || { echo "conformance: the private servers did not start" >&2; exit 1; }
    sleep 0.5
done
broker=$(sed -n 's/^CELERY_BROKER_URL=//p' "$addresses")
backend=$(sed -n 's/^CELERY_RESULT_BACKEND=//p' "$addresses")

# Celery's own clients read these; the harness says which servers it means.
unset CELERY_BROKER_URL CELERY_RESULT_BACKEND
PATH=$top/.venv/bin:$PATH "$top/.venv/bin/python" "$here/run.py" --suite "$work/suite" \
    --worker-cmd "$WORKER_CMD" --broker "$broker" --backend "$backend" \
    --json "$work/result.json" --only "$here/tests.txt" "$@"
