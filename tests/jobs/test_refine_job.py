"""The job ``refine``: independent halves, resolution, resume, and an honest end on pure noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import MetadataError, OutputExistsError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs._refinement import Refinement, by_other_half
from napari_cryosphere.jobs.align import (
    AlignerInput,
    pilot_about_known,
    pilot_around,
    prepare_aligner,
)
from napari_cryosphere.jobs.configs import RefineConfig, SimulateConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result, Snapshot, follow
from napari_cryosphere.jobs.refine import refine, refine_outputs
from napari_cryosphere.jobs.simulate import simulate
from napari_cryosphere.particles import (
    DensityMap,
    ParticleStack,
    read_star,
    write_stack,
    write_star,
)
from napari_cryosphere.reconstruction import masked_correlation
from napari_cryosphere.reconstruction.filters import whitened
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.so3.symmetry import angular_error_degrees

NUMBER = 240


def run(events: Events) -> tuple[Result, list[Event]]:
    seen: list[Event] = []
    return follow(events, seen.append), seen


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a map, particles of it, and their table without poses and shifts."""
    folder = tmp_path_factory.mktemp("refine")
    protein_phantom(32, 6.0).save(folder / "map.mrc")
    config = SimulateConfig(
        map=folder / "map.mrc",
        output=folder / "particles.star",
        number=NUMBER,
        snr=1.0,
        shift_px=1.5,
    )
    run(simulate(config))
    tables = read_star(folder / "particles.star")
    known = [name for name in tables["particles"] if name.startswith(("rlnAngle", "rlnOrigin"))]
    tables["particles"] = tables["particles"].drop(columns=known)
    write_star(tables, folder / "blank.star")
    return folder


def config_of(sample: Path, output: Path, **options: object) -> RefineConfig:
    given = {
        "particles": sample / "blank.star",
        "map": sample / "map.mrc",
        "shift_range_px": 2.0,
        "iterations": 3,
        "initial_resolution_angstrom": 40.0,
        "batch_size": 20,
        "device": "cpu",
    }
    return RefineConfig(output=output, **(given | options))


@pytest.fixture(scope="module")
def refined(sample: Path) -> Path:
    output = sample / "refined"
    _, seen = run(refine(config_of(sample, output)))
    assert sum(isinstance(event, Snapshot) for event in seen) == len(history(output))
    shares = [event.fraction for event in seen if isinstance(event, Progress)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.975)  # of the end, half-maps with all detail are a tenth
    return output


def history(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "history.csv")


def test_poses_and_map_come_out_of_a_coarse_start(sample: Path, refined: Path) -> None:
    truth = ParticleStack.read(sample / "particles.star")
    found = ParticleStack.read(refined / "particles.star")
    errors = angular_error_degrees(truth.rotations(), found.rotations())
    assert np.median(errors) < 6
    assert np.mean(errors > 30) < 0.1
    density, true = DensityMap.read(refined / "map.mrc"), DensityMap.read(sample / "map.mrc")
    assert masked_correlation(density.voxels, true.voxels) > 0.9
    resolutions = history(refined)["resolution_0143_angstrom"]
    assert resolutions.iloc[-1] < 16 < 40
    outputs = refine_outputs(config_of(sample, refined))
    assert sorted(path.name for path in refined.iterdir()) == sorted(
        path.name for path in outputs.values()
    )


def test_a_half_never_sees_the_other(sample: Path, refined: Path, tmp_path: Path) -> None:
    """With noise in place of the second half's images the first half's poses are the same at first."""
    stack = ParticleStack.read(sample / "blank.star")
    halves, images = stack.half_sets(), np.array(stack.images())
    images[halves == 2] = np.random.default_rng(0).normal(size=images[halves == 2].shape)
    write_stack(images, tmp_path / "noise.mrcs", stack.pixel_size_angstrom)
    tables = read_star(sample / "blank.star")
    names = [f"{row + 1}@{tmp_path / 'noise.mrcs'}" for row in range(len(stack))]
    tables["particles"]["rlnImageName"] = names
    write_star(tables, tmp_path / "noise.star")
    found = {}
    for name, particles in (("as they are", sample / "blank.star"), ("noise", "noise.star")):
        one = config_of(
            sample,
            tmp_path / name,
            particles=particles if isinstance(particles, Path) else tmp_path / particles,
            iterations=1,
            mask="none",
        )
        run(refine(one))
        found[name] = ParticleStack.read(tmp_path / name / "particles.star").rotations()
    np.testing.assert_array_equal(found["as they are"][halves == 1], found["noise"][halves == 1])
    assert not np.array_equal(found["as they are"][halves == 2], found["noise"][halves == 2])


@pytest.mark.parametrize("stop_after", [3, 12, 40])
def test_a_stopped_run_goes_on_to_the_same_result(
    sample: Path, refined: Path, tmp_path: Path, stop_after: int
) -> None:
    job = refine(config_of(sample, tmp_path / "run"))
    left = stop_after
    for event in job:
        left -= "aligned" in getattr(event, "message", "")
        if left == 0:
            break
    job.close()
    assert not (tmp_path / "run" / "particles.star").exists()
    run(refine(config_of(sample, tmp_path / "run", resume=True)))
    for name in ("history.csv", "half1.mrc", "map.mrc"):
        assert (tmp_path / "run" / name).read_bytes() == (refined / name).read_bytes(), name
    first, second = (ParticleStack.read(f / "particles.star") for f in (refined, tmp_path / "run"))
    drop = ["rlnImageName"]  # relative to the file's folder
    pd.testing.assert_frame_equal(
        first.particles.drop(columns=drop), second.particles.drop(columns=drop)
    )


def test_particles_that_are_lost_are_searched_at_all_shifts(sample: Path) -> None:
    truth = ParticleStack.read(sample / "particles.star")[:24]
    off_px = np.array([6.0, -6.0])
    shifted = truth.with_poses(
        truth.rotations(), truth.shifts_angstrom() + off_px * truth.pixel_size_angstrom
    )
    density = DensityMap.read(sample / "map.mrc")
    aligner = prepare_aligner(truth, density, "C1", pilot=pilot_around(truth, 10.0))
    images, ctf = AlignerInput(shifted)(np.arange(24))
    lost = np.arange(24) % 2 == 0
    pilot = pilot_about_known(shifted, np.zeros(24, bool), lost)
    found = pilot(aligner, np.arange(24), images, ctf)
    true_px = -truth.shifts_angstrom() / truth.pixel_size_angstrom
    errors = np.linalg.norm(found.shifts_px - true_px, axis=1)
    angles = angular_error_degrees(truth.rotations(), found.rotations)
    assert np.median(errors[lost]) < 0.7
    assert np.median(angles[lost]) < 8
    assert np.median(errors[~lost]) > 2


def test_the_other_halfs_map_says_how_sure_poses_are() -> None:
    turns = Rotation.from_euler("z", [[0.0], [2.0], [90.0]], degrees=True).as_matrix()
    own = PoseSummary(
        np.tile(np.eye(3), (3, 1, 1)), *np.array([[0.9], [-9.0], [1.0], [0.99]] * 3).reshape(3, 4).T
    )
    sureness = [[0.5, 0.5, 0.5], [-6.0, -6.0, -6.0], [3.0, 3.0, 3.0], [0.9, 0.9, 0.8]]
    judged = by_other_half(own, PoseSummary(turns, *np.array(sureness)), "C1")
    np.testing.assert_array_equal(judged.rotations, own.rotations)
    np.testing.assert_allclose(judged.max_probability, 0.5)
    np.testing.assert_allclose(judged.spread_degrees, [3, 3, 90])
    np.testing.assert_allclose(
        judged.confidence, [0.9, 0.9, 0.99 * 0.2]
    )  # the third pose is another one


def test_pure_noise_gives_no_resolution_and_says_so(sample: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(size=(NUMBER, 32, 32)).astype(np.float32)
    write_stack(noise, tmp_path / "noise.mrcs", 6.0)
    tables = read_star(sample / "blank.star")
    names = [f"{row + 1}@{tmp_path / 'noise.mrcs'}" for row in range(NUMBER)]
    tables["particles"]["rlnImageName"] = names
    write_star(tables, tmp_path / "noise.star")
    one = config_of(sample, tmp_path / "run", particles=tmp_path / "noise.star")
    _, seen = run(refine(one))
    rows = history(tmp_path / "run")
    assert rows["resolution_0143_angstrom"].min() > 36  # of the 40 A that both began with
    assert rows["mean_confidence"].iloc[-1] < 0.25  # six seeds: 0.12 to 0.24 (docs/measurements)
    said = [event.text for event in seen if isinstance(event, Note) and event.warning]
    assert any("nothing of it is seen" in text for text in said)


def test_a_finished_run_is_not_replaced_unasked(sample: Path, refined: Path) -> None:
    with pytest.raises(OutputExistsError):
        run(refine(config_of(sample, refined)))


def test_whitened_halves_have_the_same_power_in_every_shell() -> None:
    rng = np.random.default_rng(0)
    voxels = protein_phantom(32, 6.0).voxels
    halves = [
        DensityMap(voxels + rng.normal(0, 0.1, voxels.shape).astype(np.float32), 6.0)
        for _ in range(2)
    ]
    power = sum(np.abs(np.fft.fftn(half.voxels)) ** 2 for half in whitened(*halves))
    axis = np.fft.fftfreq(32, 1 / 32)
    shell = np.rint(np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)).astype(int)
    means = np.bincount(shell.ravel(), power.ravel())[:16] / np.bincount(shell.ravel())[:16]
    np.testing.assert_allclose(means, means[1], rtol=0.15)


def test_a_few_particles_are_too_few(sample: Path, tmp_path: Path) -> None:
    few = ParticleStack.read(sample / "particles.star")[:5]
    few.save(tmp_path / "few.star")
    config = RefineConfig(
        particles=tmp_path / "few.star", map=sample / "map.mrc", output=tmp_path / "run"
    )
    with pytest.raises(MetadataError, match="2 particles in one half, which are too few"):
        run(refine(config))


def test_an_empty_half_is_refused(sample: Path, tmp_path: Path) -> None:
    config = RefineConfig(
        particles=sample / "particles.star",
        map=sample / "map.mrc",
        output=tmp_path / "run",
        select="rlnRandomSubset == 1",
    )
    with pytest.raises(MetadataError, match="all particles are in half 1; half-maps need both"):
        run(refine(config))


@dataclass(frozen=True)
class _Step:
    """What deciding when to end asks of an iteration."""

    number: int
    shells_resolved: float
    spread: float

    @property
    def summary(self) -> SimpleNamespace:
        return SimpleNamespace(spread_degrees=np.array([self.spread]))

    stack = None


@pytest.mark.parametrize(
    ("shells", "spreads", "run", "kept"),
    [
        ([10, 12, 12, 12, 12], [5, 3, 3, 3, 3], 4, 4),  # nothing improves for two
        ([10, 12, 11, 11, 11], [5, 3, 3, 3, 3], 4, 2),  # those after the best are worse
        ([10, 12, 11.6, 11.7, 11], [5, 3, 3, 3, 3], 4, 4),  # less than half a shell worse
        ([10, 12, 12, 12, 12, 12, 12], [9, 8, 7, 6, 5.9, 5.9, 5.9], 6, 6),  # poses sharpen on
        ([10, 12, 14, 16, 18, 20, 22], [9, 8, 7, 6, 5, 4, 3], 7, 7),  # as many as are asked for
    ],
)
def test_it_ends_when_nothing_improves_with_what_resolves_most(
    monkeypatch: pytest.MonkeyPatch, shells: list[float], spreads: list[float], run: int, kept: int
) -> None:
    def iterate(self: Refinement, number: int, *before: object) -> Iterator[Progress]:
        yield Progress(0.5, "")
        return _Step(number, shells[number - 1], spreads[number - 1])

    def ended(self: Refinement, done: _Step, *references: object) -> Iterator[Progress]:
        assert references == ((done.number,), done.number)
        yield Progress(0.5, "")
        return done

    monkeypatch.setattr(Refinement, "_iterate", iterate)
    monkeypatch.setattr(Refinement, "_ended", ended)
    monkeypatch.setattr(
        Refinement, "_next_references", lambda self, done: ((done.number,), done.number)
    )
    refinement = object.__new__(Refinement)
    refinement._config = SimpleNamespace(iterations=7)
    events = list(refinement._from(1, None, (None, None), 30.0))
    steps = [event for event in events if isinstance(event, _Step)]
    shares = [event.fraction for event in events if isinstance(event, Progress)]
    assert max(step.number for step in steps) == run
    assert steps[-1].number == kept
    assert shares == sorted(shares)
