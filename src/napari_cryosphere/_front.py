"""The functions of ``import napari_cryosphere as nc``: each takes nouns and options and returns a noun.

Each is a call of the engine that a job of the same name calls too, without its files: what a job
names in its config by a path is given here as what it holds. ``options`` are fields of the config
that a function names, by name; a wrong name or value raises `CryosphereError` with the legal ones.
``progress``, where a function takes it, is called with every event
(`napari_cryosphere.jobs.events`); without it warnings are logged and the rest is silent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from napari_cryosphere.errors import CryosphereError

if TYPE_CHECKING:
    from napari_cryosphere.jobs._variability import Variability
    from napari_cryosphere.jobs.abinitio import InitialMap
    from napari_cryosphere.jobs.align import Aligned
    from napari_cryosphere.jobs.configs import JobConfig
    from napari_cryosphere.jobs.evaluate import Evaluation
    from napari_cryosphere.jobs.events import Event
    from napari_cryosphere.jobs.reconstruct import Reconstruction
    from napari_cryosphere.model.pose_model import PoseModel
    from napari_cryosphere.particles import DensityMap, ParticleStack
    from napari_cryosphere.reconstruction import FourierShellCorrelation, Postprocessed
    from napari_cryosphere.so3.distributions import PoseDistribution

    ConfigT = TypeVar("ConfigT", bound=JobConfig)

__all__ = [
    "ab_initio",
    "align",
    "density",
    "evaluate",
    "fsc",
    "infer",
    "phantom",
    "postprocess",
    "read_cs",
    "read_map",
    "read_star",
    "reconstruct",
    "refine",
    "sample_model",
    "simulate",
    "train",
    "variability",
]

logger = logging.getLogger("napari_cryosphere")

T = TypeVar("T")
Name: TypeAlias = str | PathLike[str]
Show: TypeAlias = "Callable[[Event], None] | None"


def read_star(
    path: Name, data_dir: Name | None = None, *, require_images: bool = True
) -> ParticleStack:
    """Read particles from RELION's STAR file, see `ParticleStack.read`."""
    from napari_cryosphere.particles import ParticleStack

    return ParticleStack.read(path, data_dir, require_images=require_images)


def read_cs(
    path: Name, data_dir: Name | None = None, *, require_images: bool = True
) -> ParticleStack:
    """Read particles from cryoSPARC's .cs file, see `ParticleStack.read`."""
    return read_star(path, data_dir, require_images=require_images)


def read_map(path: Name, symmetry: str = "C1") -> DensityMap:
    """Read a density map from an MRC file, see `DensityMap.read`."""
    from napari_cryosphere.particles import DensityMap

    return DensityMap.read(path, symmetry)


def density(path: Name, pixel_size_angstrom: float, **options: Any) -> DensityMap:
    """Return the electrostatic potential of an atomic model (PDB or mmCIF) in volts.

    - ``pixel_size_angstrom``: edge of a voxel.
    - ``options``: fields of `ModelConfig`: ``box``, ``resolution_angstrom``, ``symmetry``,
      ``assembly``, ...
    """
    from napari_cryosphere.jobs.configs import ModelConfig
    from napari_cryosphere.jobs.density import read_model

    config = _config(ModelConfig, options)
    model = read_model(Path(path), config)
    return model.density(
        pixel_size_angstrom, config.box, config.resolution_angstrom, config.symmetry
    )


def phantom(box: int = 64, pixel_size_angstrom: float = 3.0) -> DensityMap:
    """Return a protein-like map of some 100 kDa that is made from code alone."""
    from napari_cryosphere.imaging.phantom import protein_phantom

    return protein_phantom(box, pixel_size_angstrom)


def sample_model() -> PoseModel:
    """Return the model that ships with the package, trained on projections of `phantom`."""
    from napari_cryosphere.jobs.sample import sample_model as shipped

    return shipped()


def simulate(
    density: DensityMap,
    number: int = 1000,
    *,
    poses: ParticleStack | None = None,
    progress: Show = None,
    **options: Any,
) -> ParticleStack:
    """Simulate particles from a map; their images are in memory, and `ParticleStack.save` writes them.

    - ``density``: the map; poses lie in the asymmetric unit of its symmetry.
    - ``number``: how many particles are drawn.
    - ``poses``: particles whose poses, shifts, CTFs, micrographs and halves are taken instead.
    - ``progress``: called with every event.
    - ``options``: fields of `SimulatingConfig`: ``snr``, ``seed``, ``shift_px``, ``ctf``,
      ``preference``, ...
    """
    from napari_cryosphere.jobs.configs import SimulatingConfig
    from napari_cryosphere.jobs.simulate import drawn_parameters, simulate_stack

    config = _config(SimulatingConfig, options)
    size = density.pixel_size_angstrom
    parameters = drawn_parameters(number, config, density.symmetry, size, poses)
    return _run(simulate_stack(density, parameters, config), progress)


def train(
    stack: ParticleStack,
    *,
    density: DensityMap | None = None,
    init: PoseModel | None = None,
    minutes: float | None = None,
    progress: Show = None,
    **options: Any,
) -> PoseModel:
    """Train a pose network on particles with known poses, and return it with its calibration.

    - ``stack``: particles with poses.
    - ``density``: map to make projections of; without it the map that the particles give at their
      poses.
    - ``init``: model to begin with, of the same network; without it the weights are random.
    - ``minutes``: time budget; without it ``epochs`` decides.
    - ``progress``: called with every event.
    - ``options``: fields of `TrainingConfig`: ``preset``, ``symmetry``, ``epochs``, ``seed``,
      ``device``, ...
    """
    from napari_cryosphere.jobs.configs.training import TrainingConfig
    from napari_cryosphere.jobs.train import train_stack

    if density is not None:
        options = {"source": "map", "symmetry": density.symmetry} | options
    config = _config(TrainingConfig, {"minutes": minutes} | options)
    return _run(train_stack(stack, config, density, init), progress)


def infer(
    stack: ParticleStack,
    model: PoseModel,
    *,
    batch_size: int = 128,
    device: str = "auto",
    progress: Show = None,
) -> PoseDistribution:
    """Predict the distribution over poses of every particle.

    `ParticleStack.with_distribution` gives the particles the best poses. A distribution takes some
    5 kB at degree 6 and 20 kB at degree 10: the command ``infer`` writes those of millions of
    particles batch by batch.
    """
    from napari_cryosphere.jobs.infer import infer_stack
    from napari_cryosphere.jobs.running.compute import choose_device

    return _run(infer_stack(stack, model.to(choose_device(device)), batch_size), progress)


def refine(
    stack: ParticleStack,
    model: PoseModel,
    density: DensityMap,
    *,
    resolution_angstrom: float | None = None,
    progress: Show = None,
) -> ParticleStack:
    """Predict poses and refine the best against a map, which also finds shifts.

    ``resolution_angstrom`` is the finest detail compared; None for what stands out of the map's
    noise.
    """
    from napari_cryosphere.jobs.infer import refine as refined

    return _run(refined(stack, model, density, resolution_angstrom), progress)


def ab_initio(
    stack: ParticleStack, *, symmetry: str = "C1", progress: Show = None, **options: Any
) -> InitialMap:
    """Find a coarse map, poses and shifts from images alone.

    - ``stack``: particles; poses that they have are not used.
    - ``symmetry``: point group of the map.
    - ``progress``: called with every event.
    - ``options``: fields of `SearchingConfig`: ``diameter_angstrom``, ``starts``, ``minutes``,
      ``seed``, ...

    Raises `NotConvergedError` if no two searches on different particles find the same map.
    """
    from napari_cryosphere.jobs.abinitio import ab_initio_in_memory
    from napari_cryosphere.jobs.configs import SearchingConfig

    config = _config(SearchingConfig, {"symmetry": symmetry} | options)
    return _run(ab_initio_in_memory(stack, config), progress)


def align(
    stack: ParticleStack,
    density: DensityMap | Sequence[DensityMap],
    *,
    symmetry: str | None = None,
    local_degrees: float | None = None,
    progress: Show = None,
    **options: Any,
) -> Aligned:
    """Find the poses and shifts of particles by comparing them with a map.

    - ``stack``, ``density``: particles, and the map; or a map of each state of the molecule, in one
      frame.
    - ``symmetry``: point group; that of the (first) map without it.
    - ``local_degrees``: search within this angle of the particles' poses; None searches everywhere.
    - ``progress``: called with every event.
    - ``options``: fields of `AligningConfig`: ``resolution_angstrom``, ``shift_range_px``,
      ``device``, ...

    Returns the particles at their new poses and shifts, and the posteriors, see `Aligned`.
    """
    from napari_cryosphere.jobs.align import align_stack
    from napari_cryosphere.jobs.configs import AligningConfig
    from napari_cryosphere.particles import DensityMap

    maps = [density] if isinstance(density, DensityMap) else density
    given = {"symmetry": symmetry or maps[0].symmetry, "local_degrees": local_degrees}
    return _run(align_stack(stack, density, _config(AligningConfig, given | options)), progress)


def variability(
    stack: ParticleStack,
    *,
    mask: DensityMap | Literal["auto", "none"] = "auto",
    symmetry: str = "C1",
    progress: Show = None,
    **options: Any,
) -> Variability:
    """Find in which ways particles at known poses differ, and where each is along them.

    - ``stack``: particles with poses.
    - ``mask``: where particles may differ, 0 to 1, in the particles' box; auto makes a wide one of
      their map; none uses none.
    - ``symmetry``: point group: only what all symmetric parts do together is found.
    - ``progress``: called with every event.
    - ``options``: fields of `VaryingConfig`: ``components``, ``resolution_angstrom``,
      ``pose_error_degrees``, ...

    Returns the particles with their coordinates, and the components, see `Variability`; none where
    the two half sets find none.
    """
    from napari_cryosphere.jobs.configs import VaryingConfig
    from napari_cryosphere.jobs.variability import variability_in_memory

    config = _config(VaryingConfig, {"symmetry": symmetry} | options)
    return _run(variability_in_memory(stack, config, mask), progress)


def reconstruct(
    stack: ParticleStack,
    *,
    distribution: PoseDistribution | None = None,
    samples: int = 8,
    seed: int = 0,
    symmetry: str = "C1",
    half_maps: bool = True,
    mask: DensityMap | None = None,
    progress: Show = None,
) -> Reconstruction:
    """Reconstruct a map from particles with poses, and half-maps with their FSC.

    - ``stack``: particles with poses.
    - ``distribution``: insert each particle at poses drawn from its distribution instead of at its
      own.
    - ``samples``, ``seed``: how many poses are drawn of each, and the random seed.
    - ``symmetry``: point group of the map.
    - ``half_maps``, ``mask``: whether half-maps are kept and correlated, inside a mask if there is
      one.
    - ``progress``: called with every event.
    """
    import numpy as np

    from napari_cryosphere.jobs.reconstruct import reconstruct_stack
    from napari_cryosphere.reconstruction import WeightedPoses

    poses = None
    if distribution is not None:
        poses = WeightedPoses.samples_of(distribution, samples, np.random.default_rng(seed))
    work = reconstruct_stack(stack, symmetry, half_maps, mask=mask, poses=poses)
    return _run(work, progress)


def fsc(
    first: DensityMap, second: DensityMap, mask: DensityMap | None = None
) -> FourierShellCorrelation:
    """Return the Fourier shell correlation of two maps on one grid, inside a mask if there is one."""
    from napari_cryosphere.reconstruction import compare_maps

    return compare_maps(first, second, mask).curve


def postprocess(
    first: DensityMap, second: DensityMap, mask: DensityMap | None = None, **options: Any
) -> Postprocessed:
    """Sharpen the mean of two half-maps and weight it by their FSC, as relion_postprocess does.

    Without a mask one is made around the low-passed mean. ``options`` are fields of
    `SharpeningConfig`: ``b_factor``, ``fit_from_angstrom``, ``low_pass_angstrom``, ...
    """
    from napari_cryosphere.jobs.configs import SharpeningConfig
    from napari_cryosphere.jobs.postprocess import sharpened

    return sharpened(first, second, _config(SharpeningConfig, options), mask)[0]


def evaluate(
    truth: ParticleStack,
    predicted: ParticleStack,
    *,
    symmetry: str = "C1",
    maps: bool = False,
    mask: DensityMap | None = None,
    progress: Show = None,
    **options: Any,
) -> Evaluation:
    """Compare predicted poses with true ones by CESPED's metrics; particles are matched by image.

    - ``truth``, ``predicted``: two tables of the same particles.
    - ``symmetry``: point group of the map.
    - ``maps``, ``mask``: whether the maps of both are reconstructed and compared, inside a mask if
      there is one.
    - ``progress``: called with every event.
    - ``options``: fields of `EvaluatingConfig`: ``predicts``, ``weighted``, ``relion``.
    """
    from napari_cryosphere.evaluation.matching import matched_halves
    from napari_cryosphere.jobs.configs.evaluation import EvaluatingConfig
    from napari_cryosphere.jobs.evaluate import evaluate_halves

    config = _config(EvaluatingConfig, {"symmetry": symmetry, "maps": maps} | options)
    return _run(evaluate_halves(matched_halves([truth], [predicted]), config, mask), progress)


def fetch(
    entry: str, folder: Name, pattern: str = "*", *, progress: Show = None, **options: Any
) -> list[Path]:
    """Fetch a map of EMDB or the images of an EMPIAR entry; return the files. A stopped call goes on.

    - ``entry``: ``"EMD-1234"`` or ``"EMPIAR-10146"``.
    - ``folder``: where the files go; EMPIAR's subfolders are kept.
    - ``pattern``: which files of an EMPIAR entry, by their path within it: ``"*.mrc"``.
    - ``progress``: called with every event.
    - ``options``: ``server``, a mirror with the archive's layout.

    Raises `CryosphereError` if there is no such entry, or the server cannot be reached.
    """
    from napari_cryosphere._generators import converted
    from napari_cryosphere.evaluation.archives import download_entry
    from napari_cryosphere.jobs.events import Progress

    def work() -> Generator[Event, None, list[Path]]:
        def of_bytes(step: tuple[int, int]) -> Progress:
            there, size = step
            return Progress(there / max(size, 1), f"{there >> 20} of {size >> 20} MB")

        download = download_entry(entry, Path(folder), pattern, **options)
        return list((yield from converted(download, of_bytes)))

    return _run(work(), progress)


def _run(work: Generator[Event, None, T], progress: Show) -> T:
    from napari_cryosphere._generators import returned
    from napari_cryosphere.jobs.events import Note

    def log(event: Event) -> None:
        if isinstance(event, Note) and event.warning:
            logger.warning(event.text)

    return returned(work, progress or log)


def _config(kind: type[ConfigT], options: dict[str, Any]) -> ConfigT:
    """Return a config of options by name. Raises `CryosphereError` with the option and what is legal."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        legal = f"; the options are {', '.join(kind.model_fields)}"
        hint = legal if first["type"] == "extra_forbidden" else f", not {first['input']!r}"
        what = first["msg"].removeprefix("Value error, ")
        raise CryosphereError(f"{where}: {what}{hint if first['loc'] else ''}") from error
