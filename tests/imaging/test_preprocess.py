"""What the network is given: every step, alone and in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.fourier import rescale, to_fourier
from napari_cryosphere.imaging.preprocess import (
    Preprocessing,
    background_mask,
    low_pass,
    normalise_background,
    phase_flip,
    rescale_to_grid,
    soft_circle,
)
from napari_cryosphere.particles import ImageGrid

NONE = Preprocessing(normalise=False, ctf=None, mask=False)
GRID = ImageGrid(64, 3.0)


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(15).normal(5.0, 3.0, (8, 64, 64)).astype(np.float32)
    )


@pytest.fixture
def ctf() -> torch.Tensor:
    values = torch.cos(torch.linspace(0, 20, 64 * 33)).reshape(1, 64, 33).expand(8, -1, -1).clone()
    values[:, 1:] = 0.5 * (values[:, 1:] + values[:, 1:].flip(1))  # a real filter is even in y
    return values


@pytest.mark.parametrize("radius", [None, 20.0, 500.0])
def test_background_becomes_standard(noise: torch.Tensor, radius: float | None) -> None:
    background = normalise_background(noise, radius)[:, background_mask(64, radius)]
    torch.testing.assert_close(background.mean(1), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(background.std(1), torch.ones(8), atol=1e-5, rtol=0)


def test_a_gradient_is_no_noise(noise: torch.Tensor) -> None:
    axis = torch.linspace(-1, 1, 64)
    tilted = noise + 9 * axis[:, None] - 4 * axis
    torch.testing.assert_close(
        normalise_background(tilted), normalise_background(noise), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("level", [0.0, 7.0, 1e30, -1e-30])
def test_constant_image_gives_no_nan(level: float) -> None:
    images = torch.full((2, 64, 64), level)
    assert (normalise_background(images) == 0).all()
    assert torch.isfinite(Preprocessing(grid=ImageGrid(32, 6.0))(images, GRID)).all()


def test_a_particle_on_a_constant_background_is_not_scaled() -> None:
    image = torch.full((1, 64, 64), 3.0)
    image[0, 30:34, 30:34] = 8.0
    assert normalise_background(image).amax() == 5


def test_white_noise_keeps_its_deviation_at_the_networks_size(noise: torch.Tensor) -> None:
    fitted = rescale_to_grid(normalise_background(noise), GRID, ImageGrid(32, 6.0), keep_noise=True)
    assert fitted.shape == (8, 32, 32)
    assert float(fitted.std()) == pytest.approx(1, abs=0.05)


def test_rescaling_equals_cutting_the_transform(noise: torch.Tensor) -> None:
    ours = rescale_to_grid(noise, GRID, ImageGrid(32, 6.0), keep_noise=False)
    torch.testing.assert_close(ours, rescale(noise, 32), atol=1e-5, rtol=0)
    double = rescale_to_grid(noise.double(), GRID, ImageGrid(32, 6.0), keep_noise=False)
    torch.testing.assert_close(double, rescale(noise.double(), 32), atol=2e-6, rtol=0)


def test_flipping_twice_is_the_identity(noise: torch.Tensor, ctf: torch.Tensor) -> None:
    torch.testing.assert_close(phase_flip(phase_flip(noise, ctf), ctf), noise, atol=2e-3, rtol=0)


def test_multiplying_by_the_ctf(noise: torch.Tensor, ctf: torch.Tensor) -> None:
    out = Preprocessing(normalise=False, ctf="multiply", mask=False)(noise, GRID, ctf)
    torch.testing.assert_close(to_fourier(out), to_fourier(noise) * ctf, atol=2e-2, rtol=1e-4)


def test_nothing_asked_nothing_done(noise: torch.Tensor, ctf: torch.Tensor) -> None:
    assert NONE(noise, GRID, ctf) is noise
    assert NONE.result_grid(GRID) == GRID


def test_steps_are_taken_in_the_documented_order(noise: torch.Tensor, ctf: torch.Tensor) -> None:
    steps = Preprocessing(
        particle_diameter_angstrom=120,
        crop_angstrom=144,
        grid=ImageGrid(30, 5.0),
        low_pass_angstrom=20,
        mask_diameter_angstrom=100,
    )
    expected = phase_flip(normalise_background(noise, 20), ctf)[:, 8:56, 8:56]
    expected = rescale_to_grid(expected, ImageGrid(48, 3.0), ImageGrid(30, 5.0), keep_noise=True)
    expected = low_pass(expected, 4.0) * soft_circle(30, 10.0)
    torch.testing.assert_close(steps(noise, GRID, ctf), expected)


@pytest.mark.parametrize("name", ["low_pass_angstrom", "crop_angstrom", "mask_diameter_angstrom"])
def test_lengths_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive, not -3"):
        Preprocessing(**{name: -3.0})


def test_crop_alone(noise: torch.Tensor) -> None:
    steps = Preprocessing(normalise=False, ctf=None, mask=False, crop_angstrom=96)
    assert steps.result_grid(GRID) == ImageGrid(32, 3.0)
    torch.testing.assert_close(steps(noise, GRID), noise[:, 16:48, 16:48])
    wider = Preprocessing(normalise=False, ctf=None, mask=False, crop_angstrom=500)
    assert wider(noise, GRID).shape == noise.shape


def test_low_pass_keeps_what_is_coarse_and_removes_what_is_fine(noise: torch.Tensor) -> None:
    before, after = to_fourier(noise).abs(), to_fourier(low_pass(noise, 4.0)).abs()
    radius = torch.hypot(torch.fft.fftfreq(64, 1 / 64)[:, None], torch.arange(33.0))
    # the edge is three Fourier pixels wide
    inside, outside, edge = radius <= 14.5, radius >= 17.5, (radius - 16).abs() < 0.01
    torch.testing.assert_close(after[:, inside], before[:, inside], atol=1e-3, rtol=1e-4)
    assert after[:, outside].max() < 1e-2
    torch.testing.assert_close(after[:, edge], before[:, edge] / 2, atol=1e-3, rtol=1e-3)


def test_mask_is_zero_outside_and_one_inside() -> None:
    circle = soft_circle(64, 20.0)
    assert circle[32, 32] == 1
    assert circle[32, 32 + 17] == 1
    assert circle[32, 32 + 20] == 0
    assert soft_circle(64, 500.0).equal(soft_circle(64))


@pytest.mark.parametrize(
    ("box", "pixel_size"), [(64, 3.0), (96, 2.0), (48, 4.0), (80, 3.0), (70, 2.9)]
)
def test_other_boxes_and_pixel_sizes_fit(box: int, pixel_size: float) -> None:
    """The same blob in angstrom looks the same to the network, whatever it was sampled on."""
    axis = (torch.arange(box) - box // 2) * pixel_size
    blob = torch.exp(-((axis[:, None] - 18) ** 2 + (axis[None] + 18) ** 2) / 2 / 18**2)
    noise = torch.from_numpy(
        np.random.default_rng(16).normal(0, 1e-4, (1, box, box)).astype(np.float32)
    )
    steps = Preprocessing(grid=ImageGrid(32, 6.0))
    prepared = steps(blob[None] + noise, ImageGrid(box, pixel_size))[0]
    peak = torch.nonzero(prepared == prepared.max())[0]
    assert prepared.shape == (32, 32)
    assert peak.tolist() == [16 + 3, 16 - 3]  # 18 A are three of the network's pixels
