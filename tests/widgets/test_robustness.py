"""What may happen while work goes on: layers, docks and viewers close, other particles come, napari
quits.
"""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_cryosphere.jobs.events import Progress
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.control import map_work, work
from napari_cryosphere.widgets.control.map_sources import Poses, recipe
from napari_cryosphere.widgets.plugin.open_docks import MAIN, MAPS, TRAINING, open_dock
from napari_cryosphere.widgets.state.training_choices import TrainingChoices

JOBS = ("predict", "refine", "train", "reconstruct")


class Slow:
    """Steps that go on until they are stopped."""

    def __init__(self) -> None:
        self.begun, self.closed = threading.Event(), threading.Event()

    def __call__(self, *arguments: object) -> Iterator[object]:
        try:
            for count in itertools.count():
                yield Progress(0.5, f"step {count}")
                self.begun.set()
                time.sleep(0.005)
        finally:
            self.closed.set()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    for name in ("prediction_work", "refinement_work", "training_work"):
        monkeypatch.setattr(work, name, slow)
    monkeypatch.setattr(map_work, "reconstruction_work", slow)
    return slow


@pytest.fixture
def start(
    viewer: Any, sample: Path, slow: Slow, truth: DensityMap, tmp_path: Path, qtbot: Any
) -> Callable[[str], Any]:
    """Return a function that starts a job on the sample and returns the dock that it belongs to."""

    def begin(job: str) -> Any:
        viewer.open(sample / "particles.star", plugin="napari-cryosphere")
        dock = open_dock(viewer, {"train": TRAINING, "reconstruct": MAPS}.get(job, MAIN))
        controller = dock.controller
        if job == "predict":
            controller.poses.predict()
        elif job == "refine":
            controller.poses.refine(truth)
        elif job == "train":
            controller.train(TrainingChoices(tmp_path / "run"))
        else:
            controller.maps.reconstruct(recipe(controller.session, Poses.INPUT))
        qtbot.waitUntil(slow.begun.is_set, timeout=60_000)
        assert controller.runner.busy
        return dock

    return begin


@pytest.mark.parametrize("job", JOBS)
def test_closing_the_last_dock_stops_any_job(
    viewer: Any, start: Any, slow: Slow, job: str, qtbot: Any
) -> None:
    start(job)  # the main dock opens with the particles
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(slow.closed.is_set, timeout=60_000)


@pytest.mark.parametrize("job", ["predict", "refine"])
def test_closing_the_layer_stops_what_is_done_to_it(
    viewer: Any, start: Any, slow: Slow, job: str, qtbot: Any
) -> None:
    dock = start(job)
    viewer.layers.clear()
    qtbot.waitUntil(slow.closed.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert dock.controller.session is None


def test_particles_that_come_meanwhile_get_no_results_of_others(
    viewer: Any, sample: Path, qtbot: Any, tmp_path: Path
) -> None:
    few = tmp_path / "few.star"
    ParticleStack.read(sample / "particles.star")[:10].save(few)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    first = dock.controller.session
    dock.poses.predict.click()
    viewer.open(few, plugin="napari-cryosphere")
    second = dock.controller.session
    assert second is not first
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert first.store.predicted.all()
    assert not second.store.predicted.any()
    assert second.sphere is None


def refined_spread(stack: ParticleStack) -> np.ndarray:
    return stack.particles["cryosphereSpread"].to_numpy()


def test_poses_are_refined_in_the_window(
    viewer: Any, sample: Path, truth: DensityMap, qtbot: Any, tmp_path: Path
) -> None:
    viewer.open([sample / "particles.star", sample / "truth.mrc"], plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    session = dock.controller.session
    assert not dock.poses.refine.isEnabled()
    dock.controller.poses.predict()
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert dock.poses.reference.currentText() == "truth"
    dock.poses.refine.click()
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=120_000)
    refined = session.refined
    assert "refined" in dock.poses.overall.text()
    assert "cryosphereNetworkAngleRot" in refined.particles
    chosen = recipe(session, Poses.REFINED)
    np.testing.assert_allclose(chosen.stack.shifts_angstrom(), refined.shifts_angstrom())
    saved = dock.controller.poses.stack()
    np.testing.assert_allclose(saved.rotations(), refined.rotations(), atol=1e-6)

    # saved, reopened, and saved again: every value with the pose that it belongs to
    saved.save(tmp_path / "first.star")
    viewer.open(tmp_path / "first.star", plugin="napari-cryosphere")
    again = dock.controller.session
    assert again is not session
    for both in ("predicted", "refined"):
        assert both in dock.poses.overall.text()
    network, reread = session.store.summary(), again.store.summary()
    np.testing.assert_allclose(reread.rotations, network.rotations, atol=1e-6)
    np.testing.assert_allclose(reread.spread_degrees, network.spread_degrees)
    np.testing.assert_allclose(again.store.refined.spread_degrees, refined_spread(refined))
    np.testing.assert_allclose(again.store.refined.rotations, refined.rotations(), atol=1e-6)
    np.testing.assert_allclose(again.store.errors_degrees, session.store.errors_degrees, atol=1e-4)
    np.testing.assert_allclose(
        again.store.refined_errors_degrees(), session.store.refined_errors_degrees(), atol=1e-4
    )
    viewer.dims.set_point(0, 0)
    assert dock.inspector.tiles.text("spread") == f"{network.spread_degrees[0]:.1f}°"
    assert f"spread {refined_spread(refined)[0]:.1f}°" in dock.inspector.refined.text()
    dock.controller.poses.stack().save(tmp_path / "second.star")
    assert (tmp_path / "second.star").read_bytes() == (tmp_path / "first.star").read_bytes()

    dock.controller.choose(session.layer)
    dock.controller.poses.predict()  # what was refined from other predictions does not stay
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert session.refined is None


def test_without_a_map_of_the_run_refining_says_what_to_do(
    viewer: Any, sample: Path, qtbot: Any, model_file: Path
) -> None:
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    dock.controller.poses.refine(None)
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert "no map to refine against" in notification_manager.records[-1].message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_poses_are_not_saved_where_one_may_not_write(
    viewer: Any, sample: Path, tmp_path: Path, predictions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert _told_of(viewer, sample, tmp_path / "predicted.star", predictions, monkeypatch)


def test_poses_are_not_saved_where_there_is_no_folder(
    viewer: Any, sample: Path, tmp_path: Path, predictions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    assert _told_of(viewer, sample, tmp_path / "file" / "predicted.star", predictions, monkeypatch)


def _told_of(viewer: Any, sample: Path, path: Path, predictions: Any, monkeypatch: Any) -> bool:
    """Save predicted poses with the button; returns whether an error was shown and nothing written."""
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    dock.controller.session.store.add(*predictions)
    dock.controller.predictions_changed.emit()
    before = len(notification_manager.records)
    monkeypatch.setattr(
        "napari_cryosphere.widgets.docks.main.pose_panel.QFileDialog.getSaveFileName",
        lambda *_: (str(path), ""),
    )
    dock.poses.save.click()
    told = notification_manager.records[before:]
    return len(told) == 1 and told[0].severity.value == "error" and not path.exists()


def errors_of(code: str, state: Path, *arguments: Path) -> str:
    """Run a script in a process of its own, whose settings are in a folder; return what it said of errors."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "XDG_STATE_HOME": str(state)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


_QUIT = """
import sys, time, napari
from pathlib import Path
from qtpy.QtCore import QTimer
from napari_cryosphere.widgets.control import map_work, work
from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock
from napari_cryosphere.widgets.control.map_sources import Poses, recipe
from napari_cryosphere.widgets.state.training_choices import TrainingChoices

def slow(*arguments):
    for count in range(100_000):
        time.sleep(0.005)
        yield Progress(0.5, "on and on")

work.prediction_work = work.refinement_work = work.training_work = slow
map_work.reconstruction_work = slow
for job in ("predict", "refine", "train", "reconstruct"):
    viewer = napari.Viewer(show=True)
    viewer.open(sys.argv[1], plugin="napari-cryosphere")
    controller = open_dock(viewer, MAIN).controller
    controller.choose_model(work.SAMPLE_MODEL)
    if job == "predict":
        controller.poses.predict()
    elif job == "refine":
        controller.poses.refine(None)
    elif job == "train":
        controller.train(TrainingChoices(Path(sys.argv[2])))
    else:
        controller.maps.reconstruct(recipe(controller.session, Poses.INPUT))
    assert controller.runner.busy, job
    QTimer.singleShot(500, viewer.close)
    napari.run()
"""


def test_napari_closes_while_any_job_goes_on(viewer: Any, sample: Path, tmp_path: Path) -> None:
    said = errors_of(_QUIT, tmp_path, sample / "particles.star", tmp_path / "run")
    assert "Traceback" not in said
    assert "deleted" not in said  # an object of Qt that a worker still spoke to


_LEFT_OPEN = """
import sys, napari
from qtpy.QtWidgets import QApplication
from napari_cryosphere.widgets.plugin.open_docks import MAIN, open_dock

viewer = napari.Viewer(show=True)
viewer.open(sys.argv[1], plugin="napari-cryosphere")
open_dock(viewer, MAIN)
for _ in range(30):  # the canvas is painted, and the particle named on it
    QApplication.processEvents()
"""


def test_a_script_may_end_without_closing_its_viewer(
    viewer: Any, sample: Path, tmp_path: Path
) -> None:
    said = errors_of(_LEFT_OPEN, tmp_path, sample / "particles.star")
    assert "Error" not in said, said[-2000:]


def test_a_window_closes_while_maps_are_shown(viewer: Any, qtbot: Any, sample: Path) -> None:
    for _ in range(2):
        viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    dock = open_dock(viewer, MAIN)
    dock.particles_button.click()
    dock.poses.predict.click()
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    dock.maps_button.click()
    assert dock.controller.maps.view.active
    viewer.close()  # layer by layer, none of them drawn again


_SAVE = """
import sys, time, napari
from pathlib import Path
from qtpy.QtCore import QTimer
from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.control.export import Which
from napari_cryosphere.widgets.plugin.open_docks import GALLERY, open_dock

viewer = napari.Viewer(show=True)
viewer.open(sys.argv[1], plugin="napari-cryosphere")
dock = open_dock(viewer, GALLERY)
save = ParticleStack.save

def slow(*arguments, **options):
    time.sleep(2)
    return save(*arguments, **options)

def begin():
    ParticleStack.save = slow
    dock.actions_bar.save_particles(Which.NOT_REJECTED, Path(sys.argv[2]))
    QTimer.singleShot(300, viewer.close)

QTimer.singleShot(500, begin)
napari.run()
"""


def test_a_file_that_is_being_saved_is_whole_after_the_window_is_closed(
    viewer: Any, sample: Path, tmp_path: Path
) -> None:
    errors_of(_SAVE, tmp_path, sample / "particles.star", tmp_path / "a.star")
    assert len(ParticleStack.read(tmp_path / "a.star", sample)) == 80
