"""A domain in continuous motion: whether each particle's angle is found, and how sure it is.

Simulates particles of a map of which one half turns about a hinge (`simulate --motion half`), and has
`variability` find it: at the true poses, at poses that `align` finds with the map at rest, and for particles
that do not differ. Coordinates are compared with the true angles by a smooth monotone curve, after which
their error bars should hold what they claim.

    python benchmarks/variability.py [--map FILE] [--number N] [--snr S] [--angle DEGREES] [--seeds N]
        [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import DATA, has_data, write_figures
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import spearmanr

import napari_cryosphere as nc
from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.configs import AlignConfig, SimulateConfig, VariabilityConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.running.memory import peak_gigabytes
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.jobs.variability import variability

_DEGREE = 3  # of the curve from angles to coordinates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--map", type=Path, default=DATA / "realistic" / "gpcr.mrc")
    parser.add_argument("--number", type=int, default=2000, help="of particles")
    parser.add_argument("--snr", type=float, default=0.05, help="as simulate has it")
    parser.add_argument("--angle", type=float, default=30.0, help="range of the motion, degrees")
    parser.add_argument("--seeds", type=int, default=1, help="sets of particles")
    parser.add_argument("--quick", action="store_true", help="600 particles, at true poses alone")
    parser.add_argument("--json", type=Path, help="write the values here")
    args = parser.parse_args()
    if not has_data():
        return
    if args.quick:
        args.number = 600
    rows = [row for seed in range(args.seeds) for row in measured(args, seed)]
    for row in rows:
        print(
            "  ".join(
                f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
        )
    write_figures("variability", rows, args, ["numpy", "torch"])


def measured(args: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Return what is found at the true poses, at aligned ones, and of still particles."""
    given = {"map": args.map, "number": args.number, "snr": args.snr, "seed": seed}
    moving = given | {"motion": "half", "motion_angle_degrees": args.angle}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        moved, still = folder / "moved.star", folder / "still.star"
        follow(simulate(SimulateConfig(**moving, output=moved)), lambda event: None)
        follow(simulate(SimulateConfig(**given, output=still)), lambda event: None)
        angles = nc.read_star(moved).particles["cryosphereMotionAngle"].to_numpy(float)
        none = np.zeros(args.number)
        rows.append({"set": "true poses", "seed": seed} | found(moved, folder / "a", angles))
        rows.append({"set": "still", "seed": seed} | found(still, folder / "b", none))
        if not args.quick:
            for name, particles, truth in (("moved", moved, angles), ("still", still, none)):
                posed = folder / f"{name}_posed.star"
                config = AlignConfig(particles=particles, map=args.map, output=posed)
                follow(align(config), lambda event: None)
                row = {"set": f"aligned, {name}", "seed": seed}
                rows.append(row | found(posed, folder / f"{name}_run", truth))
    return rows


def found(particles: Path, output: Path, angles: NDArray[np.float64]) -> dict[str, Any]:
    """Run `variability` and score its first coordinate."""
    begun = time.process_time()
    follow(variability(VariabilityConfig(particles=particles, output=output)), lambda event: None)
    seconds = time.process_time() - begun
    told = json.loads((output / "variability.json").read_text())
    values: dict[str, Any] = {
        "components": told["components_found"],
        "resolution_angstrom": told["resolution_angstrom"],
        "gain_nats": told["judged"][0]["gain_nats"],
        "chance_nats": told["judged"][0]["chance_nats"],
        "correlation_of_halves": told["judged"][0]["correlation"],
        "cpu_seconds": seconds,
        "peak_gigabytes": peak_gigabytes(),
    }
    table = nc.read_star(output / "particles.star", require_images=False).particles
    if "cryosphereComponent1" in table and angles.any():
        values |= scored(
            table["cryosphereComponent1"].to_numpy(float),
            table["cryosphereComponentError1"].to_numpy(float),
            angles,
        )
    return values


def scored(
    coordinates: NDArray[np.float64], errors: NDArray[np.float64], angles: NDArray[np.float64]
) -> dict[str, float]:
    """Return how coordinates follow the angles, and how much their error bars hold.

    A coordinate is the mean of a posterior whose prior is the population, of variance 1: it is drawn to 0, on
    average to ``1 - error^2`` of the true one. The curve is fitted with that, by weighted least squares.
    """
    kept = 1 - errors**2
    scale = np.abs(angles).max()
    powers = kept[:, None] * np.vander(angles / scale, _DEGREE + 1)
    weights = 1 / np.sqrt(np.maximum(errors**2 * kept, 1e-6))
    curve, *_ = np.linalg.lstsq(powers * weights[:, None], coordinates * weights, rcond=None)
    steps = np.diff(np.polyval(curve, np.linspace(-1, 1, 101)))
    off = np.abs(coordinates - np.polyval(curve, angles / scale)) / errors
    return {
        "correlation": float(abs(np.corrcoef(coordinates, angles)[0, 1])),
        "spearman": float(abs(spearmanr(coordinates, angles).statistic)),
        "monotone": float(np.all(steps > 0) or np.all(steps < 0)),
        "coverage_50_percent": 100 * float(np.mean(off < ndtri(0.75))),
        "coverage_90_percent": 100 * float(np.mean(off < ndtri(0.95))),
        "median_error": float(np.median(errors)),
    }


if __name__ == "__main__":
    main()
