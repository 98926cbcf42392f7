"""A training run in words. Knows no Qt."""

from __future__ import annotations

from napari_cryosphere.widgets.control.training_run import TrainingRun

__all__ = ["duration", "run_line"]


def run_line(run: TrainingRun, paused: bool) -> str:
    """Return how a run goes: loss, held-out error, speed, time left; empty if there is none."""
    if run.active and not run.losses:
        return "Preparing the particles…"
    if not run.losses:
        return (
            f"{run.folder.name}: no report yet" if run.following and run.folder is not None else ""
        )
    parts = [f"Loss {run.losses[-1]:.2f} nats (0 knows nothing)"]
    if run.validation_median_degrees is not None:
        parts.append(f"held-out error {run.validation_median_degrees:.1f}° (median)")
    going = run.active or run.following
    if going and run.images_per_second is not None:
        parts.append(f"{run.images_per_second:.0f} images/s")
    if paused:
        parts.append("paused")
    elif going and run.remaining_seconds is not None:
        parts.append(f"{duration(run.remaining_seconds)} left")
    if run.following and run.folder is not None:
        parts.append(f"following {run.folder.name}")
    elif not run.active and run.folder is not None:
        parts.append(f"model in {run.folder.name}")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Return a time to go: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
