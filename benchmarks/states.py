"""Two states of a complex: whether each particle finds its own, and how sure it is.

Runs `align` with one map and with both on the realistic set in which 30 % of the particles are in a second
state, and prints the state's ranking (AUROC), its calibration, the shares, and the poses' errors by state.

    python benchmarks/states.py [--data FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from _common import DATA, roc_area

import napari_cryosphere as nc
from napari_cryosphere.so3.rotations import geodesic_distance_degrees


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DATA / "realistic", help="folder of the realistic sets"
    )
    parser.add_argument("--json", type=Path, help="write the values here")
    args = parser.parse_args()
    stack = nc.read_star(args.data / "gpcr_r4.star")
    truth = nc.read_star(args.data / "gpcr_r4_truth.star").rotations()
    second = pd.read_csv(args.data / "gpcr_r4_labels.csv")["state"].to_numpy() == 2
    maps = [nc.read_map(args.data / name) for name in ("gpcr.mrc", "gpcr_state2.mrc")]
    values: dict[str, float] = {}
    for name, given in (("one_map", maps[:1]), ("two_maps", maps)):
        begun = time.process_time()
        found = nc.align(stack, given)
        values[f"{name}_cpu_ms_per_particle"] = 1e3 * (time.process_time() - begun) / len(stack)
        errors = geodesic_distance_degrees(found.summary.rotations, truth)
        for state, rows in ((1, ~second), (2, second)):
            values[f"{name}_median_degrees_state_{state}"] = float(np.median(errors[rows]))
            values[f"{name}_beyond_30_percent_state_{state}"] = 100 * float(
                np.mean(errors[rows] > 30)
            )
    assert found.states is not None
    said = found.states.probabilities[:, 1]
    values["auroc"] = roc_area(said, second)
    values["right_percent"] = 100 * float(np.mean((said > 0.5) == second))
    values["mean_probability_of_chosen"] = float(found.states.probabilities.max(axis=1).mean())
    values["share_of_state_2"], values["true_share_of_state_2"] = (
        float(found.states.shares[1]),
        float(second.mean()),
    )
    for name, value in values.items():
        print(f"{name:40s} {value:8.3f}")
    if args.json:
        args.json.write_text(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
