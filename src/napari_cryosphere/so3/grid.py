"""HEALPix x S1: an equal-volume grid of rotations whose polar axis is the optical axis.

A grid of order k has ``12 * 4**k`` view directions (HEALPix pixels, RING order) and ``6 * 2**k`` in-plane
angles, as in RELION and Image2Sphere. The rotation of view pixel v and in-plane index p is
``Rz(rot_v) Ry(tilt_v) Rz(psi_p)`` with ``psi_p = 360 p / n_psi`` degrees, at flat index ``v n_psi + p``.
Nothing is stored: every quantity follows from the order by arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import healpy
import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cryosphere.so3.rotations import geodesic_distance_degrees, rotation_from_relion_angles

__all__ = ["SO3Grid"]


@dataclass(frozen=True)
class SO3Grid:
    """The HEALPix x S1 grid of a given order (0 has 72 rotations, 3 has 36,864)."""

    order: int

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 8:
            raise ValueError(f"grid order must be between 0 and 8, not {self.order}")

    @property
    def n_side(self) -> int:
        """HEALPix's N_side."""
        return 2**self.order

    @property
    def n_views(self) -> int:
        """Number of view directions."""
        return int(12 * self.n_side**2)

    @property
    def n_psi(self) -> int:
        """Number of in-plane angles."""
        return 6 * self.n_side

    @property
    def size(self) -> int:
        """Number of rotations."""
        return self.n_views * self.n_psi

    @property
    def spacing_degrees(self) -> float:
        """Spacing of the view directions, ``sqrt(4 pi / n_views)``, which is about that of psi."""
        return float(np.degrees(np.sqrt(4 * np.pi / self.n_views)))

    def view_angles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (rot, tilt) of every view direction, each ``(n_views,)``, in radians."""
        tilt, rot = healpy.pix2ang(self.n_side, np.arange(self.n_views))
        return rot, tilt

    def psi_angles(self) -> NDArray[np.float64]:
        """Return the in-plane angles, ``(n_psi,)``, in radians."""
        return 2 * np.pi * np.arange(self.n_psi) / self.n_psi

    def rotations(self, indices: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the rotations at flat ``indices`` (default: all), ``(..., 3, 3)`` float64."""
        flat = np.arange(self.size) if indices is None else np.asarray(indices)
        view, psi = np.divmod(flat, self.n_psi)
        tilt, rot = healpy.pix2ang(self.n_side, view)
        angles = np.stack([rot, tilt, 2 * np.pi * psi / self.n_psi], axis=-1)
        return rotation_from_relion_angles(np.degrees(angles))

    def nearest(self, rotations: ArrayLike) -> NDArray[np.int64]:
        """Return the flat index of the grid rotation nearest to each of ``rotations``.

        The pixel under the view direction and its eight neighbours are tried, each with the in-plane
        angle that is best for it: for ``M = (Rz(rot) Ry(tilt))^T R`` the trace of ``Rz(psi)^T M`` is
        largest at ``psi = atan2(M_yx - M_xy, M_xx + M_yy)``.

        Parameters
        ----------
        rotations
            ``(n, 3, 3)``; image to map coordinates.

        Returns
        -------
        ``(n,)`` int64.
        """
        matrices = np.asarray(rotations, dtype=np.float64).reshape(-1, 3, 3)
        x, y, z = matrices[:, :, 2].T
        home = healpy.vec2pix(self.n_side, x, y, z)
        candidates = np.concatenate([home[None], healpy.get_all_neighbours(self.n_side, home)])
        candidates = np.where(candidates < 0, home, candidates)
        best_index = np.zeros(len(matrices), dtype=np.int64)
        best_distance = np.full(len(matrices), np.inf)
        for view in candidates:
            relative = self.rotations(view * self.n_psi).swapaxes(-1, -2) @ matrices
            psi = np.arctan2(relative[:, 1, 0] - relative[:, 0, 1], relative[:, 0, 0] + relative[:, 1, 1])
            index = view * self.n_psi + np.rint(psi / (2 * np.pi) * self.n_psi).astype(np.int64) % self.n_psi
            distance = geodesic_distance_degrees(self.rotations(index), matrices)
            closer = distance < best_distance
            best_index = np.where(closer, index, best_index)
            best_distance = np.where(closer, distance, best_distance)
        return best_index
