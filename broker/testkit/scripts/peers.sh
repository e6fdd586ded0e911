#!/usr/bin/env bash
# Makes .run/peers, the Python environment of who judges and rivals the HTTP interface, and installs the tools of the
# TypeScript client, where they are missing or older than their requirements.
set -euo pipefail

requirements=broker/testkit/python/http_peers.txt
peers=.run/peers
if ! cmp -s $requirements $peers/requirements.txt; then
    echo "peers: installing schemathesis, openapi-python-client and Flask into $peers"
    [ -x $peers/bin/python ] || python3 -m venv $peers
    $peers/bin/python -m pip install --quiet --disable-pip-version-check -r $requirements
    cp $requirements $peers/requirements.txt
fi

clients=producer-api/tests/clients
lock=$clients/package-lock.json
if ! cmp -s $lock $clients/node_modules/installed.json; then
    echo "peers: installing openapi-typescript and the linters of the OpenAPI document into $clients/node_modules"
    if ! command -v npm >/dev/null; then PATH="$PWD/.venv/bin:$PATH"; fi # from web.sh, where the system has none
    npm --prefix $clients ci --no-audit --no-fund --loglevel=error
    cp $lock $clients/node_modules/installed.json
fi
