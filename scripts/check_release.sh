#!/usr/bin/env bash
# Build the wheel and the source distribution and check that PyPI will take and show them.
# Usage: scripts/check_release.sh [FOLDER]; the packages are left in FOLDER if it is given.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=${1:-$work/dist}

python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet build twine check-wheel-contents
"$work/env/bin/python" -m build --outdir "$out" .
"$work/env/bin/twine" check --strict "$out"/*
"$work/env/bin/check-wheel-contents" "$out"/*.whl
tar --list --file "$out"/*.tar.gz | grep /CITATION.cff >/dev/null
echo "$out: $(ls "$out")"
