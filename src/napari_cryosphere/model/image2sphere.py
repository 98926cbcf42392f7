"""Image2Sphere: encoder, half-sphere, S2 convolution, SO(3) activation, SO(3) convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_cryosphere.model.card import Image2SphereConfig
from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.model.sphere import HalfSphere, S2Convolution, SO3Activation, SO3Convolution

__all__ = ["Image2Sphere"]


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation around a shortcut (He et al. 2016).

    A stride-2 convolution of kernel 3 puts output pixel i on input pixel 2 i, so that the centre of the
    image, pixel n // 2, stays at the centre of every feature map.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(hidden)) + self.shortcut(x))


def _encoder(config: Image2SphereConfig) -> tuple[nn.Sequential, int]:
    """Return the image encoder and the size of its feature map."""
    first = config.encoder_channels[0]
    layers: list[nn.Module] = [
        nn.Conv2d(1, first, 5, padding=2, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
    ]
    channels, size = first, config.box
    for width in config.encoder_channels[1:]:
        layers.append(_ResidualBlock(channels, width, stride=2))
        layers.extend(_ResidualBlock(width, width, stride=1) for _ in range(config.encoder_blocks - 1))
        channels, size = width, (size + 1) // 2
    layers.append(nn.Conv2d(channels, config.sphere_channels, 1))
    return nn.Sequential(*layers), size


class Image2Sphere(PoseNetwork):
    """Klee, Biza, Platt & Walters (ICLR 2023), as CryoSphere and CESPED use it.

    Deterministic: every point of the half-sphere takes part, in training and at inference.
    """

    def __init__(self, config: Image2SphereConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, size = _encoder(config)
        self.half_sphere = HalfSphere(size, config.l_max, config.sphere_order)
        self.lift = S2Convolution(config.l_max, config.sphere_channels, config.so3_channels)
        self.activation = SO3Activation(config.l_max, config.so3_channels)
        # Small at the start: logits that begin with a spread of 20 cost more than a uniform guess.
        self.refine = SO3Convolution(config.l_max, config.so3_channels, 1, gain=0.2)
        self.linear = S2Convolution(config.l_max, config.sphere_channels, 1, gain=0.2)
        self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """See `PoseNetwork`."""
        sphere = self._on_sphere(images)
        lifted = self.activation(self.lift(sphere))
        return (self.refine(lifted) + self.linear(sphere))[:, 0]

    def features(self, images: Tensor) -> Tensor:
        """See `PoseNetwork`: mean power on the half-sphere, channel by channel."""
        return self._on_sphere(images).abs().square().sum(-1).mean(-1).flatten(1)

    def _on_sphere(self, images: Tensor) -> Tensor:
        features = self.encoder(images[:, None].contiguous(memory_format=torch.channels_last))
        return self.half_sphere(features)
