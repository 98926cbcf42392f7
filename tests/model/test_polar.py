"""The polar network: what turns and mirrors do to its answer, exactly; its interpolation; its
layers.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from napari_cryosphere.model.card import PolarConfig
from napari_cryosphere.model.mirror import (
    MirrorConvolution,
    MirrorResidual,
    PairedInput,
    fewer_angles,
)
from napari_cryosphere.model.polar import (
    MatchedFilter,
    PolarImage,
    PolarNetwork,
    WignerHead,
    trigonometric_interpolation,
)
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.wigner import band_mask, evaluate_at
from napari_cryosphere.training.sources import turned_rotations

SMALL = PolarConfig(
    box=24,
    l_max=4,
    ring_channels=8,
    ring_blocks=1,
    channels=12,
    blocks=1,
    features=16,
    matched=True,
)
CTF = torch.sin(0.4 + torch.arange(13) ** 2 * torch.linspace(0.02, 0.08, 6)[:, None]).abs()
"""Of six defoci."""


@pytest.fixture(scope="module")
def network() -> PoseNetwork:
    """Return a network whose normalisation has seen data, so that no layer is the identity."""
    torch.manual_seed(0)
    made = build_network(SMALL)
    made.train()
    made(blobs(32, np.zeros(32)))
    return made.eval()


def blobs(number: int, angles: NDArray[np.float64], mirror: bool = False) -> torch.Tensor:
    """Return images of Gaussian blobs, a different set in each, turned from +x towards +y about n
    // 2.
    """
    rng = np.random.default_rng(7)
    at = rng.uniform(-6, 6, (number, 5, 2))
    heights = rng.normal(size=(number, 5))
    if mirror:
        at = at * [1, -1]
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y = cosine * at[..., 0] - sine * at[..., 1], sine * at[..., 0] + cosine * at[..., 1]
    axis = np.arange(SMALL.box) - SMALL.box // 2
    along_x = np.exp(-((axis - x[..., None]) ** 2) / (2 * 1.7**2))
    along_y = np.exp(-((axis - y[..., None]) ** 2) / (2 * 1.7**2))
    return torch.from_numpy(np.einsum("nk,nky,nkx->nyx", heights, along_y, along_x)).float()


def at_poses(coefficients: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    return evaluate_at(coefficients.to(torch.complex128), rotations.double())


@pytest.mark.parametrize("ctf", [None, CTF], ids=["no CTF", "CTF"])
def test_turning_the_image_turns_the_answer(network: PoseNetwork, ctf: torch.Tensor | None) -> None:
    """The density at R Rz(-angle) of the turned image is that at R of the image.

    By whole steps of the signals' angles nothing changes but their order; between them, what
    activations make beyond the band of the angles is left.
    """
    steps = np.array([1, 5, 6, 11, 17, 23])
    for angles, most in ((steps * 2 * np.pi / SMALL.box, 2e-3), (steps + 0.4, 0.05)):
        poses = torch.from_numpy(random_rotations(40, np.random.default_rng(2)))
        still, turned = network(blobs(6, np.zeros(6)), ctf), network(blobs(6, angles), ctf)
        moved = torch.stack(
            [turned_rotations(poses, torch.full((40,), a).double()) for a in angles]
        )
        before = at_poses(still, poses.expand(6, -1, -1, -1))
        assert (at_poses(turned, moved) - before).square().mean().sqrt() < most * before.std()
        assert (
            at_poses(turned, poses.expand(6, -1, -1, -1)) - before
        ).square().mean() > 0.05 * before.var()


@pytest.mark.parametrize("ctf", [None, CTF], ids=["no CTF", "CTF"])
def test_the_mirror_image_is_the_view_from_behind(
    network: PoseNetwork, ctf: torch.Tensor | None
) -> None:
    poses = torch.from_numpy(random_rotations(40, np.random.default_rng(3)))[None].expand(
        6, -1, -1, -1
    )
    behind = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    before = at_poses(network(blobs(6, np.zeros(6)), ctf), poses @ behind)
    after = at_poses(network(blobs(6, np.zeros(6), mirror=True), ctf), poses)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    still = network(blobs(6, np.zeros(6)), ctf)
    assert not torch.allclose(after, at_poses(still, poses), atol=1e-3)


def test_waves_are_multiplied_by_the_ctf_at_their_frequency() -> None:
    """A wave of 3 and 4 cycles per box has the frequency 5; without edges, since it is cut off softly."""
    box = 48
    axis = torch.arange(box) - box // 2
    window = torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 7.0**2))
    wave = torch.cos(2 * torch.pi / box * (3 * axis + 4 * axis[:, None])) * window
    profile = (torch.arange(box // 2 + 1) / 10.0)[None]
    found = MatchedFilter(box)(wave[None], profile)[0]
    central = found[box // 2, box // 2] / wave[box // 2, box // 2]
    assert central == pytest.approx(0.5, abs=0.05)  # a window 1 / 7 px wide in frequency
    ones = MatchedFilter(box)(wave[None], torch.ones(1, box // 2 + 1))[0]
    torch.testing.assert_close(ones, wave, atol=1e-5, rtol=1e-5)


def test_an_unknown_ctf_is_one(network: PoseNetwork) -> None:
    images = blobs(6, np.zeros(6))
    unknown = network(images)
    torch.testing.assert_close(network(images, torch.ones(6, 13)), unknown, atol=1e-5, rtol=1e-4)
    assert (network(images, CTF) - unknown).abs().max() > 0.01 * unknown.abs().max()


def test_coefficients_have_the_shape_and_band_of_a_distribution(network: PoseNetwork) -> None:
    coefficients = network(blobs(3, np.zeros(3)))
    assert coefficients.shape == (3, 5, 9, 5)
    assert coefficients.dtype == torch.complex64
    assert (coefficients[:, ~band_mask(4)] == 0).all()
    assert (coefficients[:, band_mask(4)].abs() > 0).all()


def test_interpolation_is_exact_for_waves_below_nyquist() -> None:
    rng = np.random.default_rng(4)
    x, y = torch.from_numpy(rng.uniform(-7, 7, (2, 30)))
    matrix = trigonometric_interpolation(16, x, y)
    axis = torch.arange(16, dtype=torch.float64) - 8
    for k_x, k_y in ((0, 0), (3, -5), (7, 7), (-1, 6)):
        phase = 2 * torch.pi / 16
        image = torch.cos(phase * (k_x * axis[None, :] + k_y * axis[:, None]) + 0.4)
        torch.testing.assert_close(
            matrix @ image.flatten(), torch.cos(phase * (k_x * x + k_y * y) + 0.4)
        )
    torch.testing.assert_close(
        trigonometric_interpolation(16, axis[[3]], axis[[5]]),
        torch.eye(256, dtype=torch.float64)[[5 * 16 + 3]],
    )


def test_angles_run_from_x_to_y() -> None:
    image = torch.zeros(1, 24, 24)
    image[0, 12 + 5, 12] = 1  # y = 5
    assert PolarImage(24)(image)[0].sum(0).argmax() == 12  # a quarter of 48 angles


@pytest.mark.parametrize(
    "layer", [MirrorConvolution(6, 8, 5), MirrorConvolution(6, 8, 1, bias=True)]
)
def test_layers_commute_with_the_mirror(layer: MirrorConvolution) -> None:
    signals = torch.randn(2, 6, 10)
    torch.testing.assert_close(layer(mirrored(signals)), mirrored(layer(signals)))


def test_residual_blocks_commute_with_the_mirror_and_with_turns() -> None:
    block = MirrorResidual(8)
    signals = torch.randn(4, 8, 12)
    expected = block(signals)
    torch.testing.assert_close(block(mirrored(signals)), mirrored(expected), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        block(signals.roll(5, -1)), expected.roll(5, -1), atol=1e-5, rtol=1e-4
    )


def test_pictures_make_mirror_pairs() -> None:
    picture = torch.randn(2, 3, 10)
    layer = PairedInput(3, 8, 5)
    flipped = picture.flip(-1).roll(1, -1)
    torch.testing.assert_close(layer(flipped), mirrored(layer(picture)))


def mirrored(signals: torch.Tensor) -> torch.Tensor:
    """Return paired signals of the mirror image: halves swapped, angle reversed about 0."""
    first, second = signals.chunk(2, dim=1)
    return torch.cat([second, first], dim=1).flip(-1).roll(1, -1)


def test_fewer_angles_is_exact_below_the_new_nyquist() -> None:
    angle = 2 * torch.pi * torch.arange(24, dtype=torch.float64) / 24
    slow, fast = torch.cos(3 * angle + 0.2), torch.cos(9 * angle)
    torch.testing.assert_close(fewer_angles((slow + fast)[None], 12)[0], slow[::2])
    torch.testing.assert_close(fewer_angles(slow[None], 24)[0], slow)


def test_head_starts_nearly_uniform() -> None:
    torch.manual_seed(0)
    values = at_poses(
        WignerHead(384, 8)(torch.randn(4, 384, 32)),
        torch.from_numpy(random_rotations(500, np.random.default_rng(5)))[None].expand(
            4, -1, -1, -1
        ),
    )
    assert 0.01 < values.std() < 1


def test_a_band_beyond_the_angles_is_refused() -> None:
    with pytest.raises(ValidationError, match="box of more than 16"):
        PolarConfig(box=16, l_max=8)


def test_gradients_reach_every_weight() -> None:
    network = PolarNetwork(SMALL)
    network(torch.randn(4, 24, 24)).abs().square().sum().backward()
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters()
    )
