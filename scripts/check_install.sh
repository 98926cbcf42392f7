#!/usr/bin/env bash
# Check that the plugin arrives whole by each way of installing it: editable (in .venv), the wheel built from
# the checkout, and the wheel built from the source distribution.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=$root/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --no-isolation --wheel --outdir "$work/checkout" . >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
"$python" -m build --no-isolation --outdir "$work/sdist" . >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

# The plugin as npe2 sees it, from a folder that is not the checkout; $1 is where it must have been found.
validate() {
    local interpreter=$1 place=$2
    cd "$work"
    "$interpreter" - "$place" <<'PYTHON'
import sys
from pathlib import Path

import napari_cryosphere

folder = Path(napari_cryosphere.__file__).parent
if not folder.is_relative_to(Path(sys.argv[1]).resolve()):
    sys.exit(f"napari_cryosphere came from {folder}, not from {sys.argv[1]}")
files = ("napari.yaml", "py.typed", "data/sample_model.safetensors")
missing = [name for name in files if not (folder / name).is_file()]
if missing:
    sys.exit(f"{folder} lacks {', '.join(missing)}")
PYTHON
    "$interpreter" -m npe2 validate napari-cryosphere --imports
    "$interpreter" -m napari_cryosphere --quiet demo --no-gui --output demo --set number=64
    rm -r demo
    cd "$root"
}

echo "editable install"
validate "$python" "$root/src"
for kind in checkout sdist; do
    echo "wheel from the $kind"
    environment=$work/env-$kind
    "$python" -m venv --without-pip "$environment"
    site=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # the dependencies come from .venv; its link to the checkout is not followed from here
    "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/dependencies.pth"
    "$python" -m pip --quiet --python "$environment/bin/python" install --no-deps --no-index --ignore-installed "$work/$kind"/*.whl
    validate "$environment/bin/python" "$environment"
done
diff <("$python" -m zipfile --list "$work"/checkout/*.whl | awk '{print $1}') \
    <("$python" -m zipfile --list "$work"/sdist/*.whl | awk '{print $1}') ||
    { echo "the two wheels differ (left: from the checkout, right: from the source distribution)" >&2; exit 1; }
