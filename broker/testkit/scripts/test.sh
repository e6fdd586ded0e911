#!/usr/bin/env bash
# Runs cargo test with the given arguments; the last line says "N passed, N failed".
set -uo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo test "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

read -r passed failed < <(awk '
    /^test result: / { passed += $4; failed += $6 }
    END { print passed + 0, failed + 0 }' "$log")
# A crate that does not compile, or a test that took the process down, has no result line.
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then failed=1; fi
echo "$passed passed, $failed failed"
exit "$status"
