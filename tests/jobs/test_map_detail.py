"""How far a map is compared with particles: as asked for, by the FSC beside it, or by its own
noise.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.running.map_detail import detail_of_map, map_detail
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import FourierShellCorrelation, write_fsc_csv

BOX, SIZE = 32, 6.0


@pytest.fixture
def density(tmp_path: Path) -> DensityMap:
    """A map of 32 voxels, noisy enough that its last shells are noise alone."""
    clean = protein_phantom(BOX, SIZE).voxels
    noise = np.random.default_rng(0).normal(scale=0.1, size=clean.shape)
    density = DensityMap((clean + noise).astype(np.float32), SIZE)
    density.save(tmp_path / "map.mrc")
    return density


def halves_differ_from(shell: int, folder: Path, box: int = BOX, size: float = SIZE) -> None:
    values = np.where(np.arange(box // 2 + 1) < shell, 1.0, 0.0)
    write_fsc_csv(
        {"fsc": FourierShellCorrelation(values, box, size)}, folder / "map_fsc.csv", overwrite=True
    )


def test_as_asked_for_before_all_else(density: DensityMap, tmp_path: Path) -> None:
    halves_differ_from(8, tmp_path)
    assert map_detail(tmp_path / "map.mrc", density, 25.0).resolution_angstrom == 25


def test_by_the_fsc_beside_it(density: DensityMap, tmp_path: Path) -> None:
    halves_differ_from(8, tmp_path)
    found = map_detail(tmp_path / "map.mrc", density)
    # 1 at shell 7, 0 at shell 8: 0.143 lies between, so at 192 A / 7.857
    assert found.resolution_angstrom == pytest.approx(BOX * SIZE / 7.857, rel=0.02)
    assert "map_fsc.csv" in found.why


@pytest.mark.parametrize(
    "kind", ["none", "damaged", "another box", "other pixels", "other columns"]
)
def test_by_its_noise_where_no_fsc_is_of_it(density: DensityMap, tmp_path: Path, kind: str) -> None:
    if kind == "damaged":
        (tmp_path / "map_fsc.csv").write_text("nothing\n")
    elif kind == "another box":
        halves_differ_from(8, tmp_path, box=64, size=SIZE / 2)
    elif kind == "other pixels":
        halves_differ_from(8, tmp_path, size=SIZE * 1.1)
    elif kind == "other columns":
        curve = FourierShellCorrelation(np.ones(BOX // 2 + 1), BOX, SIZE)
        write_fsc_csv({"unmasked": curve}, tmp_path / "map_fsc.csv", overwrite=True)
    found = map_detail(tmp_path / "map.mrc", density)
    assert found == detail_of_map(density)
    assert "noise" in found.why
    assert found.resolution_angstrom is not None
    assert 2 * SIZE < found.resolution_angstrom < 10 * SIZE


def test_a_map_without_noise_is_compared_to_its_last_shell() -> None:
    found = detail_of_map(protein_phantom(BOX, SIZE))
    assert found.resolution_angstrom is None
    assert "all" in found.why
