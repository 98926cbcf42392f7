"""The equivariance test as a report: a model, an untrained one, both against shuffled rotations."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.evaluation.equivariance import (
    InPlaneErrors,
    Predictor,
    VolumeErrors,
    in_plane_errors,
    volume_errors,
)
from napari_cryosphere.evaluation.report import Panel, Report, Series, Table
from napari_cryosphere.evaluation.views import MapViews
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, random_rotations

__all__ = ["EquivarianceTest", "equivariance_report"]

Steps: TypeAlias = Generator[float, None, Report]

_LEAST_DEGREES = 1e-3  # what a plot's logarithmic axis shows for 0

_TEXT = (
    "The volume is seen from random directions, turned by random rotations in front of the microscope, "
    "and seen again. *Rotating, then predicting* is compared with *predicting, then rotating*: the mean "
    "over a grid of poses of the squared difference between the two densities, relative to the uniform "
    "distribution. `camera` carries a distribution along as p(X S), the volume turning before the fixed "
    "optical axis; `map` as p(R X), the volume turning in its own axes. In the shuffled control every "
    "pair is given the next pair's rotation. The error grows with the sharpness of the predictions and is "
    "nearly 0 for a network that knows nothing; *ratio*, the mean error over that of the same network's "
    "shuffled control, does not: 0 is equivariant, 1 not at all.\n\n"
    "*Unturned pose error*: how far from the truth, in the median, the poses are to begin with. Where that "
    "is large, the volume or the noise is not what the model was trained on, and the rest says little."
)


@dataclass(frozen=True)
class EquivarianceTest:
    """How much is tested.

    - ``pairs``: pairs of images for turning the volume.
    - ``images``: images that are turned in the plane.
    - ``angles``: angles that each of them is turned by, random ones.
    - ``order``: order of the grid of poses that errors are averaged over.
    - ``seed``: of the poses, rotations and angles.
    """

    pairs: int = 100
    images: int = 50
    angles: int = 36
    order: int = 2
    seed: int = 0


def equivariance_report(
    models: Mapping[str, Predictor], views: MapViews, test: EquivarianceTest, volume: str
) -> Steps:
    """Test models on the same images, yielding how far it is, 0 to 1.

    Returns the report: volume errors, in-plane errors, and a plot of both.

    - ``models``: by name; the first is the one in question.
    - ``views``: the volume.
    - ``test``: how much is tested.
    - ``volume``: what the volume is, for the report.
    """
    turning: dict[str, tuple[VolumeErrors, ...]] = {}
    in_plane: dict[str, _Turned] = {}
    for index, (name, model) in enumerate(models.items()):
        yield index / len(models)
        turning[name] = _turn_the_volume(model, views, test)
        yield (index + 0.5) / len(models)
        in_plane[name] = _turn_the_image(model, views, test)
    of_volume = "MSE of the density between rotating the volume and rotating the prediction"
    of_image = (
        "Turning the image in its plane: degrees between the pose that moves along and the one "
        "predicted"
    )
    tables = {of_volume: _volume_table(turning), of_image: _in_plane_table(in_plane)}
    panels = (_volume_panel(turning), _in_plane_panel(in_plane))
    amount = f"{test.pairs} pairs; {test.images} images turned by {test.angles} angles"
    text = f"{_TEXT}\n\nVolume: {volume}. {amount}."
    return Report("equivariance", "Equivariance", text, tables, panels, _values(turning, in_plane))


def _turn_the_volume(
    model: Predictor, views: MapViews, test: EquivarianceTest
) -> tuple[VolumeErrors, ...]:
    rng = np.random.default_rng(test.seed)
    poses, turns = random_rotations(test.pairs, rng), random_rotations(test.pairs, rng)
    return volume_errors(model, lambda where: views.images(where, rng), poses, turns, test.order)


@dataclass(frozen=True)
class _Turned:
    """In-plane errors, and how far from the truth the model was before images were turned."""

    errors: InPlaneErrors
    pose_errors: NDArray[np.float64]


def _turn_the_image(model: Predictor, views: MapViews, test: EquivarianceTest) -> _Turned:
    rng = np.random.default_rng([test.seed, 1])
    truth = random_rotations(test.images, rng)
    errors = in_plane_errors(
        model, views.unmasked(truth, rng), np.sort(rng.uniform(0, 360, test.angles))
    )
    return _Turned(errors, geodesic_distance_degrees(truth, errors.poses))


def _volume_table(turning: Mapping[str, tuple[VolumeErrors, ...]]) -> Table:
    rows = tuple(
        (name, errors.frame, pairing, float(mse.mean()), float(mse.min()), float(mse.max()), ratio)
        for name, frames in turning.items()
        for errors in frames
        for pairing, mse, ratio in (
            ("own", errors.matched, errors.ratio),
            ("shuffled", errors.shuffled, 1.0),
        )
    )
    return Table(("network", "frame", "rotations", "mean_mse", "min_mse", "max_mse", "ratio"), rows)


def _in_plane_table(in_plane: Mapping[str, _Turned]) -> Table:
    rows = tuple(
        (
            name,
            float(np.median(turned.errors.degrees)),
            float(np.percentile(turned.errors.degrees, 95)),
            float(turned.errors.degrees.max()),
            float(np.median(turned.pose_errors)),
        )
        for name, turned in in_plane.items()
    )
    columns = ("network", "median_degrees", "percentile_95_degrees", "max_degrees")
    return Table((*columns, "unturned_pose_error_degrees"), rows)


def _values(
    turning: Mapping[str, tuple[VolumeErrors, ...]], in_plane: Mapping[str, _Turned]
) -> dict[str, float]:
    name, frames = next(iter(turning.items()))
    values = {f"{errors.frame}_mean_mse": float(errors.matched.mean()) for errors in frames}
    values |= {f"{errors.frame}_ratio_to_shuffled": errors.ratio for errors in frames}
    degrees = in_plane[name].errors.degrees
    return values | {
        "in_plane_median_degrees": float(np.median(degrees)),
        "in_plane_max_degrees": float(degrees.max()),
    }


def _volume_panel(turning: Mapping[str, tuple[VolumeErrors, ...]]) -> Panel:
    """Show mean, lowest and highest error of each network, next to its shuffled control."""
    frames = len(next(iter(turning.values())))
    series: list[Series] = []
    for frame in range(frames):
        for pairing in ("matched", "shuffled"):
            mses = [getattr(errors[frame], pairing) for errors in turning.values()]
            place = (len(series) - frames + 0.5) * 0.12
            label = next(iter(turning.values()))[frame].frame
            series.append(
                Series(
                    label if pairing == "matched" else f"{label}, shuffled",
                    x=tuple(index + place for index in range(len(mses))),
                    y=tuple(float(mse.mean()) for mse in mses),
                    low=tuple(float(mse.min()) for mse in mses),
                    high=tuple(float(mse.max()) for mse in mses),
                )
            )
    return Panel(
        "", "MSE of the density (mean, min, max)", tuple(series), tuple(turning), log_y=True
    )


def _in_plane_panel(in_plane: Mapping[str, _Turned]) -> Panel:
    series = tuple(
        Series(
            name,
            tuple(float(angle) for angle in turned.errors.angles_degrees),
            tuple(np.median(turned.errors.degrees, axis=0).clip(_LEAST_DEGREES).tolist()),
            marked=True,
        )
        for name, turned in in_plane.items()
    )
    return Panel("image turned by (degrees)", "pose off by (degrees, median)", series, log_y=True)
