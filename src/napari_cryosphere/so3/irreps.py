"""Wigner coefficients as features of e3nn, and back.

The package expands functions in complex ``D^l_mn`` about z (`so3.wigner`), e3nn in real matrices
``D^l`` about y. Both are homomorphisms, so that ``D_ours = V D_e3nn V^H`` with one unitary V a
degree: the real spherical harmonics written in complex ones, after the turn that takes e3nn's axes
(y polar) to ours (z polar), (x, y, z) -> (z, x, y). This module is the only place that knows both.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere.so3.wigner import degree_of, wigner_matrices

if TYPE_CHECKING:
    from e3nn.o3 import Irreps

__all__ = ["from_e3nn", "so3_irreps", "to_e3nn"]

_AXES = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Takes (x, y, z) to (z, x, y): e3nn's polar axis y becomes z."""


def so3_irreps(l_max: int) -> Irreps:
    """Return e3nn's irreps of a function on SO(3) up to a degree: ``1x0e + 3x1e + 5x2e + ...``."""
    from e3nn.o3 import Irreps

    return Irreps([(2 * degree + 1, (degree, 1)) for degree in range(l_max + 1)])


def to_e3nn(coefficients: Tensor) -> Tensor:
    """Return real features of the same function, as e3nn lays out `so3_irreps`.

    With ``F^l`` the part of degree l, ``(..., 2 l + 1, 2 l + 1)`` copies by components, the function
    is ``f(R) = sum_l sum_ij F^l_ji D^l_ij(R)``, D from ``Irrep(l, 1).D_from_matrix``. Features of
    ``f(g^-1 R)`` are ``so3_irreps(L).D_from_matrix(g)`` times those of ``f``.

    ``coefficients``: ``(..., L + 1, 2 L + 1, L + 1)`` complex, see `so3.wigner`. Returns
    ``(..., (L + 1) (2 L + 1) (2 L + 3) / 3)`` real.
    """
    l_max = degree_of(coefficients)
    every = _with_negative_n(coefficients.to(torch.complex128))
    parts = []
    for degree in range(l_max + 1):
        span = slice(l_max - degree, l_max + degree + 1)
        basis = torch.from_numpy(_basis(degree)).to(every.device)
        block = basis.T @ every[..., degree, span, span] @ basis.conj()
        parts.append(block.real.mT.flatten(-2))
    return torch.cat(parts, dim=-1).to(coefficients.real.dtype)


def from_e3nn(features: Tensor, l_max: int, *, inverse: bool = False) -> Tensor:
    """Return Wigner coefficients of features, the inverse of `to_e3nn`.

    ``features``: ``(..., (L + 1) (2 L + 1) (2 L + 3) / 3)`` real. ``l_max``: degree L. ``inverse``:
    the features are of the function of the inverse rotation, ``f(R^-1)``. Returns
    ``(..., L + 1, 2 L + 1, L + 1)`` complex. Raises `ValueError` if the last axis has another
    length.
    """
    sizes = [(2 * degree + 1) ** 2 for degree in range(l_max + 1)]
    if features.shape[-1] != sum(sizes):
        raise ValueError(
            f"features of degree {l_max} must be (..., {sum(sizes)}), not {tuple(features.shape)}"
        )
    shape = (*features.shape[:-1], l_max + 1, 2 * l_max + 1, l_max + 1)
    made = torch.zeros(shape, dtype=torch.complex128, device=features.device)
    for degree, part in enumerate(features.double().split(sizes, dim=-1)):
        width = 2 * degree + 1
        block = part.unflatten(-1, (width, width)).to(torch.complex128)
        block = block if inverse else block.mT  # D(R^-1) is the transpose of D(R)
        basis = torch.from_numpy(_basis(degree)).to(made.device)
        full = basis.conj() @ block @ basis.T
        made[..., degree, l_max - degree : l_max + degree + 1, : degree + 1] = full[..., degree:]
    return made.to(torch.complex64 if features.dtype == torch.float32 else torch.complex128)


def _with_negative_n(coefficients: Tensor) -> Tensor:
    """Return ``(..., L + 1, 2 L + 1, 2 L + 1)``: a real function has c_(-m,-n) = (-1)^(m - n) conj(c_mn)."""
    l_max = coefficients.shape[-1] - 1
    m = torch.arange(-l_max, l_max + 1, device=coefficients.device)
    sign = 1.0 - 2.0 * ((m[:, None] + m[l_max:]) % 2)
    mirrored = torch.flip(coefficients.conj() * sign, (-2, -1))
    # of n = 0, only the part that makes a real function counts
    middle = (coefficients[..., :1] + mirrored[..., -1:]) / 2
    return torch.cat([mirrored[..., :-1], middle, coefficients[..., 1:]], dim=-1)


@lru_cache(maxsize=32)
def _basis(degree: int) -> NDArray[np.complex128]:
    """Return V of a degree, ``(2 l + 1, 2 l + 1)``: complex components by e3nn's."""
    real = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)  # real by complex
    real[degree, degree] = 1
    for m in range(1, degree + 1):
        sign = (-1) ** m
        real[degree + m, degree + m], real[degree + m, degree - m] = sign, 1
        real[degree - m, degree - m], real[degree - m, degree + m] = 1j, -1j * sign
    real[np.arange(2 * degree + 1) != degree] /= np.sqrt(2)
    turn = wigner_matrices(_AXES, degree)[degree].numpy()
    basis: NDArray[np.complex128] = turn.conj().T @ real.T
    return basis
