"""What particles can be sorted, filtered and grouped by."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack
    from napari_cryosphere.widgets.state.predictions import PredictionStore

__all__ = ["Category", "Quantity", "categories_of", "quantities_of"]

Values = NDArray[np.float64]

_MICROMETRE = 1e-4
_PREDICTED = {  # name: unit, field of the summary, column of a STAR file, factor, tool tip
    "spread": (
        "°",
        "spread_degrees",
        "cryosphereSpread",
        1,
        "Expected angle between true and predicted pose",
    ),
    "confidence": (
        "%",
        "confidence",
        "cryosphereConfidence",
        100,
        "Probability that the true pose is within 30° of the predicted one",
    ),
    "entropy": ("nats", "entropy", "cryosphereEntropy", 1, "0 = uniform, more negative is sharper"),
    "max. probability": (
        "",
        "max_probability",
        "rlnMaxValueProbDistribution",
        1,
        "Probability of the best cell of the grid (rlnMaxValueProbDistribution)",
    ),
}
_COLUMNS = {  # name: unit, column, tool tip
    "state": ("", "rlnClassNumber", "The particle's state, or RELION's class (rlnClassNumber)"),
    "log-likelihood": (
        "nats",
        "rlnLogLikeliContribution",
        "Log-likelihood of the image given the map",
    ),
    "novelty": (
        "",
        "cryosphereNovelty",
        "How unlike the particles of the training; above 1 is suspect",
    ),
    "origin spread": (
        "A",
        "cryosphereOriginSpread",
        "Standard deviation of the network's shift along each axis",
    ),
    "correlation": (
        "",
        "cryosphereCorrelation",
        "Correlation of the image with the map's projection",
    ),
}
_NUMBERED = {  # pattern of a column: name, unit, factor, tool tip
    r"cryosphereComponent(\d+)": (
        "component {}",
        "sd",
        1,
        "Coordinate along a component of variability, in standard deviations of the particles",
    ),
    r"cryosphereComponentError(\d+)": (
        "error of component {}",
        "sd",
        1,
        "Standard error of the coordinate along a component",
    ),
    r"cryosphereStateProbability(\d+)": (
        "probability of state {}",
        "%",
        100,
        "Probability that the particle is in this state",
    ),
}


@dataclass(frozen=True)
class Quantity:
    """A number for each particle.

    ``name``, ``unit``: what the axis of a plot says. ``make``: makes the values, ``(n,)``, NaN
    where they are not known. ``tip``: what it means, in a line.
    """

    name: str
    unit: str
    make: Callable[[], Values]
    tip: str = ""

    @cached_property
    def values(self) -> Values:
        """``(n,)``, NaN where not known."""
        return self.make()

    @property
    def label(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def text(self, row: int) -> str:
        """Return a particle's value as a tile shows it."""
        value = float(self.values[row])
        if not np.isfinite(value):
            return "–"
        shown = f"{value:.0f}" if self.unit == "%" or abs(value) >= 1000 else f"{value:.3g}"
        return shown + (self.unit if self.unit == "°" else f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Category:
    """A label for each particle.

    ``name``: what it is, such as "micrograph". ``labels``: the different ones, in the order that a
    person would look for them. ``codes``, ``(n,)``: each particle's label, a number in `labels`; -1
    for none.
    """

    name: str
    labels: tuple[str, ...]
    codes: NDArray[np.int64]


def quantities_of(stack: ParticleStack, store: PredictionStore) -> dict[str, Quantity]:
    """Return what is known of particles by name: file order first, then what was predicted, then columns.

    A prediction of this session goes before the file's column of the same meaning.
    """
    number = len(stack)
    made = [
        Quantity(
            "file order", "", lambda: np.arange(1.0, number + 1), "Row of the particle in its file"
        )
    ]
    for name, (unit, field, column, factor, tip) in _PREDICTED.items():
        if store.predicted.any():
            made.append(Quantity(name, unit, _predicted(store, field, factor), tip))
        elif column in stack.particles:
            made.append(Quantity(name, unit, _column(stack, column, factor), tip))
    if store.refined is not None and not store.only_refined:
        made += [
            Quantity(f"refined {name}", unit, _refined(store, field, factor), f"{tip} (refined)")
            for name, (unit, field, _, factor, tip) in _PREDICTED.items()
        ]
    if np.isfinite(store.errors_degrees).any():
        tip = "Angle between predicted and known pose, modulo symmetry"
        made.insert(2, Quantity("error", "°", store.errors_degrees.copy, tip))
    for name, (unit, column, tip) in _COLUMNS.items():
        if column in stack.particles:
            made.append(Quantity(name, unit, _column(stack, column), tip))
    if "rlnDefocusU" in stack.particles and "rlnDefocusV" in stack.particles:
        made.append(
            Quantity(
                "defocus", "µm", lambda: _defocus(stack), "Mean of rlnDefocusU and rlnDefocusV"
            )
        )
    for pattern, (name, unit, factor, tip) in _NUMBERED.items():
        for column in stack.particles:
            found = re.fullmatch(pattern, str(column))
            if found is not None:
                named = name.format(found[1])
                made.append(Quantity(named, unit, _column(stack, str(column), factor), tip))
    known = {"rlnOpticsGroup", "rlnRandomSubset"}
    known |= {column for *_, column, _, _ in _PREDICTED.values()} | {
        entry[1] for entry in _COLUMNS.values()
    }
    made += [
        Quantity(name, "", _column(stack, name), "Column of the particles' file")
        for name, values in stack.particles.items()
        if name not in known
        and not any(re.fullmatch(pattern, str(name)) for pattern in _NUMBERED)
        and pd.api.types.is_numeric_dtype(values.dtype)
    ]
    return {quantity.name: quantity for quantity in made}


def _predicted(store: PredictionStore, field: str, factor: float) -> Callable[[], Values]:
    def make() -> Values:
        values, summary = np.full(store.number, np.nan), store.summary()
        if summary is not None:
            values[store.predicted] = factor * getattr(summary, field)
        return values

    return make


def _refined(store: PredictionStore, field: str, factor: float) -> Callable[[], Values]:
    return lambda: factor * np.asarray(getattr(store.refined, field))


def _column(stack: ParticleStack, name: str, factor: float = 1) -> Callable[[], Values]:
    return lambda: (
        factor * pd.to_numeric(stack.particles[name], errors="coerce").to_numpy(dtype=np.float64)
    )


def _defocus(stack: ParticleStack) -> Values:
    sides = (
        np.asarray(stack.particles[name], dtype=np.float64)
        for name in ("rlnDefocusU", "rlnDefocusV")
    )
    return _MICROMETRE * sum(sides, np.zeros(len(stack))) / 2


def categories_of(stack: ParticleStack) -> dict[str, Category]:
    """Return the groups that particles are in by name; those with one label only are left out."""
    groups: dict[str, object] = {"half-set": stack.half_sets()}
    names = stack.optics.set_index("rlnOpticsGroup").get("rlnOpticsGroupName")
    of_group = stack.optics_groups()
    groups["optics group"] = of_group if names is None else names.loc[of_group].to_numpy()
    micrographs = stack.micrographs()
    if micrographs is not None:
        groups["micrograph"] = micrographs
    if "rlnClassNumber" in stack.particles:
        groups["state"] = stack.particles["rlnClassNumber"].to_numpy()
    made = (_category(name, values) for name, values in groups.items())
    return {category.name: category for category in made if len(category.labels) > 1}


def _category(name: str, values: object) -> Category:
    codes, labels = pd.factorize(np.asarray(values), sort=True)
    return Category(name, tuple(map(str, labels)), np.asarray(codes, dtype=np.int64))
