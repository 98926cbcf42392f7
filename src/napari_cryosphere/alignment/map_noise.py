"""How far a map can be trusted, judged by the map alone."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["signal_shell"]

# Radii relative to half the box: where the molecule is and where solvent alone is, and the width of
# their soft edges. Chosen, not tuned.
_INSIDE, _OUTSIDE = 0.75, (0.82, 0.98)
_EDGE = 0.08
_NOISE_ALONE = 0.75  # of the power inside: noise is three times the signal
_TOO_FULL = (
    0.3  # of the power inside in the lowest shells: the molecule reaches the rim; chosen, not tuned
)
_LOW_SHELLS = 4  # in which a molecule, unlike noise, has most of its power; chosen, not tuned


def signal_shell(voxels: Tensor) -> int | None:
    """Return the last shell in which a map's signal stands out of its noise.

    Between the particle and the sphere that touches the box a reconstructed map holds noise alone.
    Where its power there exceeds 3/4 of that in the middle, the signal has less than a third of the
    noise's power: that is where half-maps would correlate to 0.143 (Rosenthal & Henderson 2003).

    Parameters
    ----------
    voxels
        ``(n, n, n)``.

    Returns
    -------
    None where nothing can be told: the map is empty around its particle, the particle fills the
    box, or the signal stands out to the last shell.
    """
    box = voxels.shape[-1]
    axis = (torch.arange(box, device=voxels.device) - box // 2) / (box / 2)
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    inside = _window(radius, -1.0, _INSIDE)
    outside = _window(radius, *_OUTSIDE)
    signal, noise = (_power(voxels, window) for window in (inside, outside))
    low = slice(1, _LOW_SHELLS + 1)
    if float(noise[low].sum()) > _TOO_FULL * float(signal[low].sum()):
        return None
    drowned = noise > _NOISE_ALONE * signal
    lost = torch.nonzero(drowned[2:-2] & drowned[3:-1])[:, 0]  # two shells in a row
    return int(lost[0]) + 1 if len(lost) else None


def _window(radius: Tensor, low: float, high: float) -> Tensor:
    """Return 1 between two radii, falling to 0 on either side."""
    rise, fall = ((_EDGE / 2 + side) / _EDGE for side in (radius - low, high - radius))
    return 0.5 - 0.5 * torch.cos(torch.pi * torch.minimum(rise, fall).clamp(0, 1))


def _power(voxels: Tensor, window: Tensor) -> Tensor:
    """Return the mean power of a map's transform by shell, of the part in a window, by the window's size."""
    part = (voxels - (voxels * window).sum() / window.sum()) * window
    transform = torch.fft.rfftn(part)
    axis = torch.fft.fftfreq(len(part), 1 / len(part), device=part.device)
    half = axis[: len(part) // 2 + 1].abs()
    shells = (
        (axis[:, None, None] ** 2 + axis[:, None] ** 2 + half**2).sqrt().round().long().flatten()
    )
    sums, counts = (
        torch.bincount(shells, w) for w in (transform.abs().square().flatten().double(), None)
    )
    return (sums / counts)[: len(part) // 2 + 1] / window.square().mean()
