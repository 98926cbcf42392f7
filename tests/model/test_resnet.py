"""ResNet's names and shapes are those of torchvision and timm; Gaussian channels are scipy's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import Image2SphereConfig, ResNetConfig
from napari_cryosphere.model.image2sphere import GaussianChannels, Image2Sphere
from napari_cryosphere.model.resnet import ResNet, load_resnet_weights

NARROW = ResNetConfig(blocks=(1, 2, 1, 1), width=4)


def published_shapes(blocks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's state dict, written down from He et al.'s table 1; without
    ``fc``.
    """

    def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
        vectors = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{vector}": (channels,) for vector in vectors} | {
            f"{name}.num_batches_tracked": ()
        }

    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    channels = 64
    for stage, number in enumerate(blocks, start=1):
        inner, outer = 32 * 2**stage, 128 * 2**stage
        for block in range(number):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (inner, channels, 1, 1)
            shapes[f"{name}.conv2.weight"] = (inner, inner, 3, 3)
            shapes[f"{name}.conv3.weight"] = (outer, inner, 1, 1)
            for which, width in ((1, inner), (2, inner), (3, outer)):
                shapes |= norm(f"{name}.bn{which}", width)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (outer, channels, 1, 1)
                shapes |= norm(f"{name}.downsample.1", outer)
            channels = outer
    return shapes


def test_resnet_152_has_the_published_names_shapes_and_size() -> None:
    with torch.device("meta"):
        network = ResNet(ResNetConfig(), 3)
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert own == published_shapes((3, 8, 36, 3))
    # torchvision states 60,192,808 parameters for resnet152; 2048 x 1000 + 1000 are the classes'
    assert sum(weight.numel() for weight in network.parameters()) == 60_192_808 - 2_049_000


def test_resnet_50_has_the_published_size() -> None:
    with torch.device("meta"):
        network = ResNet(ResNetConfig(blocks=(3, 4, 6, 3)), 3)
    assert sum(weight.numel() for weight in network.parameters()) == 25_557_032 - 2_049_000


def test_feature_map_is_an_eighth_of_a_quarter_and_keeps_the_centre() -> None:
    """Every layer that halves puts pixel i on 2 i: what is seen at the centre is seen by the
    centre.
    """
    torch.manual_seed(0)
    network = ResNet(NARROW, 1).eval()
    images = torch.zeros(2, 1, 128, 128)
    images[1, 0, 64, 64] = 1e3
    blank, spot = network(images).detach()
    assert blank.shape == (128, 4, 4)
    change = (spot - blank).abs().sum(0)
    assert change.argmax() == 2 * 4 + 2


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, network = ResNet(NARROW, 3), ResNet(NARROW, 3)
    weights = source.state_dict()
    classes = {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}
    path = tmp_path / "weights.safetensors"

    save_file(weights | classes, path)
    load_resnet_weights(network, path)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    counted = {name: value for name, value in weights.items() if "num_batches" not in name}
    save_file(counted, path)
    load_resnet_weights(network, path)

    for wrong, message in (
        ({"bn1.weight": torch.zeros(4)}, "lacks 'bn1.bias'"),
        (
            weights | {"layer5.0.conv1.weight": torch.zeros(1)},
            "has, and the network has not, 'layer5",
        ),
        (
            weights | {"conv1.weight": torch.zeros(4, 1, 7, 7)},
            r"'conv1.weight' is \(4, 1, 7, 7\), and",
        ),
    ):
        save_file(wrong, path)
        with pytest.raises(ModelError, match=message) as error:
            load_resnet_weights(network, path)
        assert "\n" not in str(error.value)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    network = ResNet(NARROW, 3)
    with pytest.raises(ModelError, match="does not exist"):
        load_resnet_weights(network, tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelError, match="cannot be read"):
        load_resnet_weights(network, tmp_path / "text.safetensors")


def test_only_a_resnet_takes_weights(tmp_path: Path) -> None:
    small = Image2Sphere(
        Image2SphereConfig(box=16, encoder_channels=(4, 8), sphere_channels=4, l_max=2)
    )
    with pytest.raises(ModelError, match="no ResNet"):
        small.load_encoder_weights(tmp_path / "weights.safetensors")


def test_box_that_a_resnet_cannot_halve_is_refused() -> None:
    with pytest.raises(ValidationError, match="multiple of 32"):
        Image2SphereConfig(box=48, resnet=NARROW)


def test_channels_are_gaussian_filtered_images() -> None:
    images = torch.randn(2, 32, 32)
    channels = GaussianChannels((1.0, 2.0))(images)
    assert channels.shape == (2, 3, 32, 32)
    assert torch.equal(channels[:, 0], images)
    for channel, sigma in ((1, 1.0), (2, 2.0)):
        exact = gaussian_filter(images[0].double().numpy(), sigma, mode="constant", radius=8)
        torch.testing.assert_close(
            channels[0, channel].double(), torch.from_numpy(exact), atol=1e-6, rtol=0
        )
    assert GaussianChannels(())(images).shape == (2, 1, 32, 32)
