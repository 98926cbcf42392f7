"""New poses take along priors, both conventions of origins, class and statistics."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

import napari_cryosphere
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles import ParticleStack, read_star, write_stack, write_star
from napari_cryosphere.so3.symmetry import angular_error_degrees

NUMBER, PIXEL_SIZE = 5, 1.5


@pytest.fixture
def stack(tmp_path: Path) -> ParticleStack:
    rng = np.random.default_rng(1)
    write_stack(rng.normal(size=(NUMBER, 8, 8)), tmp_path / "a.mrcs", PIXEL_SIZE)
    columns: dict[str, object] = {
        "rlnImageName": [f"{number}@a.mrcs" for number in range(1, NUMBER + 1)],
        "rlnOpticsGroup": 1,
        "rlnClassNumber": [1, 3, 2, 1, 3],
        "rlnMicrographName": "mic.mrc",
        "cryosparc/uid": range(NUMBER),
    }
    for name in ("rlnAngle{}", "rlnAngle{}Prior"):
        columns |= {
            name.format(axis): rng.uniform(0, 90, NUMBER) for axis in ("Rot", "Tilt", "Psi")
        }
    for name in ("rlnOrigin{}Angst", "rlnOrigin{}PriorAngst", "rlnOrigin{}", "rlnOrigin{}Prior"):
        columns |= {name.format(axis): rng.uniform(-3, 3, NUMBER) for axis in "XY"}
    for name in ("rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnAnglePsiFlip"):
        columns[name] = rng.uniform(0, 1, NUMBER)
    for name in ("alignments3D/error", "alignments_class_0/pose[1]"):
        columns[f"cryosparc/{name}"] = rng.uniform(0, 1, NUMBER)
    optics = {"rlnOpticsGroup": [1], "rlnImagePixelSize": PIXEL_SIZE, "rlnImageSize": 8}
    write_star(
        {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(columns)}, tmp_path / "p.star"
    )
    return ParticleStack.read(tmp_path / "p.star")


def test_everything_tied_to_a_pose_moves(stack: ParticleStack) -> None:
    rotations = Rotation.random(NUMBER, random_state=2).as_matrix()
    shifts = np.random.default_rng(3).uniform(-5, 5, (NUMBER, 2))
    old, new = stack.particles, stack.with_poses(rotations, shifts).particles
    # scipy's intrinsic z-y-z angles of the matrix are rot, tilt, psi
    angles = Rotation.from_matrix(rotations).as_euler("ZYZ", degrees=True)
    for axis, name in enumerate(("Rot", "Tilt", "Psi")):
        for column in (f"rlnAngle{name}", f"rlnAngle{name}Prior"):
            np.testing.assert_allclose(new[column], angles[:, axis], atol=1e-6)
            kept = new[f"cryosphereInput{column.removeprefix('rln')}"]
            np.testing.assert_array_equal(kept, old[column])
    for axis, name in enumerate("XY"):
        for column in (f"rlnOrigin{name}Angst", f"rlnOrigin{name}PriorAngst"):
            np.testing.assert_allclose(new[column], shifts[:, axis], rtol=1e-12)
            kept = new[f"cryosphereInput{column.removeprefix('rln')}"]
            np.testing.assert_array_equal(kept, old[column])
        for column in (f"rlnOrigin{name}", f"rlnOrigin{name}Prior"):
            np.testing.assert_allclose(new[column], shifts[:, axis] / PIXEL_SIZE, rtol=1e-12)
    assert new["rlnClassNumber"].tolist() == [1] * NUMBER
    assert new["cryosphereInputClassNumber"].tolist() == [1, 3, 2, 1, 3]
    for name in (
        *("rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnAnglePsiFlip"),
        *("cryosparc/alignments3D/error", "cryosparc/alignments_class_0/pose[1]"),
    ):
        assert name not in new
        kept = "cryosphereInput" + name.removeprefix("rln").removeprefix("cryosparc")
        np.testing.assert_array_equal(new[kept], old[name])
    assert new["cryosparc/uid"].tolist() == list(range(NUMBER))


def test_without_shifts_the_origins_and_their_priors_stay(stack: ParticleStack) -> None:
    new = stack.with_poses(Rotation.random(NUMBER, random_state=2).as_matrix()).particles
    origins = [name for name in stack.particles if name.startswith("rlnOrigin")]
    pd.testing.assert_frame_equal(new[origins], stack.particles[origins])


def test_the_first_input_is_kept(stack: ParticleStack) -> None:
    first, second = (Rotation.random(NUMBER, random_state=seed).as_matrix() for seed in (2, 3))
    new = stack.with_poses(first).with_poses(second).particles
    np.testing.assert_array_equal(new["cryosphereInputAngleRot"], stack.particles["rlnAngleRot"])
    assert new["cryosphereInputClassNumber"].tolist() == [1, 3, 2, 1, 3]


@pytest.mark.parametrize(
    "name", ["rlnAngleRot", "rlnAnglePsiPrior", "rlnOriginX", "rlnOriginXAngst"]
)
def test_columns_of_poses_are_written_with_poses_only(stack: ParticleStack, name: str) -> None:
    with pytest.raises(MetadataError, match=f"{name} belongs to a pose"):
        stack.with_columns({name: np.zeros(NUMBER)})


def test_no_other_module_makes_columns_of_poses() -> None:
    """A quoted name of such a column followed by a colon, or assigned to, is one being made."""
    made = re.compile(
        r"""["']rln(Angle|Origin)[A-Za-z]*["']\s*(:|\]\s*=[^=])|\brln(Angle|Origin)\w*="""
    )
    root = Path(napari_cryosphere.__file__).parent
    makers = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if made.search(path.read_text("utf-8"))
    }
    assert makers <= {"particles/_poses.py", "widgets/quantities.py", "widgets/inspector_panel.py"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")
def test_relion_local_search_stays_with_new_poses(shared_data: Path, tmp_path: Path) -> None:
    """Priors of earlier poses, 41 degrees away, drew RELION's local search back to them."""
    folder = shared_data / "reports"
    stale = ParticleStack.read(folder / "stale_priors.star")
    truth = ParticleStack.read(folder / "stale_priors_truth.star")
    stale.with_poses(truth.rotations(), truth.shifts_angstrom()).save(tmp_path / "new.star")
    (tmp_path / "out").mkdir()
    options = f"""--i new.star --o out/run --ref {folder}/map.mrc --ini_high 12 --firstiter_cc --iter 1 --ctf
        --sigma_ang 2 --healpix_order 4 --oversampling 1 --offset_range 3 --offset_step 1
        --particle_diameter 130 --tau2_fudge 4 --norm --scale --zero_mask --random_seed 1"""
    subprocess.run(
        ["relion_refine", *options.split()],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=300,
    )
    refined = read_star(tmp_path / "out" / "run_it001_data.star")["particles"]
    order = [int(name.split("@")[0]) - 1 for name in refined["rlnImageName"]]
    found = ParticleStack.read(tmp_path / "out" / "run_it001_data.star", require_images=False)
    errors = angular_error_degrees(truth[order].rotations(), found.rotations(), "C1")
    assert np.median(errors) < 6
    assert np.mean(errors > 30) == 0
