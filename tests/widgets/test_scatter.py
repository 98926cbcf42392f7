"""The scatter: its picture, its lasso, and the dock in a window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.docks.scatter.dock import ScatterDock
from napari_cryosphere.widgets.plugin.open_docks import GALLERY, MAPS, SCATTER, open_dock
from napari_cryosphere.widgets.state.particle_choices import Flag
from napari_cryosphere.widgets.state.scatter import (
    Frame,
    frame_around,
    in_lasso,
    nearest_point,
    paint_points,
    pixels_of,
)

LEFT = Qt.MouseButton.LeftButton
NO_KEY, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
FRAME = Frame(0, 10, 0, 5, 100, 50)


def test_a_lasso_holds_what_lies_inside() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(-20, 120, (4_000, 2))
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = 50 + 40 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    distances = np.linalg.norm(places - 50, axis=1)
    inside = in_lasso(places, circle)
    assert inside[distances < 39].all()
    assert not inside[distances > 41].any()


def test_a_lasso_that_crosses_itself_is_empty_where_it_winds_twice() -> None:
    angles = np.linspace(0, 4 * np.pi, 200, endpoint=False)
    twice = 50 + 40 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    assert not in_lasso(np.array([[50.0, 50.0]]), twice).any()
    assert in_lasso(np.array([[50.0, 50.0]]), twice[:100]).all()


def test_the_picture_shows_each_point_in_the_colour_of_its_class() -> None:
    points = np.array([[2.05, 1.05], [7.05, 4.05], [12.0, 1.0]])  # the last is out of sight
    colours = np.array([[9, 9, 9], [200, 0, 0]], dtype=np.uint8)
    picture = paint_points(pixels_of(points, FRAME), np.array([0, 1, 0], np.uint8), colours)
    assert picture.shape == (50, 100, 4)
    assert picture[10, 20, :3].tolist() == [9, 9, 9]
    assert picture[40, 70, :3].tolist() == [200, 0, 0]
    assert (picture[..., 3] > 0).sum() == 2 * 25  # lone points are five pixels wide


def test_colours_of_points_on_one_pixel_mix() -> None:
    points = np.array([[2.05, 1.05], [2.05, 1.05], [7.05, 4.05], [7.05, 4.05]])
    own = np.array([[200, 0, 0], [0, 100, 0], [50, 60, 70], [0, 0, 0]], dtype=np.uint8)
    colours = np.array([[9, 9, 9], [1, 2, 3]], dtype=np.uint8)
    classes = np.array([0, 0, 0, 1], np.uint8)
    picture = paint_points(pixels_of(points, FRAME), classes, colours, own)
    assert picture[10, 20, :3].tolist() == [100, 50, 0]
    assert picture[40, 70, :3].tolist() == [1, 2, 3]


def test_denser_places_are_stronger() -> None:
    many = np.concatenate([np.full((900, 2), 1.05), np.full((1, 2), 4.05)])
    pixels = pixels_of(many, FRAME)
    picture = paint_points(pixels, np.zeros(901, np.uint8), np.full((1, 3), 99, np.uint8))
    assert picture[10, 10, 3] == 255
    assert 80 < picture[40, 40, 3] < 160


def test_the_nearest_point_within_reach() -> None:
    points = np.array([[1.0, 1.0], [2.0, 1.0]])
    assert nearest_point(points, (1.9, 1.1), FRAME, 5) == 1
    assert nearest_point(points, (5.0, 4.0), FRAME, 5) is None
    assert nearest_point(points[:0], (1.0, 1.0), FRAME, 5) is None


def test_limits_hold_all_points_and_are_never_empty() -> None:
    (left, right), (bottom, top) = frame_around(np.array([[1.0, 3.0], [5.0, 3.0]]))
    assert left < 1 < 5 < right
    assert bottom < 3 < top
    assert frame_around(np.empty((0, 2))) == ((0.0, 1.0), (0.0, 1.0))


# ---------------------------------------------------------------------- in a window


@pytest.fixture
def dock(viewer: Any, qtbot: Any) -> ScatterDock:
    made = open_dock(viewer, SCATTER)
    viewer.window.resize(1200, 850)
    viewer.show()
    qtbot.waitExposed(made)
    assert isinstance(made, ScatterDock)
    return made


@pytest.fixture
def loaded(
    dock: ScatterDock, viewer: Any, stack: ParticleStack, add_particles: Any, qtbot: Any
) -> ScatterDock:
    add_particles(viewer, stack)
    dock.show_quantities("file order", "defocus")
    qtbot.wait(50)
    return dock


def selected(dock: ScatterDock) -> list[int]:
    session = dock.controller.session
    assert session is not None
    return np.flatnonzero(session.choices.selected).tolist()


def around(dock: ScatterDock, first: int, last: int) -> list[QPoint]:
    """Corners, in pixels, of a box around the particles of a range of the file."""
    left, right = dock.plot.place_of(first).x() - 2, dock.plot.place_of(last).x() + 2
    high = dock.plot.plot.viewport().height() - 40
    return [QPoint(left, 5), QPoint(right, 5), QPoint(right, high), QPoint(left, high)]


def draw(qtbot: Any, dock: ScatterDock, corners: list[QPoint], key: Any = NO_KEY) -> None:
    """Draw with the mouse; slower than 100 moves a second, above which pyqtgraph leaves some out."""
    viewport = dock.plot.plot.viewport()
    qtbot.mousePress(viewport, LEFT, key, corners[0])
    for corner in corners[1:]:
        qtbot.wait(15)
        qtbot.mouseMove(viewport, corner)
    qtbot.wait(15)
    qtbot.mouseRelease(viewport, LEFT, key, corners[-1])


def test_it_opens_with_nothing_loaded(dock: ScatterDock) -> None:
    assert "No particles" in dock.status.text()
    assert not dock.reconstruct.isEnabled()


def test_a_lasso_selects_and_adds(loaded: ScatterDock, qtbot: Any) -> None:
    draw(qtbot, loaded, around(loaded, 10, 19))
    assert selected(loaded) == list(range(10, 20))
    draw(qtbot, loaded, around(loaded, 40, 44), SHIFT)
    assert selected(loaded) == [*range(10, 20), *range(40, 45)]
    assert "80 of 80 shown · 15 selected" in loaded.status.text()


def test_the_selection_is_a_filter_is_flagged_and_makes_a_map(
    loaded: ScatterDock, viewer: Any, qtbot: Any
) -> None:
    session = loaded.controller.session
    assert session is not None
    draw(qtbot, loaded, around(loaded, 10, 19))
    qtbot.keyClick(loaded.plot.plot, Qt.Key.Key_X)
    assert session.choices.rows(Flag.REJECT).tolist() == list(range(10, 20))
    qtbot.mouseClick(loaded.actions_bar.only, LEFT)
    assert session.filter.rows.tolist() == list(range(10, 20))
    gallery = open_dock(viewer, GALLERY)
    assert gallery.view.rows.tolist() == list(range(10, 20))
    qtbot.mouseClick(gallery.filters.everything, LEFT)
    assert len(loaded.rows) == 80
    qtbot.mouseClick(loaded.reconstruct, LEFT)
    panel = open_dock(viewer, MAPS).reconstruction
    assert panel.subset.currentText() == "the selection (10)"
    assert panel.reconstruct.isEnabled()


def test_a_click_shows_the_particle(loaded: ScatterDock, viewer: Any, qtbot: Any) -> None:
    qtbot.mouseClick(loaded.plot.plot.viewport(), LEFT, pos=loaded.plot.place_of(33))
    qtbot.waitUntil(lambda: viewer.dims.point[0] == 33, timeout=60_000)


def test_quantities_follow_predictions(loaded: ScatterDock, predictions: Any) -> None:
    session = loaded.controller.session
    assert session is not None
    loaded.across.choose(None)
    loaded.up.choose(None)
    session.store.add(*predictions)
    assert (loaded.across.name, loaded.up.name) == ("spread", "confidence")
    assert len(loaded.rows) == 40
    assert "40 without these values" in loaded.status.text()
