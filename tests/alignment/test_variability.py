"""What particles at known poses differ in: components, mixtures, and whether others see them too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_cryosphere.alignment.band import FourierBand
from napari_cryosphere.alignment.coordinates import Population
from napari_cryosphere.alignment.observation import Observation
from napari_cryosphere.alignment.variability import Components, Nuisances, Residuals
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.slices import SliceSampler
from napari_cryosphere.reconstruction import masked_correlation

BOX, SHELL, NUMBER = 20, 6, 240


@dataclass(frozen=True)
class Varying:
    """Residuals of images of a phantom whose one side is denser in some than in others."""

    residuals: Residuals
    difference: np.ndarray
    coordinates: np.ndarray
    rotations: np.ndarray


def varying(coordinates: np.ndarray, seed: int, strength: float = 1.0) -> Varying:
    """Return images of the phantom plus each one's coordinate times its one side, in noise of variance 1."""
    rng = np.random.default_rng(seed)
    whole = protein_phantom(BOX, 8.0).voxels
    side = whole * (np.arange(BOX) - BOX // 2 > 1) * np.float32(0.5)
    band = FourierBand(BOX, SHELL)
    rotations = Rotation.random(len(coordinates), random_state=rng).as_matrix()
    poses = torch.from_numpy(rotations).float()
    mean, along = (
        SliceSampler(one, SHELL).values(poses, band.frequencies) for one in (whole, side)
    )
    # filters at which the side alone has a signal-to-noise ratio of some 6 in an image
    filters = torch.full(
        mean.shape, strength * float((6 / along.abs().square().sum(1).mean()) ** 0.5)
    )
    data = filters * (mean + torch.from_numpy(coordinates).float()[:, None] * along)
    noise = torch.from_numpy(rng.normal(size=(*mean.shape, 2))).float()
    observation = Observation(band, data + torch.view_as_complex(noise), filters)
    mask = (whole > 0.02 * whole.max()).astype(np.float32)
    none = np.zeros((len(coordinates), 2))
    residuals = Residuals(observation, rotations, none, torch.from_numpy(whole.copy()), mask)
    return Varying(residuals, side, coordinates, rotations)


@pytest.fixture(scope="module")
def motion() -> Varying:
    return varying(np.random.default_rng(1).normal(size=NUMBER), seed=2)


@pytest.fixture(scope="module")
def found(motion: Varying) -> Components:
    return motion.residuals.components(2, rounds=8)


def test_the_first_component_is_what_varies(motion: Varying, found: Components) -> None:
    correlation = np.corrcoef(found.coordinates[:, 0], motion.coordinates)[0, 1]
    assert abs(correlation) > 0.85
    assert abs(masked_correlation(found.maps[0], motion.difference)) > 0.8
    sizes = np.linalg.norm(found.maps.reshape(2, -1), axis=1)
    assert sizes[0] > 1.5 * sizes[1]


def test_coordinates_are_as_uncertain_as_they_say(motion: Varying, found: Components) -> None:
    said = found.coordinates[:, 0]
    sign = np.sign(np.corrcoef(said, motion.coordinates)[0, 1])
    scale = motion.coordinates.std() / np.sqrt(np.mean(said**2 + found.covariances[:, 0, 0]))
    off = sign * scale * said - (motion.coordinates - motion.coordinates.mean())
    deviations = off / (scale * np.sqrt(found.covariances[:, 0, 0]))
    assert 0.35 < np.mean(np.abs(deviations) < 0.674) < 0.65


def test_a_mixture_finds_two_kinds_and_shares_others_out() -> None:
    kinds = (np.arange(NUMBER) % 3 == 0).astype(float)
    one, other = varying(2 * kinds, seed=3), varying(2 * kinds, seed=4)
    found = one.residuals.components(1, rounds=5)
    guess = 1 / (1 + np.exp(-2 * found.coordinates[:, 0]))
    mixture = one.residuals.mixture(np.stack([guess, 1 - guess], axis=1), rounds=5)
    first = int(mixture.probabilities[kinds == 1].mean(0).argmax())
    assert np.mean((mixture.probabilities[:, first] > 0.5) == (kinds == 1)) > 0.95
    assert mixture.shares[first] == pytest.approx(1 / 3, abs=0.05)
    again = other.residuals.shared_out(mixture)[:, first]
    assert np.mean((again > 0.5) == (kinds == 1)) > 0.9


def test_others_scatter_along_a_difference_that_is_real(motion: Varying) -> None:
    rng = np.random.default_rng(5)
    none, ones = np.zeros_like(motion.difference), np.ones(NUMBER)
    assert motion.residuals.scatter_along(motion.difference, none, ones) > 10
    still = varying(np.zeros(NUMBER), seed=6).residuals
    assert abs(still.scatter_along(motion.difference, none, ones)) < 3.5
    noise = rng.normal(size=none.shape).astype(np.float32) * (motion.difference > 0)
    assert abs(still.scatter_along(noise, none, ones)) < 3.5


def of_phantom(
    turns: np.ndarray, shifts: np.ndarray, contrasts: np.ndarray, nuisances: Nuisances, noise: float
) -> Residuals:
    """Return residuals at poses that are off by turns about the map's axes (radians) and shifts."""
    rng = np.random.default_rng(7)
    whole, band = protein_phantom(BOX, 8.0).voxels, FourierBand(BOX, SHELL)
    rotations = Rotation.random(len(turns), random_state=rng).as_matrix()
    true = torch.from_numpy(Rotation.from_rotvec(turns).as_matrix() @ rotations).float()
    slices = SliceSampler(whole, SHELL).values(true, band.frequencies)
    slices = slices * band.phases(torch.from_numpy(shifts).float())
    filters = torch.full(slices.shape, float((200 / slices.abs().square().sum(1).mean()) ** 0.5))
    drawn = torch.from_numpy(rng.normal(size=(*slices.shape, 2))).float()
    data = filters * slices * torch.from_numpy(contrasts).float()[:, None]
    observation = Observation(band, data + noise * torch.view_as_complex(drawn), filters)
    mask = (whole > 0.02 * whole.max()).astype(np.float32)
    given = torch.from_numpy(whole.copy())
    return Residuals(
        observation, rotations, np.zeros_like(shifts), given, mask, nuisances=nuisances
    )


def test_nuisances_are_errors_of_contrast_and_pose() -> None:
    rng = np.random.default_rng(8)
    turns, shifts = np.radians(rng.normal(0, 0.5, (40, 3))), rng.normal(0, 0.1, (40, 2))
    contrasts = 1 + rng.normal(0, 0.05, 40)
    wide = Nuisances(contrast=1.0, rotation_degrees=20.0, shift_px=3.0)
    residuals = of_phantom(turns, shifts, contrasts, wide, noise=0.0)
    evidence = residuals.evidence(np.zeros((1, BOX, BOX, BOX), dtype=np.float32))
    found = evidence.posterior(Population.standard(residuals.integrated))[0]
    for got, true, unit in (
        (found[:, :3], turns, np.radians(20.0)),
        (found[:, 3], contrasts - 1, 1.0),
        (found[:, 4:], shifts, 3.0),
    ):
        assert np.corrcoef(got.ravel(), true.ravel())[0, 1] > 0.95
        assert np.polyfit(true.ravel(), unit * got.ravel(), 1)[0] == pytest.approx(1, abs=0.15)


def test_contrast_and_poses_are_no_components() -> None:
    """The gain of what such particles differ in, for others like them, that have no own structure."""
    rng = np.random.default_rng(9)
    turns, shifts = np.radians(rng.normal(0, 1.0, (NUMBER, 3))), rng.normal(0, 0.2, (NUMBER, 2))
    contrasts = 1 + rng.normal(0, 0.2, NUMBER)
    gains = []
    for nuisances in (Nuisances(0.0), Nuisances(0.3, 1.0, 0.2)):
        residuals = of_phantom(turns, shifts, contrasts, nuisances, noise=1.0)
        found = residuals.components(1, rounds=6)
        maps = np.concatenate([found.mean[None], found.maps])
        evidence = residuals.evidence(maps).without(residuals.integrated)
        gains.append(evidence.population(np.ones(NUMBER)).log_likelihood)
    assert gains[0] > 300 > 10 * gains[1]
