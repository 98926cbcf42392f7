"""The dock of the maps in a window, with clicks and keys."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QApplication

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import fourier_shell_correlation
from napari_cryosphere.widgets.control import map_work
from napari_cryosphere.widgets.docks.maps.dock import MapDock
from napari_cryosphere.widgets.plugin.open_docks import MAIN, MAPS, open_dock
from napari_cryosphere.widgets.state.particle_choices import Flag

LEFT = Qt.MouseButton.LeftButton
DIALOG = "QFileDialog.getSaveFileName"


@pytest.fixture
def dock(viewer: Any) -> MapDock:
    made = open_dock(viewer, MAPS)
    assert isinstance(made, MapDock)
    return made


@pytest.fixture
def small(truth: DensityMap) -> DensityMap:
    """A map that is quickly worked on."""
    return DensityMap(truth.voxels[16:48, 16:48, 16:48].copy(), 3.0)


def idle(dock: MapDock) -> bool:
    return not dock.controller.runner.busy


def told() -> list[str]:
    return [record.message for record in notification_manager.records]


def test_nothing_loaded(dock: MapDock) -> None:
    for button in (
        dock.reconstruction.reconstruct,
        dock.maps.compare,
        dock.maps.save,
        dock.slices_button,
    ):
        assert not button.isEnabled()
    assert dock.reconstruction.source.text() == "no particles loaded"
    assert open_dock(dock._viewer, MAPS) is dock


def test_reconstruct_compare_and_look_with_clicks(
    dock: MapDock, viewer: Any, qtbot: Any, sample: Path, truth: DensityMap
) -> None:
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    controller, panel = dock.controller, dock.reconstruction
    assert controller.session is not None
    assert not panel.reconstruct.isEnabled()
    assert "Predict poses first" in panel.reconstruct.toolTip()
    qtbot.keyClick(panel.poses, Qt.Key.Key_End)
    assert panel.poses.currentText() == "input poses"
    assert panel.subset.itemText(0) == "all particles (80)"
    controller.session.choices.flag([1, 2, 3], Flag.REJECT)
    assert panel.subset.itemText(2) == "all but rejected (77)"
    panel.subset.setCurrentIndex(2)
    truth_layer = controller.maps.add_map(truth, "truth")
    with qtbot.waitSignal(_relay(controller.maps.reported), timeout=60_000):
        qtbot.mouseClick(panel.reconstruct, LEFT)
        assert dock.footer.stop.isVisibleTo(dock)
        assert not panel.reconstruct.isEnabled()
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    name = "map, input, not rejected"
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "3D  truth",
        f"3D  {name}",
    ]
    assert dock.surfaces_button.isChecked()
    assert dock.maps.map.currentText() == name
    assert dock.maps.reference.layer() == truth_layer
    assert "FSC 0.143 at" in dock.maps.result.text()
    assert dock.fsc is not None
    assert len(dock.fsc.shown_curves) == 3

    qtbot.mouseClick(dock.slices_button, LEFT)
    assert viewer.dims.ndisplay == 2
    assert len([layer for layer in viewer.layers if layer.visible]) == 6
    assert dock.maps.offset.isVisibleTo(dock)
    before = controller.maps.view.slices.layers[0].data.copy()
    qtbot.keyClick(dock.maps.offset, Qt.Key.Key_PageUp)
    assert dock.maps.where.text() == "+10 Å"
    assert not np.array_equal(controller.maps.view.slices.layers[0].data, before)

    for button, words in (
        (dock.maps.compare, "correlation"),
        (dock.maps.subtract, "amplitudes matched"),
    ):
        qtbot.mouseClick(button, LEFT)
        qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
        assert words in dock.maps.result.text()
    assert len([layer for layer in viewer.layers if layer.visible]) == 9  # with the difference
    assert dock.slices_button.isChecked()
    viewer.layers.remove(viewer.layers[f"{name} − truth"])
    qtbot.mouseClick(dock.slices_button, LEFT)
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (2, 3)
    qtbot.mouseClick(dock.particles_button, LEFT)
    assert [layer.name for layer in viewer.layers if layer.visible] == ["particles"]
    assert dock.particles_button.isChecked()


def test_half_maps_that_come_leave_the_maps_that_are_shown(
    dock: MapDock, viewer: Any, truth: DensityMap
) -> None:
    maps = dock.controller.maps
    shown = maps.add_map(truth, "truth")
    dock.show_maps(slices=True)
    changed = list[bool]()
    maps.mode_changed.connect(changed.append)
    half = maps.add_map(truth, "map, input, half 1")
    assert not changed
    assert maps.view.layers == (shown,)
    assert dock.maps.reference.layer() is None
    other = maps.add_map(truth, "map, input, half 2")
    viewer.layers.remove(shown)
    assert {dock.maps.map.layer(), dock.maps.reference.layer()} == {half, other}


def test_the_plot_fits_a_low_window(dock: MapDock, viewer: Any, truth: DensityMap) -> None:
    window = viewer.window._qt_window
    window.resize(1280, 700)
    viewer.add_points([[0.0, 0.0]])  # its controls are the highest
    window.show()
    QApplication.processEvents()
    curve = fourier_shell_correlation(truth.voxels, truth.voxels, truth.pixel_size_angstrom)
    dock.controller.maps.add_curve("half-maps", curve, 0.143)
    QApplication.processEvents()
    assert window.height() == 700
    assert dock.fsc is not None
    assert dock.fsc.width() < window.width() - dock.width()


def _relay(signal: Any) -> Any:
    """Return a psygnal as a Qt signal."""
    from qtpy.QtCore import QObject, Signal

    class Relay(QObject):
        sent = Signal(object)

    relay = Relay(QApplication.instance())
    signal.connect(lambda value: relay.sent.emit(value))
    return relay.sent


def test_layers_viewer_and_dock_may_go_meanwhile(
    dock: MapDock, viewer: Any, qtbot: Any, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_work, "_SNAPSHOT_SECONDS", 1e-9)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock.reconstruction.poses.setCurrentText("input poses")
    maps = dock.controller.maps
    maps.reconstructed.connect(viewer.layers.remove)  # as soon as it is there
    qtbot.mouseClick(dock.reconstruction.reconstruct, LEFT)
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert [layer.name for layer in viewer.layers] == ["particles"]
    maps.reconstructed.disconnect(viewer.layers.remove)
    qtbot.mouseClick(dock.reconstruction.reconstruct, LEFT)
    viewer.layers.clear()  # the particles are gone: what they make is kept
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert dock.controller.session is None
    viewer.layers.clear()
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    runner = dock.controller.runner
    qtbot.mouseClick(dock.reconstruction.reconstruct, LEFT)
    viewer.window.remove_dock_widget("all")
    qtbot.waitUntil(lambda: not runner.busy, timeout=60_000)


def test_closing_the_viewer_ends_the_work(
    dock: MapDock, viewer: Any, qtbot: Any, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    dock.reconstruction.poses.setCurrentText("input poses")
    runner = dock.controller.runner
    qtbot.mouseClick(dock.reconstruction.reconstruct, LEFT)
    viewer.close()
    qtbot.waitUntil(lambda: not runner.busy, timeout=60_000)


def test_maps_dropped_onto_particles_and_particles_onto_slices_make_room(
    dock: MapDock,
    viewer: Any,
    qtbot: Any,
    sample: Path,
    small: DensityMap,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "napari_cryosphere.widgets.state.viewer_context._TOGETHER_SECONDS", -1.0
    )  # each by itself
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    small.save(tmp_path / "small.mrc")
    viewer.open(tmp_path / "small.mrc", plugin="napari-cryosphere")
    qtbot.waitUntil(lambda: dock.controller.maps.view.active, timeout=60_000)
    assert [layer.name for layer in viewer.layers if layer.visible] == ["3D  small"]
    qtbot.mouseClick(dock.slices_button, LEFT)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    qtbot.waitUntil(lambda: not dock.controller.maps.view.active, timeout=60_000)
    assert viewer.layers[-1].visible
    assert not any(layer.name.startswith("xy") for layer in viewer.layers)


def test_a_map_comes_while_a_slice_is_selected(
    dock: MapDock, viewer: Any, small: DensityMap
) -> None:
    maps = dock.controller.maps
    maps.add_map(small, "first")
    dock.show_maps(slices=True)
    chosen = viewer.layers.selection.active = maps.view.slices.layers[-1]
    second = maps.add_map(small, "second")
    maps.reconstructed.emit(second)
    assert maps.view.layers[1:] == (second,)
    assert chosen in viewer.layers


@pytest.mark.parametrize("sliced", [False, True])
def test_a_map_that_is_dropped_next_to_others_is_shown_as_they_are(
    dock: MapDock, viewer: Any, qtbot: Any, small: DensityMap, tmp_path: Path, sliced: bool
) -> None:
    maps = dock.controller.maps
    first = maps.add_map(small, "first")
    dock.show_maps(slices=sliced)
    small.save(tmp_path / "second.mrc")
    seen = list[bool]()
    viewer.layers.events.inserted.connect(lambda event: seen.append(event.value.visible))
    viewer.open(tmp_path / "second.mrc", plugin="napari-cryosphere")
    assert seen[0] is False  # napari's volume rendering takes seconds for a picture
    qtbot.waitUntil(lambda: len(maps.view.layers) == 2, timeout=60_000)
    assert maps.view.layers == (first, viewer.layers["second"])
    assert maps.view.sliced is sliced


def test_a_reference_that_is_removed_gives_way_to_another(
    dock: MapDock, viewer: Any, small: DensityMap
) -> None:
    maps = dock.controller.maps
    layers = [maps.add_map(small, name) for name in ("oldest", "second", "newest")]
    dock.maps.choose(layers[2], layers[1])
    dock.show_maps(slices=True)
    viewer.layers.remove(layers[1])
    assert dock.maps.reference.layer() is layers[0]
    assert maps.view.layers == (layers[0], layers[2])


def test_the_plot_is_read_toggled_and_exported(
    dock: MapDock,
    viewer: Any,
    qtbot: Any,
    truth: DensityMap,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert dock.fsc is None
    curve = fourier_shell_correlation(truth.voxels, truth.voxels, truth.pixel_size_angstrom)
    dock.controller.maps.add_curve("half-maps", curve, 0.143)
    plot = dock.fsc
    dock.controller.maps.add_curve("against the truth", curve, 0.5)
    assert dock.fsc is plot
    assert plot is not None
    assert plot.labels == ["half-maps: ≤ 6.0 Å at 0.143", "against the truth: ≤ 6.0 Å at 0.5"]
    axis = plot.plot.getAxis("bottom")
    ((_, ticks),) = axis.tickValues(0, 1 / 6, 600)
    assert axis.tickStrings(ticks, 1, 1)[-1] == "6"
    viewer.show()
    QApplication.processEvents()
    box = plot.plot.getViewBox().sceneBoundingRect()
    assert not plot.legend.geometry().intersects(
        plot.plot.geometry()
    )  # the legend lies over no curve
    middle = plot.plot.mapFromScene(box.center())
    qtbot.mouseMove(plot.plot.viewport(), QPoint(middle.x() - 3, middle.y()))
    qtbot.mouseMove(plot.plot.viewport(), middle)
    qtbot.waitUntil(lambda: plot.legend.where.text().startswith("at "), timeout=60_000)
    assert float(plot.legend.where.text().split()[1]) == pytest.approx(12.0, abs=0.5)
    assert plot.legend.values["half-maps"].text() == "1.00"

    qtbot.mouseClick(plot.legend.boxes["half-maps"], LEFT, pos=QPoint(8, 8))
    assert [shown.label for shown in plot.shown_curves] == ["against the truth"]
    dock.controller.maps.add_curve("third", curve, 0.5)  # what was hidden by hand stays hidden
    assert [shown.label for shown in plot.shown_curves] == ["against the truth", "third"]
    for button, name in ((plot.csv, "fsc.csv"), (plot.png, "fsc.png")):
        answer = (str(tmp_path / name), "")
        monkeypatch.setattr(
            f"napari_cryosphere.widgets.docks.maps.fsc_plot.{DIALOG}",
            lambda *_, answer=answer: answer,
        )
        qtbot.mouseClick(button, LEFT)
    with (tmp_path / "fsc.csv").open(newline="") as stream:
        assert next(csv.reader(stream)) == [
            "shell",
            "resolution_angstrom",
            "against the truth",
            "third",
        ]
    assert QImage(str(tmp_path / "fsc.png")).width() == 2 * plot.width()
    viewer.theme = "light"
    assert plot.plot.backgroundBrush().color().lightness() > 200

    def refuse(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    notification_manager.records.clear()
    qtbot.mouseClick(plot.png, LEFT)
    qtbot.mouseClick(plot.csv, LEFT)
    assert len(told()) == 2
    assert all("Permission denied" in line for line in told())
    viewer.window.remove_dock_widget(plot.parent())
    assert dock.fsc is None


def test_maps_are_saved_with_a_click_and_errors_are_told(
    dock: MapDock, qtbot: Any, small: DensityMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dock.controller.maps.add_map(small, "small")
    answers = iter([(str(tmp_path / "saved"), ""), (str(tmp_path / "file" / "saved.mrc"), "")])
    monkeypatch.setattr(
        f"napari_cryosphere.widgets.docks.maps.panel.{DIALOG}", lambda *_: next(answers)
    )
    qtbot.mouseClick(dock.maps.save, LEFT)
    np.testing.assert_array_equal(DensityMap.read(tmp_path / "saved.mrc").voxels, small.voxels)
    (tmp_path / "file").write_text("not a folder")
    notification_manager.records.clear()
    qtbot.mouseClick(dock.maps.save, LEFT)
    assert len(told()) == 1
    assert told()[0].startswith("cannot write to")


def test_commands_of_the_palette(
    viewer: Any, qtbot: Any, small: DensityMap, stack: ParticleStack, add_particles: Any
) -> None:
    from napari._app_model import get_app_model

    from napari_cryosphere.widgets.plugin import commands

    registered = {command for command, _ in get_app_model().commands}
    for name in commands.__all__:
        assert f"napari-cryosphere.{name}" in registered
    notification_manager.records.clear()
    commands.show_slices(viewer)
    commands.compare_maps(viewer)
    commands.reconstruct(viewer)
    assert [line.split(";")[0] for line in told()] == [
        "no map is loaded",
        "No map is loaded: open an MRC file, or reconstruct one",
        "No particles are loaded: open a STAR or .cs file",
    ]
    dock = open_dock(viewer, MAPS)
    for name in ("a", "b"):
        dock.controller.maps.add_map(small, name)
    commands.show_slices(viewer)
    assert dock.controller.maps.view.sliced
    commands.show_particles(viewer)
    assert not dock.controller.maps.view.active
    get_app_model().commands.execute_command(
        "napari-cryosphere.compare_maps"
    ).result()  # viewer is injected
    qtbot.waitUntil(lambda: idle(dock), timeout=60_000)
    assert "correlation 1.000" in dock.maps.result.text()


def test_the_main_dock_opens_this_one(viewer: Any, qtbot: Any, small: DensityMap) -> None:
    main = open_dock(viewer, MAIN)
    main.controller.maps.add_map(small, "small")
    qtbot.mouseClick(main.maps_button, LEFT)
    dock = open_dock(viewer, MAPS)
    assert dock.controller is main.controller
    assert dock.surfaces_button.isChecked()
    assert main.maps_button.isChecked()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_the_dock_fits_a_small_screen_in_both_themes(
    dock: MapDock, viewer: Any, theme: str
) -> None:
    viewer.theme = theme
    assert dock.styleSheet()
    assert dock.minimumSizeHint().height() < 500
    assert dock.minimumSizeHint().width() <= 340
