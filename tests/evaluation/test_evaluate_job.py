"""The jobs of the benchmark: evaluation as CESPED's own, the protocol, other data sets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cesped_test_entries import SYMMETRIES, make_entries

from napari_cryosphere.errors import CryosphereError, FileFormatError, MetadataError
from napari_cryosphere.evaluation.cesped_report import COLUMNS
from napari_cryosphere.evaluation.entries import local_entry
from napari_cryosphere.evaluation.half_maps import posed_particles, run_relion
from napari_cryosphere.evaluation.matching import MatchedHalf
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.cesped import entries as entry_jobs
from napari_cryosphere.jobs.cesped import protocol
from napari_cryosphere.jobs.cesped import refinement as _refinement
from napari_cryosphere.jobs.cesped.entries import add_entry, merge_reports
from napari_cryosphere.jobs.cesped.protocol import run_entry
from napari_cryosphere.jobs.configs import SimulateConfig
from napari_cryosphere.jobs.configs.evaluation import (
    AddEntryConfig,
    CespedConfig,
    DownloadEntryConfig,
    EvaluateConfig,
    MergeReportsConfig,
)
from napari_cryosphere.jobs.evaluate import evaluate
from napari_cryosphere.jobs.events import Event, Events, Note, Progress, Result, follow
from napari_cryosphere.jobs.simulate import simulate_density
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.rotations import rotation_from_vector
from napari_cryosphere.so3.symmetry import angular_error_degrees

REFERENCE = Path(__file__).parents[1] / "data" / "cesped"
relion = pytest.mark.skipif(
    shutil.which("relion_reconstruct") is None, reason="RELION is not installed"
)


def finished(job: Events) -> tuple[Result, list[str]]:
    """Run a job; returns its result and its warnings."""
    events: list[Event] = []
    result = follow(job, events.append)
    return result, [event.text for event in events if isinstance(event, Note) and event.warning]


@pytest.fixture(scope="module")
def entries(shared_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (shared_data.given / "particles").is_dir():
        pytest.skip(f"no particles in {shared_data.given}, to which CESPED's stored values belong")
    folder = tmp_path_factory.mktemp("entries")
    make_entries(shared_data.given, folder)
    return folder


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an entry of phantom particles, and of the same phantom turned, larger and less
    noisy.
    """
    folder = tmp_path_factory.mktemp("simulated")
    turn = rotation_from_vector([0.3, -0.4, 0.5])
    for name, box, size, seed in (("plain", 24, 8.0, 1), ("turned", 32, 6.0, 2)):
        density = protein_phantom(box, size)
        if name == "turned":
            density = DensityMap(_turned(density.voxels, turn), size)
        density.save(folder / f"{name}.mrc")
        config = SimulateConfig(
            map=folder / f"{name}.mrc", output=folder / f"{name}.star", number=64, snr=2, seed=seed
        )
        follow(simulate_density(density, config), lambda event: None)
        added = AddEntryConfig(
            name=name, particles=(folder / f"{name}.star",), benchmark_dir=folder, simulated=True
        )
        follow(add_entry(added), lambda event: None)
    return folder


def _turned(voxels: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return the map W with W(rotation @ r) = V(r), by splines."""
    from scipy.ndimage import affine_transform

    backwards = rotation.T[::-1, ::-1]
    centre = np.full(3, len(voxels) // 2)
    return affine_transform(voxels, backwards, centre - backwards @ centre, order=3).astype(
        np.float32
    )


def config_for(entries: Path, name: str, output: Path, **options: object) -> EvaluateConfig:
    folder = entries / name
    return EvaluateConfig(
        truth=(folder / "particles_0.star", folder / "particles_1.star"),
        predicted=(folder / "predicted_0.star", folder / "predicted_1.star"),
        symmetry=SYMMETRIES[name],
        mask=folder / "mask.mrc",
        output=output,
        **options,
    )


@relion
@pytest.mark.slow
@pytest.mark.parametrize("name", SYMMETRIES)
def test_evaluation_as_cespeds_package_does_it(entries: Path, tmp_path: Path, name: str) -> None:
    """With relion_reconstruct every figure is the package's; our own maps give nearly the same
    ones.
    """
    answers = json.loads((REFERENCE / "entries.json").read_text())[name]
    finished(evaluate(config_for(entries, name, tmp_path / "relion", relion=True)))
    found = json.loads((tmp_path / "relion" / "metrics.json").read_text())
    expected = {
        "mane_degrees": "meanAngularError",
        "wmane_degrees": "wMeanAngularError",
        "shift_rmse_angstrom": "shiftsRMSE",
        "pcc_gt0_gt1": "GT_correlation",
        "pcc_v0_v1": "half2half_correlation",
        "pcc_gt_v": "mapVsGT_correlaton_masked",
        "fscr_0143_gt0_gt1_angstrom": "GT_resolution0143",
        "fscr_05_gt0_gt1_angstrom": "GT_resolution05",
        "fscr_0143_v0_v1_angstrom": "half2half_resolution",
        "fscr_05_v0_v1_angstrom": "half2half_resolution05",
    }
    for ours, theirs in expected.items():
        # RELION's map of few particles changes with the last digits of their poses
        tolerance = 5e-4 if "_v" in ours else 1e-4
        assert found[ours] == pytest.approx(answers[theirs], abs=tolerance), ours
    # the package compares the means of the half-maps without a mask, whatever it says
    unmasked = found["unmasked"]
    assert unmasked["pcc_gt_v"] == pytest.approx(answers["mapVsGT_correlaton_unmasked"], abs=5e-4)
    assert unmasked["fscr_0143_gt_v_angstrom"] == pytest.approx(
        answers["mapVsGT_resolution"], abs=1e-3
    )
    assert unmasked["fscr_05_gt_v_angstrom"] == pytest.approx(
        answers["mapVsGT_resolution05"], abs=1e-3
    )

    finished(evaluate(config_for(entries, name, tmp_path / "own")))
    own = json.loads((tmp_path / "own" / "metrics.json").read_text())
    field = DensityMap.read(tmp_path / "own" / "v.mrc")
    width = field.box * field.pixel_size_angstrom
    for key in COLUMNS:
        # of 120 particles without symmetry, RELION's map is too noisy to be had again
        if key.startswith("pcc") and name == "betagalD2":
            assert own[key] == pytest.approx(found[key], abs=0.01), key
        elif key.startswith("fscr"):
            assert width / own[key] == pytest.approx(width / found[key], abs=1), key


def test_poses_alone_and_what_is_written(entries: Path, tmp_path: Path) -> None:
    config = config_for(entries, "betagalD2", tmp_path / "out", maps=False)
    result, warnings = finished(evaluate(config))
    assert warnings == []
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["particles"] == 240
    assert found["mane_degrees"] == pytest.approx(result.metrics["mane_degrees"])
    assert [half["particles"] for half in found["halves"]] == [117, 123]
    rows = (tmp_path / "out" / "errors.csv").read_text().splitlines()
    assert rows[0] == "half,rlnImageName,error_degrees,shift_error_angstrom,weight"
    errors = [float(row.split(",")[2]) for row in rows[1:]]
    assert np.median(errors) == pytest.approx(found["median_error_degrees"], abs=1e-4)
    assert "Angular error" in (tmp_path / "out" / "plot.svg").read_text(encoding="utf-8")
    with pytest.raises(CryosphereError, match="--overwrite"):
        finished(evaluate(config))


def test_what_a_table_lacks_is_said(entries: Path, tmp_path: Path) -> None:
    """No weights: no wMAnE. No angles: an error. No images: poses alone."""
    truth = ParticleStack.read(entries / "betagalD2" / "particles_0.star")
    for name, columns in (("w", ["rlnMaxValueProbDistribution"]), ("a", ["rlnAngleTilt"])):
        lacking = truth[:]
        lacking.particles = truth.particles.drop(columns=columns)
        lacking.save(tmp_path / f"{name}.star")
    predicted = (entries / "betagalD2" / "predicted_0.star",)
    config = EvaluateConfig(
        truth=(tmp_path / "w.star",), predicted=predicted, output=tmp_path / "o"
    )
    _, warnings = finished(evaluate(config.model_copy(update={"maps": False})))
    assert any("no wMAnE" in text for text in warnings)
    assert json.loads((tmp_path / "o" / "metrics.json").read_text())["wmane_degrees"] is None
    broken = config.model_copy(update={"truth": (tmp_path / "a.star",), "output": tmp_path / "b"})
    with pytest.raises(MetadataError, match=r"a.star, the truth, has no column rlnAngleTilt"):
        finished(evaluate(broken))
    assert not (tmp_path / "b").exists()
    shutil.copy(entries / "betagalD2" / "particles_0.star", tmp_path / "moved.star")
    moved = config.model_copy(
        update={"truth": (tmp_path / "moved.star",), "output": tmp_path / "c"}
    )
    _, warnings = finished(evaluate(moved))
    assert any("maps are not compared" in text and "--data-dir" in text for text in warnings)
    with pytest.raises(CryosphereError, match="--data-dir"):
        finished(evaluate(moved.model_copy(update={"maps": True, "output": tmp_path / "d"})))


@pytest.fixture(scope="module")
def run(simulated: Path) -> Path:
    """The output of the protocol, with local refinement, on the phantom; two seconds of training a
    model.
    """
    output = simulated / "run"
    config = CespedConfig(
        entry="plain",
        output=output,
        benchmark_dir=simulated,
        minutes=0.03,
        local_degrees=10,
        rounds=1,
        compare_global=True,
    )
    finished(run_entry(config))
    return output


def test_the_protocol_writes_every_column_and_keeps_halves_apart(
    run: Path, simulated: Path
) -> None:
    rows = json.loads((run / "report.json").read_text())["rows"]
    ours = [row for row in rows if not row["source"].startswith("published")]
    assert [row["source"] for row in ours] == ["measured here, simulated"] * 3
    for row in ours[:2]:
        assert all(row[name] is not None for name in COLUMNS)
    # all weigh 1
    assert ours[0]["wmane_degrees"] == pytest.approx(ours[0]["mane_degrees"], rel=0.05)
    assert "refined within 10°" in ours[1]["entry"]
    for half in (0, 1):
        trained = json.loads((run / f"model_{half}" / "config.json").read_text())
        assert [Path(name).name for name in trained["particles"]] == [f"particles_{half}.star"]
        predicted = ParticleStack.read(run / f"predicted_{half}.star")
        assert set(predicted.half_sets()) == {half + 1}
        confidence = predicted.particles["cryosphereConfidence"]
        np.testing.assert_array_equal(predicted.particles["rlnParticleFigureOfMerit"], confidence)
    assert local_entry(simulated, "plain").simulated
    text = (run / "report.md").read_text()
    assert "| train_0 |" in text
    assert '"minutes": 0.03' in text


def test_a_run_is_resumed_without_training_again(
    run: Path, simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "train", None)
    monkeypatch.setattr(protocol, "infer", None)
    given = {"entry": "plain", "output": run, "benchmark_dir": simulated, "minutes": 0.03}
    with pytest.raises(CryosphereError, match="--overwrite"):
        finished(run_entry(CespedConfig(**given)))
    with pytest.raises(MetadataError, match=r"other settings \(minutes\)"):
        finished(run_entry(CespedConfig(**given | {"minutes": 5, "resume": True})))


def test_models_go_over_to_another_data_set(run: Path, simulated: Path, tmp_path: Path) -> None:
    """Another box, pixel size and frame: poses come out in the frame of the particles' own map."""
    same = tmp_path / "same"
    given = {"benchmark_dir": simulated, "models": run, "trained_on": "plain"}
    finished(run_entry(CespedConfig(entry="turned", output=same, **given)))
    notes = json.loads((same / "report.json").read_text())["rows"][0]["notes"]
    assert "64 particles of 24 px, 8 Å" in notes
    assert "64 particles of 32 px, 6 Å" in notes
    turned = float(notes.split("turned by ")[1].split("°")[0])
    assert turned == pytest.approx(np.degrees(np.linalg.norm([0.3, -0.4, 0.5])), abs=2)


def test_reports_are_merged(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(run / "report.json", other)
    finished(merge_reports(MergeReportsConfig(runs=(run, other), output=tmp_path)))
    for name in ("run", "other"):  # lines of one entry are told apart
        text = (tmp_path / "report.md").read_text()
        assert text.count(f"measured here ({name}), simulated") == 6
    with pytest.raises(CryosphereError, match="outputs of 'cesped run'"):
        finished(merge_reports(MergeReportsConfig(runs=(tmp_path / "no",), output=tmp_path)))


def test_settings_of_the_protocol_cannot_be_set_twice() -> None:
    with pytest.raises(ValueError, match=r"train\.minutes is set by the protocol"):
        CespedConfig(entry="x", output=Path("y"), train={"minutes": 3})
    with pytest.raises(ValueError, match="compare_global goes with local_degrees"):
        CespedConfig(entry="x", output=Path("y"), compare_global=True)


def test_maps_that_cannot_be_compared_are_said_to_be(entries: Path, tmp_path: Path) -> None:
    whole = config_for(entries, "betagalD2", tmp_path / "o")
    protein_phantom(16, 12.0).save(tmp_path / "mask.mrc")
    with pytest.raises(MetadataError, match=r"the mask .* has a box of 16, .* one of 64"):
        finished(evaluate(whole.model_copy(update={"mask": tmp_path / "mask.mrc", "maps": True})))
    one = whole.model_copy(
        update={"truth": whole.truth[:1], "predicted": whole.predicted[:1], "mask": None}
    )
    truth = ParticleStack.read(whole.truth[0])
    alone = truth[truth.half_sets() == truth.half_sets()[0]]
    alone.with_columns({"rlnMaxValueProbDistribution": np.zeros(len(alone))}).save(
        tmp_path / "alone.star"
    )
    predicted = alone[:]
    predicted.particles = alone.particles.drop(columns=["rlnOriginXAngst", "rlnOriginYAngst"])
    predicted.save(tmp_path / "predicted.star")
    given = {"truth": (tmp_path / "alone.star",), "predicted": (tmp_path / "predicted.star",)}
    _, warnings = finished(evaluate(one.model_copy(update=given)))
    assert any("are in one half: there are no half-maps to compare" in text for text in warnings)
    assert any("is 0 throughout, so there is no wMAnE" in text for text in warnings)
    assert any(
        "predicted.star: no origins, so there is no error of shifts" in text for text in warnings
    )
    with pytest.raises(MetadataError, match="are in one half"):
        finished(evaluate(one.model_copy(update=given | {"maps": True, "output": tmp_path / "p"})))
    lacking = MatchedHalf(alone, ParticleStack.read(tmp_path / "predicted.star"))
    with pytest.raises(
        MetadataError, match=r"no column rlnOriginXAngst, rlnOriginYAngst to reconstruct with"
    ):
        posed_particles(lacking, "SO3xR2", weighted=False)


@pytest.mark.skipif(shutil.which("false") is None, reason="POSIX programs are run")
def test_programs_that_are_not_there_or_fail(tmp_path: Path) -> None:
    with pytest.raises(CryosphereError, match="relion_of_old is not on the path; install RELION"):
        run_relion("relion_of_old", [], tmp_path)
    with pytest.raises(CryosphereError, match=r"false failed \(exit 1\): no message"):
        run_relion("false", [], tmp_path)
    with pytest.raises(CryosphereError, match=r"ls failed \(exit \d\): .*nowhere"):
        run_relion("ls", ["nowhere"], tmp_path)


@relion
@pytest.mark.slow
def test_relion_refines_poses_that_are_off(simulated: Path, tmp_path: Path) -> None:
    """One iteration of relion_refine around poses that are 10 degrees off brings them nearer."""
    entry = local_entry(simulated, "plain")
    config = CespedConfig(
        entry="plain", output=tmp_path, benchmark_dir=simulated, local_degrees=20, relion=True
    )
    both = (entry.star(0), entry.star(1))
    settings = EvaluateConfig(truth=both, predicted=both, output=tmp_path)
    work = _refinement._Refinement(config, entry, None, settings)
    work.folder.mkdir()
    stars, maps = [], []
    turn = rotation_from_vector([0.0, np.radians(10), 0.0])
    for half in (0, 1):
        truth = entry.read(half)
        truth.with_poses(truth.rotations() @ turn, truth.shifts_angstrom()).save(
            work.folder / f"s{half}.star"
        )
        shutil.copy(simulated / "plain.mrc", work.folder / f"m{half}.mrc")
        stars.append(work.folder / f"s{half}.star")
        maps.append(work.folder / f"m{half}.mrc")
    files: list[Path] = []

    def kept() -> Iterator[Event]:
        files.extend((yield from work.by_relion(stars, maps, 24.0)))

    assert len(list(kept())) == 2
    for half, file in enumerate(files):
        truth, found = entry.read(half), ParticleStack.read(file, require_images=False)
        order = np.argsort(found.image_names())
        errors = angular_error_degrees(
            truth.rotations()[np.argsort(truth.image_names())], found.rotations()[order]
        )
        assert np.median(errors) < 8.5


@pytest.mark.parametrize("with_mask", [False, True])
def test_an_entry_is_fetched_with_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_mask: bool
) -> None:
    def half(
        entry: object, number: int, folder: Path, *rest: object, **options: object
    ) -> Iterator[tuple[int, int]]:
        yield 500_000, 2_000_000
        return [folder / f"particles_{number}.star"]

    def mask(
        entry: object, folder: Path, *rest: object, **options: object
    ) -> Iterator[tuple[int, int]]:
        yield 1, 0  # a length that the server does not tell
        return folder / "mask.mrc"

    monkeypatch.setattr(entry_jobs, "download_half", half)
    monkeypatch.setattr(entry_jobs, "download_mask", mask)
    events = list(
        entry_jobs.download_entry(
            DownloadEntryConfig(entry="10280", benchmark_dir=tmp_path, mask=with_mask, half=None)
        )
    )
    said = [event.message for event in events if isinstance(event, Progress)]
    assert said[0].endswith("half 0: 0.5 of 2.0 MB")
    assert any("mask" in text for text in said) == with_mask
    assert set(events[-1].outputs) == {
        "particles_0_star",
        "particles_1_star",
        *(["mask"] if with_mask else []),
    }


def test_an_entry_takes_its_mask_along(simulated: Path, tmp_path: Path) -> None:
    given = {"name": "masked", "particles": (simulated / "plain.star",), "benchmark_dir": tmp_path}
    with pytest.raises(MetadataError, match=r"turned.mrc has a box of 32, the images one of 24"):
        finished(add_entry(AddEntryConfig(mask=simulated / "turned.mrc", **given)))
    assert not (tmp_path / "masked").exists()
    density = DensityMap.read(simulated / "plain.mrc")
    wrong = DensityMap(3 * density.voxels / density.voxels.max(), density.pixel_size_angstrom)
    wrong.save(tmp_path / "wrong.mrc")
    with pytest.raises(MetadataError, match=r"wrong.mrc has values from .* to 3"):
        finished(add_entry(AddEntryConfig(mask=tmp_path / "wrong.mrc", **given)))
    assert not (tmp_path / "masked").exists()
    mask = DensityMap(density.voxels > 0, density.pixel_size_angstrom)
    mask.save(tmp_path / "right.mrc")
    finished(add_entry(AddEntryConfig(mask=tmp_path / "right.mrc", **given)))
    assert (tmp_path / "masked/mask.mrc").read_bytes() == (tmp_path / "right.mrc").read_bytes()
    wrong.save(tmp_path / "masked/mask.mrc", overwrite=True)
    config = CespedConfig(entry="masked", benchmark_dir=tmp_path, output=tmp_path / "run")
    with pytest.raises(MetadataError, match=r"mask.mrc has values from .* to 3"):
        finished(run_entry(config))


def test_reports_that_are_none_are_named(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"rows": [{"source": "measured here"}]}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(FileFormatError, match=r"report.json is no report of 'cesped run'"):
            finished(merge_reports(MergeReportsConfig(runs=(tmp_path,), output=tmp_path / "o")))
