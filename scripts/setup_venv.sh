#!/usr/bin/env bash
# Make .venv: the package (editable), its plugin parts and its development tools, at the pinned versions.
# Usage: scripts/setup_venv.sh      PYTHON=python3.12 chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.11 python3.12 python3.13 python3.14 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python >= 3.11 with its venv module was found; install one, or name it: make venv PYTHON=/path/to/python" >&2
    return 1
}

# Where there is no GPU the CUDA build of torch is gigabytes for nothing. On Linux PyPI has only that one for
# x86-64, so look for a CPU wheel: first where pip is configured to look, then at PyTorch's own index.
install_cpu_torch() {
    local torch found index=https://download.pytorch.org/whl/cpu
    torch=$(grep '^torch==' constraints.txt)
    if [ "$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch").split("+")[0])' 2>/dev/null)" = "${torch#torch==}" ]; then
        return
    fi
    found=$(.venv/bin/pip install --dry-run --no-deps --quiet --report - "$torch" 2>/dev/null | grep -c '+cpu\|%2Bcpu') || true
    if [ "$found" -gt 0 ]; then
        return # the main install takes the same wheel
    fi
    .venv/bin/pip install --no-deps --timeout 10 --retries 1 --index-url "$index" "$torch" ||
        echo "No CPU build of $torch at $index; taking pip's default, which works without a GPU but is larger." >&2
}

if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    "$python" -m venv --clear .venv
fi
if [ "$(uname -s)" = Linux ] && ! nvidia-smi >/dev/null 2>&1; then
    install_cpu_torch
fi
echo "Installing napari-cryosphere and its tools into .venv (some minutes the first time)"
.venv/bin/pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
touch .venv/.stamp
