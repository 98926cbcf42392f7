"""Every change of an image is compared with the projection at the pose that it is said to have now."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.preprocess import soft_circle
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles.image_grid import resampling_matrix
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.training.augmentation import Augment, erase, zoom
from napari_cryosphere.training.presets import CESPED_AUGMENTATION, TURN_AND_SHIFT, Augmentation
from napari_cryosphere.training.sources import Batch

BOX, PIXEL, NUMBER = 48, 5.0, 24


def phantom_projector(zoom_factor: float = 1.0) -> Projector:
    """Of a molecule that is larger by a factor: the same molecule in smaller pixels."""
    return Projector(protein_phantom(BOX, PIXEL / zoom_factor).voxels, 3)


@pytest.fixture(scope="module")
def batch() -> Batch:
    rotations = torch.from_numpy(random_rotations(NUMBER, np.random.default_rng(0))).float()
    return Batch(phantom_projector().project(rotations), rotations, torch.rand(NUMBER))


def correlations(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    """Of images inside the circle, one by one."""
    circle = soft_circle(BOX)
    return np.array(
        [
            np.corrcoef((a * circle).ravel(), (b * circle).ravel())[0, 1]
            for a, b in zip(first, second, strict=True)
        ]
    )


def augmented(batch: Batch, seed: int = 1, **settings: float) -> Batch:
    return Augment(Augmentation(**settings))(batch, np.random.default_rng([seed, 7]))


@pytest.mark.parametrize(
    "settings",
    [
        {"turn_probability": 1, "turn_degrees": 20},
        {"turn_probability": 1, "turn_degrees": 180},
        {"quarter_turn_probability": 1},
        {"turn_probability": 0.5, "turn_degrees": 20, "quarter_turn_probability": 1},
    ],
)
def test_turned_image_is_the_projection_at_its_new_pose(
    batch: Batch, settings: dict[str, float]
) -> None:
    turned = augmented(batch, **settings)
    assert correlations(turned.images, phantom_projector().project(turned.rotations)).min() >= 0.995
    opposite = batch.rotations @ turned.rotations.mT @ batch.rotations
    moved = correlations(batch.images, turned.images) < 0.98
    assert moved.sum() > NUMBER / 3
    assert (
        correlations(turned.images, phantom_projector().project(opposite))[moved] < 0.995
    ).sum() > 5


def test_quarter_turns_are_about_the_centre_of_an_even_box(batch: Batch) -> None:
    """A plain rot90 is a pixel off, and would be found out."""
    turned = augmented(batch, quarter_turn_probability=1)
    exact = phantom_projector().project(turned.rotations)
    in_plane = (batch.rotations.mT @ turned.rotations)[:, 0, :2]
    quarters = torch.round(torch.atan2(in_plane[:, 1], in_plane[:, 0]) / (torch.pi / 2)).long() % 4
    assert set(quarters.tolist()) == {0, 1, 2, 3}
    half = quarters == 2
    plain = torch.rot90(batch.images[half], 2, (-2, -1))
    assert correlations(turned.images[half], exact[half]).min() > 0.9999
    assert correlations(plain, exact[half]).max() < 0.99


def test_shifted_image_is_the_projection_of_a_shifted_map(batch: Batch) -> None:
    """The shifts that the phases tell are legal ones, and all that was done."""
    moved = augmented(batch, shift_probability=1, shift_fraction=0.05)
    assert torch.equal(moved.rotations, batch.rotations)
    product = torch.fft.rfft2(moved.images) * torch.fft.rfft2(batch.images).conj()
    found = torch.angle(product[:, [0, 1], [1, 0]]) * (-BOX / (2 * torch.pi))  # x, y
    assert found.abs().max() < 0.05 * BOX * 1.02
    assert found.abs().max(dim=0).values.min() > 0.035 * BOX
    exact = from_fourier(phantom_projector().slices(batch.rotations) * shift_phases(found, BOX))
    assert correlations(moved.images, exact).min() >= 0.995
    assert correlations(batch.images, exact).min() < 0.95


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05, 1.1])
def test_zoomed_image_is_the_projection_of_a_zoomed_map(batch: Batch, factor: float) -> None:
    zoomed = zoom(batch.images, torch.full((NUMBER,), factor))
    exact = phantom_projector(factor).project(batch.rotations)
    assert correlations(zoomed, exact).min() >= 0.995
    assert (correlations(zoomed, exact) > correlations(batch.images, exact) + 1e-3).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_zoom_is_trigonometric_interpolation(dtype: torch.dtype, tolerance: float) -> None:
    images = torch.randn(3, 32, 32, dtype=dtype)
    factors = torch.tensor([0.93, 1.0, 1.04], dtype=dtype)
    for image, factor, answer in zip(images, factors, zoom(images, factors), strict=True):
        matrix = torch.tensor(resampling_matrix(32, 32, 1 / float(factor)), dtype=dtype)
        torch.testing.assert_close(answer, matrix @ image @ matrix.T, atol=tolerance, rtol=0)
    torch.testing.assert_close(zoom(images, torch.ones(3)), images)


def test_zoom_is_as_far_as_it_may_be_and_keeps_the_pose(batch: Batch) -> None:
    zoomed = augmented(batch, zoom_probability=1, zoom_in=0.1, zoom_out=0.1)
    assert torch.equal(zoomed.rotations, batch.rotations)
    factors = torch.linspace(0.9, 1.1, 21)
    gallery = torch.stack([zoom(batch.images, factor.expand(NUMBER)) for factor in factors])
    found = np.stack([correlations(zoomed.images, candidates) for candidates in gallery])
    assert found.max(axis=0).min() > 0.998
    best = factors[found.argmax(axis=0)]
    assert best.min() < 0.95
    assert best.max() > 1.05


def test_noise_has_the_width_that_was_asked_for() -> None:
    blank = Batch(torch.zeros(200, 32, 32), torch.eye(3).expand(200, 3, 3), torch.ones(200))
    inner = np.s_[:, 12:20, 12:20]
    uniform = (
        augmented(blank, uniform_noise_probability=1, uniform_noise_width=2).images[inner].numpy()
    )
    assert np.abs(uniform).max() <= 1
    assert np.abs(uniform).max() > 0.95
    assert uniform.std(axis=(1, 2)).mean() == pytest.approx(
        1 / np.sqrt(12), rel=0.1
    )  # mean width 1
    gaussian = (
        augmented(blank, gaussian_noise_probability=1, gaussian_noise_sd=0.5).images[inner].numpy()
    )
    assert gaussian.std(axis=(1, 2)).mean() == pytest.approx(0.25, rel=0.1)
    assert 0.4 < gaussian.std(axis=(1, 2)).max() < 0.65
    assert abs(gaussian.mean()) < 0.01


def test_erased_patch_is_where_it_should_be() -> None:
    images = erase(
        torch.ones(2, 8, 8), torch.tensor([[1, 2], [0, 0]]), torch.tensor([[3, 2], [0, 0]])
    )
    assert images[0].sum() == 64 - 6
    assert images[0, 2:4, 1:4].sum() == 0
    assert images[1].sum() == 64


def test_erased_area_is_within_bounds_and_the_rest_untouched() -> None:
    flat = Batch(torch.ones(400, 64, 64), torch.eye(3).expand(400, 3, 3), torch.ones(400))
    erased = augmented(flat, erasing_probability=1, erasing_fraction=0.02).images
    patches = (erased == 0) & (soft_circle(64) > 0)
    shares = patches.float().mean(dim=(1, 2))
    assert 0.015 < shares.max() <= 0.02 * 1.15  # edges are whole pixels
    assert torch.equal(erased[~patches], (flat.images * soft_circle(64))[~patches])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("shift", {"shift_fraction": 0.05}),
        ("turn", {"turn_degrees": 20}),
        ("zoom", {"zoom_in": 0.05}),
        ("uniform_noise", {"uniform_noise_width": 2}),
        ("gaussian_noise", {"gaussian_noise_sd": 0.5}),
        ("erasing", {"erasing_fraction": 0.2}),
    ],
)
def test_each_is_made_as_often_as_asked_for(
    batch: Batch, name: str, settings: dict[str, float]
) -> None:
    many = Batch(
        *(torch.cat([part] * 20) for part in (batch.images + 1, batch.rotations, batch.weights))
    )
    number = len(many.images)
    changed = augmented(many, **{f"{name}_probability": 0.3}, **settings)
    plain = many.images * soft_circle(BOX)
    differs = ((changed.images - plain).abs().amax(dim=(1, 2)) > 1e-3).float().mean()
    assert abs(float(differs) - 0.3) < 4 * np.sqrt(0.3 * 0.7 / number) + 0.01
    unchanged = augmented(many, **{f"{name}_probability": 0.0}, **settings)
    torch.testing.assert_close(unchanged.images, plain)


def test_same_seed_and_step_same_batch(batch: Batch) -> None:
    before = replace(batch, images=batch.images.clone())
    first, again, other = (
        Augment(CESPED_AUGMENTATION)(batch, np.random.default_rng(seed))
        for seed in ([3, 5], [3, 5], [3, 6])
    )
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.rotations, again.rotations)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(batch.images, before.images)  # left as it was
    assert first.weights is batch.weights


def test_one_change_does_not_depend_on_another(batch: Batch) -> None:
    turned = augmented(batch, turn_probability=1, turn_degrees=90)
    both = augmented(batch, turn_probability=1, turn_degrees=90, gaussian_noise_probability=1)
    assert torch.equal(turned.rotations, both.rotations)
    assert torch.equal(turned.images, both.images)  # noise of sd 0


def test_turns_in_double_precision(batch: Batch) -> None:
    double = replace(batch, images=batch.images.double(), rotations=batch.rotations.double())
    single = Augment(TURN_AND_SHIFT)(batch, np.random.default_rng(2))
    changed = Augment(TURN_AND_SHIFT)(double, np.random.default_rng(2))
    assert changed.images.dtype == torch.float64
    torch.testing.assert_close(changed.images.float(), single.images, atol=2e-4, rtol=0)


def test_targets_on_a_grid_cannot_be_turned(batch: Batch) -> None:
    targeted = replace(batch, targets=torch.full((NUMBER, 72), 1 / 72))
    with pytest.raises(CryosphereError, match="cannot follow"):
        Augment(CESPED_AUGMENTATION)(targeted, np.random.default_rng(0))
    kept = augmented(targeted, gaussian_noise_probability=1, gaussian_noise_sd=1)
    assert kept.targets is targeted.targets


def test_cespeds_numbers_and_legal_ranges() -> None:
    assert CESPED_AUGMENTATION.model_dump() == {
        "shift_probability": 0.5,
        "shift_fraction": 0.05,
        "turn_probability": 0.5,
        "turn_degrees": 20,
        "quarter_turn_probability": 1,
        "zoom_probability": 0.2,
        "zoom_in": 0.05,
        "zoom_out": 0,
        "uniform_noise_probability": 0.2,
        "uniform_noise_width": 2,
        "gaussian_noise_probability": 0.2,
        "gaussian_noise_sd": 0.5,
        "erasing_probability": 0.1,
        "erasing_fraction": 0.02,
    }
    for wrong in (
        {"shift_probability": 1.1},
        {"turn_degrees": 181},
        {"zoom_out": -0.1},
        {"zoom_inn": 0.1},
    ):
        with pytest.raises(ValidationError):
            Augmentation(**wrong)
