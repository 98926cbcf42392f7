"""Bands, references and the likelihood against sums over pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.labels import best_matches, inverse_mse
from napari_cryosphere.alignment.noise import _white_and_solvent
from napari_cryosphere.alignment.observation import NoiseModel, contrast_integral, observe
from napari_cryosphere.alignment.references import References, real_row, shift_grid
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import random_rotations, rotation_from_vector

BOX = 32


@dataclass(frozen=True)
class Scene:
    volume: np.ndarray
    rotations: np.ndarray
    projections: np.ndarray


@pytest.fixture(scope="module")
def scene(gaussian_phantom):
    rotations = random_rotations(6, np.random.default_rng(2))
    volume, projections = gaussian_phantom(BOX, rotations)
    return Scene(volume.astype(np.float32), rotations, projections)


def test_band_counts_each_frequency_once():
    band = FourierBand(BOX, 9)
    image = torch.randn(BOX, BOX, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full = torch.fft.fftn(torch.fft.ifftshift(image))
    k = torch.fft.fftfreq(BOX, 1 / BOX)
    radius = torch.hypot(k[:, None], k)
    expected = full[(radius > 0) & (radius <= 9)].abs().square().sum()
    found = 2 * band.of(to_fourier(image)).abs().square().sum()
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_band_refuses_nyquist():
    with pytest.raises(ValueError, match="from 1 to 15, not 16"):
        FourierBand(BOX, 16)


def test_slices_are_those_of_analytic_projections(scene):
    band = FourierBand(BOX, 12)
    values = SliceSampler(scene.volume, 12, padding=3).values(
        torch.from_numpy(scene.rotations).float(), band.frequencies
    )
    expected = band.of(to_fourier(torch.from_numpy(scene.projections)))
    error = (values - expected).abs().square().sum() / expected.abs().square().sum()
    assert float(error.sqrt()) < 0.015


@pytest.mark.parametrize("padding", [2, 3])
def test_slices_equal_the_projectors(scene, padding):
    band = FourierBand(BOX, 15)
    rotations = torch.from_numpy(scene.rotations).float()
    values = SliceSampler(scene.volume, 15, padding).values(rotations, band.frequencies)
    expected = band.of(Projector(scene.volume, padding).slices(rotations))
    torch.testing.assert_close(values, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


def test_gradients_are_the_derivatives_of_slices(scene, gaussian_phantom):
    """Against differences of analytic projections under small turns of the pose."""
    sampler = SliceSampler(scene.volume, 10, padding=3, moments=True)
    band = FourierBand(BOX, 10)
    rotations = torch.from_numpy(scene.rotations).float()
    moments = sampler.values_and_moments(rotations, band.frequencies)
    gradients = torch.complex(moments[:, 1:, 0], moments[:, 1:, 1]) * (-2j * np.pi / BOX)
    along = torch.einsum("nik,nij->nkj", gradients, rotations.to(gradients.dtype))
    x, y = band.frequencies.unbind(-1)
    predicted = (along[..., 2] * y, along[..., 2] * -x, along[..., 1] * x - along[..., 0] * y)
    for axis, derivative in enumerate(predicted):
        turn = np.zeros(3)
        turn[axis] = 0.01
        poses = [scene.rotations @ rotation_from_vector(sign * turn) for sign in (1, -1)]
        ahead, back = (
            band.of(to_fourier(torch.from_numpy(gaussian_phantom(BOX, p)[1]))) for p in poses
        )
        difference = (ahead - back) / 0.02
        error = (derivative - difference).abs().square().sum() / difference.abs().square().sum()
        assert float(error.sqrt()) < 0.05, axis


def test_log_likelihood_is_the_gaussian_of_the_residual(scene):
    """In white noise and the full band: -(|image - model|^2 - |image|^2) / 2 s^2 summed over
    pixels.
    """
    generator = torch.Generator().manual_seed(5)
    clean = torch.from_numpy(scene.projections[:2]).float()
    band = FourierBand(BOX, 15)
    inside = (
        torch.fft.fftfreq(BOX, 1 / BOX)[:, None].square() + torch.arange(BOX // 2 + 1).square()
    ).sqrt()
    keep = (inside <= 15) & (inside > 0)
    images = clean + 3 * torch.randn(clean.shape, generator=generator)
    images = from_fourier(to_fourier(images) * keep)
    contrast, deviation = 0.7, 3.0
    shift = torch.tensor([[1.5, -2.0]])
    sampler = SliceSampler(scene.volume, 15, 2)
    observation = observe(images, None, NoiseModel.white(BOX, deviation, contrast), band)
    references = References.of(sampler, scene.rotations, band)
    found = references.log_likelihoods(observation, band.phases(shift))[:, :, 0]
    slices = Projector(scene.volume, 2).slices(scene.rotations) * keep
    models = contrast * from_fourier(slices * shift_phases(shift, BOX))
    for pose, model in enumerate(models):
        residual = (images - model).square().sum((1, 2)) - images.square().sum((1, 2))
        torch.testing.assert_close(
            found[pose], -residual / (2 * deviation**2), rtol=1e-3, atol=1e-2
        )


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_contrast_is_integrated_under_its_prior(spread):
    """Against scipy's quadrature of ``exp(c a - c^2 b)`` under a normal prior."""
    from scipy.integrate import quad
    from scipy.stats import norm

    for product, norms in ((40.0, 18.0), (3.0, 10.0), (20.0, 10.0)):
        expected = quad(
            lambda c, a=product, b=norms: np.exp(c * a - c * c * b) * norm.pdf(c, 1, spread), -3, 5
        )[0]
        found = contrast_integral(torch.tensor(product), torch.tensor(norms), spread)
        assert float(found) == pytest.approx(np.log(expected), abs=1e-3)
        assert float(
            contrast_integral(torch.tensor(product), torch.tensor(norms), 0.0)
        ) == pytest.approx(product - norms)


def test_noise_behind_a_ctf_is_told_from_white_noise():
    """A simulated mixture: what passed the CTF and what did not are each found to 10 %."""
    generator = torch.Generator().manual_seed(3)
    number, band = 200, FourierBand(64, 31)
    defocus = torch.linspace(20, 60, number)[:, None]
    ctf = torch.sin(defocus * (band.frequencies.norm(dim=-1) / 31) ** 2 + 0.1)
    white, passed = (
        torch.randn(number, len(band.shells), dtype=torch.complex64, generator=generator)
        for _ in range(2)
    )
    power = (white + 1.5 * ctf * passed).abs().square()
    found_white, found_solvent = _white_and_solvent(power, ctf.square(), band)
    shells = slice(6, 28)
    assert found_white[shells].numpy() == pytest.approx(1.0, rel=0.25)
    assert float(found_white[shells].mean()) == pytest.approx(1.0, rel=0.1)
    assert float(found_solvent[shells].mean()) == pytest.approx(2.25, rel=0.1)


def test_references_on_a_grid_equals_one_of_all_poses(scene):
    sampler, band, grid = (
        SliceSampler(scene.volume, 8),
        FourierBand(BOX, 8),
        SO3Grid(1).reduced("D2"),
    )
    whole, halved = (
        References.of(sampler, grid.rotations(), band),
        References.of_grid(sampler, grid, band),
    )
    scale = float(whole.slices.abs().max())
    torch.testing.assert_close(halved.slices, whole.slices, atol=1e-5 * scale, rtol=1e-4)
    torch.testing.assert_close(halved.power, whole.power, atol=1e-5 * scale**2, rtol=1e-4)


def test_real_rows_multiply_as_complex_numbers():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 7, dtype=torch.complex64, generator=generator)
    torch.testing.assert_close(real_row(a) @ real_row(b), (a.conj() * b).sum().real)


@pytest.mark.parametrize(
    ("reach", "step", "number"), [(0.0, 1.0, 1), (1.0, 1.0, 9), (3.0, 1.5, 21)]
)
def test_shift_grid_is_a_disc_around_the_origin(reach, step, number):
    shifts = shift_grid(reach, step)
    assert len(shifts) == number
    assert (shifts == 0).all(1).any()
    assert float(shifts.norm(dim=1).max()) <= reach + step / 2


def test_labels_mark_the_true_pose_and_the_stated_share(scene):
    sampler, band, grid = SliceSampler(scene.volume, 12), FourierBand(BOX, 12), SO3Grid(1)
    images = torch.from_numpy(scene.projections).float()
    images = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    observation = observe(images, None, NoiseModel.white(BOX), band)
    references = References.of(sampler, grid.rotations(), band)
    errors = inverse_mse(references, observation, band.phases(torch.zeros(1, 2)))
    mask = best_matches(errors, 0.05)
    assert mask.sum(1).tolist() == [round(0.05 * grid.size)] * len(images)
    nearest = torch.from_numpy(grid.nearest(scene.rotations))
    assert mask[torch.arange(len(images)), nearest].all()
    assert (
        errors[mask].reshape(len(images), -1).amin(1) >= torch.where(mask, 0, errors).amax(1)
    ).all()


def test_labels_of_a_clean_image_at_its_own_pose_have_an_error_of_the_noise(scene):
    sampler, band = SliceSampler(scene.volume, 12), FourierBand(BOX, 12)
    images = Projector(scene.volume, 2).project(scene.rotations)
    noisy = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    observation = observe(noisy, None, NoiseModel.white(BOX), band)
    errors = inverse_mse(
        References.of(sampler, scene.rotations, band), observation, band.phases(torch.zeros(1, 2))
    )
    assert errors.diagonal().numpy() == pytest.approx(np.ones(6), abs=0.25)


def test_labels_refuse_a_share_outside_0_to_1():
    with pytest.raises(ValueError, match="fraction"):
        best_matches(torch.ones(1, 10), 0.0)
