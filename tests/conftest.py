"""What every test can ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Read when numpy's and torch's libraries load; more threads than cores cost more than they bring.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, str(min(2, os.cpu_count() or 1)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data made with other programs (RELION's particles, maps, projections).

    It stands beside the repository as ``shared/data`` or where CRYOSPHERE_SHARED_DATA says.
    """
    folder = Path(os.environ.get("CRYOSPHERE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (CRYOSPHERE_SHARED_DATA names another folder)")
    return folder
