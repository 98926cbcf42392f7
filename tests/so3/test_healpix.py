"""HEALPix arithmetic against healpy."""

from __future__ import annotations

import healpy
import numpy as np
import pytest

from napari_cryosphere.so3 import healpix

N_SIDES = [1, 2, 4, 8, 64]


@pytest.mark.parametrize("n_side", N_SIDES)
@pytest.mark.parametrize("nest", [False, True])
def test_centres(n_side: int, nest: bool) -> None:
    pixels = np.arange(12 * n_side**2)
    vectors = healpix.pix2vec(n_side, pixels, nest)
    expected = np.stack(healpy.pix2vec(n_side, pixels, nest=nest), axis=-1)
    np.testing.assert_allclose(vectors, expected, atol=1e-15)
    np.testing.assert_allclose(
        healpix.pix2ang(n_side, pixels, nest), healpy.pix2ang(n_side, pixels, nest=nest), atol=2e-15
    )
    np.testing.assert_array_equal(healpix.vec2pix(n_side, *vectors.T, nest=nest), pixels)


@pytest.mark.parametrize("n_side", [*N_SIDES, 2**20])
@pytest.mark.parametrize("nest", [False, True])
def test_pixel_that_holds_a_direction(n_side: int, nest: bool) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(3, 20_000))
    vectors[:2, :5000] *= 10.0 ** rng.uniform(-6, 0, 5000)  # towards the poles
    tilt, rot = healpy.vec2ang(vectors.T)
    expected = healpy.vec2pix(n_side, *vectors, nest=nest)
    np.testing.assert_array_equal(healpix.vec2pix(n_side, *vectors, nest=nest), expected)
    np.testing.assert_array_equal(
        healpix.ang2pix(n_side, tilt, rot - 2 * np.pi, nest=nest), expected
    )


@pytest.mark.parametrize(
    "vector", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)]
)
def test_directions_along_the_axes_have_a_pixel(vector: tuple[int, int, int]) -> None:
    found = healpix.vec2pix(4, *vector)
    assert 0 <= found < 192
    assert float(healpix.pix2vec(4, found) @ vector) > np.cos(np.radians(20))


@pytest.mark.parametrize("n_side", N_SIDES)
def test_numbering(n_side: int) -> None:
    pixels = np.arange(12 * n_side**2).reshape(-1, 3)
    np.testing.assert_array_equal(
        healpix.ring2nest(n_side, pixels), healpy.ring2nest(n_side, pixels)
    )
    np.testing.assert_array_equal(
        healpix.nest2ring(n_side, pixels), healpy.nest2ring(n_side, pixels)
    )


def test_numbering_of_the_finest_pixels() -> None:
    n_side = 2**24
    pixels = np.random.default_rng(5).integers(12 * n_side**2, size=20_000)
    np.testing.assert_array_equal(
        healpix.ring2nest(n_side, pixels), healpy.ring2nest(n_side, pixels)
    )
    np.testing.assert_array_equal(
        healpix.nest2ring(n_side, pixels), healpy.nest2ring(n_side, pixels)
    )


@pytest.mark.parametrize("n_side", N_SIDES)
def test_neighbours(n_side: int) -> None:
    pixels = np.arange(12 * n_side**2)
    np.testing.assert_array_equal(
        healpix.pixel_neighbours(n_side, pixels), healpy.get_all_neighbours(n_side, pixels)
    )
