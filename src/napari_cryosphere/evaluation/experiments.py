"""CryoSphere's experiments (Chheda & Nori, poster) on a map: how many projections, and which labels."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cryosphere._generators import converted
from napari_cryosphere.evaluation.learning import (
    LabelledViews,
    Learnt,
    Measured,
    learn,
    measure,
    untrained,
)
from napari_cryosphere.evaluation.report import Panel, Report, Series, Table
from napari_cryosphere.evaluation.views import MapViews
from napari_cryosphere.model.card import ModelCard
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import geodesic_distance_degrees
from napari_cryosphere.training.presets import LabelKind, TrainingPreset

__all__ = [
    "Setting",
    "label_information",
    "label_mass_near_truth",
    "labels_experiment",
    "projections_experiment",
    "train_one",
]

Steps: TypeAlias = Generator[float, None, Report]


@dataclass(frozen=True)
class Setting:
    """What the experiments share.

    - ``views``: the map.
    - ``preset``: how to train.
    - ``test_views``: number of other views that generalisation is measured on.
    - ``symmetry``: point group of the map.
    - ``seed``: of views, weights and the order of training.
    - ``volume``: what the map is, for the report.
    """

    views: MapViews
    preset: TrainingPreset
    test_views: int
    symmetry: str
    seed: int
    volume: str

    def training_views(self, number: int) -> LabelledViews:
        """Return views to train on."""
        rng = np.random.default_rng([self.seed, 0])
        return LabelledViews.draw(self.views, number, self.preset.label_order, rng)

    def held_out_views(self) -> LabelledViews:
        """Return other views, which nothing is trained on."""
        rng = np.random.default_rng([self.seed, 1])
        return LabelledViews.draw(self.views, self.test_views, self.preset.label_order, rng)

    def describe(self) -> str:
        """Return what was trained and on what, in Markdown."""
        preset, grid = self.preset, self.views.grid
        noise = f"at a signal-to-noise ratio of {self.views.snr:g}"
        if math.isinf(self.views.snr):
            noise = "without noise"
        return (
            f"Volume: {self.volume}, {grid.box} pixels of {grid.pixel_size_angstrom:g} A, symmetry "
            f"{self.symmetry}; projections {noise}, without a CTF and centred. Network of degree "
            f"{preset.network.l_max}; {preset.epochs:g} epochs, learning rate {preset.learning_rate:g} with "
            f"warm-up and cosine fall, batches of {preset.batch_size}; labels on the grid of order "
            f"{preset.label_order}. Losses are cross-entropies in nats relative to the uniform distribution: "
            f"0 knows nothing. Held out: {self.test_views} other views."
        )


def train_one(
    setting: Setting, data: LabelledViews, kind: LabelKind
) -> Generator[float, None, Learnt]:
    """Train a network of the setting's seed on views with labels of a kind."""
    pixel_size = setting.views.grid.pixel_size_angstrom
    card = ModelCard(
        network=setting.preset.network, pixel_size_angstrom=pixel_size, symmetry=setting.symmetry
    )
    model = untrained(card, setting.seed)
    targets = data.targets(kind, setting.preset, setting.symmetry)
    return (yield from learn(model, data, targets, setting.preset, setting.seed))


def label_information(targets: torch.Tensor) -> float:
    """Return what labels say of a pose, ``log cells - entropy`` nats on average: minus the least loss."""
    entropy = torch.special.entr(targets).sum(dim=1).mean()
    return math.log(targets.shape[1]) - float(entropy)


def label_mass_near_truth(
    targets: torch.Tensor, rotations: NDArray[np.float64], order: int
) -> float:
    """Return the probability that labels put within 30 degrees of the true poses, their mean (C1)."""
    grid = SO3Grid(order).rotations()
    near = [geodesic_distance_degrees(grid, rotation) < 30 for rotation in rotations]
    return float(targets[torch.from_numpy(np.stack(near))].sum()) / len(targets)


def projections_experiment(setting: Setting, numbers: Sequence[int]) -> Steps:
    """Train on ever more projections and measure what is known of views seen and not seen.

    Yields how far it is, 0 to 1, and returns the report. Fewer projections are the first of more.
    """
    kind = setting.preset.labels or "one-hot"
    everything, held_out = setting.training_views(max(numbers)), setting.held_out_views()
    held_out_targets = held_out.targets(kind, setting.preset, setting.symmetry)
    rows, curves, seen, unseen = [], [], [], []
    for position, number in enumerate(numbers):
        data = everything[:number]
        learnt = yield from _share(
            train_one(setting, data, kind), sum(numbers[:position]), number, sum(numbers)
        )
        on_seen = measure(learnt.model, data, data.targets(kind, setting.preset, setting.symmetry))
        on_unseen = measure(learnt.model, held_out, held_out_targets)
        seen.append(on_seen)
        unseen.append(on_unseen)
        rows.append(
            (number, learnt.images, learnt.cpu_seconds, *_columns(on_seen), *_columns(on_unseen))
        )
        curves.append(_loss_curve(f"{number} projections", learnt))
    columns = ("projections", "images_seen", "cpu_seconds", *_names("train"), *_names("test"))
    panels = (
        Panel("epoch", "training loss (nats)", tuple(curves)),
        Panel(
            "projections",
            "log-density at the true pose (nats)",  # a mask has no best pose, so errors of one say little
            (_truth_curve("trained on", numbers, seen), _truth_curve("held out", numbers, unseen)),
            log_x=True,
        ),
    )
    counts = ", ".join(map(str, numbers))
    text = f"Training on {counts} projections with `{kind}` labels. {setting.describe()}"
    values = {
        f"test_median_degrees_{n}": found.median_degrees
        for n, found in zip(numbers, unseen, strict=True)
    }
    table = {"What is known of the views trained on and of others": Table(columns, tuple(rows))}
    return Report("projections", "How many projections are needed", text, table, panels, values)


def labels_experiment(setting: Setting, number: int) -> Steps:
    """Train on the same projections with each kind of label; yields how far it is, returns the report."""
    kinds: tuple[LabelKind, ...] = get_args(LabelKind)
    data, held_out = setting.training_views(number), setting.held_out_views()
    rows, curves, found = [], [], {}
    for position, kind in enumerate(kinds):
        targets = data.targets(kind, setting.preset, setting.symmetry)
        information = label_information(targets)
        learnt = yield from _share(train_one(setting, data, kind), position, 1, len(kinds))
        on_seen = measure(learnt.model, data, targets)
        on_unseen = measure(
            learnt.model, held_out, held_out.targets(kind, setting.preset, setting.symmetry)
        )
        found[kind] = on_unseen
        rises, largest = _rises(learnt.losses)
        near = label_mass_near_truth(targets, data.rotations, setting.preset.label_order)
        rows.append(
            (kind, information, near, rises, largest, *_columns(on_seen), *_columns(on_unseen))
        )
        curves.append(_loss_curve(kind, learnt, scale=information))
    columns = (
        *("labels", "label_information_nats", "label_within_30"),
        *("epochs_with_a_rise", "largest_rise", *_names("train"), *_names("test")),
    )
    panels = (Panel("epoch", "training loss / information in the labels", tuple(curves)),)
    text = (
        f"Training on {number} projections with labels of three kinds: `mask`, the best-matching "
        f"{100 * setting.preset.label_fraction:g} % of 1/MSE; `raw`, 1/MSE itself, scaled to probabilities; "
        "`one-hot`, the nearest cell. *Label information*: what the labels say of a pose; the least loss is "
        "minus it. *Label within 30*: the share of their probability within 30 degrees of the truth. *Epochs "
        "with a rise*: the share of epochs whose mean loss exceeded the one before; *largest rise*: the "
        f"largest of these, as a share of the whole fall. {setting.describe()}"
    )
    values = {
        f"test_median_degrees_{kind}": measured.median_degrees for kind, measured in found.items()
    }
    table = {"What is known of the views trained on and of others": Table(columns, tuple(rows))}
    return Report("labels", "Which labels to train on", text, table, panels, values)


def _share(
    steps: Generator[float, None, Learnt], before: float, part: float, whole: float
) -> Generator[float, None, Learnt]:
    """Run a part of an experiment, its progress scaled to its share of the whole."""
    return converted(steps, lambda fraction: (before + fraction * part) / whole)


def _names(of: str) -> tuple[str, ...]:
    return (f"{of}_loss", f"{of}_log_density_at_truth", f"{of}_median_degrees", f"{of}_beyond_30")


def _columns(found: Measured) -> tuple[float, ...]:
    return (found.loss, found.truth_nats, found.median_degrees, found.beyond_30)


def _loss_curve(label: str, learnt: Learnt, scale: float = 1.0) -> Series:
    epochs = tuple(float(epoch + 1) for epoch in range(len(learnt.losses)))
    return Series(label, epochs, tuple(float(loss) / scale for loss in learnt.losses))


def _truth_curve(label: str, numbers: Sequence[int], found: Sequence[Measured]) -> Series:
    densities = tuple(measured.truth_nats for measured in found)
    return Series(label, tuple(map(float, numbers)), densities, marked=True)


def _rises(losses: np.ndarray) -> tuple[float, float]:
    """Return the share of epochs in which the loss rose, and the largest rise as a share of the fall."""
    if len(losses) < 2:
        return 0.0, 0.0
    steps = np.diff(losses)
    fall = float(losses.max() - losses.min())
    return float(np.mean(steps > 0)), float(max(steps.max(), 0.0)) / max(fall, 1e-12)
