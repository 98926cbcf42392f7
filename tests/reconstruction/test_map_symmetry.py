"""Point groups of maps whose symmetry is known from elsewhere: crystal structures, an asymmetric ribosome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.resample import resampled_map
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction.map_alignment import moved
from napari_cryosphere.reconstruction.map_symmetry import (
    SymmetryFit,
    axes_to_lay,
    found_symmetry,
    symmetry_fits,
)
from napari_cryosphere.so3.symmetry import point_group

TURN = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
OFFSET_PX = np.array([2.0, -1.5, 1.0])


def turned(density: DensityMap, box: int = 48) -> DensityMap:
    """Return a map read at ``TURN @ r + OFFSET``: its axes lie along ``TURN.T`` of RELION's."""
    field = density.box * density.pixel_size_angstrom
    small = resampled_map(density, box, field / box)
    return DensityMap(moved(small.voxels, TURN, OFFSET_PX, order=3), small.pixel_size_angstrom)


def axes_off_degrees(fit: SymmetryFit) -> float:
    """Return how far the worst operator's turn is from one of the group's, back in RELION's frame."""
    group, frame = point_group(fit.group), TURN @ fit.rotation
    turns = frame @ group @ frame.T
    traces = np.einsum("aij,bij->ab", turns, group).max(1)
    return float(np.degrees(np.arccos(np.clip((traces.min() - 1) / 2, -1, 1))))


@pytest.mark.parametrize(
    ("file", "group", "others"),
    [
        ("particles/betagalD2_truth.mrc", "D2", ("C2", "C4", "D4", "T")),
        ("real/apoferritin_model_map.mrc", "O", ("C3", "C4", "D4", "I2")),
    ],
)
def test_axes_are_found_in_any_orientation(
    shared_data: Path, file: str, group: str, others: tuple[str, ...]
) -> None:
    density = DensityMap.read(shared_data / file)
    moved_map = turned(density)
    fit = found_symmetry(symmetry_fits(moved_map, groups=(group, *others)))
    assert fit is not None
    assert fit.group == group
    assert fit.correlation > 0.9
    assert fit.deviations > 10
    assert axes_off_degrees(fit) < 0.5
    centre = -TURN.T @ OFFSET_PX * moved_map.pixel_size_angstrom
    np.testing.assert_allclose(fit.centre_angstrom, centre, atol=1.0)
    # laid, the axes are RELION's, and nothing is left to lay
    assert axes_to_lay(fit.laid(moved_map), group) is None
    assert axes_to_lay(moved_map, group) is not None


def test_a_ribosome_has_no_symmetry(shared_data: Path) -> None:
    density = DensityMap.read(shared_data / "particles/ribo70S_truth.mrc")
    fits = symmetry_fits(density, groups=("C2", "C3", "C4", "C5", "D2", "D3", "T"))
    assert found_symmetry(fits) is None
    assert max(fit.correlation for fit in fits) < 0.4
    assert axes_to_lay(density, "D2") is None


def test_poses_go_with_the_laid_map() -> None:
    """A pose's projection of the map is the laid pose's projection of the laid map."""
    density = protein_phantom(32, 6.0)
    rotation = Rotation.from_rotvec([0.0, 0.0, np.pi / 2]).as_matrix()  # voxels onto voxels
    fit = SymmetryFit("C2", rotation, np.array([12.0, -6.0, 6.0]), 1.0, 0.0, 0.1)
    laid = fit.laid(density)
    poses, origins = fit.laid_poses(np.eye(3)[None], np.array([[6.0, 0.0]]))
    image = np.roll(density.voxels.sum(0), (0, -1), (0, 1))  # its centre 6 A to the left
    ours = moved(laid.voxels, poses[0], np.zeros(3), order=1).sum(0)
    ours = np.roll(ours, tuple(np.rint(-origins[0, ::-1] / 6.0).astype(int)), (0, 1))
    assert np.corrcoef(image.ravel(), ours.ravel())[0, 1] > 0.99
