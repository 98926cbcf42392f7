"""The job ``simulate``: RELION-readable particles from a map or an atomic model."""

from __future__ import annotations

import dataclasses

import numpy as np

from napari_cryosphere._files import refuse_beyond_room, refuse_overwrite
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.atomic_model import is_atomic_model
from napari_cryosphere.imaging.coloured_noise import NoiseSpectrum
from napari_cryosphere.imaging.forward import noise_level, noisy_images, projector_of
from napari_cryosphere.imaging.simulate import (
    ParticleParameters,
    draw_parameters,
    parameters_from_stack,
)
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.density import read_model
from napari_cryosphere.jobs.events import Events, Note, Progress, Result
from napari_cryosphere.jobs.running.inputs import open_map
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.particles import DensityMap, ParticleStack, stack_writer, write_star
from napari_cryosphere.so3.asymmetric_unit import reduce

__all__ = ["simulate", "simulate_density"]

_DEFAULT_NUMBER = 1000


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
    yield from simulate_density(density, config)


def simulate_density(density: DensityMap, config: SimulateConfig) -> Events:
    """Simulate particles from a map in memory; ``config.map`` is not read.

    Images go to disk as they are made; only a chunk of them is held. The STAR file appears last.
    """
    _refuse_outputs(config)
    star, stack = config.output, config.output.with_suffix(".mrcs")
    parameters = _parameters(config, density.pixel_size_angstrom)
    spectrum = _noise_spectrum(config)
    projector, pixel_size = projector_of(density), density.pixel_size_angstrom
    level = None
    if np.isfinite(config.snr):
        level = noise_level(density, projector, parameters, config.snr, config.snr_radius_angstrom)
    if level is not None and level.radius_angstrom > density.box / 2 * density.pixel_size_angstrom:
        yield Note(
            "the map reaches beyond the circle in its box: mask it, or its projections wrap",
            warning=True,
        )
    total, done = len(parameters), 0
    refuse_beyond_room(stack.parent, 4.0 * total * density.box**2, "the images")
    deviation = None if level is None else level.deviation
    images = noisy_images(
        projector, parameters, pixel_size, deviation, config.seed + 1000, spectrum
    )
    with stack_writer(stack, pixel_size, config.overwrite) as append:
        for chunk in images:
            append(chunk)
            done += len(chunk)
            yield Progress(done / total, f"simulated {done} of {total} particles")
    tables = parameters.tables(stack.name, density.box, pixel_size)
    write_star(tables, star, config.overwrite)
    metrics: dict[str, float | int | str] = {"particles": total, "snr": config.snr}
    if level is not None:
        metrics |= {
            "snr_radius_angstrom": level.radius_angstrom,
            "noise_deviation": level.deviation,
        }
    yield Result({"star": star, "stack": stack}, metrics)


def _refuse_outputs(config: SimulateConfig) -> None:
    for path in (config.output, config.output.with_suffix(".mrcs")):
        refuse_overwrite(path, config.overwrite)


def _parameters(config: SimulateConfig, pixel_size_angstrom: float) -> ParticleParameters:
    """Draw the particles' truth or take it from a file; drawn poses lie in RELION's asymmetric unit."""
    if config.poses is not None:
        stack = ParticleStack.read(config.poses, require_images=False)
        number = len(stack) if config.number is None else config.number
        if number > len(stack):
            raise CryosphereError(
                f"{config.poses} has {len(stack)} poses, not {number}; ask for fewer particles"
            )
        return parameters_from_stack(stack[:number], pixel_size_angstrom, config.ctf)
    drawn = draw_parameters(
        config.number or _DEFAULT_NUMBER,
        config.seed,
        config.shift_px,
        config.ctf,
        preference=config.preference,
        preferred_axis=config.preferred_axis,
        optics=config.optics,
    )
    return dataclasses.replace(
        drawn, rotations=reduce(np.asarray(drawn.rotations), config.symmetry)
    )


def _noise_spectrum(config: SimulateConfig) -> NoiseSpectrum | None:
    if config.noise_spectrum is not None:
        return NoiseSpectrum.read(config.noise_spectrum)
    return (
        NoiseSpectrum.falling(config.noise_length_angstrom)
        if config.noise_length_angstrom
        else None
    )
