"""The look at some particles before a model predicts them."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.running.model_fit import check_fit
from napari_cryosphere.jobs.sample import make_sample
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack

NUMBER = 100


@pytest.fixture(scope="module")
def shipped() -> PoseModel:
    return PoseModel.load(str(files("napari_cryosphere") / "data" / "sample_model.safetensors"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> ParticleStack:
    folder = tmp_path_factory.mktemp("own")
    for _ in make_sample(folder, NUMBER):
        pass
    return ParticleStack.read(folder / "particles.star")


def shell() -> DensityMap:
    """Return a hollow shell on the grid of the sample's map."""
    radius = np.linalg.norm(np.indices((64, 64, 64)) - 32, axis=0) * 3.0
    return DensityMap(np.exp(-(((radius - 60) / 6) ** 2)).astype(np.float32), 3.0)


def projected(density: DensityMap, folder: Path, number: int) -> ParticleStack:
    density.save(folder / "projected.mrc")
    config = SimulateConfig(
        map=folder / "projected.mrc", output=folder / "some.star", number=number, snr=0.3
    )
    for _ in simulate(config):
        pass
    return ParticleStack.read(folder / "some.star")


def test_the_shipped_model_fits_its_sample(shipped: PoseModel, own: ParticleStack) -> None:
    fit = check_fit(shipped, own, "C1")
    assert fit.foreign == fit.odd == ()
    assert fit.checked == 64
    assert not fit.symmetry_differs
    assert fit.verdict == "The model fits these particles (64 looked at)."


def test_a_point_group_that_differs_is_known(shipped: PoseModel, own: ParticleStack) -> None:
    assert check_fit(shipped, own, "C3").symmetry_differs
    assert not check_fit(shipped, own, None).symmetry_differs


def test_another_molecule_is_foreign(shipped: PoseModel, tmp_path: Path) -> None:
    """At the signal and pixel size of the training."""
    fit = check_fit(shipped, projected(shell(), tmp_path, NUMBER))
    assert fit.foreign
    assert fit.verdict.startswith("This model was trained on another molecule")


def test_coarse_pixels_and_a_narrow_field_are_odd(shipped: PoseModel, tmp_path: Path) -> None:
    fit = check_fit(shipped, projected(protein_phantom(16, 8.0), tmp_path, 8))
    assert "coarser than the 6 Å" in fit.odd[0]
    assert "128 Å of the 192 Å" in fit.odd[1]


def test_the_map_of_the_run_is_looked_for(shipped: PoseModel, tmp_path: Path) -> None:
    """The map of the particles is seen in them; with the map of something else it is not."""
    model = replace(shipped, novelty=None, card=shipped.card.model_copy(update={"novelty": None}))
    model.save(tmp_path / "model.safetensors")
    particles = projected(protein_phantom(32, 6.0), tmp_path, 40)
    protein_phantom(32, 6.0).save(tmp_path / "map.mrc")
    assert check_fit(model, particles, None, tmp_path).foreign == ()
    dark = DensityMap(-protein_phantom(32, 6.0).voxels, 6.0)
    dark.save(tmp_path / "map.mrc", overwrite=True)
    (reason,) = check_fit(model, particles, None, tmp_path).foreign
    assert reason == "its map is seen in 0 of 40 images"
