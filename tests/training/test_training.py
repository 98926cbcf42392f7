"""Labels move with images; the loop learns, repeats itself and keeps what it has when stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from napari_cryosphere.errors import CryosphereError, ModelError
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.model.card import Image2SphereConfig
from napari_cryosphere.model.pose_model import build_network
from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.symmetry import point_group
from napari_cryosphere.training import trainer as trainer_module
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.loss import pose_loss
from napari_cryosphere.training.sources import (
    Batch,
    LoadedParticles,
    Succession,
    shuffled_rows,
    turn_and_shift,
    turned_rotations,
)
from napari_cryosphere.training.trainer import Optimisation, Trainer

SMALL = Image2SphereConfig(
    box=16, encoder_channels=(8, 16), sphere_channels=16, sphere_order=2, l_max=4, so3_channels=4
)


def lowest_correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return min(
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(first.numpy(), second.numpy(), strict=True)
    )


@pytest.fixture(scope="module")
def views() -> tuple[Projector, torch.Tensor]:
    rotations = torch.from_numpy(random_rotations(12, np.random.default_rng(0))).float()
    return Projector(protein_phantom(32, 6.0).voxels, 3), rotations


def test_turned_image_is_the_projection_at_the_turned_pose(
    views: tuple[Projector, torch.Tensor],
) -> None:
    projector, rotations = views
    angles = torch.linspace(0.1, 6.2, 12)
    turned = turn_and_shift(projector.project(rotations), angles, torch.zeros(12, 2))
    assert (
        lowest_correlation(turned, projector.project(turned_rotations(rotations, angles))) > 0.995
    )
    wrong = projector.project(turned_rotations(rotations, -angles))
    assert lowest_correlation(turned, wrong) < 0.9


def test_quarter_turn_keeps_the_centre(views: tuple[Projector, torch.Tensor]) -> None:
    """About pixel n // 2 of an even box: a plain rot90 would be a pixel off."""
    projector, rotations = views
    images = projector.project(rotations)
    turned = turn_and_shift(images, torch.full((12,), torch.pi / 2), torch.zeros(12, 2))
    exact = torch.roll(torch.rot90(images, -1, (-2, -1)), 1, -1)
    assert lowest_correlation(turned[:, 1:, 1:], exact[:, 1:, 1:]) > 0.999


def test_turning_keeps_noise_white() -> None:
    noise = torch.from_numpy(np.random.default_rng(8).normal(size=(64, 32, 32)).astype(np.float32))
    turned = turn_and_shift(noise, torch.linspace(0, 6.2, 64), torch.full((64, 2), 0.3))
    power = np.abs(np.fft.fft2(turned[:, 8:24, 8:24].numpy())) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16)))
    low, high = (
        power[:, frequency < 0.2].mean(),
        power[:, (frequency > 0.35) & (frequency < 0.45)].mean(),
    )
    assert high / low == pytest.approx(1, abs=0.1)


def test_shifted_image_is_the_shifted_projection(views: tuple[Projector, torch.Tensor]) -> None:
    projector, rotations = views
    shifts = torch.tensor([[1.3, -0.6]]).expand(12, 2)
    moved = turn_and_shift(projector.project(rotations), torch.zeros(12), shifts)
    exact = from_fourier(projector.slices(rotations) * shift_phases(shifts, 32))
    assert lowest_correlation(moved, exact) > 0.995


def toy(number: int = 48) -> tuple[LoadedParticles, ValidationSet]:
    """Noise-free views of a small phantom."""
    rotations = random_rotations(number, np.random.default_rng(1))
    images = Projector(protein_phantom(16, 12.0).voxels, 3).project(rotations)
    images = images / images.std()
    return LoadedParticles(images, rotations, np.ones(number)), ValidationSet(images, rotations)


def trainer_of(seed: int, learning_rate: float = 5e-3) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(build_network(SMALL), "C1", Optimisation(learning_rate, 1e-4, seed=seed))


def run(
    total_images: int, seed: int = 3, stop_after: int | None = None, checkpoint: Path | None = None
) -> tuple[PoseNetwork, list[TrainingProgress]]:
    """Train on a toy set; with a checkpoint that exists, go on from there."""
    trainer = trainer_of(seed)
    source, validation = toy()
    settings = LoopSettings(
        24,
        total_images=total_images,
        report_seconds=0.0,
        checkpoint=checkpoint,
        checkpoint_seconds=1e9,
    )
    resume = checkpoint is not None and checkpoint.is_file()
    reports, seen = train_network(trainer, source, validation, "C1", settings, resume), []
    for report in reports:
        seen.append(report)
        if stop_after is not None and len(seen) >= stop_after:
            reports.close()
            break
    return trainer.averaged(), seen


def assert_same(first: PoseNetwork, second: PoseNetwork) -> None:
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_it_learns_a_toy_set() -> None:
    source, validation = toy()
    settings = LoopSettings(24, total_images=24 * 200, report_seconds=0.0, validations=2)
    reports = list(train_network(trainer_of(3, 1e-2), source, validation, "C1", settings))
    assert abs(reports[0].loss) < 0.3  # starts at the uniform distribution's 0
    assert np.mean([report.loss for report in reports[-6:-1]]) < -3
    last = reports[-1]
    assert last.fraction == 1
    assert last.validation_median_degrees is not None
    assert last.validation_median_degrees < 30
    assert last.validation_loss is not None
    assert last.validation_loss < -3
    assert last.predicted is not None
    assert len(last.predicted) == len(validation.images)


def test_same_seed_same_weights() -> None:
    first, reports = run(24 * 4)
    second, again = run(24 * 4)
    assert [report.loss for report in reports] == [report.loss for report in again]
    assert_same(first, second)
    other, _ = run(24 * 4, seed=4)
    assert not torch.equal(next(iter(other.parameters())), next(iter(first.parameters())))


def test_a_run_taken_up_ends_where_one_without_a_break_does(tmp_path: Path) -> None:
    whole, reports = run(24 * 12)
    kept = tmp_path / "state.safetensors"
    run(24 * 12, stop_after=5, checkpoint=kept)
    assert kept.is_file()
    rest, later = run(24 * 12, checkpoint=kept)
    assert_same(whole, rest)
    assert [report.loss for report in later] == [report.loss for report in reports[5:]]


def test_a_broken_or_foreign_state_is_refused(tmp_path: Path) -> None:
    kept = tmp_path / "state.safetensors"
    run(24 * 12, stop_after=2, checkpoint=kept)
    torch.manual_seed(0)
    other = build_network(SMALL.model_copy(update={"so3_channels": 5}))
    with pytest.raises(ModelError, match="no training state"):
        Trainer(other, "C1", Optimisation(1e-3, 0.0)).load(kept)
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(ModelError, match="no training state"):
        trainer_of(3).load(kept)
    with pytest.raises(ModelError, match="no training state"):
        trainer_of(3).load(tmp_path / "missing.safetensors")


def test_state_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "state.safetensors"
    run(24 * 12, stop_after=2, checkpoint=kept)
    before = kept.read_bytes()

    def full(*args: object, **options: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(CryosphereError, match="No space left"):
        trainer_of(3).save(kept, {})
    assert kept.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]


def test_patience_ends_a_run_that_learns_nothing_more() -> None:
    source, validation = toy()
    settings = LoopSettings(
        24, total_images=24 * 100, report_seconds=1e9, validations=50, stop_after=24 * 6
    )
    reports = list(train_network(trainer_of(3, 1e-12), source, validation, "C1", settings))
    assert reports[-1].images < 24 * 30
    assert reports[-1].fraction == 1


def test_plateau_halves_the_rate_of_a_run_that_learns_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, validation = toy()
    rates: list[float] = []
    step = Trainer.step

    def spied(self: Trainer, batch: Batch, rate: float) -> float:
        rates.append(rate)
        return step(self, batch, rate)

    monkeypatch.setattr(Trainer, "step", spied)
    settings = LoopSettings(
        24, total_images=24 * 60, report_seconds=1e9, validations=30, halve_after=24 * 8
    )
    list(train_network(trainer_of(3, 1e-12), source, validation, "C1", settings))
    assert max(rates) == 1
    assert rates[-1] <= 0.25


def test_stopping_keeps_a_usable_network() -> None:
    network, reports = run(24 * 1000, stop_after=3)
    assert len(reports) == 3
    assert not network.training
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_every_row_comes_once_a_pass() -> None:
    rows = np.concatenate([shuffled_rows(7, step, 3, seed=5) for step in range(14)])
    assert np.array_equal(np.sort(rows.reshape(6, 7), axis=1), np.tile(np.arange(7), (6, 1)))
    assert not np.array_equal(rows[:7], rows[7:14])
    assert np.array_equal(shuffled_rows(7, 2, 20, seed=5)[:2], rows[40:42])


def test_one_source_after_another() -> None:
    class Told:
        def __init__(self, name: float) -> None:
            self.name = name

        def batch(self, step: int, size: int, progress: float, rows: slice | None = None) -> Batch:
            return Batch(torch.tensor([self.name, progress]), torch.empty(0), torch.empty(0))

    both = Succession(Told(1), Told(2), 0.8)
    assert both.batch(0, 1, 0.4).images.tolist() == [1, 0.5]
    assert both.batch(0, 1, 0.9).images.tolist() == pytest.approx([2, 0.5])


def test_loss_of_symmetric_labels_is_blind_to_the_mate() -> None:
    coefficients = build_network(SMALL)(torch.randn(4, 16, 16)).detach()
    rotations = torch.from_numpy(random_rotations(4, np.random.default_rng(5))).float()
    mates = torch.from_numpy(point_group("D2")[2].copy()).float() @ rotations
    losses = [
        float(pose_loss(coefficients, Batch(torch.empty(0), r, torch.ones(4)), "D2"))
        for r in (rotations, mates)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_weights_count_in_the_loss() -> None:
    coefficients = build_network(SMALL)(torch.randn(4, 16, 16)).detach() * 20
    rotations = torch.from_numpy(random_rotations(4, np.random.default_rng(6))).float()
    alone = pose_loss(coefficients[1:2], Batch(torch.empty(0), rotations[1:2], torch.ones(1)), "C1")
    weighted = pose_loss(
        coefficients, Batch(torch.empty(0), rotations, torch.tensor([0.0, 2.0, 0.0, 0.0])), "C1"
    )
    assert float(alone) == pytest.approx(float(weighted), abs=1e-5)


def test_loss_that_is_not_a_number_ends_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trainer_module, "pose_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True)
    )
    with pytest.raises(CryosphereError, match="learning rate"):
        run(48)


def test_settings_need_one_budget() -> None:
    source, validation = toy(8)
    for minutes, images in ((None, None), (1.0, 10)):
        settings = LoopSettings(4, minutes=minutes, total_images=images)
        with pytest.raises(ValueError, match="either"):
            next(train_network(trainer_of(0), source, validation, "C1", settings))


def test_sharp_peak_between_grid_points_earns_no_more_than_a_cell() -> None:
    """However high a peak stands at the label, the loss stays above minus the log of the number of
    cells.
    """
    network = build_network(SMALL)
    coefficients = network(torch.randn(3, 16, 16)).detach() * 1e4
    rotations = torch.from_numpy(random_rotations(3, np.random.default_rng(7))).float()
    summary = PoseDistribution.from_coefficients(coefficients).summary()
    peaks = torch.from_numpy(summary.rotations).float()
    at_the_peak = pose_loss(coefficients, Batch(torch.empty(0), peaks, torch.ones(3)), "C1")
    assert -np.log(36864) - 1e-3 <= float(at_the_peak) < -5
    assert (
        float(pose_loss(coefficients, Batch(torch.empty(0), rotations, torch.ones(3)), "C1")) > 100
    )
