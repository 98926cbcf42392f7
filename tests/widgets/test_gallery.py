"""The gallery in a window: clicks, keys, flags, files."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, QSize, Qt

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.docks.gallery.dock import GalleryDock
from napari_cryosphere.widgets.docks.gallery.tile_layout import TileLayout
from napari_cryosphere.widgets.docks.gallery.tile_pictures import TILE, TilePictures
from napari_cryosphere.widgets.state.particle_choices import Flag

LEFT = Qt.MouseButton.LeftButton
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def gallery(viewer: Any, qtbot: Any) -> GalleryDock:
    dock = GalleryDock(viewer)
    viewer.window.add_dock_widget(dock, name="gallery")
    viewer.window.resize(1200, 850)
    viewer.show()
    qtbot.waitExposed(dock)
    return dock


@pytest.fixture
def loaded(
    gallery: GalleryDock, viewer: Any, stack: ParticleStack, add_particles: Any
) -> GalleryDock:
    add_particles(viewer, stack)
    assert gallery.controller.session is not None
    return gallery


def click(
    qtbot: Any, dock: GalleryDock, row: int, modifier: Any = Qt.KeyboardModifier.NoModifier
) -> None:
    rect = dock.view.rect_of(row)
    assert rect is not None
    qtbot.mouseClick(dock.view.viewport(), LEFT, modifier, rect.center())


def selected(dock: GalleryDock) -> list[int]:
    assert dock.controller.session is not None
    return np.flatnonzero(dock.controller.session.choices.selected).tolist()


def test_it_opens_with_nothing_loaded(viewer: Any) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere gallery")
    assert isinstance(dock, GalleryDock)
    assert "No particles" in dock.status.text()
    assert not dock.filters.quantity.isEnabled()
    assert not dock.actions_bar.save.isEnabled()


def test_it_shares_the_controller_of_the_other_dock(viewer: Any) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere")
    _, gallery = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere gallery")
    assert gallery.controller is dock.controller


def test_clicks_select_as_in_a_file_manager(loaded: GalleryDock, viewer: Any, qtbot: Any) -> None:
    click(qtbot, loaded, 1)
    assert selected(loaded) == [1]
    assert viewer.dims.point[0] == 1  # the slider follows
    click(qtbot, loaded, 4, SHIFT)
    assert selected(loaded) == [1, 2, 3, 4]
    click(qtbot, loaded, 2, CTRL)
    assert selected(loaded) == [1, 3, 4]
    click(qtbot, loaded, 0, SHIFT)
    assert selected(loaded) == [0, 1, 2]
    assert "80 of 80 shown · 3 selected" in loaded.status.text()
    viewport = loaded.view.viewport()
    empty = QPoint(viewport.width() - 1, 1)
    qtbot.mouseClick(viewport, LEFT, pos=empty)
    assert selected(loaded) == []


def test_keys_move_and_select(loaded: GalleryDock, viewer: Any, qtbot: Any) -> None:
    click(qtbot, loaded, 0)
    columns = loaded.view.viewport().width() // loaded.painter.size.width()
    qtbot.keyClick(loaded.view, Qt.Key.Key_Down)
    assert selected(loaded) == [columns]
    qtbot.keyClick(loaded.view, Qt.Key.Key_Right, SHIFT)
    assert selected(loaded) == [columns, columns + 1]
    qtbot.keyClick(loaded.view, Qt.Key.Key_Space)
    assert selected(loaded) == [columns]
    qtbot.keyClick(loaded.view, Qt.Key.Key_End)
    assert viewer.dims.point[0] == 79
    assert 79 in loaded.view.rows_in_sight()
    qtbot.keyClick(loaded.view, Qt.Key.Key_A, CTRL)
    assert len(selected(loaded)) == 80
    qtbot.keyClick(loaded.view, Qt.Key.Key_Escape)
    assert selected(loaded) == []


def test_a_rubber_band_selects_what_it_touches(loaded: GalleryDock, qtbot: Any) -> None:
    viewport = loaded.view.viewport()
    first, last = loaded.view.rect_of(0), loaded.view.rect_of(1)
    assert first is not None
    assert last is not None
    qtbot.mousePress(viewport, LEFT, pos=first.topLeft() + QPoint(2, 2))
    qtbot.mouseMove(viewport, first.center())
    qtbot.mouseMove(viewport, last.center())
    qtbot.mouseRelease(viewport, LEFT, pos=last.center())
    assert selected(loaded) == [0, 1]


def test_flags_by_keys_buttons_and_undo(loaded: GalleryDock, qtbot: Any) -> None:
    session = loaded.controller.session
    assert session is not None
    click(qtbot, loaded, 2)
    loaded.view.setFocus()
    qtbot.keyClick(loaded.view, Qt.Key.Key_X)
    assert session.choices.rows(Flag.REJECT).tolist() == [2]
    click(qtbot, loaded, 3)
    qtbot.mouseClick(loaded.actions_bar.flags[Flag.KEEP], LEFT)
    assert session.choices.rows(Flag.KEEP).tolist() == [3]
    assert "1 kept · 1 rejected" in loaded.status.text()
    qtbot.keyClick(loaded.view, Qt.Key.Key_Z, CTRL)
    assert not len(session.choices.rows(Flag.KEEP))
    qtbot.mouseClick(loaded.actions_bar.redo, LEFT)
    assert session.choices.rows(Flag.KEEP).tolist() == [3]


def test_tiles_are_drawn_in_the_background(
    loaded: GalleryDock, qtbot: Any, predictions: tuple[Any, Any, Any]
) -> None:
    session = loaded.controller.session
    assert session is not None
    assert not loaded.painter.spheres
    session.store.add(*predictions)
    qtbot.waitUntil(lambda: loaded.painter.spheres, timeout=60_000)

    def drawn() -> bool:
        rows = loaded.view.rows_in_sight()
        return bool(len(rows)) and not len(loaded._pictures.missing(rows))  # type: ignore[union-attr]

    qtbot.waitUntil(drawn, timeout=60_000)
    rect = loaded.view.rect_of(0)
    assert rect is not None
    picture = loaded.view.viewport().grab(rect).toImage()
    pixels = np.frombuffer(picture.bits(), dtype=np.uint8).reshape(picture.height(), -1, 4)[..., :3]
    particle, sphere = pixels[8:90, 8:90].astype(int), pixels[104:148, 8:96].astype(int)
    assert particle.std() > 20
    assert np.ptp(particle, axis=-1).max() < 6  # grey
    assert np.ptp(sphere, axis=-1).max() > 40  # coloured


def test_sorting_and_filtering_with_the_controls(
    loaded: GalleryDock, qtbot: Any, predictions: tuple[Any, Any, Any]
) -> None:
    session = loaded.controller.session
    assert session is not None
    session.store.add(*predictions)
    filters = loaded.filters
    filters.quantity.setCurrentIndex(filters.quantity.findData("error"))
    filters.quantity.activated.emit(filters.quantity.currentIndex())
    qtbot.mouseClick(filters.direction, LEFT)
    errors = session.store.errors_degrees
    assert loaded.view.rows[0] == np.nanargmax(errors)
    middle = float(np.nanmedian(errors))
    filters.histogram.brushed.emit((0.0, middle))
    assert set(loaded.view.rows) == set(np.flatnonzero(errors <= middle))
    filters.brush.setCurrentIndex(1)
    filters.histogram.brushed.emit((0.0, float(np.nanmin(errors)) + 1e-6))
    assert selected(loaded) == [int(np.nanargmin(errors))]
    filters.labels["half-set"].setCurrentIndex(1)
    filters.labels["half-set"].activated.emit(1)
    assert (session.stack.half_sets()[loaded.view.rows] == 1).all()
    qtbot.mouseClick(filters.everything, LEFT)
    assert len(loaded.view.rows) == 80


def test_a_range_is_brushed_by_dragging(loaded: GalleryDock, qtbot: Any) -> None:
    session = loaded.controller.session
    assert session is not None
    loaded.filters.quantity.setCurrentIndex(loaded.filters.quantity.findData("defocus"))
    loaded.filters.quantity.activated.emit(0)
    qtbot.wait(50)
    port = loaded.filters.histogram.plot.viewport()
    low, high = (QPoint(int(part * port.width()), 20) for part in (0.3, 0.7))
    qtbot.mousePress(port, LEFT, pos=low)
    for part in np.linspace(0.35, 0.7, 6):
        qtbot.mouseMove(port, QPoint(int(part * port.width()), 20))
        qtbot.wait(5)
    qtbot.mouseRelease(port, LEFT, pos=high)
    qtbot.waitUntil(lambda: "defocus" in session.filter.ranges, timeout=60_000)
    least, most = session.filter.ranges["defocus"]
    values = session.filter.quantities["defocus"].values
    assert values.min() < least < most < values.max()
    assert set(loaded.view.rows) == set(np.flatnonzero((values >= least) & (values <= most)))


def test_the_slider_frames_its_tile(loaded: GalleryDock, viewer: Any) -> None:
    viewer.dims.set_point(0, 70)
    assert loaded.view.current_row == 70
    assert 70 in loaded.view.rows_in_sight()
    assert selected(loaded) == []


def test_double_click_opens_the_particle(
    loaded: GalleryDock, viewer: Any, qtbot: Any, truth: Any, add_map: Any
) -> None:
    layer = viewer.layers[0]
    loaded.controller.maps.show(add_map(viewer, truth))
    assert not layer.visible
    rect = loaded.view.rect_of(3)
    assert rect is not None
    qtbot.mouseDClick(loaded.view.viewport(), LEFT, pos=rect.center())
    assert layer.visible
    assert viewer.dims.ndisplay == 2
    assert viewer.dims.point[0] == 3


def test_saving_what_is_not_rejected(
    loaded: GalleryDock, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = loaded.controller.session
    assert session is not None
    session.choices.flag(np.arange(60), Flag.REJECT)
    bar = loaded.actions_bar
    assert [bar.which.itemText(at) for at in range(4)] == [
        "selected (0)",
        "shown (80)",
        "kept (0)",
        "not rejected (20)",
    ]
    assert bar.save.isEnabled()
    assert bar.which.currentIndex() == 3
    monkeypatch.setattr(
        "napari_cryosphere.widgets.docks.kit.choice_actions.QFileDialog.getSaveFileName",
        lambda *args: (str(tmp_path / "good.star"), ""),
    )
    qtbot.mouseClick(bar.save, LEFT)
    qtbot.waitUntil(lambda: not loaded.controller.runner.busy, timeout=60_000)
    written = ParticleStack.read(tmp_path / "good.star")
    assert len(written) == 20
    assert set(session.stack.particles) == set(written.particles)


def test_what_was_picked_out_is_proposed_to_be_saved(loaded: GalleryDock) -> None:
    session, bar = loaded.controller.session, loaded.actions_bar
    assert session is not None
    assert not bar.save.isEnabled()
    session.filter.sort_by("defocus", False)
    session.filter.set_range(
        "defocus", (0.0, float(session.filter.quantities["defocus"].values[3]))
    )
    assert bar.which.currentText() == f"shown ({len(session.filter.rows)})"
    assert bar.save.isEnabled()
    session.choices.select([3])
    assert bar.which.currentText() == "selected (1)"
    bar.which.setCurrentIndex(1)
    bar.which.activated.emit(1)
    session.choices.select([3, 4])
    assert bar.which.currentText().startswith("shown")


def test_names_of_buttons_and_the_framed_tile_stay_in_sight_in_a_small_dock(
    loaded: GalleryDock, viewer: Any, qtbot: Any
) -> None:
    loaded.resize(loaded.minimumWidth() + 110, 700)
    viewer.dims.set_point(0, 41)
    loaded.view.set_current(41)
    loaded.resize(loaded.minimumWidth(), 520)
    qtbot.wait(20)
    for button in loaded.actions_bar.flags.values():
        icon = 0 if button.icon().isNull() else 16
        assert button.fontMetrics().horizontalAdvance(button.text()) + icon < button.width()
    brush = loaded.filters.brush
    assert brush.width() >= brush.sizeHint().width()
    tile = loaded.view.rect_of(41)
    assert tile is not None
    assert 0 <= tile.top() < tile.bottom() <= loaded.view.viewport().height()


def test_flags_that_are_not_kept_are_said(
    loaded: GalleryDock, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    session = loaded.controller.session
    assert session is not None
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    session.choices.flag([0], Flag.KEEP)
    session.kept.flush()
    loaded._update_status()
    assert "flags are not kept" in loaded.status.text()
    assert "Permission denied" in loaded.status.text()
    assert session.choices.flags[0] == Flag.KEEP


def test_layers_and_docks_close_while_tiles_are_made(
    loaded: GalleryDock, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    made = TilePictures.make
    monkeypatch.setattr(
        TilePictures, "make", lambda self, rows: (go_on.wait(10), made(self, rows))[1]
    )
    loaded._on_low_pass(False)
    viewer.layers.clear()
    assert "No particles" in loaded.status.text()
    assert not len(loaded.view.rows)
    viewer.window.remove_dock_widget(loaded.parent())
    go_on.set()
    qtbot.wait(100)


def test_commands_of_the_palette(viewer: Any, stack: ParticleStack, add_particles: Any) -> None:
    from napari.utils.notifications import notification_manager

    from napari_cryosphere.widgets.plugin import commands

    notification_manager.records.clear()
    commands.keep_selected(viewer)
    add_particles(viewer, stack)
    commands.keep_selected(viewer)
    said = [record.message for record in notification_manager.records]
    assert [line.split(";")[0] for line in said] == [
        "no particles are loaded",
        "no particles are selected",
    ]
    _, dock = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere gallery")
    session = dock.controller.session
    assert session is not None
    session.filter.set_label("half-set", "1")
    commands.select_shown(viewer)
    commands.reject_selected(viewer)
    assert session.choices.rows(Flag.REJECT).tolist() == session.filter.rows.tolist()
    commands.undo_choice(viewer)
    assert not session.choices.flags.any()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_themes(loaded: GalleryDock, viewer: Any, theme: str) -> None:
    viewer.theme = theme
    assert loaded.styleSheet()
    assert not loaded.view.viewport().grab().isNull()


def test_layout_of_a_hundred_thousand_tiles() -> None:
    layout = TileLayout(QSize(100, 150), 4, 100_000, 430)
    assert layout.height == 25_000 * 150
    rect = layout.rect(99_999)
    assert layout.place_at(rect.center()) == 99_999
    assert layout.place_at(rect.bottomRight() + QPoint(200, 200)) is None
    assert layout.places_between(rect.top(), rect.bottom()).tolist() == [
        99_996,
        99_997,
        99_998,
        99_999,
    ]
    assert layout.places_in(layout.rect(5).united(layout.rect(10))).tolist() == [5, 6, 9, 10]
    assert layout.target(Qt.Key.Key_Down, 99_999, 600) == 99_999
    assert layout.target(Qt.Key.Key_PageUp, 50, 600) == 34
    assert layout.target(Qt.Key.Key_K, 50, 600) is None


def test_an_image_that_cannot_be_read_spoils_no_other(
    stack: ParticleStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_cryosphere.errors import CryosphereError
    from napari_cryosphere.widgets.state.predictions import PredictionStore

    pictures = TilePictures(stack, PredictionStore(len(stack)))
    read = TilePictures._images

    def broken(self: TilePictures, rows: Any) -> Any:
        if 3 in rows:
            raise CryosphereError("image 3 has pixels that are not finite")
        return read(self, rows)

    monkeypatch.setattr(TilePictures, "_images", broken)
    made = pictures.make(np.arange(5))
    assert [made[row].image is None for row in range(5)] == [False, False, False, True, False]
    assert "not finite" in made[3].problem
    assert made[0].image.shape == (min(TILE, stack.box),) * 2  # type: ignore[union-attr]
