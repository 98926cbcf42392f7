"""RELION itself reads what is written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_cryosphere.particles import (
    DensityMap,
    ParticleStack,
    read_star,
    write_stack,
    write_star,
)

STORED = Path(__file__).parents[1] / "data" / "relion"


def relion(folder: Path, program: str, *arguments: str) -> str:
    """Run a program of RELION in a folder; skip if it is not installed."""
    executable = shutil.which(program)
    if executable is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def views(tmp_path: Path) -> Path:
    """A folder with six views that RELION projected, shifted and with CTF: views.star, views.mrcs."""
    folder = tmp_path / "views"
    folder.mkdir()
    tables = read_star(STORED / "views.star")
    rounded = tables["particles"].round(6)  # as RELION writes them
    write_star(tables | {"particles": rounded}, folder / "views.star")
    shutil.copy(STORED / "shift_ctf.mrcs", folder / "views.mrcs")
    return folder


def test_reconstruct_from_a_saved_star(views: Path, tmp_path: Path) -> None:
    options = ("--ctf", "--pad", "1", "--iter", "1")
    stack = ParticleStack.read(views / "views.star")
    stack.save(tmp_path / "plain.star")
    stack.with_poses(stack.rotations(), stack.shifts_angstrom()).save(tmp_path / "posed.star")
    write_star({"": _without_optics(read_star(views / "views.star"))}, views / "old.star")
    ParticleStack.read(views / "old.star").save(tmp_path / "old.star")
    base = str(tmp_path / "base.mrc")
    relion(views, "relion_reconstruct", "--i", "views.star", "--o", base, *options)
    expected = DensityMap.read(tmp_path / "base.mrc").voxels
    # An angle or shift changed by 1e-14 moves a map of so few particles by 3 %; old.star had shifts
    # in pixels.
    for name, least in (("plain", 1.0), ("posed", 1.0), ("old", 0.999)):
        relion(
            tmp_path, "relion_reconstruct", "--i", f"{name}.star", "--o", f"{name}.mrc", *options
        )
        map_of_name = DensityMap.read(tmp_path / f"{name}.mrc").voxels
        assert np.corrcoef(map_of_name.ravel(), expected.ravel())[0, 1] >= least - 1e-9


def _without_optics(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return particles as RELION 3.0 has them: origins in pixels, optics in every row."""
    optics, particles = tables["optics"].iloc[0], tables["particles"].copy()
    size = float(optics["rlnImagePixelSize"])
    for axis in "XY":
        particles[f"rlnOrigin{axis}"] = particles.pop(f"rlnOrigin{axis}Angst") / size
    for name in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        particles[name] = float(optics[name])
    return particles.drop(columns="rlnOpticsGroup").assign(
        rlnMagnification=10_000.0, rlnDetectorPixelSize=size
    )


def test_reconstruct_from_a_converted_cs_file(shared_data: Path, tmp_path: Path) -> None:
    options = ("--ctf", "--pad", "1", "--iter", "1")
    source = shared_data / "wild/variants"
    ParticleStack.read(source / "made_cryosparc.cs").save(tmp_path / "cs.star")
    assert "_cryosparc/uid" in (tmp_path / "cs.star").read_text()
    relion(
        source,
        "relion_reconstruct",
        "--i",
        "r31_base.star",
        "--o",
        str(tmp_path / "base.mrc"),
        *options,
    )
    relion(tmp_path, "relion_reconstruct", "--i", "cs.star", "--o", "cs.mrc", *options)
    maps = [DensityMap.read(tmp_path / f"{name}.mrc").voxels.ravel() for name in ("cs", "base")]
    assert np.corrcoef(*maps)[0, 1] > 0.99  # poses in single precision, see above


def test_image_handler_reads_stack_and_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    write_stack(rng.normal(5.0, 1.0, size=(4, 16, 16)), tmp_path / "a.mrcs", 1.5)
    voxels = rng.normal(3.0, 1.0, size=(16, 16, 16)).astype(np.float32)
    DensityMap(voxels, 1.5).save(tmp_path / "map.mrc")
    stats = relion(tmp_path, "relion_image_handler", "--i", "map.mrc", "--stats")
    assert "= 16 x 16 x 16" in stats
    assert f"avg= {voxels.mean():.3f}"[:9] in stats.replace("  ", " ")
    relion(
        tmp_path,
        "relion_image_handler",
        "--i",
        "a.mrcs",
        "--o",
        "neg.mrcs",
        "--multiply_constant",
        "-1",
    )
    first, second = (
        ParticleStack.read(tmp_path / "a.mrcs"),
        ParticleStack.read(tmp_path / "neg.mrcs"),
    )
    np.testing.assert_allclose(second.images(), -first.images(), rtol=1e-6)


def test_relion_rewrites_a_written_star(tmp_path: Path) -> None:
    optics = {
        "rlnOpticsGroup": 1,
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
    }
    optics |= {"rlnImagePixelSize": 1.5, "rlnImageSize": 8, "rlnImageDimensionality": 2}
    images = {"rlnImageName": ["1@a.mrcs", "2@a.mrcs", "3@a.mrcs"], "rlnOpticsGroup": 1}
    particles = pd.DataFrame(images | {"rlnDefocusU": [1e-5, 12345.678901234, 3e5]})
    write_star({"particles": particles, "optics": pd.DataFrame([optics])}, tmp_path / "in.star")
    relion(tmp_path, "relion_star_handler", "--i", "in.star", "--o", "out.star")
    again = read_star(tmp_path / "out.star")
    np.testing.assert_allclose(
        again["particles"]["rlnDefocusU"], particles["rlnDefocusU"], rtol=1e-6, atol=1e-6
    )
    assert again["optics"]["rlnImagePixelSize"][0] == 1.5
