"""Jobs end to end on small particles: what they write, and that failures leave nothing behind."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
import torch

from napari_cryosphere._generators import returned
from napari_cryosphere.errors import CryosphereError, FileFormatError, MetadataError, ModelError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import (
    FscConfig,
    InferConfig,
    ReconstructConfig,
)
from napari_cryosphere.jobs.events import (
    Event,
    Events,
    Note,
    Progress,
    Result,
    Snapshot,
    follow,
)
from napari_cryosphere.jobs.fsc import fsc
from napari_cryosphere.jobs.infer import images_for, infer, refine
from napari_cryosphere.jobs.info import describe
from napari_cryosphere.jobs.reconstruct import Reconstruction, reconstruct, reconstruct_stack
from napari_cryosphere.jobs.sample import make_sample, sample_model
from napari_cryosphere.model.card import Image2SphereConfig, NoveltyCard
from napari_cryosphere.model.novelty import FALSE_ALARM_RATE, Novelty
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.particles import DensityMap, ParticleStack, write_stack
from napari_cryosphere.reconstruction import WeightedPoses, masked_correlation
from napari_cryosphere.so3.rotations import random_rotations

SMALL = Image2SphereConfig(
    box=16, encoder_channels=(4, 8), sphere_channels=8, sphere_order=2, l_max=3, so3_channels=2
)


def run(events: Events) -> Result:
    return follow(events, lambda event: None)


def test_simulated_star_is_read_by_starfile_and_holds_the_truth(sample: Path) -> None:
    blocks = starfile.read(sample / "particles.star")
    assert len(blocks["particles"]) == 240
    assert (
        float(
            blocks["optics"]["rlnImagePixelSize"].iloc[0]
            if hasattr(blocks["optics"], "columns")
            else 0
        )
        == 6.0
    )
    assert blocks["particles"]["rlnImageName"].iloc[-1] == "000240@particles.mrcs"


def test_reconstruction_from_true_poses_is_the_map(sample: Path, tmp_path: Path) -> None:
    config = ReconstructConfig(
        particles=sample / "particles.star", output=tmp_path / "map.mrc", half_maps=True
    )
    result = run(reconstruct(config))
    assert {"map", "half1", "half2", "fsc"} == set(result.outputs)
    density, truth = DensityMap.read(tmp_path / "map.mrc"), DensityMap.read(sample / "map.mrc")
    assert masked_correlation(density.voxels, truth.voxels) > 0.8
    assert density.pixel_size_angstrom == pytest.approx(6.0)
    with (tmp_path / "map_fsc.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["shell", "resolution_angstrom", "fsc"]
    assert rows[0]["resolution_angstrom"] == "inf"
    assert float(rows[4]["resolution_angstrom"]) == pytest.approx(32 * 6 / 4, abs=1e-3)
    assert float(rows[2]["fsc"]) > 0.9


def test_fsc_of_a_map_with_itself(sample: Path, tmp_path: Path) -> None:
    config = FscConfig(
        first=sample / "map.mrc", second=sample / "map.mrc", output=tmp_path / "fsc.csv"
    )
    result = run(fsc(config))
    assert result.metrics["correlation"] == pytest.approx(1)
    assert result.metrics["resolution_05_angstrom"] == pytest.approx(12.0)


def test_fsc_of_maps_on_other_grids_says_that_it_resamples(sample: Path, tmp_path: Path) -> None:
    density = DensityMap.read(sample / "map.mrc")
    padded = np.pad(density.voxels, 8)
    DensityMap(padded, density.pixel_size_angstrom).save(tmp_path / "larger.mrc")
    DensityMap(density.voxels, 5.0).save(tmp_path / "finer.mrc")  # a header that is wrong
    found = {}
    for name in ("larger", "finer"):
        config = FscConfig(
            first=sample / "map.mrc",
            second=tmp_path / f"{name}.mrc",
            output=tmp_path / f"{name}.csv",
        )
        seen: list[object] = []
        result = follow(fsc(config), seen.append)
        notes = [event.text for event in seen if isinstance(event, Note) and event.warning]
        assert any("is resampled to the grid of" in text for text in notes)
        found[name] = result.metrics["correlation"]
    assert found["larger"] > 0.9999
    assert found["finer"] < 0.95


def test_predictions_keep_every_column_and_add_the_uncertainty(
    trained: Path, sample: Path, tmp_path: Path
) -> None:
    config = InferConfig(
        particles=sample / "particles.star", model=trained, output=tmp_path / "p.star", device="cpu"
    )
    result = run(infer(config))
    before, after = (
        starfile.read(path)["particles"]
        for path in (sample / "particles.star", tmp_path / "p.star")
    )
    assert set(before.columns) <= set(after.columns)
    for column in ("rlnDefocusU", "rlnMicrographName", "rlnOriginXAngst", "rlnRandomSubset"):
        assert (after[column] == before[column]).all()
    np.testing.assert_allclose(after["cryosphereInputAngleRot"], before["rlnAngleRot"], atol=1e-5)
    assert not np.allclose(after["rlnAngleRot"], before["rlnAngleRot"])
    assert after["cryosphereConfidence"].between(0, 1).all()
    assert after["cryosphereSpread"].between(0, 180).all()
    assert (after["cryosphereEntropy"] <= 1e-3).all()
    assert after["rlnMaxValueProbDistribution"].between(0, 1).all()
    assert result.metrics["particles"] == 240


def test_junk_is_novel(trained: Path, sample: Path, tmp_path: Path) -> None:
    """The column comes from the model alone, whole files or parts of them, and tells noise from
    particles.
    """
    plain, stack = PoseModel.load(trained), ParticleStack.read(sample / "particles.star")
    images = images_for(plain, stack).load()
    told = plain.card.model_copy(
        update={"novelty": NoveltyCard(false_alarm_rate=0.1, particles=80)}
    )
    model = PoseModel(plain.network, told, Novelty.fit(images[::3], images[1::3], 0.1))
    model.save(tmp_path / "model.safetensors")
    output = tmp_path / "predicted.star"
    run(
        infer(
            InferConfig(
                particles=sample / "particles.star", model=tmp_path, output=output, device="cpu"
            )
        )
    )
    found = ParticleStack.read(output)
    novelty = found.particles["cryosphereNovelty"].to_numpy(float)
    assert (novelty[2::3] > 1).mean() < 0.3
    noise = torch.from_numpy(
        np.random.default_rng(0).standard_normal((40, 16, 16), dtype=np.float32)
    )
    distance = model.predict_all(noise).novelty
    assert distance is not None
    assert (distance > 1).mean() > 0.9


def test_a_set_that_is_novel_as_a_whole_says_so(tmp_path: Path) -> None:
    """The shipped model knows the sample's particles; noise in their place is unlike them."""
    for _ in make_sample(tmp_path, 60):
        pass
    stack = ParticleStack.read(tmp_path / "particles.star")
    noise = np.random.default_rng(0).normal(size=(60, stack.box, stack.box)).astype(np.float32)
    sample_model().save(tmp_path / "model.safetensors")
    warnings, shares = [], []
    for _ in range(2):
        output = tmp_path / "predicted.star"
        config = InferConfig(
            particles=tmp_path / "particles.star",
            model=tmp_path,
            output=output,
            device="cpu",
            overwrite=True,
        )
        notes = [event for event in infer(config) if isinstance(event, Note) and event.warning]
        warnings.append([note.text for note in notes])
        shares.append(starfile.read(output)["cryosphere_novelty"].iloc[0])
        write_stack(noise, tmp_path / "particles.mrcs", stack.pixel_size_angstrom, overwrite=True)
    assert shares[0]["cryosphereNovelShare"] < 0.1
    assert not any("novel" in text for text in warnings[0])
    assert shares[1]["cryosphereNovelShare"] > 0.7
    assert shares[1]["cryosphereExpectedShare"] == FALSE_ALARM_RATE
    assert "of 60 particles are unlike those that the model was trained on" in warnings[1][-1]
    assert "the set as a whole is novel" in warnings[1][-1]
    again = ParticleStack.read(output).with_block("cryosphere_novelty", None)
    assert again.other_blocks == {}


def test_inference_twice_is_identical(trained: Path, sample: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        run(
            infer(
                InferConfig(
                    particles=sample / "particles.star",
                    model=trained,
                    output=tmp_path / f"{name}.star",
                )
            )
        )
    first, second = ((tmp_path / f"{name}.star").read_bytes() for name in ("first", "second"))
    assert first == second


def test_relion_reads_the_predictions(trained: Path, sample: Path, tmp_path: Path) -> None:
    if shutil.which("relion_reconstruct") is None:
        pytest.skip("relion_reconstruct is not installed")
    for name in ("particles.star", "particles.mrcs"):
        shutil.copy(sample / name, tmp_path)
    run(
        infer(
            InferConfig(
                particles=tmp_path / "particles.star", model=trained, output=tmp_path / "p.star"
            )
        )
    )
    command = ["relion_reconstruct", "--i", "p.star", "--o", "relion.mrc", "--ctf"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert np.isfinite(DensityMap.read(tmp_path / "relion.mrc").voxels).all()


def test_inference_names_what_is_wrong(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        run(
            infer(
                InferConfig(
                    particles=sample / "particles.star", model=tmp_path, output=tmp_path / "p.star"
                )
            )
        )
    assert not list(tmp_path.iterdir())


def test_half_maps_need_two_halves(sample: Path, tmp_path: Path) -> None:
    stack = ParticleStack.read(sample / "particles.star")
    stack.with_columns({"rlnRandomSubset": np.ones(len(stack), dtype=int)}).save(
        tmp_path / "one.star"
    )
    config = ReconstructConfig(
        particles=tmp_path / "one.star", output=tmp_path / "m.mrc", half_maps=True
    )
    with pytest.raises(MetadataError, match="both halves"):
        run(reconstruct(config))
    assert not (tmp_path / "m.mrc").exists()


def test_a_reconstruction_that_is_stopped_leaves_the_map_so_far(
    sample: Path, tmp_path: Path
) -> None:
    config = ReconstructConfig(particles=sample / "particles.star", output=tmp_path / "map.mrc")
    events = reconstruct(config)
    for event in events:
        if isinstance(event, Progress):
            break
    events.close()
    assert [path.name for path in tmp_path.iterdir()] == ["map_partial.mrc"]
    so_far, truth = (
        DensityMap.read(tmp_path / "map_partial.mrc"),
        DensityMap.read(sample / "map.mrc"),
    )
    assert masked_correlation(so_far.voxels, truth.voxels) > 0.6
    assert "map_partial.mrc" in config.kept_when_stopped


def test_snapshots_grow_into_the_map(sample: Path) -> None:
    stack = ParticleStack.read(sample / "particles.star")
    events = list(reconstruct_stack(stack, snapshot_seconds=1e-9))
    shots = [event for event in events if isinstance(event, Snapshot)]
    assert shots[0].particles == 128
    truth = DensityMap.read(sample / "map.mrc").voxels
    whole = finished(reconstruct_stack(stack)).density.voxels
    assert (
        0.6 < masked_correlation(shots[0].density.voxels, truth) < masked_correlation(whole, truth)
    )


def test_weighted_poses_are_used_and_checked(sample: Path) -> None:
    """The true pose with most of the weight beside a wrong one: better than the wrong one alone."""
    stack = ParticleStack.read(sample / "particles.star")
    truth = DensityMap.read(sample / "map.mrc").voxels
    wrong = random_rotations(len(stack), np.random.default_rng(0))
    both = np.stack([stack.rotations(), wrong], axis=1)
    made = {}
    for share in (0.0, 0.7, 1.0):
        weights = np.tile([share, 1 - share], (len(stack), 1))
        made[share] = finished(reconstruct_stack(stack, poses=WeightedPoses(both, weights)))
    scores = [masked_correlation(one.density.voxels, truth) for one in made.values()]
    assert scores == sorted(scores)
    best = finished(reconstruct_stack(stack))
    np.testing.assert_allclose(made[1.0].density.voxels, best.density.voxels, atol=1e-5)
    with pytest.raises(MetadataError, match="240 particles, the distributions 5"):
        finished(reconstruct_stack(stack, poses=WeightedPoses.best(wrong[:5])))
    with pytest.raises(MetadataError, match="particle 2 has a pose that is no rotation"):
        WeightedPoses.best(np.stack([np.eye(3), 2 * np.eye(3)]))
    with pytest.raises(MetadataError, match="particle 1 has a pose weight"):
        WeightedPoses(np.eye(3)[None, None], np.array([[-1.0]]))


def finished(events: Any) -> Reconstruction:
    """Run a reconstruction to its end."""
    while True:
        try:
            next(events)
        except StopIteration as stop:
            return stop.value


def test_one_particle_in_both_halves_is_warned_of(shared_data: Path, tmp_path: Path) -> None:
    config = ReconstructConfig(
        particles=shared_data / "wild/broken/duplicate_particles.star",
        output=tmp_path / "map.mrc",
        half_maps=True,
    )
    notes: list[str] = []
    follow(reconstruct(config), lambda event: notes.append(getattr(event, "text", "")))
    assert any("both half" in note for note in notes)


def test_an_empty_half_is_refused(shared_data: Path, tmp_path: Path) -> None:
    broken = shared_data / "wild/broken/subset_all_one.star"
    config = ReconstructConfig(particles=broken, output=tmp_path / "map.mrc", half_maps=True)
    with pytest.raises(
        MetadataError, match="all particles are in half 1; half-maps need both halves"
    ):
        run(reconstruct(config))
    assert not list(tmp_path.iterdir())


def test_info_names_each_kind(sample: Path, trained: Path, tmp_path: Path) -> None:
    particles = describe(sample / "particles.star")
    keys = {
        "kind",
        "particles",
        "box",
        "pixel_size_angstrom",
        "optics_groups",
        "has_poses",
        "has_ctf",
    }
    assert keys | {"half_sets", "warnings"} <= set(particles)
    assert particles["half_sets"] == {"1": 120, "2": 120}
    assert describe(sample / "map.mrc")["kind"] == "map"
    assert describe(trained / "model.safetensors")["kind"] == "model"
    for path, message in ((tmp_path / "x.star", "does not exist"), (tmp_path, "config.json")):
        with pytest.raises(CryosphereError, match=message):
            describe(path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CryosphereError, match="no known kind"):
        describe(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "name", ["angle_nan", "truncated", "index_past_end", "nan_pixels", "empty_file"]
)
def test_broken_particles_leave_no_output(shared_data: Path, tmp_path: Path, name: str) -> None:
    config = ReconstructConfig(
        particles=shared_data / f"wild/broken/{name}.star",
        output=tmp_path / "map.mrc",
        half_maps=True,
    )
    with pytest.raises(CryosphereError) as caught:
        run(reconstruct(config))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_refining_in_memory_is_what_the_job_does(
    trained: Path, sample: Path, tmp_path: Path
) -> None:
    """The window refines particles that are in memory, the command writes a file: the same poses."""
    stack = ParticleStack.read(sample / "particles.star")[:24]
    stack.save(tmp_path / "few.star")
    config = InferConfig(
        particles=tmp_path / "few.star",
        model=trained,
        output=tmp_path / "refined.star",
        refine=True,
        map=sample / "map.mrc",
        device="cpu",
    )
    run(infer(config))
    written = ParticleStack.read(tmp_path / "refined.star")
    shown: list[Event] = []
    work = refine(stack, PoseModel.load(trained), DensityMap.read(sample / "map.mrc"))
    made = returned(work, shown.append)
    assert isinstance(shown[-1], Progress)
    assert shown[-1].fraction == 1
    np.testing.assert_allclose(made.rotations(), written.rotations(), atol=1e-3)
    np.testing.assert_allclose(made.shifts_angstrom(), written.shifts_angstrom(), atol=0.05)
    assert "cryosphereNetworkAngleRot" in made.particles


def test_what_reconstruct_needs_is_named(sample: Path, tmp_path: Path) -> None:
    stack = ParticleStack.read(sample / "particles.star")[:8]
    bare = stack[:]
    bare.particles = stack.particles.drop(columns=["rlnAngleTilt"])
    bare.save(tmp_path / "bare.star")
    with pytest.raises(
        MetadataError, match=r"has no poses .* to reconstruct from; predict them first"
    ):
        run(
            reconstruct(
                ReconstructConfig(particles=tmp_path / "bare.star", output=tmp_path / "map.mrc")
            )
        )
    protein_phantom(16, 12.0).save(tmp_path / "mask.mrc")
    config = ReconstructConfig(
        particles=sample / "particles.star",
        output=tmp_path / "map.mrc",
        mask=tmp_path / "mask.mrc",
        half_maps=True,
    )
    with pytest.raises(MetadataError, match=r"the mask .* has a box of 16, .* one of 32"):
        run(reconstruct(config))
    assert not (tmp_path / "map.mrc").exists()


def test_a_damaged_run_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"epochs": ')
    with pytest.raises(FileFormatError, match=r"is not JSON \(line 1\); the run folder is damaged"):
        describe(tmp_path)
