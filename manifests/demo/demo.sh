#!/usr/bin/env bash
# `make demo`: the four programs at work on a real RabbitMQ and a real Redis.
#
#   ONCE=1                   end when the steps are done, 0 only if each held (default: stay up)
#   CELERY_BROKER_URL        use this broker instead of a private one
#   CELERY_RESULT_BACKEND    use this result store instead of a private one
#   PRODUCER_API_PORT=8080   FLOWER_PORT=5555
#
# Logs are in .run/demo. All that it starts is stopped, by process id, when it ends.
set -uo pipefail
cd "$(dirname "$0")/../.."

once=${ONCE:-}
api_port=${PRODUCER_API_PORT:-8080}
flower_port=${FLOWER_PORT:-5555}
target=${CARGO_TARGET_DIR:-target}
logs=.run/demo
python=${CELERIAC_VENV:-.venv}/bin/python
queue=celery

if [ -t 1 ]; then bold=$'\e[1m' red=$'\e[31m' green=$'\e[32m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' red='' green='' dim='' plain=''; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '  %s%s%s\n' "$dim" "$*" "$plain"; }
stop_with() { printf '%s%s%s\n' "$red" "$*" "$plain" >&2; exit 1; }
redacted() { sed -E 's#(//[^:/@]*):[^@/]*@#\1:…@#' <<<"$1"; }

# ---- what is started is stopped ------------------------------------------------------------------------

names=() pids=()

start() { # name, log, command…: in a session of its own, so that Ctrl-C reaches only this script
    local name=$1 log=$2
    shift 2
    setsid "$@" >"$logs/$log" 2>&1 </dev/null &
    names+=("$name") pids+=("$!")
}

cleanup() {
    trap '' INT TERM HUP
    local i step
    if [ ${#pids[@]} -gt 0 ]; then
        title 'Stopping'
        for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
            kill -TERM "${pids[i]}" 2>/dev/null || continue
            for ((step = 0; step < 150; step++)); do
                kill -0 "${pids[i]}" 2>/dev/null || break
                sleep 0.1
            done
            if kill -KILL "${pids[i]}" 2>/dev/null; then
                note "${names[i]} did not stop in 15 s and was killed"
            else
                note "${names[i]} stopped"
            fi
        done
    fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- waiting -------------------------------------------------------------------------------------------

await() { # seconds, what, log, pid, command…
    local end=$((SECONDS + $1)) what=$2 log=$3 pid=$4
    shift 4
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$end" ]; then
            tail -20 "$logs/$log" >&2
            stop_with "$what did not come up (see $logs/$log)"
        fi
        sleep 0.1
    done
}

free_port() { # port, program, variable
    if (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
        stop_with "Port $1, where $2 would listen, is taken. Choose another: $3=$(($1 + 1)) make demo"
    fi
}

# ---- build, then start ---------------------------------------------------------------------------------

free_port "$api_port" producer-api PRODUCER_API_PORT
free_port "$flower_port" flower-lite FLOWER_PORT
rm -rf "$logs" && mkdir -p "$logs"

title 'Building (release)'
cargo build --release -p celery-worker -p producer-api -p flower-lite --bins || stop_with 'The build failed.'
cargo build --release -p celery-testkit --example servers || stop_with 'The build failed.'

private=()
[ -n "${CELERY_BROKER_URL:-}" ] || private+=(broker)
[ -n "${CELERY_RESULT_BACKEND:-}" ] || private+=(backend)
title 'Starting'
if [ ${#private[@]} -gt 0 ]; then
    start 'private servers' servers.log "$target/release/examples/servers" "${private[@]}"
    await 120 'The private RabbitMQ and Redis' servers.log "${pids[-1]}" grep -q '^READY=yes$' "$logs/servers.log"
    while IFS='=' read -r name value; do
        case $name in CELERY_*) export "$name=$value" ;; esac
    done <"$logs/servers.log"
fi
export CELERY_BROKER_URL CELERY_RESULT_BACKEND
note "broker        $(redacted "$CELERY_BROKER_URL")"
note "result store  $(redacted "$CELERY_RESULT_BACKEND")"

api=http://127.0.0.1:$api_port
flower=http://127.0.0.1:$flower_port
export PRODUCER_API_PORT=$api_port FLOWER_PORT=$flower_port
start flower-lite flower-lite.log "$target/release/flower-lite"
await 30 flower-lite flower-lite.log "${pids[-1]}" curl -fsS "$flower/readyz"
note "flower-lite   $flower"
start celery-worker celery-worker.log "$target/release/celery-worker" -E -l info -Q "$queue" -n 'demo@%h'
await 30 celery-worker celery-worker.log "${pids[-1]}" grep -q 'ready\.' "$logs/celery-worker.log"
note "celery-worker demo@$(hostname)"
start producer-api producer-api.log "$target/release/producer-api"
await 30 producer-api producer-api.log "${pids[-1]}" curl -fsS "$api/readyz"
note "producer-api  $api"

# ---- the steps -----------------------------------------------------------------------------------------

failed=0

shows() { # what, expected, answer
    if [ "$2" = "$3" ]; then
        printf '  %sok%s    %s → %s\n' "$green" "$plain" "$1" "$3"
    else
        printf '  %sfail%s  %s → %s (expected %s)\n' "$red" "$plain" "$1" "$3" "$2"
        failed=$((failed + 1))
    fi
}

post() { curl -sS "$api/v1/tasks" -H 'Content-Type: application/json' -d "$1"; }
result() { curl -sS "$api/v1/tasks/$1/result" -H 'Prefer: wait=20'; }
member() { "$python" -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1" 2>/dev/null; }
from_python() { PYTHONDONTWRITEBYTECODE=1 "$python" manifests/demo/client.py "$@" 2>>"$logs/client.log"; }

title 'Submitting over HTTP'
note "curl $api/v1/tasks -H 'Content-Type: application/json' -d '{\"task\": \"demo.add\", \"args\": [2], \"kwargs\": {\"y\": 3}}'"
over_http=$(post '{"task": "demo.add", "args": [2], "kwargs": {"y": 3}}' | member id)
shows 'demo.add(2, y=3), read over HTTP' 5 "$(result "$over_http")"
shows 'the same result, read from Python' 5 "$(from_python read "$over_http")"
digest=$(post '{"task": "demo.hash", "args": ["celeriac", 1]}' | member id)
shows "demo.hash('celeriac', 1), CPU-bound" "\"$(printf celeriac | sha256sum | cut -d' ' -f1)\"" "$(result "$digest")"
shows 'demo.fail: the answer of GET …/result' 424 \
    "$(curl -sS -o /dev/null -w '%{http_code}' "$api/v1/tasks/$(post '{"task": "demo.fail", "args": ["on purpose"]}' | member id)/result" -H 'Prefer: wait=20')"

title 'Calling from Python (Celery 5.7)'
read -r by_name answer < <(from_python send_task)
shows "send_task('demo.mul', args=[6], kwargs={'y': 7})" 42 "$answer"
shows 'the same result, read over HTTP' 42 "$(result "$by_name")"
shows '@shared_task: add.s(40, y=2).delay()' 42 "$(from_python shared_task)"
shows 'demo.xsum of 0…99' 4950 "$(from_python xsum)"
shows 'demo.progress(3): states seen, then the result' 'PROGRESS 3' "$(from_python progress)"
shows "demo.flaky(2): two retries, then" 2 "$(from_python flaky)"
shows "demo.fail('on purpose') raises" 'on purpose' "$(from_python fail)"

title 'Watching'
seen() { # path, expression over `answer`: polled, since events travel
    "$python" - "$flower$1" "$2" <<'PY'
import json, sys, time, urllib.request
end = time.monotonic() + 15
while True:
    try:
        answer = json.load(urllib.request.urlopen(sys.argv[1], timeout=5))
        value = eval(sys.argv[2])
    except OSError as error:
        value = error
    if value is True or time.monotonic() > end:
        print('yes' if value is True else value)
        break
    time.sleep(0.2)
PY
}
shows 'flower-lite sees the worker online' yes "$(seen /api/v2/workers "any(w['online'] for w in answer['items'])")"
shows 'flower-lite shows the task sent over HTTP' yes "$(seen "/api/v2/tasks/$over_http" "answer['state'] == 'SUCCESS'")"
shows 'flower-lite shows the task sent from Python' yes "$(seen "/api/v2/tasks/$by_name" "answer['state'] == 'SUCCESS'")"
shows 'the page answers' 200 "$(curl -sS -o /dev/null -w '%{http_code}' "$flower/")"

# ---- stay, or end --------------------------------------------------------------------------------------

if [ "$failed" -gt 0 ]; then
    printf '\n%s%d steps failed.%s Logs: %s\n' "$red" "$failed" "$plain" "$logs"
else
    printf '\n%sEvery step held.%s\n' "$green" "$plain"
fi
if [ -n "$once" ] && [ "$once" != 0 ]; then
    [ "$failed" -eq 0 ]
    exit
fi
cat <<END

  monitor      $flower    (also $api/dashboard)
  API          $api    documentation: $api/docs/
  from Python  CELERY_BROKER_URL='$CELERY_BROKER_URL' CELERY_RESULT_BACKEND='$CELERY_RESULT_BACKEND' \\
               $python manifests/demo/client.py send_task
  logs         $logs

Ctrl-C stops everything.
END
while :; do
    for i in "${!pids[@]}"; do
        if ! kill -0 "${pids[i]}" 2>/dev/null; then
            tail -20 "$logs"/*.log >&2
            stop_with "${names[i]} has ended by itself"
        fi
    done
    sleep 1
done
