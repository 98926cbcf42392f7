"""Density maps: axis order, what is refused, and mrcfile as the outside reader."""

from __future__ import annotations

import itertools
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError, FileFormatError, OutputExistsError
from napari_cryosphere.particles import DensityMap


@pytest.fixture
def voxels() -> NDArray[np.float32]:
    return np.random.default_rng(2).normal(size=(6, 6, 6)).astype(np.float32)


def test_round_trip_and_mrcfile(voxels: NDArray[np.float32], tmp_path: Path) -> None:
    path = tmp_path / "map.mrc"
    DensityMap(voxels, 1.3, "D2").save(path)
    again = DensityMap.read(path, symmetry="D2")
    assert_array_equal(again.voxels, voxels)
    assert (again.box, again.symmetry) == (6, "D2")
    assert again.pixel_size_angstrom == pytest.approx(1.3)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        assert file.is_volume()
        assert_array_equal(file.data, voxels)
        assert file.voxel_size.z == pytest.approx(1.3)
    with pytest.raises(OutputExistsError):
        again.save(path)
    again.save(path, overwrite=True)


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_permuted_axes(
    axes: tuple[int, int, int], voxels: NDArray[np.float32], tmp_path: Path
) -> None:
    columns, rows, sections = axes
    stored = np.empty_like(voxels)
    for index in np.ndindex(*voxels.shape):
        xyz = {1: index[2], 2: index[1], 3: index[0]}
        stored[xyz[sections], xyz[rows], xyz[columns]] = voxels[index]
    with mrcfile.new(tmp_path / "map.mrc", data=stored) as file:
        file.voxel_size = 2.0
        file.header.mapc, file.header.mapr, file.header.maps = axes
    assert_array_equal(DensityMap.read(tmp_path / "map.mrc").voxels, voxels)


def test_origin_and_start_are_ignored(voxels: NDArray[np.float32], tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "map.mrc", data=voxels) as file:
        file.voxel_size = 2.0
        file.header.origin.x = -160
        file.nstart = (-3, -3, -3)
    assert_array_equal(DensityMap.read(tmp_path / "map.mrc").voxels, voxels)


@pytest.mark.parametrize(
    ("shape", "voxel_size", "says"),
    [
        ((6, 6, 4), 1.0, "4 x 6 x 6 voxels; a map must be cubic"),
        ((5, 5, 5), 1.0, "odd box of 5; pad it: convert IN OUT --box 6"),
        ((6, 6, 6), (1.0, 1.0, 1.2), "1 x 1 x 1.2 A; resample"),
        ((6, 6, 6), 0.0, "no voxel size"),
    ],
)
def test_maps_that_are_refused(
    shape: tuple[int, ...], voxel_size: float, says: str, tmp_path: Path
) -> None:
    with mrcfile.new(tmp_path / "map.mrc", data=np.ones(shape, dtype=np.float32)) as file:
        file.set_volume()
        file.voxel_size = voxel_size
    with pytest.raises(FileFormatError) as caught:
        DensityMap.read(tmp_path / "map.mrc")
    assert says in str(caught.value)


def test_arrays_that_are_refused(voxels: NDArray[np.float32]) -> None:
    with pytest.raises(CryosphereError, match="cubic"):
        DensityMap(voxels[:, :, 0], 1.0)
    with pytest.raises(CryosphereError, match="odd box"):
        DensityMap(voxels[:5, :5, :5], 1.0)
    with pytest.raises(CryosphereError, match="pixel size"):
        DensityMap(voxels, 0.0)
    voxels[0, 0, 0] = np.inf
    with pytest.raises(CryosphereError, match="1 voxels that are not finite"):
        DensityMap(voxels, 1.0)


def test_non_finite_map_file(voxels: NDArray[np.float32], tmp_path: Path) -> None:
    voxels[1, 0, 0] = np.nan
    with mrcfile.new(tmp_path / "map.mrc") as file:
        file.set_data(np.zeros_like(voxels))
        file.voxel_size = 2.0
        file.data[...] = voxels
    with pytest.raises(FileFormatError, match="not finite"):
        DensityMap.read(tmp_path / "map.mrc")


def test_reference_maps(shared_data: Path) -> None:
    density = DensityMap.read(shared_data / "particles/ribo70S_truth.mrc")
    assert density.box == 64
    assert density.pixel_size_angstrom == pytest.approx(5.0)
