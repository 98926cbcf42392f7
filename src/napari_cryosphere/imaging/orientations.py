"""Poses drawn at random: uniform on SO(3), or with preferred view directions as particles have on ice."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.rotations import random_rotations, rotation_from_relion_angles

__all__ = ["STRONGEST_PREFERENCE", "draw_rotations"]

STRONGEST_PREFERENCE = 1000.0
"""Views 1.8 degrees (root mean square) from the axis; what the table below still resolves."""

_TABLE = 200_001  # cosines: the strongest preference falls by e over 50 of its steps


def draw_rotations(
    number: int,
    rng: np.random.Generator,
    preference: float = 0.0,
    axis: ArrayLike = (0.0, 0.0, 1.0),
    share: float = 1.0,
) -> NDArray[np.float64]:
    """Draw poses whose view directions follow the axial distribution of Watson (1965).

    The density of the view direction d (third column of the pose), relative to the uniform one, is
    proportional to ``exp(preference (d . axis)^2)``: both ends of the axis are alike, as for
    particles that stick to both surfaces of the ice. The in-plane angle is uniform. Returns
    ``(number, 3, 3)`` float64; image to map coordinates. Raises `ValueError` if the strength is out
    of range or the axis has no direction.

    - ``number``: number of poses.
    - ``rng``: source of randomness.
    - ``preference``: strength, within +-1000. 0 is uniform on SO(3); 3 puts 44 % of the views
      within 30 degrees of the axis, 10 puts 90 % there (uniform: 13 %). Negative values prefer
      views across it: -10 puts 97 % within 30 degrees of the equator (uniform: 50 %).
    - ``axis``: ``(3,)`` x, y, z in the map's frame, of any length above 0.
    - ``share``: of the poses that are drawn so, 0 to 1; the others are uniform on SO(3).
    """
    if not abs(preference) <= STRONGEST_PREFERENCE:
        raise ValueError(
            f"the preference must be within +-{STRONGEST_PREFERENCE:g}, not {preference}"
        )
    if preference == 0:
        return random_rotations(number, rng)
    tilt = np.degrees(np.arccos(_cosines(number, rng, preference)))
    rot, psi = rng.uniform(-180, 180, size=(2, number))
    about_z = rotation_from_relion_angles(np.stack([rot, tilt, psi], axis=1))
    poses = _turn_z_to(axis) @ about_z
    if share < 1:
        others = rng.random(number) >= share
        poses[others] = random_rotations(int(others.sum()), rng)
    return poses


def _cosines(number: int, rng: np.random.Generator, preference: float) -> NDArray[np.float64]:
    """Draw ``d . axis`` from the density ``exp(preference t^2)`` on [-1, 1] by its tabulated integral."""
    t = np.linspace(-1, 1, _TABLE)
    density = np.exp(preference * t**2 - max(preference, 0.0))
    integral = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return np.interp(rng.uniform(size=number), integral / integral[-1], t)


def _turn_z_to(axis: ArrayLike) -> NDArray[np.float64]:
    """Return a rotation ``(3, 3)`` that takes +z to a direction."""
    x, y, z = np.asarray(axis, dtype=np.float64)
    length = float(np.sqrt(x * x + y * y + z * z))
    if not (np.isfinite(length) and length > 0):
        raise ValueError(
            f"the axis must be three finite numbers that are not all 0, not {(x, y, z)}"
        )
    return rotation_from_relion_angles(np.degrees([np.arctan2(y, x), np.arccos(z / length), 0.0]))
