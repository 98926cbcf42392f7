"""The orientation view in a window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.control.export import Which
from napari_cryosphere.widgets.docks.orientations.dock import OrientationsDock
from napari_cryosphere.widgets.state.view_statistics import directions

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def dock(viewer: Any, qtbot: Any) -> OrientationsDock:
    made = OrientationsDock(viewer)
    viewer.window.add_dock_widget(made, name="orientations")
    viewer.window.resize(1200, 850)
    viewer.show()
    qtbot.waitExposed(made)
    return made


@pytest.fixture
def loaded(
    dock: OrientationsDock, viewer: Any, stack: ParticleStack, add_particles: Any, qtbot: Any
) -> OrientationsDock:
    add_particles(viewer, stack)
    wait_for(qtbot, dock, 80)
    return dock


def wait_for(qtbot: Any, dock: OrientationsDock, particles: int) -> None:
    qtbot.waitUntil(
        lambda: dock.shown is not None and dock.shown.particles == particles, timeout=60_000
    )


def test_it_opens_with_nothing_loaded(viewer: Any) -> None:
    _, dock = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere orientations")
    assert isinstance(dock, OrientationsDock)
    assert "No views" in dock.evenness.verdict.text()
    assert not dock.brush.lasso.isEnabled()
    assert not dock.spikes_panel.wanted.isEnabled()


def test_views_of_all_and_of_the_selection(loaded: OrientationsDock, qtbot: Any) -> None:
    session = loaded.controller.session
    assert session is not None
    assert loaded.evenness.number.text() == "80 · C1"
    assert float(loaded.evenness.tiles.text("SCF")) > 0.7
    assert "Too few" in loaded.evenness.verdict.text()
    session.choices.select(np.arange(12))
    loaded.evenness.choose(Which.SELECTED)
    wait_for(qtbot, loaded, 12)
    session.choices.select(np.arange(30))
    wait_for(qtbot, loaded, 30)


def test_dragging_a_rectangle_selects_particles(
    loaded: OrientationsDock, stack: ParticleStack, qtbot: Any
) -> None:
    session, sphere = loaded.controller.session, loaded.evenness.map
    assert session is not None
    width, height = sphere.width(), sphere.height()
    qtbot.mousePress(sphere, LEFT, pos=QPoint(0, 1))  # (0, 0) would mean the middle
    qtbot.mouseMove(sphere, QPoint(width - 1, height // 4))
    qtbot.mouseRelease(sphere, LEFT, pos=QPoint(width - 1, height // 2))
    region = sphere.region
    assert region is not None
    np.testing.assert_array_equal(
        region[np.abs(directions()[:, 2]) > 0.1],
        directions()[np.abs(directions()[:, 2]) > 0.1, 2] > 0,
    )
    qtbot.waitUntil(lambda: bool(session.choices.selected.any()), timeout=60_000)
    upper = stack.rotations()[:, 2, 2]
    clear = np.abs(upper) > 0.15
    np.testing.assert_array_equal(session.choices.selected[clear], upper[clear] > 0)
    qtbot.waitUntil(lambda: "selected in" in loaded.brush.result.text(), timeout=60_000)
    assert 47 < float(loaded.brush.result.text().split()[-5]) < 53  # percent
    qtbot.mouseDClick(sphere, LEFT, pos=QPoint(width // 2, height // 2))
    assert sphere.region is None


def test_a_lasso_and_a_click_and_ctrl(loaded: OrientationsDock, qtbot: Any) -> None:
    sphere = loaded.evenness.map
    qtbot.mouseClick(loaded.brush.lasso, LEFT)
    centre = np.array([sphere.width() / 2, sphere.height() / 2])
    ring = [
        QPoint(*(centre + 30 * np.array([np.cos(a), np.sin(a)])).astype(int))
        for a in np.linspace(0, 6.2, 20)
    ]
    qtbot.mousePress(sphere, LEFT, pos=ring[0])
    for point in ring[1:]:
        qtbot.mouseMove(sphere, point)
    qtbot.mouseRelease(sphere, LEFT, pos=ring[-1])
    region = sphere.region
    assert region is not None
    inside = directions()[region]
    assert 5 < len(inside) < 100
    assert (inside[:, 0] > 0.7).all()  # +x is in the middle
    corner = sphere.place_of(0).toPoint()
    qtbot.mouseClick(sphere, LEFT, Qt.KeyboardModifier.ControlModifier, corner)
    added = sphere.region
    assert added is not None
    assert added.sum() == region.sum() + 1
    assert "rot" in sphere.tip(0)


def test_predictions_take_the_place_of_poses(
    loaded: OrientationsDock, qtbot: Any, predictions: tuple[Any, Any, Any]
) -> None:
    session = loaded.controller.session
    assert session is not None
    before = loaded.shown
    session.store.add(*predictions)
    qtbot.waitUntil(lambda: loaded.shown is not before and loaded.shown is not None, timeout=60_000)
    wait_for(qtbot, loaded, 80)
    assert before is not None
    assert loaded.shown is not None
    assert (loaded.shown.probability > 0).sum() > (before.probability > 0).sum()


def test_spikes_stand_in_3d_while_they_are_wanted(
    loaded: OrientationsDock, viewer: Any, truth: DensityMap, add_map: Any, qtbot: Any
) -> None:
    add_map(viewer, truth, visible=False)
    box = loaded.spikes_panel.wanted
    assert box.isEnabled()
    box.click()
    assert viewer.dims.ndisplay == 3
    assert [layer.name for layer in viewer.layers if layer.visible] == [
        "3D  map",
        "view directions",
    ]
    assert set(viewer.layers["view directions"].units) == set(viewer.layers["map"].units)
    box.click()
    assert viewer.dims.ndisplay == 2
    assert "view directions" not in viewer.layers
    box.click()
    loaded.controller.maps.show()  # somebody else goes back to the particles
    assert "view directions" not in viewer.layers
    assert not box.isChecked()


def test_closing_the_dock_takes_its_layer_along(
    loaded: OrientationsDock, viewer: Any, truth: DensityMap, add_map: Any
) -> None:
    add_map(viewer, truth, visible=False)
    loaded.spikes_panel.wanted.click()
    viewer.window.remove_dock_widget(loaded.parent())
    assert "view directions" not in viewer.layers
    viewer.layers.clear()


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_themes(loaded: OrientationsDock, viewer: Any, theme: str) -> None:
    viewer.theme = theme
    assert loaded.styleSheet()
    assert not loaded.evenness.map.grab().isNull()
