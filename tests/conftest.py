"""What every test can ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

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


class ReferenceData:
    """Paths of reference data: ``shared_data / "particles/x.star"``. What is not in the given folder
    is built by RELION where a script can; a test whose file cannot be had is skipped.
    """

    def __init__(self, given: Path, scratch: Path) -> None:
        self.given, self._built = given, scratch / "reference_sets"

    def __truediv__(self, part: str) -> Path:
        if (self.given / part).exists():
            return self.given / part
        missing = f"no {part} in {self.given} (CRYOSPHERE_SHARED_DATA names another folder)"
        import make_reference_sets as sets

        if part.split("/")[0] not in sets.PARTS:
            pytest.skip(missing)
        if shutil.which("relion_postprocess") is None:
            pytest.skip(f"{missing}; with RELION 3.1 (Debian's relion) it would be built here")
        with FileLock(f"{self._built}.lock"):  # by the first of the test's processes that asks
            if not self._built.exists():
                growing = self._built.with_suffix(".growing")
                shutil.rmtree(growing, ignore_errors=True)
                sets.main(growing)
                growing.rename(self._built)
        if not (self._built / part).exists():
            pytest.skip(missing)
        return self._built / part


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> ReferenceData:
    """Reference data made with other programs (RELION's particles, maps, projections).

    They stand beside the repository as ``shared/data``, where CRYOSPHERE_SHARED_DATA says, or are
    built by ``tests/data/make_reference_sets.py``.
    """
    given = Path(os.environ.get("CRYOSPHERE_SHARED_DATA") or ROOT.parent / "shared" / "data")
    scratch = tmp_path_factory.getbasetemp()
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    return ReferenceData(given, scratch.parent if parallel else scratch)


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
