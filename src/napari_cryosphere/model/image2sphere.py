"""Image2Sphere: encoder, half-sphere, S2 convolution, SO(3) activation, SO(3) convolution."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import Image2SphereConfig, ResNetConfig
from napari_cryosphere.model.pose_network import PoseNetwork, at_least_single
from napari_cryosphere.model.resnet import ResNet, load_resnet_weights
from napari_cryosphere.model.sphere import (
    HalfSphere,
    LocalSO3Convolution,
    S2Convolution,
    SO3Activation,
    SO3Convolution,
)
from napari_cryosphere.so3.irreps import so3_irreps

if TYPE_CHECKING:
    from e3nn.o3 import Irreps

__all__ = ["GaussianChannels", "Image2Sphere"]


class _ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation around a shortcut (He et al. 2016).

    A stride-2 convolution of kernel 3 puts output pixel i on input pixel 2 i, so that the centre of
    the image, pixel n // 2, stays at the centre of every feature map.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(self.second_norm(self.second(hidden)) + self.shortcut(x))


class GaussianChannels(nn.Module):
    """Images ``(b, n, n)`` and copies of them under Gaussian filters, ``(b, 1 + filters, n, n)``.

    Filters end at four standard deviations; pixels beyond the edge are 0.
    """

    def __init__(self, sigmas_px: tuple[float, ...]) -> None:
        super().__init__()
        self.radius = math.ceil(4 * max(sigmas_px, default=0))
        pixel = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64)
        sigma = torch.tensor(sigmas_px, dtype=torch.float64)[:, None]
        filters = torch.exp(-0.5 * (pixel / sigma) ** 2)
        filters = filters / filters.sum(dim=1, keepdim=True)
        self.register_buffer("filters", filters[:, None, None].float(), persistent=False)
        self.filters: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Return the channels that the encoder takes."""
        given = images[:, None]
        if not len(self.filters):
            return given
        along_x = functional.conv2d(given, self.filters, padding=(0, self.radius))
        blurred = functional.conv2d(
            along_x, self.filters.mT, padding=(self.radius, 0), groups=len(self.filters)
        )
        return torch.cat([given, blurred], dim=1)


def _small_encoder(config: Image2SphereConfig, in_channels: int) -> tuple[nn.Sequential, int]:
    """Return the image encoder and the size of its feature map."""
    first = config.encoder_channels[0]
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, first, 5, padding=2, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(),
    ]
    channels, size = first, config.box
    for width in config.encoder_channels[1:]:
        layers.append(_ResidualBlock(channels, width, stride=2))
        layers.extend(
            _ResidualBlock(width, width, stride=1) for _ in range(config.encoder_blocks - 1)
        )
        channels, size = width, (size + 1) // 2
    layers.append(nn.Conv2d(channels, config.sphere_channels, 1))
    return nn.Sequential(*layers), size


def _resnet_encoder(config: Image2SphereConfig, in_channels: int) -> tuple[nn.Sequential, int]:
    """Return a ResNet with a 1 x 1 convolution behind it, and the size of its feature map."""
    resnet = ResNet(config.resnet or ResNetConfig(), in_channels)
    reduce = nn.Conv2d(resnet.out_channels, config.sphere_channels, 1)
    return nn.Sequential(resnet, reduce), config.box // 32


class Image2Sphere(PoseNetwork):
    """Klee, Biza, Platt & Walters (ICLR 2023), as CryoSphere and CESPED use it.

    Besides the path through the SO(3) convolution there is a linear one, from the half-sphere to the
    log-density. Inference uses every point of the half-sphere and is deterministic; in training a
    share of them may be drawn.
    """

    def __init__(self, config: Image2SphereConfig) -> None:
        super().__init__()
        self.config = config
        self.channels = GaussianChannels(config.blurs_px)
        make = _small_encoder if config.resnet is None else _resnet_encoder
        self.encoder, size = make(config, 1 + len(config.blurs_px))
        self.half_sphere = HalfSphere(size, config.l_max, config.sphere_order, config.sphere_share)
        self.lift = S2Convolution(config.l_max, config.sphere_channels, config.so3_channels)
        self.activation = SO3Activation(config.l_max, config.so3_channels)
        # Small at the start: logits that begin with a spread of 20 cost more than a uniform guess.
        convolution = SO3Convolution if config.so3_filter == "global" else LocalSO3Convolution
        self.refine = convolution(config.l_max, config.so3_channels, 1, gain=0.2)
        self.linear = S2Convolution(config.l_max, config.sphere_channels, 1, gain=0.2)
        # Channels last is the faster layout, but torch 2.13 (oneDNN, on a CPU) writes beyond its
        # memory there, going backward with several threads, where channels do not come in sixteens.
        widths = config.encoder_channels if config.resnet is None else (config.resnet.width,)
        wide = all(width % 16 == 0 for width in widths)
        self._layout = torch.channels_last if wide else torch.contiguous_format
        self.encoder.to(memory_format=self._layout)  # type: ignore[call-overload]

    @property
    def draws(self) -> bool:
        """See `PoseNetwork`: points of the half-sphere are drawn where only a share of them counts."""
        return self.config.sphere_share < 1

    @property
    def learns_in_bfloat16(self) -> bool:
        """See `PoseNetwork`: not on a CPU, which has the fault named above, and not with a ResNet-152.

        At its start that makes noise of rounding: gradients as alike as 0.2, where 1 is the same.
        """
        on_gpu = next(self.parameters()).device.type == "cuda"
        return on_gpu and self.config.resnet is None

    @property
    def irreps(self) -> Irreps:
        """What the log-density consists of, in e3nn's irreps; `so3.irreps.to_e3nn` gives its features."""
        return so3_irreps(self.config.l_max)

    def load_encoder_weights(self, path: Path) -> None:
        """Read the weights of the ResNet, see `napari_cryosphere.model.resnet.load_resnet_weights`.

        Raises `ModelError` if the encoder is no ResNet, or the file does not fit.
        """
        resnet = self.encoder[0]
        if not isinstance(resnet, ResNet):
            raise ModelError(
                f"{path}: this network's encoder is no ResNet; only preset cesped takes weights"
            )
        load_resnet_weights(resnet, path)

    def forward(self, images: Tensor, ctf: Tensor | None = None) -> Tensor:
        """Return the log-densities of images, ``(b, L + 1, 2 L + 1, L + 1)`` complex; the CTF is not used."""
        features = self.encoder(self.channels(images).contiguous(memory_format=self._layout))
        with torch.autocast(images.device.type, enabled=False):  # of the encoder alone
            sphere = self.half_sphere(at_least_single(features))
            lifted = self.activation(self.lift(sphere))
            return (self.refine(lifted) + self.linear(sphere))[:, 0]
