"""Make the answers in tests/data/cesped with CESPED's own package (PyPI ``cesped`` 25.12.0).

Run it in this folder, in an environment of its own that has ``cesped`` and what it needs, and
``relion_reconstruct`` on the path for the last part::

    python make_cesped_reference.py particles maps            # what the tests read
    python make_cesped_reference.py entry FOLDER              # metrics of whole entries

``particles`` writes true and predicted poses of a C1 and a D2 set and what the package says of
them; ``maps`` two maps, a mask, and their PCC and FSC resolutions; ``entry`` runs the package's
evaluation on each entry of a folder in CESPED's layout: one that has ``mask.mrc``,
``predicted_0.star`` and ``predicted_1.star`` too, as ``tests/evaluation/cesped_test_entries.py``
makes them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import starfile
from scipy.spatial.transform import Rotation

FOLDER = Path(__file__).parent / "cesped"
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
SHIFTS = ["rlnOriginXAngst", "rlnOriginYAngst"]
WEIGHT = "rlnMaxValueProbDistribution"


def table(half: int, number: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the truth of one half."""
    angles = Rotation.random(number, random_state=rng).as_euler("ZYZ", degrees=True)
    return pd.DataFrame(
        {
            "rlnImageName": [f"{row + 1:06d}@particles_{half}.mrcs" for row in range(number)],
            "rlnOpticsGroup": 1,
            "rlnRandomSubset": half + 1,
            **dict(zip(ANGLES, angles.T.round(4), strict=True)),
            **dict(zip(SHIFTS, rng.normal(0, 4, (2, number)).round(4), strict=True)),
            WEIGHT: rng.uniform(0.05, 1, number).round(4),
        }
    )


def predictions(truth: pd.DataFrame, symmetry: str, rng: np.random.Generator) -> pd.DataFrame:
    """Turn the truth by 3 to 170 degrees, replace it by an equivalent, and shuffle the rows."""
    number = len(truth)
    true = Rotation.from_euler("ZYZ", truth[ANGLES].to_numpy(), degrees=True)
    axes = rng.normal(size=(number, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    wrong = Rotation.from_rotvec(axes * np.radians(rng.uniform(3, 170, number))[:, None])
    group = Rotation.create_group(symmetry)
    found = group[rng.integers(len(group), size=number)] * true * wrong
    angles = found.as_euler("ZYZ", degrees=True).round(4)
    moved = truth[SHIFTS].to_numpy() + rng.normal(0, 2, (number, 2))
    changed = truth.drop(columns=WEIGHT)
    changed[ANGLES], changed[SHIFTS] = angles, moved.round(4)
    changed["rlnParticleFigureOfMerit"] = rng.uniform(0, 1, number).round(4)
    return changed.sample(frac=1, random_state=3).reset_index(drop=True)


def optics() -> pd.DataFrame:
    """Return the optics table of images of 24 pixels."""
    return pd.DataFrame(
        {
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnOpticsGroup": [1],
            "rlnImagePixelSize": [3.0],
            "rlnImageSize": [24],
        }
    )


def make_particles() -> None:
    """Write poses and what the package says of them."""
    from cesped.evaluateEntry import Evaluator
    from cesped.utils.anglesStats import computeAngularError

    answers: dict[str, Any] = {}
    evaluator = Evaluator("SO3", n_cpus=1)
    for symmetry, seed in (("C1", 1), ("D2", 2)):
        rng = np.random.default_rng(seed)
        for half, number in ((0, 40), (1, 31)):
            truth = table(half, number, rng)
            found = predictions(truth, symmetry, rng)
            names = [FOLDER / f"{kind}_{symmetry}_{half}.star" for kind in ("truth", "predicted")]
            for part, name in zip((truth, found), names, strict=True):
                starfile.write({"optics": optics(), "particles": part}, name, overwrite=True)
            _, mean, weighted, rmse, total = evaluator.preparePredStar(
                *map(str, names), None, symmetry
            )
            ordered = found.set_index("rlnImageName").loc[truth["rlnImageName"]]
            both = ordered[ANGLES].to_numpy(), truth[ANGLES].to_numpy()
            missing = computeAngularError(*both, confidence=None, symmetry=symmetry)[1]
            nothing = computeAngularError(*both, confidence=np.zeros(number), symmetry=symmetry)[1]
            few = np.where(np.arange(number) % 3, 0, truth[WEIGHT])
            some = computeAngularError(*both, confidence=few, symmetry=symmetry)[1]
            answers[f"{symmetry}_{half}"] = {
                "mean": float(mean),
                "weighted": float(weighted),
                "total_weight": float(total),
                "shift_rmse": float(rmse),
                "weighted_without_weights": None if np.isnan(missing).all() else float(missing),
                "weighted_by_zeros": None if np.isnan(nothing) else float(nothing),
                "weighted_by_every_third": float(some),
            }
    (FOLDER / "particles.json").write_text(json.dumps(answers, indent=2) + "\n")


def make_maps() -> None:
    """Write two noisy maps, a mask, and what the package says of them."""
    from cesped.utils.volumeStats import compute_stats

    rng, box = np.random.default_rng(5), 24
    axis = np.arange(box) - box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    centres = rng.normal(0, 3, (12, 3))
    clean = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 2.5) for a, b, c in centres)
    radius = np.sqrt(x**2 + y**2 + z**2)
    mask = np.clip((10 - radius) / 3, 0, 1).astype(np.float32)
    maps = [(clean + rng.normal(0, 0.12, clean.shape)).astype(np.float32) for _ in range(2)]
    files = []
    for name, voxels in (("map_0", maps[0]), ("map_1", maps[1]), ("mask", mask)):
        files.append(str(FOLDER / f"{name}.mrc"))
        mrcfile.write(files[-1], voxels, voxel_size=3.0, overwrite=True)
    answers: dict[str, float] = {}
    for threshold, written in ((0.143, "0143"), (0.5, "05")):
        (plain, masked), (unmasked_res, masked_res, *_) = compute_stats(
            *files, resolution_threshold=threshold
        )
        answers |= {
            "pcc": float(plain),
            "pcc_masked": float(masked),
            f"fscr_{written}": float(unmasked_res),
            f"fscr_{written}_masked": float(masked_res),
        }
    (FOLDER / "maps.json").write_text(json.dumps(answers, indent=2) + "\n")


def make_entries(folder: Path) -> None:
    """Evaluate entries with the package and relion_reconstruct."""
    from cesped.evaluateEntry import evaluate

    # the package writes its metrics as JSON, which knows no float32
    json.JSONEncoder.default = lambda self, value: float(value)  # type: ignore[method-assign]
    answers = {}
    for entry in sorted(path for path in folder.iterdir() if (path / "mask.mrc").is_file()):
        with tempfile.TemporaryDirectory() as out:
            shutil.copy(entry / "mask.mrc", out)
            metrics = evaluate(
                entry.name,
                str(entry / "predicted_0.star"),
                str(entry / "predicted_1.star"),
                predictionType="SO3",
                benchmarkDir=str(folder),
                relionBinDir=str(Path(shutil.which("relion_reconstruct") or "").parent),
                n_cpus=1,
                outdir=out,
            )
        answers[entry.name] = {name: float(value) for name, value in metrics.items()}
    (FOLDER / "entries.json").write_text(json.dumps(answers, indent=2) + "\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    if "particles" in sys.argv:
        make_particles()
    if "maps" in sys.argv:
        make_maps()
    if "entry" in sys.argv:
        make_entries(Path(sys.argv[sys.argv.index("entry") + 1]))
