"""A particle's distribution on a sphere that is turned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.mollweide import mollweide_position
from napari_cryosphere.widgets.docks.sphere.dock import SphereDock
from napari_cryosphere.widgets.docks.sphere.map_view import dragged_pose
from napari_cryosphere.widgets.docks.sphere.view import SphereView, sphere_picture
from napari_cryosphere.widgets.plugin.open_docks import MAIN, SPHERE, open_dock
from napari_cryosphere.widgets.state.sphere_layer import HEIGHT, WIDTH
from napari_cryosphere.widgets.state.view_statistics import directions as cell_directions


@pytest.fixture
def dock(viewer: Any, stack: ParticleStack, add_particles: Any, predictions: Any) -> SphereDock:
    add_particles(viewer, stack)
    main = open_dock(viewer, MAIN)
    viewer.show()
    session = main.controller.session
    session.store.add(*predictions)
    main.controller.show_sphere(session)
    main.controller.predictions_changed.emit()
    main.inspector.turn.click()
    made: SphereDock = viewer.window.dock_widgets[f"{SPHERE} (CryoSphere)"]
    main.controller.show_particle(7)
    made._draw()
    return made


def picture(dock: SphereDock) -> NDArray[np.float64]:
    camera = dock.sphere.camera()
    return sphere_picture(dock.sphere._colours, camera, 200, 90.0)[..., :3].astype(float)


def test_the_prediction_is_in_front_and_turns_away(dock: SphereDock) -> None:
    assert dock.parent().isFloating()
    front = picture(dock)[98:103, 98:103].max()
    dock.sphere.turn_to(dock.sphere.azimuth + 180, -dock.sphere.elevation)
    assert picture(dock)[98:103, 98:103].max() < 0.5 * front


def test_places_and_colours_are_those_of_the_directions(qapp: Any) -> None:
    colours = (80 + 80 * cell_directions()).astype(np.uint8)  # red, green and blue tell x, y and z
    sphere = SphereView("dark")
    camera = sphere.camera()
    drawn = sphere_picture(colours, camera, 101, 50.0)[45, 60, :3]  # x to the user, y right, z up
    np.testing.assert_allclose(drawn, [156, 96, 88], atol=9)
    assert np.linalg.det(camera) == pytest.approx(1)


def test_a_mark_stands_where_its_direction_is(dock: SphereDock) -> None:
    session = dock.controller.session
    assert session is not None
    rotation = session.store.rotation(7)
    assert rotation is not None
    place, seen = dock.sphere.place_of(rotation[:, 2])
    assert seen
    assert (place.x(), place.y()) == pytest.approx(
        (dock.sphere.width() / 2, dock.sphere.height() / 2)
    )
    assert not dock.sphere.place_of(-rotation[:, 2])[1]


def test_the_mouse_turns_and_the_wheel_brings_nearer(dock: SphereDock, qtbot: Any) -> None:
    sphere, before = dock.sphere, dock.sphere.azimuth
    start, end = QPoint(120, 150), QPoint(180, 150)
    qtbot.mousePress(sphere, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(sphere, end)
    qtbot.mouseRelease(sphere, Qt.MouseButton.LeftButton, pos=end)
    assert sphere.azimuth == pytest.approx((before - 30 + 180) % 360 - 180)
    qtbot.mouseMove(sphere, start)  # let go of
    assert sphere.azimuth == pytest.approx((before - 30 + 180) % 360 - 180)
    wheel(sphere, 240)
    assert sphere.zoom == pytest.approx(1.44)


def wheel(sphere: SphereView, angle: int) -> None:
    at = QPointF(sphere.rect().center())
    buttons, phase = Qt.MouseButton.NoButton, Qt.ScrollPhase.NoScrollPhase
    event = QWheelEvent(
        at, at, QPoint(), QPoint(0, angle), buttons, Qt.KeyboardModifier.NoModifier, phase, False
    )
    QApplication.sendEvent(sphere, event)


def test_it_follows_the_slider_unless_told_not_to(dock: SphereDock) -> None:
    before = dock.sphere.azimuth, dock.sphere.elevation
    dock.follow.setChecked(False)
    dock.controller.show_particle(8)
    dock._draw()
    assert (dock.sphere.azimuth, dock.sphere.elevation) == before
    assert dock.text.text().startswith("particle 9")
    dock.follow.setChecked(True)
    dock._draw()
    assert (dock.sphere.azimuth, dock.sphere.elevation) != before
    dock.controller.show_particle(70)  # of which nothing is predicted
    dock._draw()
    assert "nothing is predicted" in dock.text.text()


# ---------------------------------------------------------------------- the map next to it


@pytest.fixture
def linked(
    dock: SphereDock, viewer: Any, qtbot: Any, add_map: Any, truth: DensityMap
) -> SphereDock:
    add_map(viewer, truth, visible=False)
    qtbot.waitUntil(lambda: dock.map.surface is not None, timeout=60_000)
    qtbot.waitUntil(lambda: dock.controller.projection.match is not None, timeout=60_000)
    dock._draw()
    return dock


def test_the_map_is_turned_to_the_prediction(linked: SphereDock, qtbot: Any) -> None:
    session = linked.controller.session
    assert session is not None
    np.testing.assert_array_equal(linked.map.pose, session.store.rotation(7))
    linked.controller.show_particle(8)
    wanted = session.store.rotation(8)
    qtbot.waitUntil(lambda: bool((linked.map.pose == wanted).all()), timeout=60_000)


def test_a_drag_of_the_map_moves_a_mark_over_the_spheres(linked: SphereDock, qtbot: Any) -> None:
    session, before = linked.controller.session, linked.map.pose
    assert session is not None
    unmarked = session.frames[7].copy()
    start, end = QPoint(60, 60), QPoint(110, 45)
    qtbot.mousePress(linked.map, Qt.MouseButton.LeftButton, pos=start)
    qtbot.mouseMove(linked.map, end)
    pose = dragged_pose(before, 50, -15)
    np.testing.assert_allclose(linked.map.pose, pose, atol=1e-9)
    projection = linked.controller.projection
    qtbot.waitUntil(lambda: np.allclose(projection.pose, pose), timeout=60_000)  # while it is held
    qtbot.mouseRelease(linked.map, Qt.MouseButton.LeftButton, pos=end)
    qtbot.waitUntil(lambda: projection.match.what == "this view", timeout=60_000)
    np.testing.assert_allclose(projection.match.rotation, pose, atol=1e-9)
    row, column = np.rint(mollweide_position(pose[:, 2], HEIGHT, WIDTH)).astype(int)
    changed = (session.frames[7] != unmarked).any(-1)
    assert changed[row - 12 : row + 13, column - 12 : column + 13].sum() > 30
    assert changed.sum() < 500  # a mark, and nothing else
    linked._draw()
    assert [mark.shape for mark in linked.sphere._marks][-1] == "point"
    np.testing.assert_allclose(linked.sphere._marks[-1].direction, pose[:, 2])


def test_a_click_on_a_sphere_turns_the_map(linked: SphereDock, viewer: Any, qtbot: Any) -> None:
    turned = np.array([1.0, 1.0, 0.3]) / np.linalg.norm([1.0, 1.0, 0.3])
    linked.sphere.look_from(turned)
    at = linked.sphere.place_of(turned)[0].toPoint()
    qtbot.mouseClick(linked.sphere, Qt.MouseButton.LeftButton, pos=at)
    linked._draw()
    assert linked.map.pose[:, 2] @ turned > np.cos(np.radians(2))

    session = linked.controller.session
    assert session is not None
    sphere, camera = session.sphere, viewer.scene.camera
    other = np.array([-0.2, 0.8, -0.5]) / np.linalg.norm([-0.2, 0.8, -0.5])
    world = sphere.translate[-2:] + mollweide_position(other, HEIGHT, WIDTH) * sphere.scale[-2:]
    place = (world - camera.center[-2:]) * camera.zoom + np.array(viewer.canvas.size) / 2
    canvas = viewer.window._qt_viewer.canvas.native
    at = QPoint(*(round(float(part)) for part in place[::-1]))
    qtbot.mouseMove(canvas, at)
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=at)
    linked._draw()
    assert linked.map.pose[:, 2] @ other > np.cos(np.radians(3))


def test_without_a_map_a_line_says_so(dock: SphereDock, qtbot: Any) -> None:
    assert dock.map.surface is None
    before = dock.map.pose
    qtbot.mousePress(dock.map, Qt.MouseButton.LeftButton, pos=QPoint(20, 20))
    qtbot.mouseMove(dock.map, QPoint(60, 20))
    np.testing.assert_array_equal(dock.map.pose, before)
    assert dock.map._text.startswith("No map")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_themes(dock: SphereDock, viewer: Any, theme: str) -> None:
    viewer.theme = theme
    assert (dock.sphere._text.lightness() < 128) is (theme == "light")
    assert not dock.sphere.grab().isNull()


def test_it_opens_with_nothing_loaded_and_closes(viewer: Any, qtbot: Any) -> None:
    dock = open_dock(viewer, SPHERE)
    assert "No particle" in dock.text.text()
    assert open_dock(viewer, SPHERE) is dock
    container = dock.parent()
    viewer.window.remove_dock_widget(container)
    viewer.theme = "light"
    assert f"{SPHERE} (CryoSphere)" not in viewer.window.dock_widgets
