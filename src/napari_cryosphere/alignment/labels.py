"""CryoSphere's training labels: the poses whose projections match an image best."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.alignment.references import References

__all__ = ["best_matches", "inverse_mse"]


def inverse_mse(references: References, observation: Observation, phases: Tensor) -> Tensor:
    """Return 1/MSE of every image against every reference projection, at the best of the shifts tried.

    The error is the mean over the band of ``|image - contrast CTF projection|^2``, in units of the
    noise: near 1 at the true pose, so that the inverse is, too (Chheda & Nori).

    Parameters
    ----------
    references
        Projections on a grid of poses.
    observation
        ``n`` images in the references' band.
    phases
        ``(t, k)``: the band's factors for the shifts to try, see `FourierBand.phases`.

    Returns
    -------
    ``(n, r)`` float32.
    """
    power = torch.view_as_real(observation.data).square().sum((1, 2))
    gain = references.best_log_likelihoods(observation, phases).T
    squared = (power[:, None] - 2 * gain).clamp(min=1e-6)
    return 2 * observation.data.shape[1] / squared


def best_matches(inverse_errors: Tensor, fraction: float = 0.05) -> Tensor:
    """Return which poses are among the best-matching ``fraction`` of each image, ``(n, r)`` bool.

    CryoSphere trains on this mask, with the largest 5 % of 1/MSE.

    Raises
    ------
    ValueError
        If the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, not {fraction}")
    count = max(1, round(fraction * inverse_errors.shape[1]))
    mask = torch.zeros_like(inverse_errors, dtype=torch.bool)
    return mask.scatter_(1, inverse_errors.topk(count, dim=1).indices, True)
