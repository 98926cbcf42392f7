"""The job ``simulate``: RELION-readable particles from a map."""

from __future__ import annotations

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.imaging.simulate import draw_parameters, noisy_images
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import Events, Progress, Result
from napari_cryosphere.particles import DensityMap, stack_writer, write_star

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
    done = 0
    with stack_writer(stack, density.pixel_size_angstrom, config.overwrite) as append:
        for images in noisy_images(density, parameters, config.snr, config.seed + 1000):
            append(images)
            done += len(images)
            yield Progress(done / config.number, f"simulated {done} of {config.number} particles")
    write_star(
        parameters.tables(stack.name, density.box, density.pixel_size_angstrom), star, config.overwrite
    )
    yield Result({"star": star, "stack": stack}, {"particles": config.number, "snr": config.snr})
