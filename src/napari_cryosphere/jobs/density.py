"""The job ``density``: a map from an atomic model."""

from __future__ import annotations

from pathlib import Path

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.imaging.atomic_model import AtomicModel
from napari_cryosphere.jobs.configs import DensityConfig, ModelConfig
from napari_cryosphere.jobs.events import Events, Progress, Result
from napari_cryosphere.jobs.running.memory import MemoryLimit
from napari_cryosphere.jobs.running.outputs import claims

__all__ = ["density", "read_model"]

_VOLUMES = 3  # of single precision at once: the map, and its transform


@claims(files=("output",))
def density(config: DensityConfig) -> Events:
    """Write the electrostatic potential of a model, in volts, as an MRC map."""
    refuse_overwrite(config.output, config.overwrite)
    yield Progress(0.0, f"reading {config.model.name}")
    model = read_model(config.model, config)
    yield Progress(0.3, f"adding up {model.atoms} atoms")
    box = config.box or 0
    MemoryLimit(None).refuse_beyond(_VOLUMES * 4.0 * box**3, f"a box of {box}", "ask for a smaller")
    made = model.density(
        config.pixel_size_angstrom, config.box, config.resolution_angstrom, config.symmetry
    )
    made.save(config.output, config.overwrite)
    metrics: dict[str, float | int | str] = {
        "atoms": model.atoms,
        "radius_angstrom": model.radius_angstrom,
        "box": made.box,
        "pixel_size_angstrom": made.pixel_size_angstrom,
        "highest_volts": float(made.voxels.max()),
    }
    yield Result({"map": config.output}, metrics)


def read_model(path: Path, config: ModelConfig) -> AtomicModel:
    """Read an atomic model as a config says."""
    return AtomicModel.read(
        path,
        assembly=config.assembly,
        waters=config.waters,
        hydrogens=config.hydrogens,
        b_factor_angstrom2=config.model_b_factor_angstrom2,
    )
