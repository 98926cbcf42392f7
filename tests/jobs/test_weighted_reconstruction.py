"""``reconstruct`` from distributions: samples of them in place of one pose a particle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import ReconstructConfig, SimulateConfig
from napari_cryosphere.jobs.events import Events, Result, follow
from napari_cryosphere.jobs.reconstruct import reconstruct
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import masked_correlation
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.distributions.store import save_distribution

NUMBER = 200


def run(events: Events) -> Result:
    return follow(events, lambda event: None)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a map, particles, and distributions 0.3 and 20 degrees wide about their
    poses.
    """
    folder = tmp_path_factory.mktemp("weighted")
    protein_phantom(32, 6.0).save(folder / "map.mrc")
    run(
        simulate(
            SimulateConfig(map=folder / "map.mrc", output=folder / "p.star", number=NUMBER, snr=1.0)
        )
    )
    poses = ParticleStack.read(folder / "p.star").rotations()[:, None]
    for name, width_degrees in (("narrow", 0.3), ("wide", 20.0)):
        known = PoseDistribution.from_poses(poses, np.zeros((NUMBER, 1)), width_degrees)
        save_distribution(known, folder / f"{name}.zarr")
    return folder


def correlation(sample: Path, output: Path, **options: object) -> float:
    run(reconstruct(ReconstructConfig(particles=sample / "p.star", output=output, **options)))
    truth = DensityMap.read(sample / "map.mrc").voxels
    return masked_correlation(DensityMap.read(output).voxels, truth, truth > 0.05 * truth.max())


def test_narrow_distributions_give_the_map_of_the_poses_and_wide_ones_a_blurred_one(
    sample: Path, tmp_path: Path
) -> None:
    best = correlation(sample, tmp_path / "best.mrc")
    narrow, wide = (
        correlation(
            sample,
            tmp_path / f"{name}.mrc",
            weights="distributions",
            distributions=sample / f"{name}.zarr",
        )
        for name in ("narrow", "wide")
    )
    assert narrow == pytest.approx(best, abs=0.01)
    assert wide < best - 0.03


def test_distributions_of_other_particles_are_refused(sample: Path, tmp_path: Path) -> None:
    ParticleStack.read(sample / "p.star")[:50].save(tmp_path / "few.star")
    config = ReconstructConfig(
        particles=tmp_path / "few.star",
        output=tmp_path / "map.mrc",
        weights="distributions",
        distributions=sample / "narrow.zarr",
    )
    with pytest.raises(MetadataError, match="of 200 particles"):
        run(reconstruct(config))
    assert not config.output.exists()


def test_weights_and_distributions_come_together(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs distributions"):
        ReconstructConfig(
            particles=sample / "p.star", output=tmp_path / "m.mrc", weights="distributions"
        )


def test_distributions_that_are_given_weigh(sample: Path, tmp_path: Path) -> None:
    given = {"particles": sample / "p.star", "output": tmp_path / "m.mrc"}
    assert ReconstructConfig(**given).weights == "poses"
    assert ReconstructConfig(**given, distributions=sample / "wide.zarr").weights == "distributions"
