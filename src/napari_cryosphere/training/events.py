"""What a training run says while it goes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TrainingProgress"]


@dataclass(frozen=True)
class TrainingProgress:
    """One report of a training run.

    Attributes
    ----------
    fraction
        How much of the run is done, 0 to 1.
    images
        Images seen so far.
    loss
        Mean negative log-density of the true poses since the last report, in nats relative to the uniform
        distribution: 0 has learnt nothing, lower is better.
    images_per_second
        Speed since the last report.
    remaining_seconds
        Estimated time to the end.
    validation_median_degrees
        Median pose error on held-out particles, where this report has one.
    """

    fraction: float
    images: int
    loss: float
    images_per_second: float
    remaining_seconds: float
    validation_median_degrees: float | None = None
