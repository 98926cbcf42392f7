"""What every test can ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

# Read when numpy's and torch's libraries load; more threads than cores cost more than they bring.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, str(min(2, os.cpu_count() or 1)))


@pytest.fixture(scope="session", autouse=True)
def _collected_in_the_end() -> Iterator[None]:
    """The command line freezes what it has imported; here the process goes on, and garbage is to
    go.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.freeze", lambda: None)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data made with other programs (RELION's particles, maps, projections).

    It stands beside the repository as ``shared/data`` or where CRYOSPHERE_SHARED_DATA says.
    """
    folder = Path(os.environ.get("CRYOSPHERE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder} (CRYOSPHERE_SHARED_DATA names another folder)")
    return folder


@pytest.fixture(scope="session")
def gaussian_phantom() -> Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A function of a box and ``(n, 3, 3)`` poses: a map of Gaussians, and its projections by
    formula.
    """
    return _gaussian_phantom


def _gaussian_phantom(box: int, rotations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a sum of Gaussians and its exact projections."""
    rng = np.random.default_rng(11)
    centres, sigma = rng.normal(size=(25, 3)) * box / 9, 1.8
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    volume = sum(
        np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 2 / sigma**2) for a, b, c in centres
    )
    v, u = np.meshgrid(axis, axis, indexing="ij")
    images = []
    for rotation in rotations:
        seen = centres @ rotation  # r_img = R^T r_map
        images.append(
            sum(np.exp(-((u - a) ** 2 + (v - b) ** 2) / 2 / sigma**2) for a, b, _ in seen)
            * sigma
            * np.sqrt(2 * np.pi)
        )
    return volume, np.array(images)
