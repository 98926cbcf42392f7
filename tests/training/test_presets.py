"""Every preset builds, answers an image, and has a loss to train on; its numbers are those of its
source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from napari_cryosphere.model.card import Image2SphereConfig, NetworkConfig, ResNetConfig
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.training.loss import pose_loss, shift_loss
from napari_cryosphere.training.presets import CESPED, PRESETS, TrainingPreset
from napari_cryosphere.training.sources import Batch

NARROW = ResNetConfig(width=2)


def narrowed(network: NetworkConfig) -> NetworkConfig:
    """ResNet-152 with all blocks and a 32nd of its channels, on images of 64 pixels; others as they
    are.
    """
    if isinstance(network, Image2SphereConfig) and network.resnet is not None:
        return network.model_copy(update={"resnet": NARROW, "box": 64, "sphere_channels": 8})
    return network


@pytest.mark.parametrize("name", PRESETS)
def test_preset_answers_and_has_a_loss(name: str) -> None:
    torch.manual_seed(0)
    preset = PRESETS[name]
    config = narrowed(preset.network)
    network = build_network(config)
    rotations = torch.from_numpy(random_rotations(2, np.random.default_rng(0))).float()
    coefficients, shifts, _ = network.answers(torch.randn(2, config.box, config.box))
    size = config.l_max + 1
    assert coefficients.shape == (2, size, 2 * size - 1, size)
    batch = Batch(torch.empty(0), rotations, torch.ones(2))
    loss = pose_loss(coefficients, batch, "C1")
    assert abs(float(loss.detach())) < 1  # uniform is 0
    assert (shifts is not None) == (name == "default")
    if shifts is not None:
        loss = loss + shift_loss(shifts, replace(batch, shifts_px=torch.ones(2, 2)))
    loss.backward()
    assert all(
        weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters()
    )
    order = preset.label_order if preset.labels else preset.loss_order
    assert evaluate_on_grid(coefficients.detach(), order).numel() == 2 * 72 * 8**order


class _AsOnGpu(TorchFunctionMode):
    """Refuses Fourier transforms and complex numbers of bfloat16, as CUDA does; a CPU takes some silently."""

    refused = (torch.fft.rfft, torch.fft.irfft, torch.fft.fft, torch.fft.ifft, torch.complex)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in self.refused:
            assert all(each.dtype != torch.bfloat16 for each in args if torch.is_tensor(each)), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "cesped"])
def test_preset_learns_the_same_in_bfloat16(name: str) -> None:
    config = PRESETS[name].network
    torch.manual_seed(0)
    network, images = build_network(config).train(), torch.randn(8, config.box, config.box)
    gradients = []
    for half in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half), _AsOnGpu():
            coefficients, *_ = network.answers(images)
        assert coefficients.dtype == torch.complex64
        loss = coefficients.abs().square().sum()
        found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        gradients.append(torch.cat([each.flatten() for each in found if each is not None]))
    # rounding to 8 bits, layer after layer: 2^-9 times the root of some hundred roundings is 2 %
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.98


def test_a_resnet_of_152_layers_learns_in_float32() -> None:
    assert not build_network(narrowed(PRESETS["cesped"].network)).learns_in_bfloat16


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json(name: str) -> None:
    assert TrainingPreset.model_validate_json(PRESETS[name].model_dump_json()) == PRESETS[name]


def test_cespeds_numbers() -> None:
    config = CESPED.network
    assert isinstance(config, Image2SphereConfig)
    assert config.resnet == ResNetConfig(blocks=(3, 8, 36, 3), width=64)
    assert (config.box, config.l_max, config.sphere_order, config.sphere_share) == (256, 8, 3, 0.5)
    assert (config.sphere_channels, config.so3_channels, config.blurs_px) == (512, 16, (1, 2))
    assert (CESPED.loss_order, CESPED.learning_rate, CESPED.weight_decay) == (4, 1e-3, 1e-5)
    assert (CESPED.optimizer, CESPED.epochs) == ("radam", 400)
    assert (CESPED.halve_after_epochs, CESPED.stop_after_epochs) == (10, 12)
