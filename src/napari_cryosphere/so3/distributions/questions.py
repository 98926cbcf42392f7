"""Entropy, mean, samples and summaries of piecewise constant densities, for small batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_cryosphere.so3.asymmetric_unit import expand, inside_asymmetric_unit
from napari_cryosphere.so3.distributions.cells import Array, Cells
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.healpix import pix2vec, ring2nest
from napari_cryosphere.so3.pose_summary import (
    CONFIDENCE_RADIUS_DEGREES,
    EVALUATION_ORDER,
    PoseSummary,
)
from napari_cryosphere.so3.rotations import nearest_rotation
from napari_cryosphere.so3.symmetry import point_group

__all__ = ["angles_to", "entropy", "mean", "sample", "summarise"]

_DEEP = 20  # HEALPix order of the points that a view is drawn from: 0.2 arc seconds
_ITERATIONS = 50  # at most; it ends earlier, where the mean moves by less than 1e-12


def entropy(part: Cells) -> Array:
    """Return ``- sum p log(density)``, ``(n,)`` nats relative to uniform."""
    logs = np.where(part.probability > 0, part.log_density, 0.0)
    return np.asarray(-(part.probability * logs).sum(1))


def angles_to(part: Cells, rotations: Array) -> Array:
    """Return the angle of every cell's centre to the particle's pose modulo symmetry, ``(n, k)`` degrees."""
    images = expand(rotations, part.symmetry).reshape(len(part), -1, 9)
    centres = part.centres.reshape(*part.centres.shape[:2], 9)
    if len(centres) == 1:
        traces = (images.reshape(-1, 9) @ centres[0].T).reshape(len(part), -1, centres.shape[1])
    else:
        traces = images @ centres.swapaxes(1, 2)
    return np.degrees(np.arccos(((traces.max(1) - 1) / 2).clip(-1, 1)))


def summarise(part: Cells, climb: Callable[[Array], Array]) -> PoseSummary:
    """Summarise a small batch.

    ``part``: the piecewise constant copy of the densities. ``climb``: moves poses ``(n, 1, 3, 3)``
    onto the maxima of the densities themselves.
    """
    best = part.log_density.argmax(1)
    centres = np.broadcast_to(part.centres, (len(part), *part.centres.shape[1:]))
    rotations = climb(centres[np.arange(len(part)), best][:, None])[:, 0]
    angles = angles_to(part, rotations)
    return PoseSummary(
        rotations=rotations,
        max_probability=part.unit_masses(EVALUATION_ORDER).max(1),
        entropy=entropy(part),
        spread_degrees=(part.probability * angles).sum(1),
        confidence=(part.probability * (angles <= CONFIDENCE_RADIUS_DEGREES)).sum(1).clip(0, 1),
    )


def mean(part: Cells) -> Array:
    """Return the Bayes rotation under squared chordal error modulo symmetry, ``(n, 3, 3)``."""
    centres = np.broadcast_to(part.centres, (len(part), *part.centres.shape[1:]))
    group = point_group(part.symmetry)
    estimates = np.empty((len(part), 3, 3))
    for row, (cells, weights) in enumerate(zip(centres, part.probability, strict=True)):
        estimate = cells[part.log_density[row].argmax()]
        for _ in range(_ITERATIONS):
            nearest = np.einsum("gij,jl,kil->kg", group, estimate, cells, optimize=True).argmax(1)
            mates = [
                weights[nearest == g] @ cells[nearest == g].reshape(-1, 9)
                for g in range(len(group))
            ]
            moments = np.einsum("gji,gjl->il", group, np.array(mates).reshape(-1, 3, 3))
            previous, estimate = estimate, nearest_rotation(moments)
            if np.abs(estimate - previous).max() < 1e-12:
                break
        estimates[row] = estimate
    return estimates


def sample(part: Cells, number: int, rng: np.random.Generator) -> Array:
    """Draw poses, ``(n, number, 3, 3)``: a cell by its probability, then evenly in its part of the unit."""
    drawn = np.empty((len(part), number, 3, 3))
    for row, probability in enumerate(part.probability):
        cumulative = np.cumsum(probability)
        column = np.searchsorted(cumulative, rng.random(number) * cumulative[-1], side="right")
        column = np.minimum(column, np.flatnonzero(probability)[-1])
        waiting = np.arange(number)
        while len(waiting):
            inside = _within(
                part.orders[row, column[waiting]], part.indices[row, column[waiting]], rng
            )
            drawn[row, waiting] = inside
            waiting = waiting[~inside_asymmetric_unit(inside[:, :, 2], part.symmetry)]
    return drawn


def _within(orders: np.ndarray, indices: np.ndarray, rng: np.random.Generator) -> Array:
    """Return an evenly distributed rotation in each cell, ``(k, 3, 3)``."""
    rotations = np.empty((len(indices), 3, 3))
    for order in np.unique(orders):
        here = orders == order
        grid = SO3Grid(int(order))
        view, psi = np.divmod(indices[here], grid.n_psi)
        # equal areas: any nested pixel below is as likely as any other
        parts = 4 ** (_DEEP - int(order))
        deep = np.asarray(ring2nest(grid.n_side, view)) * parts + rng.integers(
            parts, size=len(view)
        )
        turn = (psi + rng.random(len(psi))) / grid.n_psi
        rotations[here] = grid.rotations_at(
            view, pix2vec(2**_DEEP, deep, nest=True), 2 * np.pi * turn
        )
    return rotations
