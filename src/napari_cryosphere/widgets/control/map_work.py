"""Long work on maps, as generators of events."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.widgets.control.work import Events

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.reconstruction import ConicalFsc, HalfMapFsc, WeightedPoses
    from napari_cryosphere.so3.distributions import PoseDistribution

__all__ = [
    "Comparison",
    "HalfMap",
    "HalfMapCurves",
    "MadeMap",
    "Recipe",
    "alignment_work",
    "comparison_work",
    "difference_work",
    "reconstruction_work",
    "sharpening_work",
]

_SNAPSHOT_SECONDS = 1.5
_SAMPLES = 8  # poses drawn from a distribution, as the job's default


@dataclass(frozen=True)
class Recipe:
    """What a map is made from.

    - ``name``: what the map is called.
    - ``stack``, ``rotations``: the particles, and ``(n, 3, 3)`` the poses to insert them at.
    - ``symmetry``: point group of the map.
    - ``half_maps``: whether both halves are reconstructed and correlated too.
    - ``cones``: whether the halves are correlated in cones, which shows a preferred orientation.
    - ``distributions``: gives batches of the particles' distributions, in order: particles are then
      inserted at samples of them. It is called in the worker, since it may read them from disk.
    """

    name: str
    stack: ParticleStack
    rotations: NDArray[np.float64]
    symmetry: str = "C1"
    half_maps: bool = True
    cones: bool = False
    distributions: Callable[[], Sequence[PoseDistribution]] | None = None


@dataclass(frozen=True)
class MadeMap:
    """A map with what it takes to show it, so that the window has nothing to compute.

    ``resolution_angstrom``: down to which it is shown; None for as it is. ``low_passed``: its
    voxels at that resolution. ``unit``: of a difference: the standard deviation of the map that it
    was made from, as shown.
    """

    density: DensityMap
    resolution_angstrom: float | None = None
    low_passed: NDArray[np.float32] | None = None
    unit: float | None = None


@dataclass(frozen=True)
class HalfMap:
    """The first or the second half-map."""

    density: DensityMap
    number: int


@dataclass(frozen=True)
class HalfMapCurves:
    """What two half-maps say of each other inside a mask, and by direction if that was asked for.

    ``made``: the whole map, to be shown at the resolution of the corrected curve.
    """

    made: MadeMap
    curves: HalfMapFsc
    cones: ConicalFsc | None


@dataclass(frozen=True)
class Comparison:
    """What two maps say of each other inside a mask around the second.

    ``curves``: FSC without mask, masked, and corrected for the mask. ``correlation``: inside the
    mask. ``note``: how the second map was resampled; empty if it was not.
    """

    curves: HalfMapFsc
    correlation: float
    note: str


def reconstruction_work(recipe: Recipe) -> Events:
    """Reconstruct in memory.

    It gives `Snapshot`s of the growing map, then the `HalfMap`s if they are made, the
    `Reconstruction`, and the halves' `HalfMapCurves` inside a soft mask around the map. Each makes
    one layer at most: napari takes a third of a second to add one, for which the window waits, and
    between two steps it answers.
    """
    from napari_cryosphere.jobs.reconstruct import reconstruct_stack

    poses = yield from _poses_of(recipe)
    number = len(recipe.stack)
    made = yield from reconstruct_stack(
        recipe.stack,
        recipe.symmetry,
        recipe.half_maps,
        poses=poses,
        snapshot_seconds=_SNAPSHOT_SECONDS,
    )
    for place, half in enumerate(made.halves, start=1):
        yield HalfMap(half, place)
        yield Progress(0.96, f"half-maps of {number} particles")
    yield made
    yield Progress(0.97, f"reconstructed from {number} particles")
    if made.halves:
        yield _half_map_curves(made.density, made.halves, recipe.cones)
        yield Progress(1.0, "half-maps compared in a mask")


def _poses_of(recipe: Recipe) -> Generator[Progress, None, WeightedPoses]:
    """Return a recipe's poses, drawn from its distributions where it has some."""
    from napari_cryosphere.reconstruction import WeightedPoses

    if recipe.distributions is None:
        return WeightedPoses.best(recipe.rotations)
    import numpy as np

    rng, parts, done = np.random.default_rng(0), list[WeightedPoses](), 0
    yield Progress(0.0, "reading distributions")
    for batch in recipe.distributions():
        parts.append(WeightedPoses.samples_of(batch, _SAMPLES, rng))
        done += len(batch)
        yield Progress(
            0.0, f"drew {_SAMPLES} poses each for {done} of {len(recipe.stack)} particles"
        )
    return WeightedPoses(
        np.concatenate([part.rotations for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )


def _half_map_curves(
    density: DensityMap, halves: Sequence[DensityMap], cones: bool
) -> HalfMapCurves:
    from napari_cryosphere.reconstruction import conical_fsc, corrected_fsc, soft_mask

    first, second = halves
    mask = soft_mask(density.voxels, density.pixel_size_angstrom)
    by_direction = conical_fsc(first, second, mask) if cones else None
    curves = corrected_fsc(first, second, mask)
    return HalfMapCurves(
        _made(density, curves.corrected.resolution_angstrom(0.143)), curves, by_direction
    )


def comparison_work(first: DensityMap, second: DensityMap) -> Events:
    """Compare two maps inside a soft mask around the second; the result is a `Comparison`."""
    from napari_cryosphere.reconstruction import corrected_fsc, masked_correlation, soft_mask

    yield Progress(0.0, "comparing maps")
    other, note = _on_one_grid(first, second)
    mask = soft_mask(other.voxels, other.pixel_size_angstrom)
    yield Progress(0.3, "comparing maps in a mask")
    curves = corrected_fsc(first, other, mask)
    correlation = masked_correlation(first.voxels, other.voxels, mask)
    yield Comparison(curves, correlation, note)
    yield Progress(1.0, f"correlation {correlation:.3f}")


def _made(
    density: DensityMap, resolution: float | None, unit_of: DensityMap | None = None
) -> MadeMap:
    """Prepare a map to be shown; of a difference, in the unit of the map that it was made from."""
    if resolution is None:
        return MadeMap(density, unit=None if unit_of is None else float(unit_of.voxels.std()))
    from napari_cryosphere.reconstruction.filters import low_passed

    size = density.pixel_size_angstrom
    unit = None if unit_of is None else float(low_passed(unit_of.voxels, size, resolution).std())
    return MadeMap(density, resolution, low_passed(density.voxels, size, resolution), unit)


def difference_work(
    first: DensityMap, second: DensityMap, resolution: float | None = None
) -> Events:
    """Subtract the second map, scaled to the first shell by shell; the result is a `MadeMap`.

    ``resolution`` is that down to which the first map is shown, in A.
    """
    from napari_cryosphere.reconstruction import difference_map, soft_mask

    yield Progress(0.0, "subtracting maps")
    other, _ = _on_one_grid(first, second)
    mask = soft_mask(other.voxels, other.pixel_size_angstrom)
    yield _made(difference_map(first, other, mask), resolution, first)
    yield Progress(1.0, "subtracted")


def alignment_work(
    first: DensityMap, second: DensityMap, resolution: float | None = None
) -> Events:
    """Lay the first map on the second, in both hands; the result is ``(MapAlignment, MadeMap)``.

    ``resolution`` is that down to which the first map is shown, in A.
    """
    from napari_cryosphere.reconstruction.map_alignment import align_maps

    yield Progress(0.0, "turning the map in both hands")
    moving, _ = _on_one_grid(second, first)
    found = align_maps(second, moving)
    yield Progress(0.9, f"correlation {found.correlation:.3f}")
    yield found, _made(found.apply(moving), resolution)
    yield Progress(1.0, f"correlation {found.correlation:.3f}")


def sharpening_work(first: DensityMap, second: DensityMap, b_factor: float | None = None) -> Events:
    """Sharpen the mean of two half-maps as the job ``postprocess`` does; the result is a `Postprocessed`.

    ``first``, ``second``: half-maps on one grid. ``b_factor``: in A^2, negative to sharpen; None
    fits it.
    """
    from napari_cryosphere.jobs.configs import SharpeningConfig
    from napari_cryosphere.jobs.postprocess import sharpened

    yield Progress(0.0, "making a mask and sharpening")
    made, _ = sharpened(first, second, SharpeningConfig(b_factor=b_factor))
    yield made
    yield Progress(1.0, "sharpened")


def _on_one_grid(first: DensityMap, second: DensityMap) -> tuple[DensityMap, str]:
    """Return the second map on the first's grid, and a line that says so if it had to be resampled."""
    from napari_cryosphere.reconstruction import resampled_map

    same = first.box == second.box
    if same and abs(first.pixel_size_angstrom / second.pixel_size_angstrom - 1) < 0.01:
        return second, ""
    moved = resampled_map(second, first.box, first.pixel_size_angstrom)
    sizes = [f"{each.box} px of {each.pixel_size_angstrom:.4g} Å" for each in (second, first)]
    return moved, f"reference resampled from {sizes[0]} to {sizes[1]}"
