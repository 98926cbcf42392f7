"""Particles unlike those of the training: distances of known distributions, files, what turning changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import chi

from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import ModelCard, NoveltyCard, PolarConfig
from napari_cryosphere.model.novelty import Novelty
from napari_cryosphere.model.pose_model import PoseModel

SMALL = PolarConfig(box=16, l_max=3, ring_channels=8, ring_blocks=1, channels=12, blocks=1, features=8)


def gaussian(number: int, seed: int) -> torch.Tensor:
    """Features with five strong directions among forty, in very different units."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    strong = torch.randn(number, 5, generator=generator) @ mixing
    values = 3 * strong + torch.randn(number, 40, generator=generator)
    return (values + 7) * torch.logspace(-3, 3, 40)


def test_false_alarms_are_as_stated() -> None:
    """On other particles of the same kind; far fewer than one in a hundred of another kind stay below 1."""
    novelty = Novelty.fit(gaussian(4000, 1), gaussian(2000, 2), 0.05)
    assert novelty is not None
    assert (novelty(gaussian(4000, 3)) > 1).float().mean() == pytest.approx(0.05, abs=0.015)
    beside = gaussian(500, 4)
    beside[:, 3] += 20 * torch.logspace(-3, 3, 40)[3]  # unlikely only given the other features
    assert (novelty(beside) > 1).float().mean() > 0.99


def test_the_distance_is_mahalanobis() -> None:
    """Of independent features it is the chi distribution's quantile that the limit stands for."""
    features, held_out = torch.randn(20_000, 6), torch.randn(20_000, 6)
    novelty = Novelty.fit(features, held_out, 0.1)
    assert novelty is not None
    assert float(novelty.limit) == pytest.approx(chi(6).ppf(0.9), rel=0.02)
    middle = novelty(torch.zeros(1, 6))
    assert float(middle) < 0.05


def test_too_few_particles_tell_nothing() -> None:
    assert Novelty.fit(gaussian(5, 1), gaussian(200, 2)) is None
    assert Novelty.fit(gaussian(200, 1), gaussian(20, 2)) is None


def test_it_travels_in_the_model_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    card = ModelCard(
        network=SMALL, pixel_size_angstrom=4.0, novelty=NoveltyCard(false_alarm_rate=0.02, particles=60)
    )
    plain = PoseModel.create(card)
    plain.network.eval()
    images = torch.randn(200, 16, 16)
    with torch.inference_mode():
        features = plain.network.features(images)
    model = PoseModel(plain.network, card, Novelty.fit(features[:140], features[140:]))
    model.save(tmp_path / "model.safetensors")
    loaded = PoseModel.load(tmp_path)
    (distribution, expected), (again, found) = (m.predict_with_novelty(images[:9]) for m in (model, loaded))
    assert expected is not None
    assert (expected == found).all()
    assert torch.equal(distribution.coefficients, again.coefficients)
    assert torch.equal(model.predict(images[:9]).coefficients, again.coefficients)
    turned = torch.roll(torch.rot90(images[:9], 1, (1, 2)), 1, 1)  # about pixel n // 2
    circle = torch.hypot(*torch.meshgrid(*[torch.arange(16.0) - 8] * 2, indexing="ij")) < 7
    two = [loaded.predict_with_novelty(each * circle)[1] for each in (images[:9], turned)]
    assert two[0] == pytest.approx(two[1], rel=2e-3)
    PoseModel(plain.network, card).save(tmp_path / "without.safetensors")
    with pytest.raises(ModelError, match="do not fit its own card"):
        PoseModel.load(tmp_path / "without.safetensors")
