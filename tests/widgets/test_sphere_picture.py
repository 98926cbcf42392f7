"""The picture of a distribution against healpy's own Mollweide projection."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from healpy.projector import MollweideProj

from napari_cryosphere.so3 import mollweide
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import relion_angles_from_rotation
from napari_cryosphere.widgets.state import sphere_picture


@pytest.mark.parametrize("order", [0, 2, 3])
def test_every_pixel_is_that_of_healpy(order: int) -> None:
    """Paint each view with a colour of its own: every pixel shows the cell that mollview would look
    up.
    """
    grid = SO3Grid(order)
    x, y = np.meshgrid(
        (np.arange(256) - 127.5) / (0.97 * 128) * 2, (63.5 - np.arange(128)) / (0.97 * 64)
    )
    inverse = MollweideProj().xy2vec(np.ma.masked_array(x), np.ma.masked_array(y))
    inside = (x / 2) ** 2 + y**2 < 0.995
    expected = healpy.vec2pix(grid.n_side, *(np.asarray(v)[inside] for v in inverse))
    entries = sphere_picture._lookup(grid.n_side, 128, 256)[inside]
    plain = entries < 2 * grid.n_views  # not on the rim
    shown = entries[plain] % grid.n_views
    assert (shown != expected[plain]).mean() < 1e-3  # ties of rounding on borders of cells
    assert plain.mean() > 0.95


def test_hue_is_relions_psi_at_the_peak() -> None:
    grid = SO3Grid(2)
    for cell in (5, 1234, 4000):
        view, psi = divmod(cell, grid.n_psi)
        cells = np.zeros((grid.n_views, grid.n_psi))
        cells[view, psi], cells[view, (psi + 7) % grid.n_psi] = 0.7, 0.3
        picture = sphere_picture.rasterise(cells)
        colours = np.unique(picture[picture[..., 3] > 0][:, :3].astype(int), axis=0)
        angle = relion_angles_from_rotation(grid.rotations(cell))[2]
        expected = sphere_picture.in_plane_colours(3600)[round(angle * 10) % 3600] * 255
        assert np.abs(colours - expected).max(1).min() < 2.5


def test_shape_must_be_that_of_a_grid() -> None:
    with pytest.raises(ValueError, match="on a HEALPix x S1 grid"):
        sphere_picture.rasterise(np.zeros((48, 24)))


def test_corners_are_transparent_and_nothing_is_shared() -> None:
    cells = np.full((48, 12), 1 / 576)
    first = sphere_picture.rasterise(cells)
    assert first[0, 0, 3] == 0
    assert first[64, 128, 3] == 255
    before = sphere_picture.rasterise(cells).copy()
    sphere_picture.draw_cross(first, (1.0, 0.0, 0.0))
    sphere_picture.draw_ring(first, (0.0, 1.0, 0.0))
    np.testing.assert_array_equal(sphere_picture.rasterise(cells), before)
    assert (first[64, 128, :3] == 255).all()  # +x is in the middle


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0, -1), (-1, 0, 0), (-1, 1e-9, 0)])
def test_marks_at_the_border_are_clipped(direction: tuple[float, float, float]) -> None:
    picture = sphere_picture.rasterise(np.full((48, 12), 1 / 576))
    sphere_picture.draw_cross(picture, direction)
    sphere_picture.draw_ring(picture, direction)
    assert picture.shape == (128, 256, 4)


def test_colour_wheel_is_even_and_within_range() -> None:
    colours = sphere_picture.in_plane_colours(24)
    assert colours.min() >= 0
    assert colours.max() <= 1
    steps = np.linalg.norm(np.diff(np.vstack([colours, colours[:1]]), axis=0), axis=1)
    assert steps.max() < 2.5 * steps.min()


def test_an_outline_encloses_the_likely_views() -> None:
    grid = SO3Grid(3)
    views = np.zeros(grid.n_views)
    x, _, _ = healpy.pix2vec(grid.n_side, np.arange(grid.n_views))
    near = np.degrees(np.arccos(x)) < 25
    views[near] = 1 / near.sum()
    picture = sphere_picture.rasterise(np.zeros((grid.n_views, grid.n_psi)), 128, 256)
    before = picture.copy()
    sphere_picture.draw_outline(picture, views, 0.95, (255, 0, 0))
    changed = (picture != before).any(-1)
    red = (picture[..., :3] == (255, 0, 0)).all(-1)
    row, column = mollweide.mollweide_position([1.0, 0, 0], 128, 256).round().astype(int)
    assert not changed[row, column]
    assert red.any()
    rows, columns = np.nonzero(red)
    assert rows.min() < row < rows.max()
    assert columns.min() < column < columns.max()
    drawn = [mollweide.direction_at(*place) for place in zip(rows, columns, strict=True)]
    angles = [np.degrees(np.arccos(direction[0])) for direction in drawn if direction is not None]
    assert min(angles) > 12
    assert max(angles) < 36


def test_a_diamond_is_drawn_at_its_direction() -> None:
    picture = np.zeros((64, 128, 4), dtype=np.uint8)
    sphere_picture.draw_diamond(picture, (1.0, 0.0, 0.0), (10, 200, 30), 5)
    rows, columns = np.nonzero((picture[..., :3] == (10, 200, 30)).all(-1))
    centre = mollweide.mollweide_position([1.0, 0, 0], 64, 128).round()
    np.testing.assert_allclose([rows.mean(), columns.mean()], centre, atol=0.1)
    assert picture[int(centre[0]), int(centre[1]), 3] == 0


@pytest.mark.parametrize(
    ("draw", "usual"), [("draw_cross", 4), ("draw_diamond", 5), ("draw_ring", 6)]
)
def test_marks_are_as_large_as_asked_for(draw: str, usual: int) -> None:
    """In their colour, about their direction, and outlined in black."""
    direction = (1.0, 0.0, 0.0)
    centre = mollweide.mollweide_position(direction, 64, 128).round()
    for radius in (usual, 9):
        picture = np.full((64, 128, 4), 77, dtype=np.uint8)
        options = {} if radius == usual else {"radius": radius}
        getattr(sphere_picture, draw)(picture, direction, (10, 200, 30), **options)
        inside = (picture[..., :3] == (10, 200, 30)).all(-1)
        rows, columns = np.nonzero(inside)
        np.testing.assert_allclose([np.ptp(rows), np.ptp(columns)], 2 * radius, atol=2)
        np.testing.assert_allclose([rows.mean(), columns.mean()], centre, atol=0.1)
        black = (picture[..., :3] == 0).all(-1)
        assert (black | inside)[rows.min() - 1 : rows.max() + 2].any(axis=1).all()
        assert black.sum() > 10
