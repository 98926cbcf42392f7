"""Keys of the canvas: flags and the low-pass filter, while particles are shown."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.plugin.open_docks import GALLERY, MAIN, open_dock
from napari_cryosphere.widgets.state.particle_choices import Flag

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def dock(viewer: Any, stack: ParticleStack, add_particles: Any) -> Any:
    made = open_dock(viewer, MAIN)
    add_particles(viewer, stack)
    return made


def press(viewer: Any, qtbot: Any, key: Qt.Key) -> None:
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, key)


def test_keys_and_buttons_flag_the_particle_that_is_shown(
    dock: Any, viewer: Any, qtbot: Any
) -> None:
    choices = dock.controller.session.choices
    viewer.dims.set_point(0, 7)
    for key, flag in (
        (Qt.Key.Key_K, Flag.KEEP),
        (Qt.Key.Key_X, Flag.REJECT),
        (Qt.Key.Key_V, Flag.REVIEW),
        (Qt.Key.Key_N, Flag.NONE),
    ):
        press(viewer, qtbot, key)
        assert choices.flags[7] == flag
    qtbot.mouseClick(dock.inspector.flags.buttons[Flag.REJECT], LEFT)
    assert choices.rows(Flag.REJECT).tolist() == [7]
    viewer.dims.set_point(0, 8)
    buttons = dock.inspector.flags.buttons
    assert not buttons[Flag.REJECT].isChecked()
    assert not buttons[Flag.NONE].isEnabled()
    assert "no flag" in buttons[Flag.NONE].toolTip()


def test_other_layers_keep_napari_s_keys(dock: Any, viewer: Any, qtbot: Any) -> None:
    shapes = viewer.add_shapes()
    press(viewer, qtbot, Qt.Key.Key_R)
    assert shapes.mode == "add_rectangle"
    assert dock.inspector.low_pass.isChecked()
    press(viewer, qtbot, Qt.Key.Key_V)
    assert not shapes.visible
    assert not dock.controller.session.choices.flags.any()
    viewer.layers.selection.active = dock.controller.session.layer
    press(viewer, qtbot, Qt.Key.Key_R)
    assert not dock.inspector.low_pass.isChecked()
    press(viewer, qtbot, Qt.Key.Key_V)
    assert dock.controller.session.choices.flags[0] == Flag.REVIEW


def test_keys_are_napari_s_again_in_map_mode_and_without_the_dock(
    dock: Any, viewer: Any, qtbot: Any, truth: DensityMap, add_map: Any
) -> None:
    layer = add_map(viewer, truth, visible=False)
    choices = dock.controller.session.choices
    dock.controller.maps.show(layer)
    press(viewer, qtbot, Qt.Key.Key_K)
    dock.controller.maps.show()
    assert not choices.flags.any()
    particles = dock.controller.session.layer
    viewer.window.remove_dock_widget(dock.parent())
    assert not particles.keymap


def test_u_goes_to_the_most_uncertain_particle_from_the_gallery_too(
    dock: Any, viewer: Any, qtbot: Any, predictions: Any
) -> None:
    store = dock.controller.session.store
    store.add(*predictions)
    gallery = open_dock(viewer, GALLERY)
    qtbot.keyClick(gallery.view, Qt.Key.Key_U)
    assert viewer.dims.point[0] == store.uncertain_order()[0]
    qtbot.keyClick(gallery.view, Qt.Key.Key_U)
    assert viewer.dims.point[0] == store.uncertain_order()[1]
