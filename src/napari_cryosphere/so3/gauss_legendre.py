"""Sampling grids on which band-limited functions on SO(3) are represented exactly: for non-linearities."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from napari_cryosphere.so3.wigner import small_d

__all__ = ["GaussLegendreGrid", "gauss_legendre_grid"]


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
