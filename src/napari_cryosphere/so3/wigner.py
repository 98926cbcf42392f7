"""Band-limited real functions on SO(3), and fast evaluation of them.

A real function of the pose ``R = Rz(rot) Ry(tilt) Rz(psi)`` is held as

    f(R) = Re sum_l sum_m sum_(n >= 0) w_n c^l_mn D^l_mn(R),
    D^l_mn(R) = exp(-i m rot) d^l_mn(tilt) exp(-i n psi),     w_0 = 1, w_n = 2 otherwise,

with the small d-matrices of Varshalovich, Moskalev & Khersonskii (1988, ch. 4). Being real, f needs only
n >= 0. The index m belongs to the map's side (rotating the map mixes m), n to the image's side (rotating
the image by phi multiplies by a phase). Coefficients are complex, ``(..., L + 1, 2 L + 1, L + 1)`` in the
order l, m (from -L), n (from 0), zero where abs(m) or n exceeds l.

Sums are separated: tilt is summed with one small matrix a HEALPix ring, then psi and rot with one short
Fourier sum each, so that a whole grid costs megabytes where the dense Wigner matrix takes gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import zyz_angles

__all__ = [
    "GaussLegendreGrid",
    "band_mask",
    "evaluate_at",
    "evaluate_on_grid",
    "gauss_legendre_grid",
    "rotate_coefficients",
    "small_d",
    "wigner_matrices",
]


def band_mask(l_max: int) -> Tensor:
    """Return where coefficients may differ from zero: ``(L + 1, 2 L + 1, L + 1)`` bool."""
    degree = torch.arange(l_max + 1)[:, None, None]
    m = torch.arange(-l_max, l_max + 1)[None, :, None]
    n = torch.arange(l_max + 1)[None, None, :]
    return (m.abs() <= degree) & (n <= degree)


@lru_cache(maxsize=32)
def _tilt_harmonics(l_max: int) -> np.ndarray:
    """Return T with ``d^l_mn(tilt) = sum_k T[l, m, n, k] exp(-i k tilt)``, n >= 0 only, complex128.

    ``d^l(tilt) = exp(-i tilt J_y)``, and J_y is diagonal (k = -l ... l) in the basis U of its eigenvectors.
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

    Parameters
    ----------
    tilt
        ``(...)`` radians.
    l_max
        Largest degree L.

    Returns
    -------
    ``(..., L + 1, 2 L + 1, L + 1)`` real, in the dtype of ``tilt``.
    """
    table = torch.from_numpy(_tilt_harmonics(l_max)).to(tilt.device)
    k = torch.arange(-l_max, l_max + 1, device=tilt.device)
    phase = tilt.double()[..., None] * k
    # Re(T exp(-i phase)) = Re T cos(phase) + Im T sin(phase)
    values = torch.cos(phase) @ table.real.flatten(0, 2).T + torch.sin(phase) @ table.imag.flatten(0, 2).T
    return values.reshape(*tilt.shape, l_max + 1, 2 * l_max + 1, l_max + 1).to(tilt.dtype)


def _side_weights(l_max: int, like: Tensor) -> Tensor:
    """Return w_n: 1 for n = 0, 2 for the n > 0 that stand for -n too."""
    weights = torch.full((l_max + 1,), 2.0, dtype=like.dtype, device=like.device)
    weights[0] = 1.0
    return weights


def _l_max(coefficients: Tensor) -> int:
    return coefficients.shape[-1] - 1


def evaluate_at(coefficients: Tensor, rotations: Tensor) -> Tensor:
    """Evaluate each function at its own rotations.

    Parameters
    ----------
    coefficients
        ``(b, L + 1, 2 L + 1, L + 1)`` complex.
    rotations
        ``(b, k, 3, 3)``; image to map coordinates.

    Returns
    -------
    ``(b, k)`` real. Differentiable with respect to the coefficients.
    """
    l_max = _l_max(coefficients)
    real = coefficients.real
    rot, tilt, psi = zyz_angles(rotations.to(real.dtype))
    d = small_d(tilt, l_max)
    m = torch.arange(-l_max, l_max + 1, device=real.device, dtype=real.dtype)
    n = torch.arange(l_max + 1, device=real.device, dtype=real.dtype)
    phase = rot[..., None, None] * m[:, None] + psi[..., None, None] * n
    weights = _side_weights(l_max, real)
    cosine, sine = torch.cos(phase) * weights, torch.sin(phase) * weights
    # Re(c exp(-i phase)) = Re c cos(phase) + Im c sin(phase)
    summed = torch.einsum("blmn,bklmn->bkmn", coefficients, d.to(coefficients.dtype))
    return (summed.real * cosine + summed.imag * sine).sum((-2, -1))


def wigner_matrices(rotation: ArrayLike, l_max: int) -> Tensor:
    """Return the Wigner matrices ``D^l_mn(R)`` of one rotation, all m and n.

    ``(L + 1, 2 L + 1, 2 L + 1)`` complex128, zero where abs(m) or abs(n) exceeds l.
    """
    rot, tilt, psi = (float(angle) for angle in zyz_angles(np.asarray(rotation, dtype=np.float64)))
    right = small_d(torch.tensor(tilt, dtype=torch.float64), l_max)  # n >= 0
    m = torch.arange(-l_max, l_max + 1)
    sign = 1.0 - 2.0 * ((m[:, None] + m) % 2)
    left = torch.flip(right[:, :, 1:], (1, 2)) * sign[:, :l_max]  # d_(m,-n) = (-1)^(m + n) d_(-m,n)
    phases = torch.exp(-1j * (m[:, None] * rot + m * psi).double())
    return torch.cat([left, right], dim=2) * phases


def rotate_coefficients(coefficients: Tensor, rotation: ArrayLike) -> Tensor:
    """Return the coefficients of ``f(g R)``, ``g`` being one rotation of the map, ``(3, 3)``.

    ``c'^l_kn = sum_m D^l_mk(g) c^l_mn``, exact: the degrees do not mix.
    """
    matrices = wigner_matrices(rotation, _l_max(coefficients)).to(coefficients)
    return torch.einsum("lmk,...lmn->...lkn", matrices, coefficients)


@dataclass(frozen=True)
class _GridTables:
    """What the separable sum over a HEALPix x S1 grid needs; a few megabytes."""

    tilt: Tensor  # (m n, rings, l)
    psi: Tensor  # (n, n_psi) complex, weighted
    rot: Tensor  # (rings, longest ring, 2 (2 L + 1)): cosines, then minus sines
    valid: Tensor  # (n_views,) positions in the padded (rings, longest ring) table


# Tables made in inference mode could never be used in training: whoever comes first, they are ordinary.
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _grid_tables(l_max: int, order: int, dtype: torch.dtype, device: torch.device) -> _GridTables:
    grid = SO3Grid(order)
    rot, tilt = grid.view_angles()
    starts = np.flatnonzero(np.r_[True, np.abs(np.diff(tilt)) > 1e-9])
    ring = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, grid.n_views]))
    within = np.arange(grid.n_views) - starts[ring]
    longest = int(within.max()) + 1
    padded = np.zeros((len(starts), longest))
    padded[ring, within] = rot
    m = np.arange(-l_max, l_max + 1)
    phase = padded[..., None] * m
    rot_table = np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)
    n = np.arange(l_max + 1)
    psi_table = np.exp(-1j * n[:, None] * grid.psi_angles()) * np.where(n == 0, 1.0, 2.0)[:, None]
    d = small_d(torch.from_numpy(tilt[starts]), l_max)
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return _GridTables(
        tilt=d.permute(2, 3, 0, 1).flatten(0, 1).to(device, dtype),
        psi=torch.from_numpy(psi_table).to(device, complex_dtype),
        rot=torch.from_numpy(rot_table).to(device, dtype),
        valid=torch.from_numpy(ring * longest + within).to(device),
    )


def evaluate_on_grid(coefficients: Tensor, order: int) -> Tensor:
    """Evaluate functions on the whole HEALPix x S1 grid.

    Parameters
    ----------
    coefficients
        ``(b, L + 1, 2 L + 1, L + 1)`` complex.
    order
        Order of the grid, see `SO3Grid`.

    Returns
    -------
    ``(b, n_views, n_psi)`` real; view pixels in HEALPix RING order. Differentiable.
    """
    l_max = _l_max(coefficients)
    batch = coefficients.shape[0]
    width = 2 * l_max + 1
    tables = _grid_tables(l_max, order, coefficients.real.dtype, coefficients.device)
    # tilt: for every (m, n), rings x degrees times degrees x (batch, real and imaginary)
    by_order = (
        torch.view_as_real(coefficients).permute(2, 3, 1, 0, 4).reshape(width * (l_max + 1), l_max + 1, -1)
    )
    on_rings = torch.bmm(tables.tilt, by_order).reshape(width, l_max + 1, -1, batch, 2)
    # psi: a short complex Fourier sum over n
    rows = torch.view_as_complex(on_rings.permute(2, 3, 0, 1, 4).contiguous())  # ring, batch, m, n
    on_psi = rows @ tables.psi
    # rot: Re(G exp(-i m rot)) = Re G cos(m rot) + Im G sin(m rot)
    stacked = torch.cat([on_psi.real, on_psi.imag], dim=2)  # ring, batch, 2 (2 L + 1), psi
    full = torch.matmul(tables.rot[:, None], stacked)  # ring, batch, longest ring, psi
    by_particle = full.transpose(0, 1).reshape(batch, -1, full.shape[-1])
    return by_particle[:, tables.valid]


@dataclass(frozen=True)
class GaussLegendreGrid:
    """A product grid on which band-limited functions are sampled and analysed exactly.

    ``n_rot x n_tilt x n_psi`` points: equidistant in rot and psi, Gauss-Legendre nodes in cos(tilt). An
    analysis up to degree L of a function of degree K is exact when ``n_rot, n_psi > L + K`` and
    ``2 n_tilt > L + K``.
    """

    l_max: int
    tilt_synthesis: Tensor  # (m n, tilt, l)
    tilt_analysis: Tensor  # (m n, l, tilt), with quadrature weights and 2 l + 1
    rot_synthesis: Tensor  # (rot, m) complex, exp(-i m rot)
    psi_synthesis: Tensor  # (n, psi) complex, exp(-i n psi), weighted

    def to_grid(self, coefficients: Tensor) -> Tensor:
        """Sample: ``(b, L + 1, 2 L + 1, L + 1)`` complex to ``(b, n_tilt, n_rot, n_psi)`` real."""
        batch, count, width, _ = coefficients.shape
        packed = torch.view_as_real(coefficients).permute(2, 3, 1, 0, 4).reshape(width * count, count, -1)
        on_tilt = torch.bmm(self.tilt_synthesis, packed).reshape(width, count, -1, batch, 2)
        rows = torch.view_as_complex(on_tilt.permute(3, 2, 0, 1, 4).contiguous())  # batch, tilt, m, n
        on_rot = self.rot_synthesis @ rows  # batch, tilt, rot, n
        # Re(A exp(-i n psi)) = Re A cos + Im A sin; psi_synthesis holds cos - i sin
        real_pair = torch.cat([on_rot.real, on_rot.imag], dim=-1)
        table = torch.cat([self.psi_synthesis.real, -self.psi_synthesis.imag], dim=0)
        return real_pair @ table

    def from_grid(self, values: Tensor) -> Tensor:
        """Analyse: ``(b, n_tilt, n_rot, n_psi)`` real to ``(b, L + 1, 2 L + 1, L + 1)`` complex."""
        batch = values.shape[0]
        n_rot, n_psi = values.shape[-2:]
        count, width = self.l_max + 1, 2 * self.l_max + 1
        weights = torch.full((count, 1), 0.5 / n_psi, dtype=values.dtype, device=values.device)
        weights[0] = 1.0 / n_psi
        table = torch.cat([self.psi_synthesis.real * weights, -self.psi_synthesis.imag * weights]).T
        pair = values @ table  # batch, tilt, rot, 2 (L + 1): exp(+i n psi) sums
        on_n = torch.complex(pair[..., :count], pair[..., count:])
        on_m = self.rot_synthesis.conj().T @ on_n / n_rot  # batch, tilt, m, n
        packed = torch.view_as_real(on_m).permute(2, 3, 1, 0, 4).reshape(width * count, -1, batch * 2)
        by_degree = torch.bmm(self.tilt_analysis, packed).reshape(width, count, count, batch, 2)
        return torch.view_as_complex(by_degree.permute(3, 2, 0, 1, 4).contiguous())


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def gauss_legendre_grid(
    l_max: int,
    oversampling: float = 1.25,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> GaussLegendreGrid:
    """Build the sampling grid of a pointwise non-linearity.

    Parameters
    ----------
    l_max
        Degree L of the functions.
    oversampling
        1 just represents them (``2 L + 1`` angles); a non-linearity raises the degree, and more points
        alias less of it back.

    Returns
    -------
    The grid, with tables in ``dtype`` on ``device``.
    """
    n_angles = int(np.ceil(oversampling * (2 * l_max + 1)))
    n_tilt = max(l_max + 1, int(np.ceil(n_angles / 1.15)))
    nodes, quadrature = np.polynomial.legendre.leggauss(n_tilt)
    d = small_d(torch.from_numpy(np.arccos(nodes)), l_max)  # tilt, l, m, n
    synthesis = d.permute(2, 3, 0, 1).flatten(0, 1)
    degree_weight = torch.arange(l_max + 1, dtype=torch.float64)[:, None] * 2 + 1
    analysis = synthesis.transpose(1, 2) * degree_weight * torch.from_numpy(quadrature) / 2
    angles = 2 * np.pi * np.arange(n_angles) / n_angles
    m = np.arange(-l_max, l_max + 1)
    n = np.arange(l_max + 1)
    complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
    return GaussLegendreGrid(
        l_max=l_max,
        tilt_synthesis=synthesis.to(device, dtype),
        tilt_analysis=analysis.to(device, dtype),
        rot_synthesis=torch.from_numpy(np.exp(-1j * angles[:, None] * m)).to(device, complex_dtype),
        psi_synthesis=torch.from_numpy(
            np.exp(-1j * n[:, None] * angles) * np.where(n == 0, 1.0, 2.0)[:, None]
        ).to(device, complex_dtype),
    )
