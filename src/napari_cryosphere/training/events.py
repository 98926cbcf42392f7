"""What a training run says while it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from napari_cryosphere.model.pose_network import Shifts
    from napari_cryosphere.so3.distributions import HarmonicDistribution

__all__ = ["TrainingProgress"]


@dataclass(frozen=True)
class TrainingProgress:
    """One report of a training run.

    - ``fraction``: how much of the run is done, 0 to 1.
    - ``images``: images seen so far.
    - ``loss``: mean negative log-density of the true poses since the last report, in nats relative
      to the uniform distribution: 0 has learnt nothing, lower is better.
    - ``images_per_second``: speed since the last report.
    - ``remaining_seconds``: estimated time to the end.
    - ``validation_loss``, ``validation_median_degrees``, ``validation_mean_degrees``: the loss and
      the pose error on held-out particles, where this report has them.
    - ``validation_shift_px``: median error of the held-out particles' shifts in pixels of the
      network's box, where this report has it and they are known.
    - ``predicted``, ``predicted_shifts``, ``predicted_states``: what the averaged network says of
      the held-out particles, where this report has it.
    """

    fraction: float
    images: int
    loss: float
    images_per_second: float
    remaining_seconds: float
    validation_loss: float | None = None
    validation_median_degrees: float | None = None
    validation_mean_degrees: float | None = None
    validation_shift_px: float | None = None
    predicted: HarmonicDistribution | None = None
    predicted_shifts: Shifts | None = None
    predicted_states: Tensor | None = None
