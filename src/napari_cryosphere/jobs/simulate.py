"""The job ``simulate``: RELION-readable particles from a map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.imaging.simulate import draw_parameters, noisy_images
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result
from napari_cryosphere.particles import DensityMap, write_stack, write_star

__all__ = ["simulate", "simulate_density"]


def simulate(config: SimulateConfig) -> Events:
    """Simulate particles from the map that the config names."""
    density = DensityMap.read(config.map)
    yield from simulate_density(density, config)


def simulate_density(density: DensityMap, config: SimulateConfig) -> Events:
    """Simulate particles from a map in memory; ``config.map`` is not read."""
    star = config.output
    stack = star.with_suffix(".mrcs")
    refuse_overwrite(star, config.overwrite)
    refuse_overwrite(stack, config.overwrite)
    parameters = draw_parameters(config.number, config.seed, config.shift_px, config.ctf)
    chunks = noisy_images(density, parameters, config.snr, config.seed + 1000)
    yield from _written(chunks, stack, density.pixel_size_angstrom, config)
    write_star(parameters.tables(stack.name, density.box, density.pixel_size_angstrom), star, config.overwrite)
    yield Result({"star": star, "stack": stack}, {"particles": config.number, "snr": config.snr})


def _written(
    chunks: Iterator[NDArray[np.float32]], stack: Path, pixel_size_angstrom: float, config: SimulateConfig
) -> Iterator[Event]:
    """Write the images; the writer pulls them, so progress is reported once it is done with each part."""
    write_stack(chunks, stack, pixel_size_angstrom, config.overwrite)
    yield Progress(1.0, f"simulated {config.number} particles")
    yield Note(f"{config.number} images of {pixel_size_angstrom:g} A pixels in {stack}")
