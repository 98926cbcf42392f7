"""RELION keeps the poses written for it; its local searches lose those outside its asymmetric unit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.so3.asymmetric_unit import inside_asymmetric_unit
from napari_cryosphere.so3.symmetry import angular_error_degrees

NUMBER = 12


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")
def test_local_search_keeps_poses_that_were_written_for_its_symmetry(
    shared_data: Path, tmp_path: Path
) -> None:
    """A pose outside the unit ends beyond 30 degrees from the truth; none that was moved inside
    does.
    """
    truth = ParticleStack.read(shared_data / "particles/betagalD2_train.star")
    start = ParticleStack.read(
        shared_data / "relion_reference/bgal_pert.star", data_dir=shared_data / "particles"
    )
    outside = np.flatnonzero(~inside_asymmetric_unit(start.rotations()[:, :, 2], "D2"))
    start = start[outside[:: len(outside) // NUMBER][:NUMBER]]
    start.save(tmp_path / "raw.star")
    start.with_poses(start.rotations(), symmetry="D2").save(tmp_path / "unit.star")

    def lost(name: str) -> float:
        """Return the fraction of poses beyond 30 degrees after one iteration of local search."""
        reference = shared_data / "particles/betagalD2_truth.mrc"
        (tmp_path / name).mkdir()
        options = f"""--i {name}.star --o {name}/run --ref {reference} --ini_high 15 --firstiter_cc --iter 1
            --sym D2 --ctf --healpix_order 4 --sigma_ang 5 --oversampling 1 --offset_range 3 --offset_step 1
            --particle_diameter 190 --tau2_fudge 4 --norm --scale --zero_mask --random_seed 1"""
        command = ["relion_refine", *options.split()]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
        refined = ParticleStack.read(tmp_path / name / "run_it001_data.star", require_images=False)
        images = [int(image.split("@")[0]) - 1 for image in refined.image_names()]
        errors = angular_error_degrees(truth[images].rotations(), refined.rotations(), "D2")
        return float(np.mean(errors > 30))

    assert lost("unit") == 0
    assert lost("raw") > 0.2
