"""Particles unlike those of the training: distances of known distributions, files, what turning
changes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import chi

from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import ModelCard, NoveltyCard, PolarConfig
from napari_cryosphere.model.novelty import Novelty
from napari_cryosphere.model.pose_model import PoseModel

BOX = 16
SMALL = PolarConfig(
    box=BOX, l_max=3, ring_channels=8, ring_blocks=1, channels=12, blocks=1, features=8
)


def particles(number: int, seed: int, width: float = 3.0, noise: float = 1.0) -> torch.Tensor:
    """Return blobs somewhere near the centre, of varying heights, under white noise."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.meshgrid(*[torch.arange(float(BOX)) - BOX // 2] * 2, indexing="ij")
    at = torch.randn(number, 2, 1, 1, generator=generator)
    height = 2 + 0.2 * torch.randn(number, 1, 1, generator=generator)
    blobs = height * torch.exp(-((x - at[:, 0]) ** 2 + (y - at[:, 1]) ** 2) / (2 * width**2))
    return blobs + noise * torch.randn(number, BOX, BOX, generator=generator)


def test_false_alarms_are_as_stated_and_junk_is_told() -> None:
    novelty = Novelty.fit(particles(2000, 1), particles(1000, 2), 0.05)
    assert novelty is not None
    assert (novelty(particles(2000, 3)) > 1).float().mean() == pytest.approx(0.05, abs=0.02)
    ramp = torch.linspace(-2, 2, BOX).expand(BOX, BOX)
    for junk in (
        torch.randn(300, BOX, BOX, generator=torch.Generator().manual_seed(4)),
        particles(300, 5, width=1.5),
        particles(300, 6) + ramp,
        particles(300, 7, noise=1.4),
    ):
        assert (novelty(junk) > 1).float().mean() > 0.9


def test_the_distance_is_mahalanobis() -> None:
    """Of white noise, whose power is independent in all bands, the limit is a quantile of chi."""
    noise = torch.randn(20_000, BOX, BOX, generator=torch.Generator().manual_seed(1))
    novelty = Novelty.fit(noise[::2], noise[1::2], 0.1)
    assert novelty is not None
    assert float(novelty.limit) == pytest.approx(chi(BOX // 2 + 1).ppf(0.9), rel=0.03)


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_junk_of_the_training_is_not_known(share: float) -> None:
    """Mean and covariance of all particles, and the limit of all held-out ones, would flag 7 and 13 %."""

    def with_junk(number: int, seed: int) -> torch.Tensor:
        return torch.cat(
            [
                particles(number, seed),
                particles(int(number * share / (1 - share)), seed + 1, width=1.5),
            ]
        )

    novelty = Novelty.fit(with_junk(2000, 1), with_junk(1000, 3))
    assert novelty is not None
    assert (novelty(particles(500, 5, width=1.5)) > 1).float().mean() > 0.8
    assert (novelty(particles(2000, 6)) > 1).float().mean() < 0.03


def test_turning_changes_nothing() -> None:
    novelty = Novelty.fit(particles(400, 1), particles(100, 2))
    assert novelty is not None
    images = particles(20, 3)
    turned = torch.roll(torch.rot90(images, 1, (1, 2)), 1, 1)  # about pixel n // 2
    torch.testing.assert_close(novelty(turned), novelty(images), rtol=1e-2, atol=1e-2)


def test_too_few_particles_tell_nothing() -> None:
    assert Novelty.fit(particles(20, 1), particles(200, 2)) is None
    assert Novelty.fit(particles(200, 1), particles(20, 2)) is None


def test_it_travels_in_the_model_file(tmp_path: Path) -> None:
    told = NoveltyCard(false_alarm_rate=0.02, particles=60)
    card = ModelCard(network=SMALL, pixel_size_angstrom=4.0, novelty=told)
    network = PoseModel.create(card).network.eval()
    model = PoseModel(network, card, Novelty.fit(particles(140, 1), particles(60, 2)))
    model.save(tmp_path / "model.safetensors")
    images = particles(9, 3)
    (distribution, expected), (again, found) = (
        each.predict_all(images)[:2] for each in (model, PoseModel.load(tmp_path))
    )
    assert expected is not None
    assert (expected == found).all()
    assert torch.equal(distribution.coefficients, again.coefficients)
    PoseModel(network, card).save(tmp_path / "without.safetensors")
    with pytest.raises(ModelError, match="do not fit its own card"):
        PoseModel.load(tmp_path / "without.safetensors")
