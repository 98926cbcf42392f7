"""What a training run is shown: particles split in two, and where its batches come from.

Several ranks prepare and insert a share of the particles each. Prepared images are held once a
computer, in a file that its ranks map.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cryosphere._files import not_written, refuse_beyond_room, temporary_folder
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.ctf import radial_ctf
from napari_cryosphere.imaging.prepared import PreparedImages
from napari_cryosphere.imaging.preprocess import Preprocessing
from napari_cryosphere.jobs.configs.training import TrainingConfig
from napari_cryosphere.jobs.events import Event, Note, Progress
from napari_cryosphere.jobs.reconstruct import fill, gather
from napari_cryosphere.jobs.running.halves import Halves, chunks
from napari_cryosphere.jobs.running.inputs import refuse_unposed
from napari_cryosphere.jobs.running.ranks import Ranks
from napari_cryosphere.jobs.running.run_folder import ending_of_state
from napari_cryosphere.model.pose_model import REFERENCE_MAP
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.reconstruction import WeightedPoses
from napari_cryosphere.training.augmentation import Augmented
from napari_cryosphere.training.loop import ValidationSet
from napari_cryosphere.training.masks import LabelledImages
from napari_cryosphere.training.sources import (
    LoadedParticles,
    SimulatedProjections,
    Succession,
    TrainingSource,
    known_shifts_px,
)

__all__ = ["TrainingData", "refuse_untrainable", "training_data"]

_FEWEST = 4  # two to train on, two held out
_MOST_HELD_OUT = 500  # twice what the calibration needs; more only costs time
_ENOUGH_HELD_OUT = 250  # to fit a temperature to 5 per cent
_ENOUGH_MICROGRAPHS = 4  # to stand for all others in defocus and ice


@dataclass(frozen=True)
class TrainingData:
    """What a run is shown.

    - ``grid``: what the network sees images on.
    - ``source``, ``validation``: batches to learn from, and held-out particles.
    - ``images``, ``(t, box, box)``: the particles that are not held out, prepared.
    - ``held_out``, ``(v,)``: rows of the given stack that are held out.
    - ``map_resolution_angstrom``: of the map that these gave; None if there is none.
    """

    grid: ImageGrid
    source: TrainingSource
    validation: ValidationSet
    images: torch.Tensor
    held_out: NDArray[np.int64]
    map_resolution_angstrom: float | None


def training_data(
    stack: ParticleStack,
    config: TrainingConfig,
    density: DensityMap | None = None,
    folder: Path | None = None,
    ranks: Ranks | None = None,
) -> Generator[Event, None, TrainingData]:
    """Prepare particles for training, together with other ranks if there are; yields what a job yields.

    Raises `MetadataError` if the particles have no poses or are too few.

    - ``stack``, ``config``: particles with poses, and how the network is trained.
    - ``density``: map to make projections of; None makes it from the particles where one is needed.
    - ``folder``: the run's, which keeps the map; other ranks than the first need it.
    - ``ranks``: the processes that train together; one alone without them.
    """
    together, rows = ranks or Ranks(), _rows_to_use(stack, config)
    chosen = stack[rows]
    grid = ImageGrid(config.network.box, chosen.grid.field_angstrom / config.network.box)
    yield Progress(0.0, f"preparing {len(chosen)} particles")
    particles, (shown, held_out) = (
        PreparedImages(chosen, Preprocessing(grid=grid)),
        _split(chosen, config),
    )
    states = _states(chosen, config)
    images, validation = load_together(particles, shown, together), particles.load(held_out)
    for warning in particles.warnings:
        yield Note(warning, warning=True)
    training, references = chosen[shown], _References((), None)
    seen = None if states is None else states[shown]
    if config.source != "particles":
        references = yield from _reference_maps(training, seen, config, density, folder, together)
    apart = chosen[held_out]
    return TrainingData(
        grid,
        _source(training, images, grid, references.densities, seen, config),
        ValidationSet(
            validation,
            apart.rotations(),
            known_shifts_px(apart, grid),
            radial_ctf(apart, grid),
            None if states is None else states[held_out],
        ),
        images,
        rows[held_out],
        references.resolution_angstrom,
    )


def _states(stack: ParticleStack, config: TrainingConfig) -> NDArray[np.float64] | None:
    """Return the states' probabilities that are learnt, ``(n, k)``; None if the network tells none apart."""
    several = getattr(config.network, "states", 1) > 1
    return stack.state_probabilities() if several else None


def refuse_untrainable(stack: ParticleStack) -> None:
    """Refuse particles without poses; raises as `refuse_unposed`."""
    refuse_unposed(stack, "to train on; give particles from a refinement")


def _rows_to_use(stack: ParticleStack, config: TrainingConfig) -> NDArray[np.int64]:
    refuse_untrainable(stack)
    mask = (
        np.ones(len(stack), bool)
        if config.half_set is None
        else stack.half_sets() == config.half_set
    )
    rows = np.flatnonzero(mask)
    if len(rows) < _FEWEST:
        raise MetadataError(
            f"{stack.source}: {len(rows)} particles are too few to train on; at least {_FEWEST} are needed"
        )
    return rows


def _split(
    stack: ParticleStack, config: TrainingConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to train on and the rows held out: whole micrographs, or whole filaments.

    Micrographs where these are enough of them: particles of one or two would say how sure the
    network may be at their defocus alone. Segments of one filament overlap.
    """
    rng = np.random.default_rng(config.seed)
    wanted = _number_held_out(len(stack), config.validation_fraction)
    order = rng.permutation(len(stack))
    together = stack.filaments()
    if "rlnMicrographName" in stack.particles:
        names, of = np.unique(
            stack.particles["rlnMicrographName"].to_numpy(str), return_inverse=True
        )
        if wanted * len(names) >= _ENOUGH_MICROGRAPHS * len(stack):
            together = of
    if together is not None and together.max() > 0:
        order = np.argsort(rng.permutation(int(together.max()) + 1)[together], kind="stable")
        first = np.sort(np.unique(together[order], return_index=True)[1])
        sizes = np.cumsum(np.bincount(together)[together[order[first]]], dtype=np.int64)
        wanted = int(sizes[min(int(np.searchsorted(sizes, wanted)), len(sizes) - 2)])
    return np.sort(order[wanted:]), np.sort(order[:wanted])


def _number_held_out(number: int, fraction: float | None) -> int:
    """Return how many particles of a number are held out; see `TrainingConfig.validation_fraction`."""
    if fraction is None:
        wanted = max(round(0.05 * number), min(_ENOUGH_HELD_OUT, round(0.1 * number)))
    else:
        wanted = round(fraction * number)
    return int(np.clip(wanted, 2, min(_MOST_HELD_OUT, number - 2)))


@dataclass(frozen=True)
class _References:
    """The maps of the states to make projections of, and the resolution of that of all particles.

    There are none where no projections are made, and no resolution of a map from elsewhere.
    """

    densities: tuple[DensityMap, ...]
    resolution_angstrom: float | None


def _reference_maps(
    training: ParticleStack,
    states: NDArray[np.float64] | None,
    config: TrainingConfig,
    density: DensityMap | None,
    folder: Path | None,
    ranks: Ranks,
) -> Generator[Event, None, _References]:
    """Return the maps to make projections of; the first rank keeps them in the run folder."""
    path = None if folder is None else folder / REFERENCE_MAP
    if density is not None:
        if ranks.first and path is not None:
            density.save(path, overwrite=True)
        return _References((density,), None)
    yield Progress(0.0, f"reconstructing the map of {len(training)} particles")
    whole = yield from _reconstructed(training, config, path, ranks)
    if states is None:
        return whole
    densities = list[DensityMap]()
    best = states.argmax(axis=1)
    for state in range(states.shape[1]):
        rows = np.flatnonzero(best == state)
        if len(rows) < _FEWEST:
            raise MetadataError(
                f"{training.source}: {len(rows)} of the training particles are in state {state + 1}, too few "
                f"for a map; at least {_FEWEST} are needed: remove the columns of states' probabilities "
                "to train without states"
            )
        name = path and path.with_stem(path.stem + ending_of_state(state + 1))
        found = yield from _reconstructed(training[rows], config, name, ranks)
        densities += found.densities
    return _References(tuple(densities), whole.resolution_angstrom)


def _reconstructed(
    stack: ParticleStack, config: TrainingConfig, path: Path | None, ranks: Ranks
) -> Generator[Event, None, _References]:
    """Reconstruct the map of particles; other ranks than the first get it from the run folder."""
    if len(np.unique(stack.half_sets())) < 2:
        stack = stack.with_new_half_sets()
    halves, poses = (
        Halves(stack.grid, config.symmetry, padding=2),
        WeightedPoses.best(stack.rotations()),
    )
    for event in fill(halves, stack, poses, ranks.share(chunks(len(stack)))):
        if isinstance(event, Progress):
            yield Progress(0.0, event.message)
    if path is not None:
        gather(halves, ranks, path)
    if path is not None and not ranks.first:
        ranks.wait()
        stored = DensityMap.read(path, config.symmetry)
        density = replace(stored, pixel_size_angstrom=stack.grid.pixel_size_angstrom)
        return _References((density,), None)
    found = halves.solve(half_maps=True)
    if path is not None:
        found.density.save(path, overwrite=True)
        ranks.wait()
    assert found.curve is not None
    resolution = found.curve.resolution_angstrom(0.143)
    return _References((found.density,), resolution if np.isfinite(resolution) else None)


def _source(
    training: ParticleStack,
    images: torch.Tensor,
    grid: ImageGrid,
    densities: tuple[DensityMap, ...],
    states: NDArray[np.float64] | None,
    config: TrainingConfig,
) -> TrainingSource:
    plain = LoadedParticles(
        images,
        training.rotations(),
        _label_weights(training),
        config.seed,
        known_shifts_px(training, grid),
        radial_ctf(training, grid),
        states,
    )
    loaded = Augmented(plain, config.augmentation, config.seed)
    if not densities:
        return loaded
    if config.labels is not None:
        return LabelledImages.of_map(
            densities[0],
            grid,
            config.projections or len(training),
            config.labels,
            config.label_order,
            fraction=config.label_fraction,
            symmetry=config.symmetry,
            seed=config.seed,
        )
    simulated = SimulatedProjections(densities, training, images, grid, config.seed, states)
    if config.source == "map" or config.fine_tuning == 0:
        return simulated
    return Succession(simulated, loaded, 1 - config.fine_tuning)


def _label_weights(stack: ParticleStack) -> NDArray[np.float64]:
    """Return how much each pose is trusted: rlnMaxValueProbDistribution where present, else 1."""
    if "rlnMaxValueProbDistribution" not in stack.particles:
        return np.ones(len(stack))
    return stack.particles["rlnMaxValueProbDistribution"].to_numpy(dtype=np.float64).clip(1e-3, 1)


def load_together(images: PreparedImages, rows: NDArray[np.int64], ranks: Ranks) -> Tensor:
    """Return the prepared images of some rows, ``(k, box, box)``; each rank of a computer makes a share.

    They are kept in a file in the computer's folder for temporary files. It loses its name as soon
    as all have mapped it, so that a rank that is killed later leaves nothing behind. Raises
    `CryosphereError` if there is no room for the file.
    """
    if ranks.count == 1:
        return images.load(rows)
    size = 4 * len(rows) * images.grid.box**2
    shape = (len(rows), images.grid.box, images.grid.box)
    with ExitStack() as kept:
        path = ranks.of_first(lambda: _new_file(size, kept), here=True)
        mapped = torch.from_file(path, shared=True, size=int(np.prod(shape))).view(shape)
        ranks.wait()
    mine = ranks.share_here(len(rows))
    images.load(rows[mine], mapped[mine])
    ranks.wait()
    return mapped


def _new_file(size: int, kept: ExitStack) -> str:
    """Make a file of ``size`` bytes in a folder that goes when ``kept`` is closed; return its path."""
    folder = Path(tempfile.gettempdir())
    refuse_beyond_room(folder, size, "the prepared images (TMPDIR names their folder)")
    path = kept.enter_context(temporary_folder(folder)) / "prepared"
    with path.open("wb") as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, later a SIGBUS
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        except OSError as error:
            raise not_written(path, error) from error
    return str(path)
