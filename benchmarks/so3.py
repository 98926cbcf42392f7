"""Functions on SO(3): our transforms beside dense matrices and e3nn, on the same work in one run."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch
from _common import cpu_seconds, options, report
from e3nn import o3
from e3nn.nn import SO3Activation as DenseActivation

from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.distributions.harmonic import HarmonicDistribution
from napari_cryosphere.so3.distributions.modes import local_maxima
from napari_cryosphere.so3.distributions.questions import summarise
from napari_cryosphere.so3.distributions.smooth import SmoothDistribution
from napari_cryosphere.so3.gauss_legendre import gauss_legendre_grid
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.rotations import random_rotations, to_e3nn_frame
from napari_cryosphere.so3.wigner import band_mask, rotate_coefficients
from napari_cryosphere.widgets.state.sphere_picture import rasterise

OVERSAMPLING = 3.0  # at which our activation's equivariance error is below e3nn's


def _random(batch: int, l_max: int) -> torch.Tensor:
    """Random real functions whose entries have unit mean square each, as e3nn's random vectors."""
    scale = torch.sqrt(2.0 * torch.arange(l_max + 1) + 1)[:, None, None]
    coefficients = torch.randn(batch, l_max + 1, 2 * l_max + 1, l_max + 1, dtype=torch.complex64)
    grid = gauss_legendre_grid(l_max, 1.0)
    return grid.from_grid(grid.to_grid(coefficients * band_mask(l_max) * scale))


def _width(l_max: int) -> int:
    return sum((2 * degree + 1) ** 2 for degree in range(l_max + 1))


_FRESH = """
import numpy as np, torch
torch.set_num_threads(1)
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import random_rotations
def peak():
    return [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")][0] / 1024
evaluate_on_grid(torch.zeros(1, 2, 3, 2, dtype=torch.complex64), 0)
{setup}
before = peak()
for _ in range(2):
    result = None
    result = {work}
print(peak() - before)
"""


def _megabytes(setup: str, work: str) -> float:
    """Return by how much a call, made twice, raises the peak memory of a fresh process (Linux)."""
    code = _FRESH.format(
        setup=setup, work=work
    )  # (getrusage would count what the parent held at the fork)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout)


def _evaluation_megabytes(l_max: int, order: int, batch: int) -> float:
    shape = (batch, l_max + 1, 2 * l_max + 1, l_max + 1)
    setup = f"c = torch.zeros({shape}, dtype=torch.complex64)"
    return _megabytes(setup, f"evaluate_on_grid(c, {order})")


def grid_evaluation(l_max: int, order: int, batch: int, repeats: int) -> dict[str, object]:
    """Coefficients to a whole grid; the dense matrix is built beforehand and not timed."""
    coefficients = _random(batch, l_max)
    ours = cpu_seconds(lambda: evaluate_on_grid(coefficients, order), repeats)
    dense = torch.randn(SO3Grid(order).size, _width(l_max))  # the values do not matter for the time
    vectors = torch.randn(batch, _width(l_max))
    theirs = cpu_seconds(lambda: vectors @ dense.T, repeats)
    matrix = dense.numel() * 4 / 2**20
    held = _evaluation_megabytes(l_max, order, batch) - batch * SO3Grid(order).size * 4 / 2**20
    return {
        "task": f"l {l_max} on order {order}, batch {batch}",
        "ours_cpu_s": ours,
        "other_cpu_s": theirs,
        "ratio": theirs / ours,
        "note": f"beside the answer {held:.1f} MB, dense matrix {matrix:.0f} MB",
    }


def large_evaluation() -> dict[str, object]:
    """Degree 12 on order 4, which the dense route cannot hold: 3.2 GB."""
    coefficients = _random(32, 12)
    peak = _evaluation_megabytes(12, 4, 32)
    return {
        "task": "l 12 on order 4, batch 32",
        "ours_cpu_s": cpu_seconds(lambda: evaluate_on_grid(coefficients, 4), 3),
        "other_cpu_s": float("nan"),
        "ratio": float("nan"),
        "note": f"{peak:.0f} MB in all, answer included",
    }


def activation(l_max: int, signals: int, repeats: int) -> dict[str, object]:
    """ReLU on SO(3), forward, against e3nn's SO3Activation at resolution 10; equivariance errors of
    both.
    """
    grid = gauss_legendre_grid(l_max, OVERSAMPLING)

    def activated(coefficients: torch.Tensor) -> torch.Tensor:
        return grid.from_grid(grid.to_grid(coefficients).relu_())

    signal, flat = _random(signals, l_max), torch.randn(signals, _width(l_max))
    dense = DenseActivation(l_max, l_max, torch.relu, 10)
    irreps = o3.Irreps([(2 * degree + 1, (degree, 1)) for degree in range(l_max + 1)])
    squares = np.zeros((2, 2))
    with torch.inference_mode():
        fast = cpu_seconds(lambda: activated(signal), repeats)
        slow = cpu_seconds(lambda: dense(flat), repeats)
        active, theirs = activated(signal), dense(flat)
        for turn in random_rotations(4, np.random.default_rng(1)):
            moved = rotate_coefficients(active, turn)
            off = activated(rotate_coefficients(signal, turn)) - moved
            matrix = irreps.D_from_matrix(torch.from_numpy(to_e3nn_frame(turn)).float())
            e3nn_off = dense(flat @ matrix.T) - theirs @ matrix.T
            squares += [
                [_power(off), _power(moved)],
                [float(e3nn_off.square().sum()), float(theirs.square().sum())],
            ]
    errors = np.sqrt(squares[:, 0] / squares[:, 1])
    return {
        "task": f"SO(3) ReLU at l {l_max}, {signals} signals",
        "ours_cpu_s": fast,
        "other_cpu_s": slow,
        "ratio": slow / fast,
        "note": f"equivariance error {errors[0]:.5f}, e3nn's (resolution 10) {errors[1]:.5f}",
    }


def _power(coefficients: torch.Tensor) -> float:
    """Return the sum of mean squares over SO(3) of some functions."""
    count = coefficients.shape[-1]
    weights = torch.where(torch.arange(count) == 0, 1.0, 2.0) / (
        2 * torch.arange(count)[:, None, None] + 1.0
    )
    return float((coefficients.abs().square() * weights).sum())


def nearest(number: int, repeats: int) -> dict[str, object]:
    """Nearest of order 4's 294,912 rotations, exactly."""
    grid, rotations = SO3Grid(4), random_rotations(number, np.random.default_rng(0))
    setup = f"r = random_rotations({number}, np.random.default_rng(0))"
    more = _megabytes(setup, "SO3Grid(4).nearest(r)")
    return {
        "task": f"nearest of order 4, {number:,} rotations",
        "ours_cpu_s": cpu_seconds(lambda: grid.nearest(rotations), repeats),
        "other_cpu_s": float("nan"),
        "ratio": float("nan"),
        "note": f"{more:.0f} MB beside the rotations",
    }


def modes_and_summaries(l_max: int, symmetry: str, particles: int) -> list[dict[str, object]]:
    """Ten modes and the summary of peaked distributions, beside the way over cells and differences."""
    coefficients = _random(particles, l_max)
    spread = evaluate_on_grid(coefficients, 2).flatten(1).std(1)[:, None, None, None]
    distribution = PoseDistribution.from_coefficients(coefficients * 4 / spread, symmetry)
    few = distribution[: max(2, particles // 32)]
    rows: list[dict[str, object]] = []
    for task, ours, theirs in (
        ("ten modes", lambda d: d.mode(10), lambda d: _modes_by_cells(d, 10)),
        ("summary", lambda d: d.summary(), _summary_by_cells),
    ):
        fast = cpu_seconds(lambda work=ours: work(distribution[:]), 2) / particles
        slow = cpu_seconds(lambda work=theirs: work(few), 1) / len(few)
        rows.append(
            {
                "task": f"{task}, l {l_max}, {symmetry}, a particle",
                "ours_cpu_s": fast,
                "other_cpu_s": slow,
                "ratio": slow / fast,
                "note": "other: cells of mixed orders, derivatives by differences",
            }
        )
    return rows


def _modes_by_cells(distribution: HarmonicDistribution, k: int) -> list[np.ndarray]:
    return [
        SmoothDistribution.climb(distribution[int(row)], local_maxima(part[place], 4 * k)[None])
        for rows, part in distribution.parts()
        for place, row in enumerate(rows)
    ]


def _summary_by_cells(distribution: HarmonicDistribution) -> list[PoseSummary]:
    return [summarise(part, distribution[rows].climb) for rows, part in distribution.parts()]


def mollweide_frame(repeats: int) -> list[dict[str, object]]:
    """One sphere of 128 x 256 pixels: all of it from coefficients, and the raster alone."""
    import healpy
    from healpy.projector import MollweideProj

    distribution = PoseDistribution.from_coefficients(_random(1, 6))
    probability = distribution.probability_grid()[0]
    view, projector = distribution.view_map()[0], MollweideProj(xsize=256)
    theirs = cpu_seconds(
        lambda: projector.projmap(view, lambda x, y, z: healpy.vec2pix(8, x, y, z)), repeats
    )
    rows: list[dict[str, object]] = []
    for task, work in (
        (
            "sphere picture from coefficients, order 3",
            lambda: rasterise(distribution.probability_grid()[0]),
        ),
        ("sphere picture, raster alone", lambda: rasterise(probability)),
    ):
        ours = cpu_seconds(work, repeats)
        note = "other: healpy's projmap alone, no colours"
        rows.append(
            {
                "task": task,
                "ours_cpu_s": ours,
                "other_cpu_s": theirs,
                "ratio": theirs / ours,
                "note": note,
            }
        )
    return rows


def main() -> None:
    arguments = options(__doc__ or "")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    repeats = 3 if arguments.quick else 10
    rows = [
        grid_evaluation(6, 3, 32, repeats),
        grid_evaluation(8, 3, 32, repeats),
        grid_evaluation(8, 4, 32, repeats),
        large_evaluation(),
        activation(6, 128, repeats),
        nearest(100_000, repeats),
        *modes_and_summaries(8, "C1", 64),
        *modes_and_summaries(8, "D2", 64),
        *mollweide_frame(10 * repeats),
    ]
    report("so3", rows, arguments, ["torch", "e3nn", "healpy"])


if __name__ == "__main__":
    main()
