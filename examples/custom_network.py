"""A pose network of one's own: e3nn features of an image's rings, in forty lines.

Train it with ``PYTHONPATH=examples napari-cryosphere train particles.star --output run
--network custom_network:rings``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import napari_cryosphere as nc


class Rings(nn.Module):
    """Reads the image on rings about its centre, and makes features of SO(3) of their harmonics."""

    def __init__(self, box: int, l_max: int, width: int) -> None:
        super().__init__()
        angles = torch.arange(2 * box) * (math.pi / box)
        radii = torch.arange(1, box // 2) / (box / 2)
        points = torch.stack([angles.cos(), angles.sin()], dim=-1)
        self.register_buffer("points", (radii[:, None, None] * points)[None], persistent=False)
        self.read = nn.Sequential(
            nn.Conv1d(len(radii), width, 5, padding=2, padding_mode="circular"),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, padding=2, padding_mode="circular"),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        size = (l_max + 1) * (2 * l_max + 1) * (2 * l_max + 3) // 3  # of so3_irreps(l_max)
        self.head = nn.Linear(width * 2 * (l_max + 1), size)
        self.harmonics = l_max + 1

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``(b, f)`` of images ``(b, box, box)``."""
        points = self.points.expand(len(images), -1, -1, -1)
        rings = nn.functional.grid_sample(images[:, None], points, align_corners=False)[:, 0]
        spectrum = torch.fft.rfft(self.read(rings), dim=-1, norm="forward")
        kept = torch.view_as_real(spectrum[..., : self.harmonics]).flatten(1)
        return self.head(kept)


@nc.pose_network(returns="irreps")
def rings(box: int, l_max: int, width: int = 64) -> nn.Module:
    """Make the network: ``box`` and ``l_max`` come from the settings, the rest from ``options``."""
    return Rings(box, l_max, width)
