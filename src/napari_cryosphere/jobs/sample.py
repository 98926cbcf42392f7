"""The sample: particles simulated from the package's own phantom, and a model trained for it.

Nothing is downloaded. The map and the particles are made from code and a seed; the model is a file
of the package, made with ``napari-cryosphere train`` as the documentation tells.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.events import Events
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.model.pose_model import PoseModel

__all__ = ["SAMPLE_SEED", "SAMPLE_SNR", "make_sample", "sample_model"]

SAMPLE_SEED = 2026
"""Any number: the same sample everywhere."""

SAMPLE_SNR = 0.3
"""Signal over noise variance: high enough to see particles by eye."""


def make_sample(
    folder: Path,
    number: int = 1000,
    snr: float = SAMPLE_SNR,
    seed: int = SAMPLE_SEED,
    preference: float = 0.0,
) -> Events:
    """Write the sample: ``truth.mrc``, ``particles.star`` and ``particles.mrcs`` (64 px of 3 A).

    ``preference`` crowds the views around z, see `SimulateConfig`.
    """
    density = protein_phantom()
    density.save(folder / "truth.mrc", overwrite=True)
    config = SimulateConfig(
        map=folder / "truth.mrc",
        output=folder / "particles.star",
        number=number,
        snr=snr,
        seed=seed,
        preference=preference,
        overwrite=True,
    )
    yield from simulate_density(density, config)


def sample_model() -> PoseModel:
    """Load the model that ships with the package, trained on other projections of the sample's map."""
    with as_file(files("napari_cryosphere") / "data" / "sample_model.safetensors") as path:
        return PoseModel.load(path)
