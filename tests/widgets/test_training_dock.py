"""Training from its dock: choices, pausing, stopping, resuming, following."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from napari._qt.qthreading import wait_for_workers_to_quit
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt

from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.jobs.events import Preview, Progress
from napari_cryosphere.model.pose_model import MODEL_FILE
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.control import work
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.control.training_run import RunLog
from napari_cryosphere.widgets.docks.training.dock import (
    TrainingDock,
    duration,
    preview_pictures,
    run_line,
)
from napari_cryosphere.widgets.state.training_choices import (
    BOTH,
    LOADED,
    PROJECTIONS,
    TrainingChoices,
    can_resume,
    sources,
)


@pytest.fixture
def dock(viewer: Any, sample: Path) -> TrainingDock:
    dock = TrainingDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere training")
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    notification_manager.records.clear()
    return dock


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, predictions: Any, model_file: Path) -> list[str]:
    """Training that reports quickly, for ever, and leaves a model when it is stopped; returns what
    it did.
    """
    did: list[str] = []

    def training(stack: ParticleStack, config: Any) -> Iterator[object]:
        config.output.mkdir(parents=True, exist_ok=True)
        try:
            for count in range(100_000):
                did.append("step")
                time.sleep(0.15)  # as a job reports: now and then
                loss = {"loss": -count / 10, "images_per_second": 250.0}
                if count % 2:
                    loss["validation_median_degrees"] = 50.0 - count
                fraction = min(0.9, count / 100)
                yield Progress(fraction, "learning", loss, 90.0)
                yield Preview(fraction, np.arange(4), predictions[1][:4])
        finally:
            (config.output / MODEL_FILE).write_bytes(model_file.read_bytes())
            did.append("saved")

    monkeypatch.setattr(work, "training_work", training)
    return did


# ---------------------------------------------------------------------- choices


def test_legal_names_are_the_configs(stack: ParticleStack, tmp_path: Path) -> None:
    from napari_cryosphere.jobs.configs.training import PresetName, TrainConfig

    for preset in get_args(PresetName):
        for source in sources():
            choices = TrainingChoices(tmp_path, {"preset": preset, "device": "cpu"}, source)
            assert isinstance(choices.config(stack, "C1"), TrainConfig)


def test_a_map_in_memory_is_written_beside_the_run(
    stack: ParticleStack, truth: DensityMap, tmp_path: Path
) -> None:
    config = TrainingChoices(tmp_path / "run", source=PROJECTIONS, density=truth).config(
        stack, "D2"
    )
    assert config.map == tmp_path / "run" / "reference.mrc"
    np.testing.assert_allclose(DensityMap.read(config.map).voxels, truth.voxels)
    assert config.symmetry == "D2"
    assert TrainingChoices(tmp_path, source=BOTH).config(stack, "C1").map is None
    assert TrainingChoices(tmp_path, source=LOADED, density=truth).config(stack, "C1").map is None


def test_a_folder_that_cannot_be_written_is_refused(
    stack: ParticleStack, truth: DensityMap, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((CryosphereError, OSError)):
        TrainingChoices(tmp_path / "file" / "run", source=PROJECTIONS, density=truth).config(
            stack, "C1"
        )


def test_a_gpu_that_is_not_there_is_said(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any, tmp_path: Path
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    controller = Controller(viewer_model, SynchronousRunner())
    add_particles(viewer_model, stack)
    with pytest.raises(CryosphereError, match="cuda"):
        controller.train(TrainingChoices(tmp_path / "run", {"device": "cuda"}, LOADED))
    assert not controller.training.active
    assert not (tmp_path / "run" / MODEL_FILE).exists()


# ---------------------------------------------------------------------- the dock


def test_train_pause_and_stop(
    dock: TrainingDock, scripted: list[str], qtbot: Any, tmp_path: Path
) -> None:
    panel, run = dock.panel, dock.controller.training
    panel.form.folder.setText(str(tmp_path / "run"))
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(run.losses) > 3 and run.preview is not None, timeout=60_000)
    assert panel.button.text() == "Stop"
    assert not panel.form.source.isEnabled()
    assert panel.plot.isVisibleTo(panel)
    assert panel.strip.isVisibleTo(panel)
    assert panel.strip.labels[0].pixmap().width() > 50
    assert "250 images/s" in panel.text.text()
    assert "90 s left" in panel.text.text() or "2 min left" in panel.text.text()
    qtbot.mouseClick(panel.pause, Qt.MouseButton.LeftButton)
    assert panel.pause.text() == "Resume"
    qtbot.wait(500)
    held = len(scripted)
    qtbot.wait(500)
    assert len(scripted) == held
    assert "paused" in panel.text.text()
    qtbot.mouseClick(panel.pause, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: len(scripted) > held + 2, timeout=60_000)
    qtbot.mouseClick(panel.pause, Qt.MouseButton.LeftButton)
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)  # stops while it is held
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert scripted[-1] == "saved"
    assert dock.controller.model_path == tmp_path / "run"
    assert panel.button.text() == "Train on loaded data"
    assert panel.headline.text().startswith("held-out error ")
    assert panel.headline.text().endswith(" · run")
    assert "model in run" in panel.text.text()
    assert panel.predict.isVisibleTo(panel)
    qtbot.mouseClick(panel.predict, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert dock.controller.session is not None
    assert dock.controller.session.store.predicted.all()


def test_a_stopped_run_is_resumed_as_it_was_begun(
    dock: TrainingDock, stack: ParticleStack, tmp_path: Path
) -> None:
    run, form = tmp_path / "run", dock.panel.form
    run.mkdir()
    form.folder.setText(str(run))
    assert not form.resume.isVisibleTo(form)
    begun = TrainingChoices(run, {"minutes": 3, "preset": "image2sphere"}, LOADED).config(
        stack, "D2"
    )
    (run / "config.json").write_text(begun.model_dump_json())
    (run / "checkpoint.safetensors").write_bytes(b"")
    assert can_resume(run)
    form.folder.setText(str(run) + " ")
    assert form.resume.isVisibleTo(form)
    form.resume.setChecked(True)
    shown = (
        form.source.currentText(),
        form.settings.shown("preset"),
        float(form.settings.shown("minutes")),
        form.settings.shown("symmetry"),
    )
    assert shown == (LOADED, "image2sphere", 3, "D2")
    assert not form.settings.widgets["minutes"].enabled
    assert form.value().config(stack, "C1") == begun.model_copy(
        update={"resume": True, "device": "auto"}
    )
    form.resume.setChecked(False)
    assert form.settings.widgets["minutes"].enabled


def test_settings_are_the_configs_and_the_rest_the_presets(
    dock: TrainingDock, stack: ParticleStack, tmp_path: Path
) -> None:
    form = dock.panel.form
    form.folder.setText(str(tmp_path / "run"))
    assert set(form.settings.widgets) | set(form.others.widgets) >= {"half_set", "learning_rate"}
    form.settings.fill("preset", "image2sphere")
    assert not form.others.native.isVisibleTo(form)
    form.more.click()
    assert form.others.native.isVisibleTo(form)
    form.others.fill("half_set", 2)
    made = form.value().config(stack, "D2")
    assert (made.preset, made.half_set, made.minutes, made.symmetry) == (
        "image2sphere",
        2,
        10,
        "D2",
    )
    assert made.learning_rate == 5e-3  # the preset's, which is shown
    assert (form.others.shown("learning_rate"), "learning_rate" in form.others.given()) == (
        "0.005",
        False,
    )
    form.settings.fill("minutes", None)  # then the number of epochs decides
    form.others.fill("epochs", 3)
    made = form.value().config(stack, "D2")
    assert (made.minutes, made.epochs) == (None, 3)
    form.others.fill("learning_rate", 2)
    with pytest.raises(CryosphereError, match=r"^learning rate: Input should be less than 1"):
        form.value().config(stack, "D2")


def test_a_run_that_cannot_be_read_is_not_resumed(dock: TrainingDock, tmp_path: Path) -> None:
    for name in ("config.json", "checkpoint.safetensors"):
        (tmp_path / name).write_text("{}")
    dock.panel.form.folder.setText(str(tmp_path))
    dock.panel.form.resume.setChecked(True)
    assert not dock.panel.form.resume.isChecked()
    assert "config.json cannot be read" in notification_manager.records[-1].message


def test_closing_the_layer_stops_nothing_but_what_is_shown(
    dock: TrainingDock, scripted: list[str], qtbot: Any, viewer: Any, tmp_path: Path
) -> None:
    dock.panel.form.folder.setText(str(tmp_path / "run"))
    qtbot.mouseClick(dock.panel.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: bool(dock.controller.training.losses), timeout=60_000)
    viewer.layers.clear()
    count = len(dock.controller.training.losses)
    qtbot.waitUntil(lambda: len(dock.controller.training.losses) > count, timeout=60_000)
    dock.controller.runner.stop()
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert (tmp_path / "run" / MODEL_FILE).is_file()


def training_in_a_window(
    viewer: Any, scripted: list[str], qtbot: Any, sample: Path, tmp_path: Path
) -> tuple[Any, Any]:
    """Return the dock's container and the dock once the training in it has taken a step."""
    container, dock = viewer.window.add_plugin_dock_widget(
        "napari-cryosphere", "CryoSphere training"
    )
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock.panel.form.folder.setText(str(tmp_path / "run"))
    dock.panel.button.click()
    qtbot.waitUntil(lambda: "step" in scripted, timeout=60_000)
    return container, dock


def test_closing_the_dock_while_training_keeps_the_model(
    viewer: Any, scripted: list[str], qtbot: Any, sample: Path, tmp_path: Path
) -> None:
    container, dock = training_in_a_window(viewer, scripted, qtbot, sample, tmp_path)
    viewer.window.remove_dock_widget(container)
    qtbot.waitUntil(lambda: "saved" in scripted, timeout=60_000)
    assert (tmp_path / "run" / MODEL_FILE).is_file()
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)


@pytest.mark.parametrize("paused", [False, True])
def test_closing_the_window_while_training_keeps_the_model(
    viewer: Any, scripted: list[str], qtbot: Any, sample: Path, tmp_path: Path, paused: bool
) -> None:
    _, dock = training_in_a_window(viewer, scripted, qtbot, sample, tmp_path)
    (asked,) = viewer.window._task_status_manager.get_status()  # what napari says when it asks
    assert "Training on particles.star" in asked
    if paused:
        dock.panel.pause.click()
    viewer.close()
    wait_for_workers_to_quit(20_000)  # as napari does when its last window is closed
    assert scripted[-1] == "saved"
    assert (tmp_path / "run" / MODEL_FILE).is_file()


# ---------------------------------------------------------------------- runs elsewhere


def report(fraction: float, **more: float) -> str:
    values = {"fraction": fraction, "images": 10, "loss": -fraction, "images_per_second": 5.0}
    return json.dumps(values | {"remaining_seconds": 8.0} | more) + "\n"


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    log, file = RunLog(tmp_path), tmp_path / "log.jsonl"
    assert log.new_reports() == []
    file.write_text(report(0.1) + report(0.2)[:9])
    assert [found.fraction for found in log.new_reports()] == [0.1]
    file.write_text(report(0.1) + report(0.2, validation_median_degrees=7.0, another=1.0))
    (second,) = log.new_reports()
    assert second.metrics["validation_median_degrees"] == 7
    assert not log.finished
    (tmp_path / MODEL_FILE).write_bytes(b"")
    assert log.finished
    file.write_text("[]\n")
    with pytest.raises(FileFormatError, match="no report"):
        log.new_reports()


def test_a_run_elsewhere_is_followed_to_its_end(
    viewer_model: ViewerModel, tmp_path: Path, model_file: Path
) -> None:
    controller = Controller(viewer_model, SynchronousRunner())
    run, finished = controller.training, []
    run.finished.connect(finished.append)
    (tmp_path / "log.jsonl").write_text(report(0.1))
    run.follow(tmp_path)
    assert run.following
    assert run.losses == [-0.1]
    assert f"following {tmp_path.name}" in run_line(run, paused=False)
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write(report(1.0, validation_median_degrees=4.0))
    run.poll()
    assert run.errors_degrees == [(1.0, 4.0)]
    (tmp_path / MODEL_FILE).write_bytes(model_file.read_bytes())
    run.poll()
    assert finished == [tmp_path]
    assert not run.following


def test_the_dock_polls_while_it_follows(dock: TrainingDock, qtbot: Any, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(report(0.1))
    dock.panel.follow(tmp_path)
    (tmp_path / "log.jsonl").write_text(report(0.1) + report(0.5))
    qtbot.waitUntil(lambda: len(dock.controller.training.losses) == 2, timeout=60_000)
    (tmp_path / "log.jsonl").write_text(report(0.1) + report(0.5) + "x\n")
    qtbot.waitUntil(lambda: not dock.controller.training.following, timeout=60_000)
    assert "log.jsonl" in notification_manager.records[-1].message


# ---------------------------------------------------------------------- pictures and words


def test_held_out_particles_are_drawn_with_their_known_views(
    predictions: Any, stack: ParticleStack
) -> None:
    preview = Preview(0.5, np.arange(8), predictions[1][:8])
    with_truth = preview_pictures(preview, stack.rotations())
    without = preview_pictures(preview, None)
    assert len(with_truth) == 6
    assert all((one != other).any() for one, other in zip(with_truth, without, strict=True))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40, "40 s"), (600, "10 min"), (12_000, "3 h 20 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
