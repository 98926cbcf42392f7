"""The HEALPix x S1 grid against healpy, its definition and brute force."""

from __future__ import annotations

import healpy
import numpy as np
import pytest

from napari_cryosphere.so3.asymmetric_unit import inside_asymmetric_unit, reduce
from napari_cryosphere.so3.grid import SO3Grid, cell_centres
from napari_cryosphere.so3.rotations import (
    geodesic_distance_degrees,
    random_rotations,
    rotation_from_relion_angles,
)


@pytest.mark.parametrize(
    ("order", "size"), [(0, 72), (1, 576), (2, 4608), (3, 36864), (5, 2359296)]
)
def test_sizes(order: int, size: int) -> None:
    assert SO3Grid(order).size == size


@pytest.mark.parametrize("order", [0, 2])
def test_rotations_follow_healpix(order: int) -> None:
    grid = SO3Grid(order)
    tilt, rot = healpy.pix2ang(grid.n_side, np.arange(grid.n_views))
    psi = grid.psi_angles() + grid.psi_offsets()[:, None]
    angles = np.stack(np.broadcast_arrays(rot[:, None], tilt[:, None], psi), axis=-1)
    expected = rotation_from_relion_angles(np.degrees(angles)).reshape(-1, 3, 3)
    np.testing.assert_allclose(grid.rotations(), expected, atol=1e-12)
    # the view direction, third column, is HEALPix's pixel centre: the polar axis is the optical
    # axis
    np.testing.assert_allclose(
        grid.rotations()[:: grid.n_psi, :, 2],
        np.array(healpy.pix2vec(grid.n_side, range(grid.n_views))).T,
        atol=1e-12,
    )
    assert order > 0 or np.abs(grid.psi_offsets()).max() < 1e-12


@pytest.mark.parametrize("order", [1, 3, 6])
def test_every_pose_is_near_the_centre_of_its_cell(order: int) -> None:
    """Also near the poles, where a frame of rot and psi would make cells up to 90 degrees long."""
    grid = SO3Grid(order)
    rng = np.random.default_rng(9)
    polar = rotation_from_relion_angles(
        np.stack([rng.uniform(0, 360, 3000), rng.uniform(0, 5, 3000), rng.uniform(0, 360, 3000)], 1)
    )
    rotations = np.concatenate([random_rotations(20_000, rng), polar])
    angles = geodesic_distance_degrees(rotations, grid.rotations(grid.cell_of(rotations)))
    assert angles.max() < 1.2 * grid.spacing_degrees


@pytest.mark.parametrize(("order", "number"), [(0, 20_000), (1, 10_000), (2, 2_000)])
def test_nearest_equals_brute_force(order: int, number: int) -> None:
    grid = SO3Grid(order)
    rotations = random_rotations(number, np.random.default_rng(3)).reshape(number, 9)
    table = grid.rotations().reshape(-1, 9)
    largest_trace = np.concatenate(
        [(part @ table.T).max(1) for part in np.array_split(rotations, 20)]
    )
    found = (table[grid.nearest(rotations.reshape(-1, 3, 3))] * rotations).sum(1)
    np.testing.assert_allclose(found, largest_trace, atol=1e-12)


def test_nearest_of_the_grid_is_itself() -> None:
    grid = SO3Grid(2)
    indices = np.arange(0, grid.size, 7)
    np.testing.assert_array_equal(grid.nearest(grid.rotations(indices)), indices)


def test_order_out_of_range() -> None:
    with pytest.raises(ValueError, match="between 0 and 8, not 9"):
        SO3Grid(9)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_children_tile_their_parent(order: int) -> None:
    grid, finer = SO3Grid(order), SO3Grid(order + 1)
    children = grid.children(np.arange(grid.size))
    assert children.shape == (grid.size, 8)
    np.testing.assert_array_equal(np.sort(children.ravel()), np.arange(finer.size))
    rotations = random_rotations(20_000, np.random.default_rng(4))
    assert (
        (grid.children(grid.cell_of(rotations)) == finer.cell_of(rotations)[:, None]).any(1).all()
    )
    np.testing.assert_array_equal(
        finer.ancestors(children, order), np.arange(grid.size)[:, None].repeat(8, 1)
    )


def test_cells_have_equal_volume() -> None:
    grid = SO3Grid(0)
    counts = np.bincount(
        grid.cell_of(random_rotations(72_000, np.random.default_rng(5))), minlength=72
    )
    assert ((counts - 1000) ** 2 / 1000).sum() < 130  # chi squared, 71 degrees of freedom


def test_a_cell_holds_its_centre() -> None:
    grid = SO3Grid(3)
    np.testing.assert_array_equal(grid.cell_of(grid.rotations()), np.arange(grid.size))


def test_neighbours_are_near_and_mutual() -> None:
    grid = SO3Grid(2)
    cells = np.arange(grid.size)
    around = grid.neighbours(cells)
    assert around.shape == (grid.size, 26)
    angles = geodesic_distance_degrees(
        grid.rotations()[:, None], grid.rotations(np.maximum(around, 0))
    )
    assert angles[around >= 0].max() < 2.3 * grid.spacing_degrees
    assert ((around >= 0).sum(1) >= 20).all()
    # no cell nearer than the spacing is missed
    table = grid.rotations().reshape(-1, 9)
    for cell in range(0, grid.size, 97):
        near = np.flatnonzero(
            table @ table[cell] > 1 + 2 * np.cos(np.radians(grid.spacing_degrees))
        )
        assert set(near) <= {cell, *around[cell]}
        for other in around[cell][around[cell] >= 0]:
            assert cell in around[other]


@pytest.mark.parametrize("symmetry", ["C1", "C3", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"])
def test_reduced_grid_covers_the_unit(symmetry: str) -> None:
    reduced = SO3Grid(2).reduced(symmetry)
    rotations = random_rotations(5_000, np.random.default_rng(6))
    assert np.isin(reduced.cell_of(rotations), reduced.indices()).all()
    # volumes: the shares add up to the sphere's over the group's order
    share = inside_asymmetric_unit(
        random_rotations(50_000, np.random.default_rng(7))[:, :, 2], symmetry
    ).mean()
    assert reduced.shares.sum() / 192 == pytest.approx(share, abs=0.01)
    assert len(reduced.rotations()) == reduced.size


def test_nearest_keeps_the_shape_of_what_it_is_asked() -> None:
    rotations = random_rotations(6, np.random.default_rng(8)).reshape(2, 3, 3, 3)
    grid = SO3Grid(1)
    assert grid.nearest(rotations).shape == (2, 3)
    assert grid.cell_of(reduce(rotations, "O")).shape == (2, 3)
    assert grid.nearest(np.zeros((0, 3, 3))).shape == (0,)


def test_ancestors_are_coarser() -> None:
    np.testing.assert_array_equal(
        SO3Grid(2).ancestors(SO3Grid(1).children([7, 300]), 1)[:, 0], [7, 300]
    )
    with pytest.raises(ValueError, match="at most 2, not 3"):
        SO3Grid(2).ancestors([5], 3)


def test_centres_of_cells_of_mixed_orders() -> None:
    orders, cells = np.array([[3, 1], [2, 0]]), np.array([[0, 5], [-1, 0]])
    centres = cell_centres(orders, cells)
    # the only one of its order
    np.testing.assert_array_equal(centres[0, 0], SO3Grid(3).rotations(0))
    np.testing.assert_array_equal(centres[0, 1], SO3Grid(1).rotations(5))
    np.testing.assert_array_equal(centres[1, 0], np.eye(3))  # padding
    np.testing.assert_array_equal(centres[1, 1], SO3Grid(0).rotations(0))
