"""The ResNet of bottleneck blocks (He, Zhang, Ren & Sun, CVPR 2016), up to its feature map.

Parameters have the names that torchvision and timm give them, so that weights that were trained on
ImageNet can be read from a safetensors file of either.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import ResNetConfig

__all__ = ["ResNet", "load_resnet_weights"]

_EXPANSION = 4  # of a bottleneck's channels (He et al. 2016, table 1)


class _Bottleneck(nn.Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 around a shortcut; the second has the stride."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = _EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.bn1(self.conv1(x)))
        hidden = torch.relu(self.bn2(self.conv2(hidden)))
        return torch.relu(self.bn3(self.conv3(hidden)) + self.downsample(x))


class ResNet(nn.Module):
    """Maps ``(b, 3, n, n)`` to ``(b, 32 width, n / 32, n / 32)``, n a multiple of 32.

    Every halving puts output pixel i on input pixel 2 i: the image's centre, pixel n // 2, stays at
    the centre of the feature map as long as that is even.
    """

    def __init__(self, config: ResNetConfig, in_channels: int) -> None:
        super().__init__()
        width = config.width
        self.out_channels = 8 * _EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, stages = width, []
        for stage, number in enumerate(config.blocks):
            inner = width * 2**stage
            first = _Bottleneck(channels, inner, stride=1 if stage == 0 else 2)
            channels = _EXPANSION * inner
            stages.append(
                nn.Sequential(first, *(_Bottleneck(channels, inner, 1) for _ in range(number - 1)))
            )
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map of images."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def load_resnet_weights(network: ResNet, path: Path) -> None:
    """Read the weights of a ResNet from a safetensors file with the names of torchvision and timm.

    The layer for ImageNet's classes, ``fc``, is left out, and counters of batches may be absent.
    Raises `ModelError` if the file cannot be read, or its weights are those of another network;
    nothing is changed then.
    """
    try:
        given = {
            name: value for name, value in load_file(path).items() if not name.startswith("fc.")
        }
    except (SafetensorError, OSError) as error:
        reason = "it does not exist" if not path.exists() else str(error).splitlines()[0]
        raise ModelError(f"{path} cannot be read as a safetensors file: {reason}") from error
    own = network.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}
    remedy = "give the weights of a ResNet of this size, as torchvision or timm name them"
    for name in sorted(needed - given.keys()) + sorted(given.keys() - own.keys()):
        state = "lacks" if name in needed else "has, and the network has not,"
        raise ModelError(f"{path} {state} {name!r}; {remedy}")
    for name, value in given.items():
        if value.shape != own[name].shape:
            raise ModelError(
                f"{path}: {name!r} is {tuple(value.shape)}, and {tuple(own[name].shape)} is needed; {remedy}"
            )
    network.load_state_dict(given, strict=False)
