"""The job ``simulate``: RELION-readable particles from a map or an atomic model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import refuse_beyond_room, refuse_overwrite
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.atomic_model import is_atomic_model
from napari_cryosphere.imaging.coloured_noise import NoiseSpectrum
from napari_cryosphere.imaging.forward import (
    NoiseLevel,
    Projectors,
    moving_projector_of,
    noise_level,
    noisy_images,
    projector_of,
)
from napari_cryosphere.imaging.map_mask import power_outside_sphere
from napari_cryosphere.imaging.motion import DomainMotion, half_mask, moving_part
from napari_cryosphere.imaging.simulate import (
    ParticleParameters,
    draw_parameters,
    parameters_from_stack,
)
from napari_cryosphere.jobs.configs import SimulateConfig, SimulatingConfig
from napari_cryosphere.jobs.density import read_model
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import open_map, open_mask
from napari_cryosphere.particles import (
    DensityMap,
    ImageGrid,
    ParticleStack,
    stack_writer,
    write_star,
)
from napari_cryosphere.so3.asymmetric_unit import reduce

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Simulation", "drawn_parameters", "simulate", "simulate_density", "simulate_stack"]

_DEFAULT_NUMBER = 1000  # particles
_MOST_OUTSIDE = 0.01
"""Share of a map's power beyond the sphere in its box from which wrapped projections are warned of:
the complement of the 99 % that a particle's radius holds."""


@claims(files=("output",))
def simulate(config: SimulateConfig) -> Events:
    """Simulate particles from the map or model that the config names."""
    _refuse_outputs(config)
    if is_atomic_model(config.map):
        assert config.pixel_size_angstrom is not None  # the config has seen to it
        model = read_model(config.map, config)
        yield Progress(0.0, f"adding up {model.atoms} atoms of {config.map.name}")
        density = model.density(
            config.pixel_size_angstrom, config.box, config.resolution_angstrom, config.symmetry
        )
    else:
        density = open_map(config, config.map, config.symmetry)
    others = [_of_grid(path, density, config) for path in config.other_map]
    motion = None
    if config.motion is not None:
        motion = yield from _motion(density, config.motion, config)
    yield from simulate_density(density, config, others, motion)


def _motion(
    density: DensityMap, part: Path | str, config: SimulateConfig
) -> Generator[Event, None, DomainMotion]:
    """Return what turns, and say about which axis."""
    if isinstance(part, Path):
        grid = ImageGrid(density.box, density.pixel_size_angstrom)
        opened = open_mask(part, grid, f"the map {config.map}")
        yield from opened.notes
        mask = opened.density.voxels
    else:
        mask = half_mask(density)
    motion = moving_part(density, mask, config.motion_axis)
    hinge, axis = motion.hinge_px * density.pixel_size_angstrom, motion.axis
    share = float(motion.part.sum()) / max(float(motion.part.sum() + motion.rest.sum()), 1e-30)
    yield Note(
        f"{100 * share:.0f} % of the map turn by {config.motion_angle_degrees:g} degrees in all about "
        f"the axis {' '.join(f'{x:.3f}' for x in axis)} through {' '.join(f'{x:.1f}' for x in hinge)} A "
        "(x y z from the middle)"
    )
    return motion


def _of_grid(path: Path, first: DensityMap, config: SimulateConfig) -> DensityMap:
    """Return the map of a further state."""
    other = open_map(config, path, config.symmetry)
    grids = [ImageGrid(one.box, one.pixel_size_angstrom) for one in (first, other)]
    if not grids[0].matches(grids[1]):
        raise CryosphereError(
            f"{path} has {other.box} voxels of {other.pixel_size_angstrom:.5g} A, {config.map} "
            f"{first.box} of {first.pixel_size_angstrom:.5g} A; resample one with convert --box --pixel-size"
        )
    return other


def simulate_density(
    density: DensityMap,
    config: SimulateConfig,
    others: Sequence[DensityMap] = (),
    motion: DomainMotion | None = None,
) -> Events:
    """Simulate particles from a map in memory, and others for further states; ``config.map`` is not read.

    With a ``motion`` of the map a part of it is turned by another angle in every particle.

    Images go to disk as they are made; only a chunk of them is held. The STAR file appears last.

    Raises `CryosphereError` if shifts leave the images, or the disk has no room for the images.
    """
    _refuse_outputs(config)
    star, stack = config.output, config.output.with_suffix(".mrcs")
    poses = None if config.poses is None else _stack_of_poses(config)
    if poses is None and config.shift_px > density.box / 2:
        raise CryosphereError(
            f"shifts of up to {config.shift_px:g} px leave the images of {density.box} px; give at "
            f"most --shift-px {density.box // 2}"
        )
    number = len(poses) if poses is not None else config.number or _DEFAULT_NUMBER
    refuse_beyond_room(stack.parent, 4.0 * number * density.box**2, "the images")
    drawn = drawn_parameters(number, config, config.symmetry, density.pixel_size_angstrom, poses)
    if others:
        shares = np.array(config.share or (1.0,) * (1 + len(others)))
        rng = np.random.default_rng(config.seed + 2000)
        states = rng.choice(len(shares), size=len(drawn), p=shares / shares.sum())
        drawn = dataclasses.replace(drawn, states=states)
    if motion is not None:
        widest = config.motion_angle_degrees / 2
        angles = np.random.default_rng(config.seed + 3000).uniform(-widest, widest, len(drawn))
        drawn = dataclasses.replace(drawn, motion_degrees=angles)
    noise = None if config.noise_spectrum is None else NoiseSpectrum.read(config.noise_spectrum)
    work = Simulation(density, drawn, config, noise, others, motion)
    with stack_writer(stack, density.pixel_size_angstrom, config.overwrite) as append:
        yield from work.images(append)
    write_star(work.tables(stack.name), star, config.overwrite)
    metrics: dict[str, float | int | str] = {"particles": len(drawn), "snr": config.snr}
    if work.level is not None:
        metrics |= {
            "snr_radius_angstrom": work.level.radius_angstrom,
            "noise_deviation": work.level.deviation,
        }
    yield Result({"star": star, "stack": stack}, metrics)


def simulate_stack(
    density: DensityMap, parameters: ParticleParameters, config: SimulatingConfig
) -> Generator[Event, None, ParticleStack]:
    """Simulate particles from a map in memory, and return them with their images in memory."""
    work, chunks = Simulation(density, parameters, config), list[NDArray[np.float32]]()
    yield from work.images(chunks.append)
    return ParticleStack.from_tables(work.tables("simulated.mrcs"), np.concatenate(chunks))


class Simulation:
    """The images of particles, made chunk by chunk. ``level``: the noise that is added; None for none."""

    def __init__(
        self,
        density: DensityMap,
        parameters: ParticleParameters,
        config: SimulatingConfig,
        spectrum: NoiseSpectrum | None = None,
        others: Sequence[DensityMap] = (),
        motion: DomainMotion | None = None,
    ) -> None:
        self._density, self._parameters, self._config = density, parameters, config
        self._projector: Projectors = [projector_of(one) for one in (density, *others)]
        if motion is not None:
            self._projector = moving_projector_of(motion)
        if spectrum is None and config.noise_length_angstrom:
            spectrum = NoiseSpectrum.falling(config.noise_length_angstrom)
        self._spectrum = spectrum
        self.level: NoiseLevel | None = None
        if np.isfinite(config.snr):
            self.level = noise_level(
                density, self._projector, parameters, config.snr, config.snr_radius_angstrom
            )

    def images(self, take: Callable[[NDArray[np.float32]], Any]) -> Events:
        """Make the images and hand each chunk on, ``(k, box, box)``."""
        size, level = self._density.pixel_size_angstrom, self.level
        if power_outside_sphere(self._density.voxels) > _MOST_OUTSIDE:
            yield Note(
                "the map reaches beyond the circle in its box: mask it, or its projections wrap",
                warning=True,
            )
        total, done = len(self._parameters), 0
        deviation, seed = None if level is None else level.deviation, self._config.seed + 1000
        for chunk in noisy_images(
            self._projector, self._parameters, size, deviation, seed, self._spectrum
        ):
            take(chunk)
            done += len(chunk)
            yield Progress(done / total, f"simulated {done} of {total} particles")

    def tables(self, stack_name: str) -> dict[str, pd.DataFrame]:
        """Return RELION's tables of the particles, whose images are in a stack of that name."""
        size = self._density.pixel_size_angstrom
        return self._parameters.tables(stack_name, self._density.box, size)


def drawn_parameters(
    number: int,
    config: SimulatingConfig,
    symmetry: str,
    pixel_size_angstrom: float,
    poses: ParticleStack | None = None,
) -> ParticleParameters:
    """Draw the particles' truth or take it from others; drawn poses lie in RELION's asymmetric unit."""
    if poses is not None:
        return parameters_from_stack(poses, pixel_size_angstrom, config.ctf)
    drawn = draw_parameters(
        number,
        config.seed,
        config.shift_px,
        config.ctf,
        preference=config.preference,
        preferred_axis=config.preferred_axis,
        preferred_share=config.preferred_share,
        optics=config.optics,
    )
    return dataclasses.replace(drawn, rotations=reduce(np.asarray(drawn.rotations), symmetry))


def _refuse_outputs(config: SimulateConfig) -> None:
    for path in (config.output, config.output.with_suffix(".mrcs")):
        refuse_overwrite(path, config.overwrite)


def _stack_of_poses(config: SimulateConfig) -> ParticleStack:
    """Return the particles whose truth is taken."""
    assert config.poses is not None
    stack = ParticleStack.read(config.poses, require_images=False)
    number = len(stack) if config.number is None else config.number
    if number > len(stack):
        raise CryosphereError(
            f"{config.poses} has {len(stack)} poses, not {number}; ask for fewer particles"
        )
    return stack[:number]
