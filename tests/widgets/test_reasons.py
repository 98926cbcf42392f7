"""Disabled controls say why, and nonsense is marked while it is typed."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QWidget

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.control.map_sources import Poses
from napari_cryosphere.widgets.plugin import open_docks
from napari_cryosphere.widgets.plugin.open_docks import COMMANDS, MAIN, MAPS, TRAINING, open_dock

NAMES = [
    getattr(open_docks, name)
    for name in open_docks.__all__
    if isinstance(getattr(open_docks, name), str)
]
CONTROLS = (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox)


def unexplained(dock: QWidget) -> list[str]:
    """Controls that can be seen, are disabled and say no more than what they do."""
    found = []
    for kind in CONTROLS:
        for control in dock.findChildren(kind):
            inner = isinstance(control.parent(), (QComboBox, QAbstractSpinBox))
            if inner or not control.isVisibleTo(dock) or control.isEnabled():
                continue
            action = getattr(control, "defaultAction", lambda: None)()
            told = action if action is not None else control
            if not told.toolTip() or told.toolTip() == told.property("cryosphere_tip"):
                named = getattr(control, "text", control.objectName)()
                found.append(f"{type(control).__name__} {named!r}: {told.toolTip()!r}")
    return found


@pytest.mark.parametrize("loaded", ["nothing", "a map", "particles", "both", "work"])
def test_every_disabled_control_says_why(
    viewer: Any,
    stack: ParticleStack,
    truth: DensityMap,
    add_particles: Any,
    add_map: Any,
    loaded: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    docks = {name: open_dock(viewer, name) for name in NAMES}
    assert len(docks) == 8
    if loaded in ("a map", "both"):
        add_map(viewer, truth, visible=False)
    if loaded in ("particles", "both", "work"):
        add_particles(viewer, stack)
    runner = docks[MAIN].controller.runner
    if loaded == "work":
        monkeypatch.setattr(type(runner), "busy", True)
        runner.busy_changed.emit(True)
        assert "Other work" in docks[MAIN].poses.find_poses.toolTip()
    assert {name: left for name, dock in docks.items() if (left := unexplained(dock))} == {}


def test_the_reason_is_what_is_missing(
    viewer: Any, stack: ParticleStack, truth: DensityMap, add_particles: Any, add_map: Any
) -> None:
    dock = open_dock(viewer, MAPS)
    panel = dock.reconstruction
    assert "No particles are loaded" in panel.reconstruct.toolTip()
    add_particles(viewer, stack)
    assert "nothing is predicted yet" in panel.reconstruct.toolTip().lower()
    panel.poses.setCurrentIndex(panel.poses.findData(Poses.INPUT))
    assert panel.reconstruct.isEnabled()
    assert "No map is loaded" in dock.maps.compare.toolTip()
    add_map(viewer, truth, visible=False)
    assert "Another map is needed" in dock.maps.compare.toolTip()
    assert "Half-maps are needed" in dock.maps.sharpen.toolTip()


def test_a_map_is_never_its_own_reference(viewer: Any, truth: DensityMap, add_map: Any) -> None:
    panel = open_dock(viewer, MAPS).maps
    first = add_map(viewer, truth, "first", visible=False)
    assert panel.map.layer() is first
    assert panel.reference.layer() is None
    assert panel.reference.count() == 0
    second = add_map(viewer, truth, "second", visible=False)
    assert {panel.map.layer(), panel.reference.layer()} == {first, second}
    panel.map.setCurrentIndex(panel.map.findText("second"))
    assert panel.reference.layer() is first
    panel.map.setCurrentIndex(panel.map.findText("first"))
    assert panel.reference.layer() is second
    assert panel.compare.isEnabled()


def test_nonsense_is_marked_while_it_is_typed(
    viewer: Any, stack: ParticleStack, add_particles: Any, qtbot: Any
) -> None:
    add_particles(viewer, stack)
    symmetry = open_dock(viewer, MAIN).data.symmetry
    symmetry.clear()
    qtbot.keyClicks(symmetry, "Q7")
    assert symmetry.property("wrong")
    assert "unknown point group" in symmetry.toolTip()
    for _ in range(2):
        qtbot.keyClick(symmetry, Qt.Key.Key_Backspace)
    qtbot.keyClicks(symmetry, "D2")
    assert not symmetry.property("wrong")
    assert "Point group" in symmetry.toolTip()
    for dock, form in (
        (TRAINING, lambda made: made.panel.form.settings),
        (COMMANDS, lambda made: (made.choose("train"), made.form)[1]),
    ):
        minutes = form(open_dock(viewer, dock)).widgets["minutes"].native
        former = minutes.text()
        minutes.clear()
        qtbot.keyClicks(minutes, "ten")
        assert minutes.property("wrong")
        minutes.clear()
        qtbot.keyClicks(minutes, former or "10")
        assert not minutes.property("wrong")
