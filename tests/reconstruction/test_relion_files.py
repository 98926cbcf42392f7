"""RELION's tables and job folders.

``tests/data/relion/run_it007_half1_model.star`` was written by RELION 3.1.3: ``mpirun -n 3
relion_refine_mpi --auto_refine --split_random_halves`` on 80 particles of 32 pixels of 6 A.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import starfile

import napari_cryosphere as nc
from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.reconstruction import write_fsc_csv
from napari_cryosphere.reconstruction.relion_files import RelionJob, read_fsc_star
from napari_cryosphere.widgets.state.kinds import kind_of, outputs_in

MODEL = Path(__file__).resolve().parents[1] / "data" / "relion" / "run_it007_half1_model.star"


def test_the_fsc_of_a_refinement() -> None:
    curve = read_fsc_star(MODEL)["gold_standard"]
    assert (curve.box, curve.pixel_size_angstrom) == (32, pytest.approx(6.0, rel=1e-5))
    assert curve.values[:4].tolist() == [1.0, 0.975164, 0.887114, 0.417807]
    general = starfile.read(MODEL)["model_general"]
    assert curve.box == general["rlnOriginalImageSize"]
    assert curve.pixel_size_angstrom == pytest.approx(general["rlnPixelSize"], rel=1e-5)


def test_the_curves_of_a_postprocessing(shared_data: Path) -> None:
    path = shared_data / "relion_reference/reconstruct/ribo70S_train_pp.star"
    curves = read_fsc_star(path)
    assert set(curves) == {"corrected", "unmasked", "masked", "phase_randomised"}
    assert curves["corrected"].box == 64
    assert curves["corrected"].pixel_size_angstrom == pytest.approx(5.0)
    stored = starfile.read(path)["general"]["rlnFinalResolution"]
    assert curves["corrected"].resolution_angstrom() == pytest.approx(stored, rel=0.05)
    assert set(nc.read(path)) == set(curves)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_general\n\n_rlnFinalResolution 12.0\n", "holds no FSC"),
        ("not a star file\n", "STAR file"),
        ("data_fsc\n\nloop_\n_rlnResolution #1\n_rlnGoldStandardFsc #2\n0 1\nx 0.5\n", "no number"),
    ],
)
def test_what_is_no_curve_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "postprocess.star"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_fsc_star(path)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A refinement as RELION leaves it while it runs."""
    folder = tmp_path / "Refine3D" / "job012"
    folder.mkdir(parents=True)
    (folder / "job.star").write_text("data_job\n\n_rlnJobType 10\n_rlnJobIsContinue 0\n")
    density = nc.phantom(box=16, pixel_size_angstrom=12.0)
    nc.simulate(density, 8).save(folder / "run_it006_data.star")
    nc.simulate(density, 9).save(folder / "run_it007_data.star")
    for half in (1, 2):
        for iteration in (6, 7):
            density.save(folder / f"run_it{iteration:03d}_half{half}_class001.mrc")
    shutil.copy(MODEL, folder)
    return folder


def test_a_job_opens_as_what_it_is(job: Path) -> None:
    found = nc.read(job)
    assert isinstance(found, RelionJob)
    assert found.kind == "Refine3D"
    assert set(found.files) == {"particles", "map", "fsc"}
    assert found.files["map"].name == "run_it007_half1_class001.mrc"
    assert len(found.particles) == 9
    assert found.density.box == 16
    assert list(found.curves) == ["gold_standard"]
    with pytest.raises(FileFormatError, match="has no half1; it has particles, map, fsc"):
        _ = found.halves


def test_a_dropped_job_shows_its_last_particles_and_map(job: Path) -> None:
    names = [path.name for path in outputs_in(job)]
    assert names == ["run_it007_data.star", "run_it007_half1_class001.mrc"]
    assert kind_of(job) == "outputs"


def test_a_finished_job_gives_its_last_files(job: Path) -> None:
    density = nc.phantom(box=16, pixel_size_angstrom=12.0)
    for name in (
        "run_class001.mrc",
        "run_half1_class001_unfil.mrc",
        "run_half2_class001_unfil.mrc",
    ):
        density.save(job / name)
    found = RelionJob.open(job)
    assert found.files["map"].name == "run_class001.mrc"
    assert [half.box for half in found.halves] == [16, 16]


def test_a_folder_without_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no RELION job"):
        nc.read(tmp_path)
    (tmp_path / "job.star").write_text("data_job\n")
    with pytest.raises(FileFormatError, match="left no particles"):
        nc.read(tmp_path)


def test_other_files_open_as_what_they_are(job: Path, tmp_path: Path) -> None:
    assert isinstance(nc.read(job / "run_it007_data.star"), nc.ParticleStack)
    assert isinstance(nc.read(job / "run_it007_data.mrcs"), nc.ParticleStack)
    assert isinstance(nc.read(job / "run_it007_half1_class001.mrc"), nc.DensityMap)
    write_fsc_csv(read_fsc_star(MODEL), tmp_path / "fsc.csv", overwrite=False)
    assert list(nc.read(tmp_path / "fsc.csv")) == ["gold_standard"]
    nc.sample_model().save(tmp_path / "model.safetensors")
    assert isinstance(nc.read(tmp_path / "model.safetensors"), nc.PoseModel)
    assert isinstance(nc.read(tmp_path), nc.PoseModel)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(FileFormatError, match="no known kind"):
        nc.read(tmp_path / "notes.txt")
    with pytest.raises(nc.CryosphereError, match="does not exist"):
        nc.read(tmp_path / "gone.star")
