"""Places in the Mollweide picture against healpy's own projection."""

from __future__ import annotations

import numpy as np
from healpy.projector import MollweideProj

from napari_cryosphere.so3 import mollweide
from napari_cryosphere.so3.rotations import random_rotations


def test_positions_equal_healpy() -> None:
    directions = random_rotations(200, np.random.default_rng(10))[:, :, 2]
    x, y = MollweideProj().vec2xy(*directions.T)  # x in [-2, 2], y in [-1, 1]
    ours = mollweide.mollweide_position(directions, 128, 256)
    # healpy's iteration stops early
    np.testing.assert_allclose(ours[:, 0], 63.5 - y * 0.97 * 64, atol=0.05)
    np.testing.assert_allclose(ours[:, 1], 127.5 + x / 2 * 0.97 * 128, atol=0.05)


def test_direction_at_inverts_the_projection() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for direction, (row, column) in zip(
        directions, mollweide.mollweide_position(directions, 256, 512), strict=True
    ):
        found = mollweide.direction_at(row, column, 256, 512)
        assert found is not None
        assert np.degrees(np.arccos(np.clip(found @ direction, -1, 1))) < 1e-3
    assert mollweide.direction_at(0, 0, 256, 512) is None
    assert mollweide.direction_at(128, 511.9, 256, 512) is None
