"""Two states of a complex: whether each particle finds its own, and how sure it is.

Runs `align` with one map and with both on the realistic set in which 30 % of the particles are in a second
state, and prints the state's ranking (AUROC), its calibration, the shares, and the poses' errors by state.
With ``--refine`` it also simulates mixtures of the two maps, 70 and 30 %, and has `refine` find the states:
from the first map alone (`--classes 2`), and from both. Poses of a state are scored after the one turn of
its frame that images do not tell. ``--train MINUTES`` trains a network on such a mixture, with the states
and poses that `align` finds with both maps, and asks it and `align` for the states of other particles.

    python benchmarks/states.py [--data FOLDER] [--refine] [--train MINUTES] [--seeds N] [--number N]
        [--snr S] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from _common import DATA, roc_area
from scipy.spatial.transform import Rotation

import napari_cryosphere as nc
from napari_cryosphere.jobs.align import align
from napari_cryosphere.jobs.configs import AlignConfig, InferConfig, RefineConfig, SimulateConfig
from napari_cryosphere.jobs.events import follow
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.refine import refine
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.so3.rotations import geodesic_distance_degrees

STATES = ("gpcr.mrc", "gpcr_state2.mrc")
TESTED = 1000  # particles that the network has not seen
_IN_FRAME_DEGREES = 15.0  # poses that are farther from the median turn do not move the frame


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DATA / "realistic", help="folder of the realistic sets"
    )
    parser.add_argument("--refine", action="store_true", help="refine as well")
    parser.add_argument("--train", type=float, help="minutes for a network that tells states apart")
    parser.add_argument("--seeds", type=int, default=3, help="of the mixtures that are refined")
    parser.add_argument("--number", type=int, default=1500, help="of particles in each")
    parser.add_argument("--snr", type=float, default=0.05, help="of these, as simulate has it")
    parser.add_argument("--json", type=Path, help="write the values here")
    args = parser.parse_args()
    stack = nc.read_star(args.data / "gpcr_r4.star")
    truth = nc.read_star(args.data / "gpcr_r4_truth.star").rotations()
    second = pd.read_csv(args.data / "gpcr_r4_labels.csv")["state"].to_numpy() == 2
    maps = [nc.read_map(args.data / name) for name in STATES]
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
    for seed in range(args.seeds if args.refine else 0):
        for begin in ("one_map", "two_maps"):
            found = refined_mixture(args.data, args.number, args.snr, seed, begin == "two_maps")
            one = {f"refine_{begin}_seed_{seed}_{name}": value for name, value in found.items()}
            print(one, flush=True)
            values |= one
    if args.train:
        values |= learnt_states(args.data, args.number, args.snr, args.train)
    for name, value in values.items():
        print(f"{name:40s} {value:8.3f}")
    if args.json:
        args.json.write_text(json.dumps(values, indent=1))


def simulated(folder: Path, maps: list[Path], number: int, snr: float, seed: int) -> Path:
    """Simulate a mixture of two maps, 70 and 30 %; returns its STAR file."""
    particles = folder / f"mixture{seed}.star"
    mixture = SimulateConfig(
        map=maps[0],
        other_map=(maps[1],),
        share=(0.7, 0.3),
        output=particles,
        number=number,
        snr=snr,
        seed=seed,
    )
    follow(simulate(mixture), lambda event: None)
    return particles


def aligned(particles: Path, maps: list[Path]) -> nc.ParticleStack:
    """Align to the maps of the states."""
    output = particles.with_stem(particles.stem + "_aligned")
    config = AlignConfig(particles=particles, map=tuple(maps), output=output)
    follow(align(config), lambda event: None)
    return nc.read_star(output)


def learnt_states(data: Path, number: int, snr: float, minutes: float) -> dict[str, float]:
    """Train on a mixture as `align` sorts it, and score network and `align` on another."""
    maps = [data / name for name in STATES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seen, apart = (
            simulated(folder, maps, each, snr, seed) for each, seed in ((number, 0), (TESTED, 1))
        )
        truth = nc.read_star(apart)
        state = truth.particles["rlnClassNumber"].to_numpy()
        labelled = aligned(seen, maps)
        begun = time.process_time()
        model = nc.train(labelled, minutes=minutes)
        values = {"train_cpu_s": time.process_time() - begun}
        stored, output = folder / "model.safetensors", folder / "said.star"
        model.save(stored)
        begun = time.process_time()
        config = InferConfig(particles=apart, model=stored, output=output)
        follow(infer(config), lambda event: None)
        values["infer_cpu_ms_per_particle"] = 1e3 * (time.process_time() - begun) / TESTED
        for who, found in (("network", nc.read_star(output)), ("align", aligned(apart, maps))):
            said = found.particles["cryosphereStateProbability2"].to_numpy(float)
            errors = geodesic_distance_degrees(found.rotations(), truth.rotations())
            own = {
                "auroc": roc_area(said, state == 2),
                "right_percent": 100 * float(np.mean((said > 0.5) == (state == 2))),
                "mean_probability_of_chosen": float(np.maximum(said, 1 - said).mean()),
            }
            for one in (1, 2):
                own[f"median_degrees_state_{one}"] = float(np.median(errors[state == one]))
            values |= {f"{who}_{name}": value for name, value in own.items()}
    return values


def refined_mixture(data: Path, number: int, snr: float, seed: int, both: bool) -> dict[str, float]:
    """Simulate a mixture, find its states from the first map or from both, and score them."""
    maps = [data / name for name in STATES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        particles = simulated(folder, maps, number, snr, seed)
        truth, begun = nc.read_star(particles), time.process_time()
        given = tuple(maps) if both else tuple(maps[:1])
        config = RefineConfig(particles=particles, map=given, output=folder / "run", classes=2)
        follow(refine(config), lambda event: None)
        seconds = time.process_time() - begun
        return {"cpu_ms_per_particle": 1e3 * seconds / number} | scored(
            nc.read_star(folder / "run" / "particles.star"), truth
        )


def scored(found: nc.ParticleStack, truth: nc.ParticleStack) -> dict[str, float]:
    """Return how well two states were found: own-state shares, AUROC, median errors in each one's frame."""
    state = truth.particles["rlnClassNumber"].to_numpy()
    if "cryosphereStateProbability2" not in found.particles:
        return {"states": 1.0}
    values = {"states": 2.0}
    said = found.particles["cryosphereStateProbability2"].to_numpy(float)
    values["auroc"] = roc_area(said, state == 2)
    for one in (1, 2):
        rows = state == one
        own = found.particles["rlnClassNumber"].to_numpy()[rows] == one
        values[f"own_percent_state_{one}"] = 100 * float(np.mean(own))
        turns = Rotation.from_matrix(
            found.rotations()[rows] @ np.swapaxes(truth.rotations()[rows], 1, 2)
        )
        frame = Rotation.identity()
        for _ in range(5):  # of a robust mean
            near = np.degrees((frame.inv() * turns).magnitude()) < _IN_FRAME_DEGREES
            frame = turns[near].mean() if near.any() else frame
        errors = np.degrees((frame.inv() * turns).magnitude())
        values[f"frame_degrees_state_{one}"] = float(np.degrees(frame.magnitude()))
        values[f"median_degrees_state_{one}"] = float(np.median(errors))
    return values


if __name__ == "__main__":
    main()
