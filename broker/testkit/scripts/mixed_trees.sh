#!/usr/bin/env bash
# Random canvases whose tasks alternate between a Python worker and ours, on private servers: all as in pure Python?
#
#   mixed_trees.sh N     N trees without failures, N with a fifth of the members failing
set -euo pipefail
top=$(cd "$(dirname "$0")/../../.." && pwd)
target=${CARGO_TARGET_DIR:-$top/target}
trees=${1:-500}
logs=$target/mixed_trees
cargo build --manifest-path "$top/Cargo.toml" -p celery-worker --example integration_tasks
for ratio in 0 0.2; do
    echo "mixed trees: $trees of them, $ratio of the members fail; the workers' logs are in $logs"
    "$top/broker/testkit/scripts/with_servers.sh" "$top/.venv/bin/python" "$top/broker/testkit/python/mixed_trees.py" \
        --rust "$target/debug/examples/integration_tasks" --trees "$trees" --fail-ratio "$ratio" --logs "$logs"
done
