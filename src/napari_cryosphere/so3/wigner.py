"""Band-limited real functions on SO(3), and fast evaluation of them.

A real function of the pose ``R = Rz(rot) Ry(tilt) Rz(psi)`` is held as

    f(R) = Re sum_l sum_m sum_(n >= 0) w_n c^l_mn D^l_mn(R),
    D^l_mn(R) = exp(-i m rot) d^l_mn(tilt) exp(-i n psi),     w_0 = 1, w_n = 2 otherwise,

with the small d-matrices of Varshalovich, Moskalev & Khersonskii (1988, ch. 4). Being real, f needs
only n >= 0. The index m belongs to the map's side (rotating the map mixes m), n to the image's side
(rotating the image by phi multiplies by a phase). Coefficients are complex, ``(..., L + 1, 2 L + 1,
L + 1)`` in the order l, m (from -L), n (from 0), zero where abs(m) or n exceeds l.

Whole grids are evaluated by `napari_cryosphere.so3.grid_transform`, sampling grids that can be
inverted are in `napari_cryosphere.so3.gauss_legendre`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from napari_cryosphere.so3.rotations import zyz_angles

__all__ = [
    "band_mask",
    "degree_of",
    "evaluate_at",
    "rotate_coefficients",
    "small_d",
    "weighted_harmonics",
    "wigner_matrices",
]


def band_mask(l_max: int) -> Tensor:
    """Return where coefficients may differ from zero: ``(L + 1, 2 L + 1, L + 1)`` bool."""
    degree = torch.arange(l_max + 1)[:, None, None]
    m = torch.arange(-l_max, l_max + 1)[None, :, None]
    n = torch.arange(l_max + 1)[None, None, :]
    return (m.abs() <= degree) & (n <= degree)


_AT_ONCE = 2048  # points per function: bounds what lies between the steps of `evaluate_at`


@lru_cache(maxsize=32)
def _tilt_harmonics(l_max: int) -> np.ndarray:
    """Return T with ``d^l_mn(tilt) = sum_k T[l, m, n, k] exp(-i k tilt)``, n >= 0 only, complex128.

    ``d^l(tilt) = exp(-i tilt J_y)``, and J_y is diagonal (k = -l ... l) in the basis U of its
    eigenvectors.
    """
    size = 2 * l_max + 1
    table = np.zeros((l_max + 1, size, l_max + 1, size), dtype=np.complex128)
    for degree in range(l_max + 1):
        m = np.arange(-degree, degree)
        raising = np.zeros((2 * degree + 1, 2 * degree + 1))
        raising[np.arange(1, 2 * degree + 1), np.arange(2 * degree)] = np.sqrt(
            degree * (degree + 1) - m * (m + 1)
        )
        _, u = np.linalg.eigh((raising - raising.T) / 2j)  # eigenvalues ascend: -l ... l
        full = np.einsum("mk,nk->mnk", u, u.conj())
        span = slice(l_max - degree, l_max + degree + 1)
        table[degree, span, : degree + 1, span] = full[:, degree:, :]
    return table


def small_d(tilt: Tensor, l_max: int) -> Tensor:
    """Return the small Wigner d-matrices ``d^l_mn(tilt)`` for n >= 0.

    ``tilt``: ``(...)`` radians. Returns ``(..., L + 1, 2 L + 1, L + 1)`` real, in the dtype of
    ``tilt``.
    """
    table = torch.from_numpy(_tilt_harmonics(l_max)).to(tilt.device)
    k = torch.arange(-l_max, l_max + 1, device=tilt.device)
    phase = tilt.double()[..., None] * k
    # Re(T exp(-i phase)) = Re T cos(phase) + Im T sin(phase)
    values = (
        torch.cos(phase) @ table.real.flatten(0, 2).T
        + torch.sin(phase) @ table.imag.flatten(0, 2).T
    )
    return values.reshape(*tilt.shape, l_max + 1, 2 * l_max + 1, l_max + 1).to(tilt.dtype)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def weighted_harmonics(l_max: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `_tilt_harmonics`, of the same shape, times w_n: 2 for n > 0, which represent -n too, else 1."""
    weights = np.where(np.arange(l_max + 1) == 0, 1.0, 2.0)[:, None]
    return torch.from_numpy(_tilt_harmonics(l_max) * weights).to(device, dtype)


def degree_of(coefficients: Tensor) -> int:
    """Return L of ``(..., L + 1, 2 L + 1, L + 1)`` coefficients. Raises `ValueError` if they are none."""
    count = coefficients.shape[-1] if coefficients.ndim >= 3 else 0
    if coefficients.shape[-3:] != (count, 2 * count - 1, count) or not coefficients.is_complex():
        raise ValueError(
            "coefficients must be (..., L + 1, 2 L + 1, L + 1) complex, "
            f"not {tuple(coefficients.shape)} {coefficients.dtype}"
        )
    return count - 1


def evaluate_at(coefficients: Tensor, rotations: Tensor) -> Tensor:
    """Evaluate each function at its own rotations.

    ``coefficients``: ``(b, L + 1, 2 L + 1, L + 1)`` complex. ``rotations``: ``(b, k, 3, 3)``; image
    to map coordinates. Returns ``(b, k)`` real. Differentiable with respect to the coefficients.

    d^l_mn is a sum of waves in tilt, so the function is one of plane waves in three angles: l comes
    first.
    """
    l_max = degree_of(coefficients)
    if rotations.shape[1] > _AT_ONCE:
        parts = [evaluate_at(coefficients, part) for part in rotations.split(_AT_ONCE, dim=1)]
        return torch.cat(parts, dim=1)
    batch, number = rotations.shape[:2]
    rot, tilt, psi = zyz_angles(rotations.to(coefficients.real.dtype))
    k = torch.arange(-l_max, l_max + 1, device=rot.device, dtype=rot.dtype)
    table = weighted_harmonics(l_max, coefficients.dtype, coefficients.device)
    waves = torch.einsum("lmnk,blmn->bmkn", table, coefficients).flatten(1, 2)
    by_psi = torch.polar(torch.ones_like(psi)[:, None], -k[l_max:, None] * psi[:, None])
    # b, m, k, point
    on_psi = torch.bmm(waves, by_psi).view(batch, 2 * l_max + 1, 2 * l_max + 1, number)
    by_tilt = torch.polar(torch.ones_like(tilt)[:, None], -k[:, None] * tilt[:, None])
    by_rot = torch.polar(torch.ones_like(rot)[:, None], -k[:, None] * rot[:, None])
    return ((on_psi * by_tilt[:, None]).sum(2) * by_rot).sum(1).real


def wigner_matrices(rotation: ArrayLike, l_max: int) -> Tensor:
    """Return the Wigner matrices ``D^l_mn(R)`` of one rotation, all m and n.

    ``(L + 1, 2 L + 1, 2 L + 1)`` complex128, zero where abs(m) or abs(n) exceeds l.
    """
    rot, tilt, psi = (float(angle) for angle in zyz_angles(np.asarray(rotation, dtype=np.float64)))
    right = small_d(torch.tensor(tilt, dtype=torch.float64), l_max)  # n >= 0
    m = torch.arange(-l_max, l_max + 1, dtype=torch.float64)
    sign = 1.0 - 2.0 * ((m[:, None] + m) % 2)
    left = torch.flip(right[:, :, 1:], (1, 2)) * sign[:, :l_max]  # d_(m,-n) = (-1)^(m + n) d_(-m,n)
    phases = torch.exp(-1j * (m[:, None] * rot + m * psi))
    return torch.cat([left, right], dim=2) * phases


def rotate_coefficients(coefficients: Tensor, rotation: ArrayLike) -> Tensor:
    """Return the coefficients of ``f(g R)``, ``g`` being one rotation of the map, ``(3, 3)``.

    ``c'^l_kn = sum_m D^l_mk(g) c^l_mn``, exact: the degrees do not mix.
    """
    matrices = wigner_matrices(rotation, degree_of(coefficients)).to(coefficients)
    return torch.einsum("lmk,...lmn->...lkn", matrices, coefficients)
