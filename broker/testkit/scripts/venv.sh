#!/usr/bin/env bash
# Makes the Python environment of the peers in .venv, if it is missing or older than its requirements.
set -euo pipefail

requirements=broker/testkit/python/requirements.txt
stamp=.venv/requirements.txt

if cmp -s $requirements $stamp && .venv/bin/python -c 'import celery, flower' 2>/dev/null; then
    exit 0
fi
echo "venv: installing Celery and Flower into .venv"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $requirements
cp $requirements $stamp
