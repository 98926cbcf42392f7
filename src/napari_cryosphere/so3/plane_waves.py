"""Band-limited functions on SO(3) as plane waves in rot, tilt and psi, with exact derivatives.

``f(R) = Re sum_mkn W_mkn exp(-i (m rot + k tilt + n psi))``, n >= 0: the small d-matrices of
`napari_cryosphere.so3.wigner` are sums of waves in tilt, so that l is summed over once per function.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.so3.grid import Indices
from napari_cryosphere.so3.rotations import zyz_angles
from napari_cryosphere.so3.wigner import degree_of, rotate_coefficients, weighted_harmonics

__all__ = ["PlaneWaves"]

_POLAR = 0.02  # sine of the tilt below which derivatives by the angles lose digits
_QUARTER = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # takes z to x


class PlaneWaves:
    """Functions given by ``(b, L + 1, 2 L + 1, L + 1)`` complex coefficients, ready to be evaluated.

    Precision and device are those of the coefficients.
    """

    def __init__(self, coefficients: Tensor) -> None:
        self._coefficients = coefficients
        self._l_max = degree_of(coefficients)
        table = weighted_harmonics(self._l_max, coefficients.dtype, coefficients.device)
        self._waves = torch.einsum("lmnk,blmn->bmkn", table, coefficients)

    def derivatives(self, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values and derivatives of ``f(R exp(w))`` by the rotation vector w, at w = 0.

        ``rotations``: ``(b, q, 3, 3)``; image to map coordinates. Returns ``(b, q)`` values,
        ``(b, q, 3)`` gradients and ``(b, q, 3, 3)`` Hessians, by radians about the image's axes x,
        y and z.

        Derivatives by the angles degenerate where the view is along the map's z axis; poses near it
        are evaluated on functions turned by 90 degrees.
        """
        value, gradient, hessian = self._derivatives(rotations)
        polar = torch.hypot(rotations[..., 0, 2], rotations[..., 1, 2]) < _POLAR
        rows = polar.any(1).nonzero()[:, 0]
        if len(rows):
            aside = PlaneWaves(rotate_coefficients(self._coefficients[rows], _QUARTER))
            turn = torch.from_numpy(_QUARTER.T.copy()).to(rotations)
            for all_of, turned in zip(
                (value, gradient, hessian), aside._derivatives(turn @ rotations[rows]), strict=True
            ):
                chosen = polar[rows].view(*polar[rows].shape, *(1,) * (turned.ndim - 2))
                all_of[rows] = torch.where(chosen, turned, all_of[rows])
        return value, gradient, hessian

    def along_psi(self, rows: Indices, frames: Tensor, psi: NDArray[np.float64]) -> Tensor:
        """Return values at poses that differ by their in-plane angles alone.

        ``rows``, ``(p,)``: which function, ascending. ``frames``: ``(p, g, 3, 3)`` poses. ``psi``:
        ``(k,)`` radians to turn them by. Returns ``(p, g, k)``: f at ``frames Rz(psi)``.
        """
        real = self._coefficients.real.dtype
        rot, tilt, offset = (angle.to(self._waves.device, real) for angle in zyz_angles(frames))
        k = torch.arange(-self._l_max, self._l_max + 1, device=rot.device, dtype=real)
        n = k[self._l_max :]
        by_view = _wave(k, rot)[..., :, None] * _wave(k, tilt)[..., None, :]
        starts = np.append(np.searchsorted(rows, np.unique(rows)), len(rows))
        over_n = torch.cat(
            [
                by_view[first:last].flatten(0, 1).flatten(1)
                @ self._waves[rows[first]].flatten(0, 1)
                for first, last in pairwise(starts)
            ]
        )
        parts = torch.view_as_real(over_n.view(*rot.shape, -1) * _wave(n, offset)).flatten(-2)
        turns = torch.from_numpy(psi).to(rot) * n[:, None]
        waves = torch.stack([torch.cos(turns), torch.sin(turns)], dim=1).flatten(0, 1)
        return parts @ waves

    def _derivatives(self, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rot, tilt, psi = zyz_angles(rotations)
        by_angles = self._by_angles(rot, tilt, psi)
        return by_angles[..., 0, 0, 0], *_about_image_axes(by_angles, tilt, psi)

    def _by_angles(self, rot: Tensor, tilt: Tensor, psi: Tensor) -> Tensor:
        """Return derivatives of order 0 to 2 by each of rot, tilt and psi, ``(b, q, 3, 3, 3)``."""
        k = torch.arange(-self._l_max, self._l_max + 1, device=rot.device, dtype=rot.dtype)
        over_rot, over_tilt = _waves(k, rot), _waves(k, tilt)
        over_psi = _waves(k[self._l_max :], psi)
        on_rot = torch.bmm(
            over_rot.flatten(1, 2), self._waves.flatten(2)
        )  # b, point derivative, k n
        by_point = on_rot.view(-1, 3, len(k), self._l_max + 1)
        on_tilt = over_tilt.flatten(0, 1)[:, None] @ by_point
        on_psi = on_tilt.flatten(1, 2) @ over_psi.flatten(0, 1).mT
        return on_psi.real.reshape(*rot.shape, 3, 3, 3)


def _wave(k: Tensor, angle: Tensor) -> Tensor:
    """Return ``exp(-i k angle)``, ``(..., k)``."""
    return torch.polar(torch.ones_like(angle)[..., None], -k * angle[..., None])


def _waves(k: Tensor, angle: Tensor) -> Tensor:
    """Return ``exp(-i k angle)`` and its first and second derivatives by the angle, ``(b, q, 3, k)``."""
    wave = _wave(k, angle)
    return torch.stack(
        [wave, torch.complex(wave.imag * k, -wave.real * k), wave * -(k * k)], dim=-2
    )


def _about_image_axes(by_angles: Tensor, tilt: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
    """Turn derivatives by the angles into those by a rotation vector in the image's frame.

    With ``exp(w)`` to the right of ``Rz(rot) Ry(tilt) Rz(psi)`` the fields about x, y, z are, at
    psi = 0, ``(-d_rot + cos d_psi) / sin``, ``d_tilt`` and ``d_psi``; the Hessian is the mean of
    both orders of two of them. At another psi, w is first turned by it.
    """
    r, t, p = by_angles[..., 1, 0, 0], by_angles[..., 0, 1, 0], by_angles[..., 0, 0, 1]
    rr, tt, pp = by_angles[..., 2, 0, 0], by_angles[..., 0, 2, 0], by_angles[..., 0, 0, 2]
    rt, rp, tp = by_angles[..., 1, 1, 0], by_angles[..., 1, 0, 1], by_angles[..., 0, 1, 1]
    sine, cosine = torch.sin(tilt), torch.cos(tilt)
    x = (cosine * p - r) / sine
    xx = (rr - 2 * cosine * rp + cosine**2 * pp) / sine**2 + cosine / sine * t
    xy = (cosine * tp - rt) / sine + (cosine * r - (1 + cosine**2) / 2 * p) / sine**2
    xz = (cosine * pp - rp) / sine + t / 2
    yz = tp - x / 2
    gradient = torch.stack([x, t, p], dim=-1)
    hessian = torch.stack([xx, xy, xz, xy, tt, yz, xz, yz, pp], dim=-1).unflatten(-1, (3, 3))
    zero, one, c, s = torch.zeros_like(psi), torch.ones_like(psi), torch.cos(psi), torch.sin(psi)
    back = torch.stack([c, s, zero, -s, c, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
    return (back @ gradient[..., None])[..., 0], back @ hessian @ back.mT
