"""What the network is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.preprocess import (
    background_mask,
    fit_to_network,
    normalise_background,
    phase_flip,
    prepare_images,
)


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(15).normal(5.0, 3.0, (8, 64, 64)).astype(np.float32))


def test_background_becomes_standard(noise: torch.Tensor) -> None:
    background = normalise_background(noise)[:, background_mask(64)]
    torch.testing.assert_close(background.mean(1), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(background.std(1), torch.ones(8), atol=1e-5, rtol=0)


def test_constant_image_gives_no_nan() -> None:
    images = torch.full((2, 16, 16), 7.0)
    images[1] = 0.0
    assert (normalise_background(images) == 0).all()


def test_white_noise_keeps_its_deviation_at_the_networks_size(noise: torch.Tensor) -> None:
    fitted = fit_to_network(normalise_background(noise), 3.0, 32, 6.0)
    assert fitted.shape == (8, 32, 32)
    assert float(fitted.std()) == pytest.approx(1, abs=0.05)


def test_flipping_twice_is_the_identity(noise: torch.Tensor) -> None:
    ctf = torch.cos(torch.linspace(0, 20, 64 * 33)).reshape(1, 64, 33).expand(8, -1, -1)
    ctf = ctf.clone()
    ctf[:, 1:] = 0.5 * (ctf[:, 1:] + ctf[:, 1:].flip(1))  # a real filter is even in y
    torch.testing.assert_close(phase_flip(phase_flip(noise, ctf), ctf), noise, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("box", "pixel_size"), [(64, 3.0), (96, 2.0), (48, 4.0), (80, 3.0)])
def test_other_boxes_and_pixel_sizes_fit(box: int, pixel_size: float) -> None:
    """The same blob in angstrom looks the same to the network, whatever it was sampled on."""
    axis = (torch.arange(box) - box // 2) * pixel_size
    blob = torch.exp(-((axis[:, None] - 18) ** 2 + (axis[None] + 18) ** 2) / 2 / 18**2)
    noise = torch.from_numpy(np.random.default_rng(16).normal(0, 1e-4, (1, box, box)).astype(np.float32))
    prepared = prepare_images(blob[None] + noise, None, pixel_size, 32, 6.0)[0]
    peak = torch.nonzero(prepared == prepared.max())[0]
    assert prepared.shape == (32, 32)
    assert peak.tolist() == [16 + 3, 16 - 3]  # 18 A are three of the network's pixels
