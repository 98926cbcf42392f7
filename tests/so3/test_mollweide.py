"""The picture of a distribution against healpy's own Mollweide projection."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from healpy.projector import MollweideProj

from napari_cryosphere.so3 import mollweide
from napari_cryosphere.so3.rotations import random_rotations


def test_positions_equal_healpy() -> None:
    directions = random_rotations(200, np.random.default_rng(10))[:, :, 2]
    x, y = MollweideProj().vec2xy(*directions.T)  # x in [-2, 2], y in [-1, 1]
    ours = mollweide.mollweide_position(directions, 128, 256)
    np.testing.assert_allclose(ours[:, 0], 63.5 - y * 0.97 * 64, atol=0.05)  # healpy's iteration stops early
    np.testing.assert_allclose(ours[:, 1], 127.5 + x / 2 * 0.97 * 128, atol=0.05)


def test_pixels_show_the_cell_under_them() -> None:
    """Light one HEALPix cell: exactly the pixels that fall in it, by healpy, light up."""
    n_side, cell = 8, 300
    cells = np.zeros((768, 48))
    cells[cell, 7] = 1.0
    picture = mollweide.rasterise(cells).astype(int)
    lit = (picture[..., :3] == np.rint(mollweide.in_plane_colours(48)[7] * 255 - 0.5).astype(int)).all(-1)
    rows, columns = np.nonzero(lit)
    assert len(rows) > 10
    x = (columns - 127.5) / (0.97 * 128) * 2
    y = (63.5 - rows) / (0.97 * 64)
    inverse = MollweideProj().xy2vec(x, y)
    np.testing.assert_array_equal(healpy.vec2pix(n_side, *inverse), cell)


def test_hue_is_the_most_probable_in_plane_angle() -> None:
    cells = np.zeros((48, 12))
    cells[20, 3], cells[20, 9] = 0.7, 0.3
    picture = mollweide.rasterise(cells)
    colours = np.unique(picture[picture[..., 3] > 0][:, :3], axis=0)
    expected = (mollweide.in_plane_colours(12)[3] * 255).astype(np.uint8)
    assert (colours == expected).all(1).any()


def test_corners_are_transparent_and_nothing_is_shared() -> None:
    cells = np.full((48, 12), 1 / 576)
    first = mollweide.rasterise(cells)
    assert first[0, 0, 3] == 0
    assert first[64, 128, 3] == 255
    before = mollweide.rasterise(cells).copy()
    mollweide.draw_cross(first, (1.0, 0.0, 0.0))
    mollweide.draw_ring(first, (0.0, 1.0, 0.0))
    np.testing.assert_array_equal(mollweide.rasterise(cells), before)
    assert (first[64, 128, :3] == 255).all()  # +x is in the middle


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0, -1), (-1, 0, 0), (-1, 1e-9, 0)])
def test_marks_at_the_border_are_clipped(direction: tuple[float, float, float]) -> None:
    picture = mollweide.rasterise(np.full((48, 12), 1 / 576))
    mollweide.draw_cross(picture, direction)
    mollweide.draw_ring(picture, direction)
    assert picture.shape == (128, 256, 4)


def test_colour_wheel_is_even_and_within_range() -> None:
    colours = mollweide.in_plane_colours(24)
    assert colours.min() >= 0
    assert colours.max() <= 1
    steps = np.linalg.norm(np.diff(np.vstack([colours, colours[:1]]), axis=0), axis=1)
    assert steps.max() < 2.5 * steps.min()
