"""The apoferritin example: picking and extraction on micrographs whose particles are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from napari_cryosphere.particles import ParticleStack

EXAMPLE = Path(__file__).parents[2] / "examples" / "apoferritin"
SIZE, PIXEL, BOX, DIAMETER = 640, 3.0, 64, 124.0
SPOTS = [(x, y) for x in range(90, 600, 110) for y in range(80, 600, 120)]


@pytest.fixture
def pick(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(EXAMPLE)
    import pick

    return pick


@pytest.fixture
def micrographs(tmp_path: Path, pick: object) -> pd.DataFrame:
    """The table of one micrograph with rings at SPOTS, dark, in noise under a gradient."""
    rng = np.random.default_rng(0)
    ring = pick.ring(BOX, DIAMETER / PIXEL / 2, 7.0)
    pixels = np.zeros((SIZE, SIZE), np.float32)
    for x, y in SPOTS:
        pixels[y - 32 : y + 32, x - 32 : x + 32] -= ring / ring.std()
    pixels += 2 * rng.normal(size=pixels.shape) + np.linspace(0, 1, SIZE)
    with mrcfile.new(tmp_path / "m.mrc") as file:
        file.set_data(gaussian_filter(pixels, 0.5).astype(np.float32))
    row = {"rlnMicrographName": str(tmp_path / "m.mrc"), "rlnOpticsGroup": 1}
    return pd.DataFrame([row | {"rlnDefocusU": 2e4, "rlnDefocusV": 2e4, "rlnDefocusAngle": 0.0}])


def test_particles_are_picked_where_they_are(
    pick: object, micrographs: pd.DataFrame, tmp_path: Path
) -> None:
    optics = pd.DataFrame(
        [
            {"rlnOpticsGroup": 1, "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7}
            | {"rlnAmplitudeContrast": 0.07, "rlnMicrographPixelSize": PIXEL}
        ]
    )
    star = pick.extract(micrographs, optics, tmp_path / "extracted", BOX, DIAMETER)
    stack = ParticleStack.read(star)
    found = stack.particles[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float)
    apart = np.linalg.norm(found[:, None] - np.array(SPOTS, float), axis=-1)
    assert (apart.min(0) < 4).sum() == len(SPOTS)
    assert (apart.min(1) < 4).all()
    assert stack.pixel_size_angstrom == PIXEL
    assert stack.has_ctf
    mean = stack.images().mean(0)
    radius = np.hypot(*np.indices((BOX, BOX)) - BOX // 2)
    assert mean[(radius > 12) & (radius < 18)].mean() > mean[radius > 26].mean() + 0.3


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE / "run.py", "--particles", tmp_path / "a.star"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "give --map, and --micrographs or --particles" in done.stderr
    assert (
        json.loads((EXAMPLE.parents[1] / "docs/results/apoferritin.json").read_text())["particles"]
        == 1865
    )
