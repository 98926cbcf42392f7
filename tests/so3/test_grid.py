"""The HEALPix x S1 grid against healpy, its definition and brute force."""

from __future__ import annotations

import healpy
import numpy as np
import pytest

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    random_rotations,
    rotation_from_relion_angles,
)


@pytest.mark.parametrize(("order", "size"), [(0, 72), (1, 576), (2, 4608), (3, 36864), (5, 2359296)])
def test_sizes(order: int, size: int) -> None:
    assert SO3Grid(order).size == size


def test_rotations_follow_healpix() -> None:
    grid = SO3Grid(1)
    view, psi = 17, 5
    tilt, rot = healpy.pix2ang(2, view)
    expected = rotation_from_relion_angles([np.degrees(rot), np.degrees(tilt), 360 * psi / 12])
    np.testing.assert_allclose(grid.rotations([view * 12 + psi])[0], expected, atol=1e-12)
    # the view direction, third column, is HEALPix's pixel centre: the polar axis is the optical axis
    np.testing.assert_allclose(
        grid.rotations()[::12, :, 2], np.array(healpy.pix2vec(2, range(48))).T, atol=1e-12
    )


def test_nearest_equals_brute_force() -> None:
    grid = SO3Grid(1)
    rotations = random_rotations(400, np.random.default_rng(3))
    distances = geodesic_distance_degrees(rotations[:, None], grid.rotations()[None])
    found = distances[np.arange(400), grid.nearest(rotations)]
    np.testing.assert_allclose(found, distances.min(1), atol=1e-9)


def test_nearest_of_the_grid_is_itself() -> None:
    grid = SO3Grid(2)
    indices = np.arange(0, grid.size, 7)
    np.testing.assert_array_equal(grid.nearest(grid.rotations(indices)), indices)


def test_order_out_of_range() -> None:
    with pytest.raises(ValueError, match="between 0 and 8, not 9"):
        SO3Grid(9)
