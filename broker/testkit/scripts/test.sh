#!/usr/bin/env bash
# All tests: Rust's, and those of flower-lite's pages. The last line says "N passed, N failed".
#
#   test.sh              everything
#   test.sh ARGUMENTS…   only `cargo test` with these arguments; that no test has that name is an error
set -uo pipefail

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

tally() { # name, command…: runs it, counts what it says of its tests; to say nothing of any is an error
    local name=$1 status ok bad
    shift
    "$@" 2>&1 | tee "$log"
    status=${PIPESTATUS[0]}
    # Three ways of saying it: cargo test, vitest, the browser tests.
    read -r ok bad < <(sed 's/\x1b\[[0-9;]*m//g' "$log" | awk '
        /^test result: / { ok += $4; bad += $6 }
        $1 == "Tests" { for (i = 3; i <= NF; i++) { if ($i ~ /^passed/) ok += $(i - 1); if ($i ~ /^failed/) bad += $(i - 1) } }
        /^[0-9]+ passed, [0-9]+ failed$/ { ok += $1; bad += $3 }
        END { print ok + 0, bad + 0 }')
    if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1 # it did not compile, or went down with a test
        echo "failed: $name"
    elif [ $((ok + bad)) -eq 0 ]; then
        if [ "$name" = 'npm run check' ]; then # which has no tests, and is one
            ok=1
        else
            bad=1
            echo "failed: $name ran no test; is there one of that name? ($*)"
        fi
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
}

if [ $# -gt 0 ]; then
    tally 'cargo test' cargo test --no-fail-fast "$@"
else
    tally 'cargo test' cargo test --no-fail-fast --workspace
    tally 'mixed trees' broker/testkit/scripts/mixed_trees.sh 60
    PROFILE=dev tally 'conformance' broker/testkit/scripts/conformance.sh --tier A --rerun
    web=flower-lite/web
    if [ -x .venv/bin/npm ]; then PATH="$PWD/.venv/bin:$PATH"; fi # web.sh found the system's too old
    export NO_COLOR=1
    tally 'npm run check' npm --prefix $web run check
    tally 'npm test' npm --prefix $web test
    tally 'npm run e2e' npm --prefix $web run e2e
    cargo build -q -p flower-lite --bins
    tally 'npm run e2e:real' broker/testkit/scripts/with_servers.sh npm --prefix $web run e2e:real
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
