"""Several processes, here threads, that train one network make of it what one alone makes."""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from napari_cryosphere.errors import CryosphereError, RankLostError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.model.card import Image2SphereConfig
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.training import replicas as replicas_module
from napari_cryosphere.training.augmentation import Augmented
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.masks import LabelledImages
from napari_cryosphere.training.presets import CESPED_AUGMENTATION
from napari_cryosphere.training.replicas import Replicas
from napari_cryosphere.training.shared_norm import SharedBatchNorm, share_statistics
from napari_cryosphere.training.sources import Batch, LoadedParticles, Succession, TrainingSource
from napari_cryosphere.training.trainer import Optimisation, Trainer

T = TypeVar("T")
SMALL = Image2SphereConfig(
    box=16, encoder_channels=(8, 16), sphere_channels=8, sphere_order=2, l_max=2, so3_channels=4
)


class Threads(Replicas):
    """One of several threads that exchange tensors as processes do through torch.distributed."""

    def __init__(
        self, rank: int, count: int, barrier: threading.Barrier, slots: list[Tensor]
    ) -> None:
        super().__init__(rank, count)
        self._barrier, self._slots = barrier, slots

    def gather(self, values: Tensor) -> Tensor:
        self._slots[self.rank] = values.detach().clone()
        self._barrier.wait(60)
        every = torch.stack(self._slots)
        self._barrier.wait(60)
        return every

    def sum(self, values: Tensor) -> Tensor:
        return self.gather(values).sum(0)

    def of_first(self, values: object) -> list[float]:
        return [float(value) for value in self.gather(torch.tensor(values, dtype=torch.float64))[0]]


def in_threads(count: int, work: Callable[[Replicas], T]) -> list[T]:
    """Return what every one of ``count`` threads makes of its replica."""
    barrier, slots = threading.Barrier(count), [torch.empty(0)] * count

    def one(rank: int) -> T:
        try:
            return work(Threads(rank, count, barrier, slots))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@cache
def views(number: int = 30) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Return noise-free views of a small phantom, their poses, and how much these are trusted.

    Made once, not by each thread: in float32 they depend on the number of threads by rounding (5e-7), which
    moves weights in float64 by 4e-7.
    """
    rng = np.random.default_rng(1)
    rotations = random_rotations(number, rng)
    images = Projector(protein_phantom(16, 12.0).voxels, 3).project(rotations)
    return images / images.std(), rotations, rng.uniform(0.1, 1, number)


def sources() -> dict[str, TrainingSource]:
    images, rotations, weights = views()
    ctf = torch.rand(len(images), 9, generator=torch.Generator().manual_seed(6))
    loaded = LoadedParticles(images, rotations, weights, 3, ctf=ctf)
    changed = Augmented(loaded, CESPED_AUGMENTATION, 5)
    targets = torch.rand(30, 12, generator=torch.Generator().manual_seed(2))
    return {
        "particles": loaded,
        "augmented": changed,
        "labelled": LabelledImages(images, rotations, targets, 4),
        "succession": Succession(loaded, changed, 0.5),
    }


@pytest.mark.parametrize("name", sources())
def test_shares_make_up_the_batch(name: str) -> None:
    source = sources()[name]
    for step in range(3):
        whole = source.batch(step, 25, 0.6)
        parts = [source.batch(step, 25, 0.6, Replicas(rank, 3).share(25)) for rank in range(3)]
        assert [len(part.images) for part in parts] == [8, 8, 9]
        torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images)
        torch.testing.assert_close(torch.cat([part.rotations for part in parts]), whole.rotations)
        assert torch.equal(torch.cat([part.weights for part in parts]), whole.weights)
        assert (whole.ctf is None) == (name == "labelled")
        if whole.ctf is not None:
            assert torch.equal(torch.cat([part.ctf for part in parts]), whole.ctf)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_normalisation_is_that_of_the_whole_batch(dtype: torch.dtype, tolerance: float) -> None:
    """Against torch's own, with a mean much larger than the spread, and shares of different size."""
    generator = torch.Generator().manual_seed(0)
    given = 3 * torch.randn(7, 3, 5, 4, generator=generator, dtype=dtype) + 50
    wanted = torch.randn(7, 3, 5, 4, generator=generator, dtype=dtype)

    def learnt(norm: nn.Module, share: slice) -> tuple[Tensor, Tensor, Tensor]:
        x = given[share].clone().requires_grad_()
        out = norm(x)
        ((out - wanted[share]) ** 3).sum().backward()
        weight = norm.weight.grad
        assert x.grad is not None
        assert isinstance(weight, Tensor)
        return out.detach(), x.grad, weight

    whole = nn.BatchNorm2d(3, dtype=dtype)
    outputs, gradients, of_weight = learnt(whole, slice(None))

    def part(replicas: Replicas) -> tuple[SharedBatchNorm, tuple[Tensor, Tensor, Tensor]]:
        norm = SharedBatchNorm(nn.BatchNorm2d(3, dtype=dtype), replicas)
        return norm, learnt(norm, replicas.share(7))

    close = {"rtol": tolerance, "atol": tolerance * 10}
    norms, parts = zip(*in_threads(2, part), strict=True)
    torch.testing.assert_close(torch.cat([each[0] for each in parts]), outputs, **close)
    torch.testing.assert_close(torch.cat([each[1] for each in parts]), gradients, **close)
    torch.testing.assert_close(parts[0][2] + parts[1][2], of_weight, **close)
    for norm in norms:
        torch.testing.assert_close(norm.state_dict(), whole.state_dict(), **close)
        torch.testing.assert_close(norm.eval()(given), whole.eval()(given), **close)


def trainer_of(network: PoseNetwork, replicas: Replicas | None = None) -> Trainer:
    return Trainer(copy.deepcopy(network), "C1", Optimisation(5e-3, 1e-4, seed=3), replicas)


def new_network(dtype: torch.dtype = torch.float32) -> PoseNetwork:
    """Return a network; not to be called in a thread, since they have one random generator
    together.
    """
    torch.manual_seed(3)
    return build_network(SMALL).to(dtype)


def train_on_views(
    network: PoseNetwork, steps: int, replicas: Replicas
) -> tuple[Trainer, list[float]]:
    """Train for some steps on weighted labels in uneven shares; returns the losses too."""
    images, rotations, weights = views()
    dtype = next(network.parameters()).dtype
    source = LoadedParticles(images.to(dtype), rotations, weights, 3)
    trainer, losses = trainer_of(network, replicas), []
    for step in range(steps):
        batch = source.batch(step, 11, 0.5, replicas.share(11))
        labels = {"rotations": batch.rotations.to(dtype), "weights": batch.weights.to(dtype)}
        losses.append(trainer.step(replace(batch, **labels), 1.0))
    return trainer, losses


@pytest.mark.parametrize("count", [2, 3])
def test_gradients_are_those_of_one_process(count: int) -> None:
    """Of the first step, as the product computes it; float32 has seven digits, of the largest.

    After Adam's first step weights whose gradient is rounding alone differ by whole steps.
    """
    network = new_network()
    alone, (loss,) = train_on_views(network, 1, Replicas())
    wanted = gradients(alone)
    for trainer, (told,) in in_threads(count, lambda each: train_on_views(network, 1, each)):
        assert told == pytest.approx(loss, rel=1e-5, abs=1e-6)
        assert (gradients(trainer) - wanted).abs().max() < 1e-4 * wanted.abs().max()


def gradients(trainer: Trainer) -> Tensor:
    every = [each.grad for each in trainer.network.parameters() if each.grad is not None]
    return torch.cat([each.flatten() for each in every])


@pytest.mark.parametrize("count", [2, 3])
def test_weights_are_those_of_one_process(count: int) -> None:
    """In float64, where rounding stays far below Adam's epsilon.

    Means of the shares' means, or their own statistics, would differ.
    """
    network, tolerance = new_network(torch.float64), 1e-8

    def trained(replicas: Replicas) -> tuple[Trainer, list[float]]:
        return train_on_views(network, 6, replicas)

    alone, losses = trained(Replicas())
    for trainer, told in in_threads(count, trained):
        assert told == pytest.approx(losses, rel=tolerance, abs=1e-6)
        for expected, found in (
            (alone.network, trainer.network),
            (alone.averaged(), trainer.averaged()),
        ):
            torch.testing.assert_close(
                seen(found.state_dict()),
                seen(expected.state_dict()),
                rtol=tolerance,
                atol=tolerance / 10,
            )


def seen(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what makes the mean of a log-density: nothing depends on it, and rounding alone
    moves it.
    """
    return {
        name: value[1:] if name in ("linear.weight", "refine.weight") else value
        for name, value in weights.items()
    }


def test_all_end_at_the_same_step_and_validate_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time budget, and a rate that follows the validation: what the first sees decides.

    Every reading of the clock is 0.05 s after the one before, whoever reads, so that no two agree.
    """
    readings = itertools.count()
    told = SimpleNamespace(monotonic=lambda: 0.05 * next(readings))
    monkeypatch.setattr(replicas_module, "time", told)
    images, rotations, weights = views()
    source, validation = (
        LoadedParticles(images, rotations, weights),
        ValidationSet(images, rotations),
    )
    settings = LoopSettings(8, minutes=0.02, report_seconds=0.2, halve_after=16, validations=5)
    network = new_network()

    def trained(replicas: Replicas) -> tuple[int, list[tuple[int, float | None]], list[bool]]:
        trainer = trainer_of(network, replicas)
        reports = list(train_network(trainer, source, validation, "C1", settings))
        seen = [(each.images, each.validation_loss) for each in reports]
        return trainer.steps, seen, [each.predicted is not None for each in reports]

    first, second = in_threads(2, trained)
    assert first[:2] == second[:2]
    assert first[0] > 1
    assert first[2][-1]
    assert not any(second[2])


def test_a_step_that_is_stopped_leaves_the_network_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The forward pass moves running statistics; a run that is taken up would move them twice."""
    images, rotations, weights = views(8)
    trainer = trainer_of(new_network())
    batch = Batch(images, torch.from_numpy(rotations).float(), torch.from_numpy(weights).float())
    trainer.step(batch, 1.0)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}

    def gone(*_: object) -> None:
        raise RankLostError("gone")

    monkeypatch.setattr(Replicas, "sum_gradients", gone)
    with pytest.raises(RankLostError):
        trainer.step(batch, 1.0)
    assert trainer.whole
    assert trainer.steps == 1
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fewer_images_than_processes_are_refused() -> None:
    images, rotations, weights = views(8)
    source, validation = (
        LoadedParticles(images, rotations, weights),
        ValidationSet(images, rotations),
    )
    trainer = trainer_of(new_network(), Replicas(2, 3))
    with pytest.raises(CryosphereError, match="batch of 2 images cannot be shared by 3"):
        next(train_network(trainer, source, validation, "C1", LoopSettings(2, total_images=10)))


def test_names_of_weights_stay() -> None:
    network = new_network()
    names = list(network.state_dict())
    share_statistics(network, Replicas(0, 2))
    assert list(network.state_dict()) == names
    assert any(isinstance(module, SharedBatchNorm) for module in network.modules())
