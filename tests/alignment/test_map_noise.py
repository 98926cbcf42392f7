"""How far a map can be trusted, on maps whose noise is known."""

from __future__ import annotations

import torch

from napari_cryosphere.alignment.map_noise import signal_shell
from napari_cryosphere.imaging.phantom import protein_phantom

BOX = 48


def _map(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a phantom, and noise to add to it that is equally strong in all shells."""
    voxels = torch.from_numpy(protein_phantom(BOX, 4.0).voxels.copy())
    white = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(3))
    return voxels, noise * float(voxels.abs().max()) * white


def _shell_means(power: torch.Tensor) -> torch.Tensor:
    axis = torch.fft.fftfreq(BOX, 1 / BOX)
    shells = (
        (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt().round().long().flatten()
    )
    return torch.bincount(shells, power.flatten()) / torch.bincount(shells)


def test_signal_ends_where_noise_is_three_times_as_strong() -> None:
    voxels, noise = _map(0.07)
    axis = torch.arange(BOX) - BOX // 2
    ball = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < (0.75 * BOX / 2) ** 2).float()
    signal = _shell_means(torch.fft.fftn(voxels * ball).abs() ** 2) / ball.mean()
    level = noise.square().mean() * BOX**3
    expected = int((signal[1 : BOX // 2] < level / 3).int().argmax())
    found = signal_shell(voxels + noise)
    assert found is not None
    assert 4 < expected < BOX // 2 - 3
    assert abs(found - expected) <= 1


def test_more_noise_leaves_less_detail() -> None:
    shells = [signal_shell(sum(_map(noise))) for noise in (0.03, 0.05, 0.1)]
    assert None not in shells
    assert shells[0] > shells[1] > shells[2]


def test_nothing_is_told_where_there_is_no_noise_to_see() -> None:
    voxels, noise = _map(0.03)
    axis = (torch.arange(BOX) - BOX // 2) / (BOX / 2)
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    assert signal_shell((voxels + noise) * (radius < 0.7)) is None  # masked
    assert signal_shell(torch.randn(BOX, BOX, BOX)) is None  # full of it
