"""Functions on SO(3): our separable transforms beside e3nn's dense route, on the same work in one run."""

from __future__ import annotations

import torch
from _common import cpu_seconds, options, report
from e3nn.nn import SO3Activation as DenseActivation

from napari_cryosphere.model.sphere import SO3Activation
from napari_cryosphere.so3.distribution import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.grid_transform import evaluate_on_grid
from napari_cryosphere.so3.mollweide import rasterise
from napari_cryosphere.so3.wigner import band_mask


def _random(batch: int, l_max: int) -> torch.Tensor:
    shape = (batch, l_max + 1, 2 * l_max + 1, l_max + 1)
    return torch.randn(*shape, dtype=torch.complex64) * band_mask(l_max)


def grid_evaluation(l_max: int, order: int, batch: int, repeats: int) -> dict[str, object]:
    """Coefficients to a whole grid; the dense matrix is built beforehand and not timed."""
    coefficients = _random(batch, l_max)
    ours = cpu_seconds(lambda: evaluate_on_grid(coefficients, order), repeats)
    width = sum((2 * degree + 1) ** 2 for degree in range(l_max + 1))
    dense = torch.randn(SO3Grid(order).size, width)  # the values do not matter for the time
    vectors = torch.randn(batch, width)
    theirs = cpu_seconds(lambda: vectors @ dense.T, repeats)
    return {
        "task": f"l {l_max} on order {order}, batch {batch}",
        "ours_cpu_s": ours,
        "dense_cpu_s": theirs,
        "ratio": theirs / ours,
        "note": f"dense matrix {dense.numel() * 4 / 1e6:.0f} MB",
    }


def activation(l_max: int, batch: int, channels: int, repeats: int) -> dict[str, object]:
    """ReLU on SO(3), forward, against e3nn's SO3Activation at its customary resolution of 10."""
    torch.manual_seed(0)
    ours = SO3Activation(l_max, channels).eval()
    signal = _random(batch * channels, l_max).unflatten(0, (batch, channels))
    theirs = DenseActivation(l_max, l_max, torch.relu, 10)
    flat = torch.randn(batch, channels, sum((2 * degree + 1) ** 2 for degree in range(l_max + 1)))
    with torch.inference_mode():
        fast = cpu_seconds(lambda: ours(signal), repeats)
        slow = cpu_seconds(lambda: theirs(flat), repeats)
    return {
        "task": f"SO(3) ReLU at l {l_max}, {batch} x {channels}",
        "ours_cpu_s": fast,
        "dense_cpu_s": slow,
        "ratio": slow / fast,
        "note": "e3nn SO3Activation, resolution 10",
    }


def mollweide_frame(repeats: int) -> dict[str, object]:
    """One sphere of 128 x 256 pixels from coefficients, and by healpy's own drawing of a map as an array."""
    import healpy
    from healpy.projector import MollweideProj

    distribution = PoseDistribution.from_coefficients(_random(1, 6))
    view = distribution.view_marginal()[0]
    projector = MollweideProj(xsize=256)

    def theirs() -> None:
        projector.projmap(view, lambda x, y, z: healpy.vec2pix(8, x, y, z))

    ours = cpu_seconds(lambda: rasterise(distribution.probability_grid()[0]), repeats)
    return {
        "task": "sphere picture from coefficients",
        "ours_cpu_s": ours,
        "dense_cpu_s": cpu_seconds(theirs, repeats),
        "ratio": float("nan"),
        "note": "right: healpy's projmap alone, no colours",
    }


def main() -> None:
    arguments = options(__doc__ or "")
    torch.set_num_threads(1)
    repeats = 3 if arguments.quick else 10
    rows = [
        grid_evaluation(6, 3, 32, repeats),
        grid_evaluation(8, 3, 32, repeats),
        grid_evaluation(8, 4, 32, 2 if arguments.quick else 5),
        activation(6, 16, 8, repeats),
        mollweide_frame(10 * repeats),
    ]
    report("so3", rows, arguments, ["torch", "e3nn", "healpy"])


if __name__ == "__main__":
    main()
