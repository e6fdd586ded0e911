#!/usr/bin/env bash
# Celery's own integration suite against our example worker, on private servers.
#
#   conformance.sh [options of run.py]      e.g. --tier A, or -- t/integration/test_canvas.py -k chord
#
# WORKER_CMD names another worker, e.g. WORKER_CMD=broker/testkit/conformance/py_worker.sh for Celery's own.
# PROFILE=dev judges a debug build. The suite is fetched from PyPI into target/conformance; nothing of it is kept in the
# repository.
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
    profile=${PROFILE:-release}
    cargo build --manifest-path "$top/Cargo.toml" --profile "$profile" -p celery-worker --example integration_tasks
    WORKER_CMD=$target/${profile/dev/debug}/examples/integration_tasks
fi

export top here work WORKER_CMD
exec "$top/broker/testkit/scripts/with_servers.sh" bash -c '
    broker=$CELERY_BROKER_URL backend=$CELERY_RESULT_BACKEND
    # Celery'"'"'s own clients read these; the harness says which servers it means.
    unset CELERY_BROKER_URL CELERY_RESULT_BACKEND
    PATH=$top/.venv/bin:$PATH exec "$top/.venv/bin/python" "$here/run.py" --suite "$work/suite" \
        --worker-cmd "$WORKER_CMD" --broker "$broker" --backend "$backend" \
        --json "$work/result.json" --only "$here/tests.txt" --firehose --one-slot "$@"' conformance "$@"
