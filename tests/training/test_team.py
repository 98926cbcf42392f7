"""Threads that share a batch learn what one alone does; the next batch is made while one is learnt from."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.model.card import Image2SphereConfig, PolarConfig
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.training import trainer as trainer_module
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.sources import WHOLE, Batch
from napari_cryosphere.training.team import threads_for
from napari_cryosphere.training.trainer import Optimisation, Trainer

POLAR = PolarConfig(
    box=16, l_max=3, ring_channels=8, ring_blocks=1, channels=8, blocks=1, features=8
)
SPHERE = Image2SphereConfig(
    box=16, encoder_channels=(8, 16), sphere_channels=8, sphere_order=2, l_max=2, so3_channels=4
)


def batch(number: int = 13, seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.standard_normal((number, 16, 16))).to(dtype)
    rotations = torch.from_numpy(random_rotations(number, rng)).to(dtype)
    return Batch(images, rotations, torch.from_numpy(rng.uniform(0.1, 1, number)).to(dtype))


def network_of(config: PolarConfig | Image2SphereConfig, dtype: torch.dtype) -> PoseNetwork:
    torch.manual_seed(3)
    return build_network(config).to(dtype)


def trained(network: PoseNetwork, threads: int, steps: int = 4) -> tuple[Trainer, list[float]]:
    trainer = Trainer(
        copy.deepcopy(network), "C2", Optimisation(5e-3, 1e-4, loss_order=2), threads=threads
    )
    dtype = next(network.parameters()).dtype
    return trainer, [trainer.step(batch(13, seed, dtype), 1.0) for seed in range(steps)]


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("config", [POLAR, SPHERE], ids=["polar", "image2sphere"])
def test_threads_make_the_gradients_and_statistics_of_one(
    config: PolarConfig | Image2SphereConfig, threads: int
) -> None:
    """Uneven shares of weighted labels, in float64; the running statistics move once a step."""
    network = network_of(config, torch.float64)
    alone, losses = trained(network, 1, steps=1)
    several, told = trained(network, threads, steps=1)
    assert told == pytest.approx(losses, rel=1e-9)
    for first, second in zip(alone.network.parameters(), several.network.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-7, atol=1e-10)
    buffers = dict(several.network.named_buffers())
    for name, value in alone.network.named_buffers():
        torch.testing.assert_close(buffers[name], value, rtol=1e-9, atol=1e-12)


def test_losses_of_several_steps_are_those_of_one_thread() -> None:
    network = network_of(POLAR, torch.float64)
    assert trained(network, 3, steps=6)[1] == pytest.approx(
        trained(network, 1, steps=6)[1], rel=1e-6
    )


def test_the_same_steps_give_the_same_bits() -> None:
    network = network_of(POLAR, torch.float32)
    (first, losses), (second, again) = (trained(network, 2) for _ in range(2))
    assert losses == again
    for name, value in first.averaged().state_dict().items():
        assert torch.equal(second.averaged().state_dict()[name], value), name


@pytest.mark.parametrize("thread", [0, 1])
def test_what_a_thread_raises_is_raised_and_nothing_has_moved(
    thread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = trained(network_of(POLAR, torch.float32), 2, steps=1)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    given, real = batch(13, 9), trainer_module.pose_loss
    share = given.part(slice(6) if thread == 0 else slice(6, None)).rotations

    def fails(coefficients: torch.Tensor, part: Batch, symmetry: str, order: int) -> torch.Tensor:
        if torch.equal(part.rotations, share):
            raise CryosphereError("this share cannot be learnt from")
        return real(coefficients, part, symmetry, order)

    monkeypatch.setattr(trainer_module, "pose_loss", fails)
    with pytest.raises(CryosphereError, match="this share"):
        trainer.step(given, 1.0)
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    monkeypatch.undo()
    assert np.isfinite(trainer.step(given, 1.0))


def test_a_network_that_draws_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    polar, drawing = build_network(POLAR), build_network(replace_share(SPHERE))
    assert threads_for(polar, 32, processes=1) == 4
    assert threads_for(polar, 16, processes=1) == 2
    assert threads_for(polar, 2, processes=1) == 1
    assert threads_for(polar, 32, processes=2) == 1
    assert threads_for(build_network(SPHERE), 32, processes=1) == 4
    assert threads_for(drawing, 32, processes=1) == 1


def replace_share(config: Image2SphereConfig) -> Image2SphereConfig:
    return config.model_copy(update={"sphere_share": 0.5})


class Recorder:
    """A source that notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
        self.asked.append((step, progress))
        return batch(size, step)


def test_batches_made_ahead_are_those_of_their_step_and_progress() -> None:
    trainer = Trainer(network_of(POLAR, torch.float32), "C1", Optimisation(1e-3, 0, loss_order=2))
    held_out, source = batch(4), Recorder()
    validation = ValidationSet(held_out.images, held_out.rotations.double().numpy())
    list(train_network(trainer, source, validation, "C1", LoopSettings(5, total_images=18)))
    assert source.asked == [(0, 0.0), (1, 5 / 18), (2, 10 / 18), (3, 15 / 18)]


def test_what_a_source_raises_ends_the_run() -> None:
    class Broken(Recorder):
        def batch(self, step: int, size: int, progress: float, share: slice = WHOLE) -> Batch:
            if step == 2:
                raise CryosphereError("the images are gone")
            return super().batch(step, size, progress, share)

    trainer = Trainer(network_of(POLAR, torch.float32), "C1", Optimisation(1e-3, 0, loss_order=2))
    held_out = batch(4)
    validation = ValidationSet(held_out.images, held_out.rotations.double().numpy())
    with pytest.raises(CryosphereError, match="images are gone"):
        list(train_network(trainer, Broken(), validation, "C1", LoopSettings(5, total_images=50)))
    assert trainer.steps == 2


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_sharp_densities_have_the_loss_and_gradient_of_logsumexp(scale: float) -> None:
    """In float64, against torch's own, where most exponentials vanish as well."""
    from napari_cryosphere.training.loss import _LogSumExp

    values = scale * torch.randn(3, 200, generator=torch.Generator().manual_seed(0)).double()
    ours, theirs = (values.clone().requires_grad_() for _ in range(2))
    found: torch.Tensor = _LogSumExp.apply(ours)  # type: ignore[no-untyped-call]
    expected = theirs.logsumexp(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.tensor([1.0, 2.0, -3.0]).double()
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)
