#!/bin/sh
# Fetches Celery's own integration tests from PyPI: the sdist of celery 5.7.0 holds
# t/integration (and t/smoke, without its docker files).  Result: suite/t and suite/pyproject.toml, beside this file or
# in SUITE_DIR
set -e
here=$(cd "$(dirname "$0")" && pwd)
py=${PYTHON:-python3}
tmp=$(mktemp -d)
"$py" -m pip download -q --no-deps --no-binary :all: -d "$tmp" celery==5.7.0
echo "6a5dfcf6662287204f009a02002b9e66c83d4105e47ebabdc7079108772fc6f0  $tmp/celery-5.7.0.tar.gz" | sha256sum -c -
tar xzf "$tmp/celery-5.7.0.tar.gz" -C "$tmp"
suite=${SUITE_DIR:-$here/suite}
rm -rf "$suite"; mkdir -p "$suite"
cp -r "$tmp/celery-5.7.0/t" "$tmp/celery-5.7.0/pyproject.toml" "$suite/"
rm -rf "$suite/t/unit" "$suite/t/benchmarks" "$tmp"
echo "suite in $suite"
