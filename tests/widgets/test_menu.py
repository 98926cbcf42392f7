"""Every command of the manifest, run as napari runs it: from its menus and its command palette."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import npe2
import pytest
from napari._app_model import get_app_model
from napari.utils.notifications import notification_manager
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QMenu, QWidget

from napari_cryosphere.widgets.plugin.open_docks import GALLERY, MAIN, MAPS, open_dock

_FILES = npe2.PluginManifest.from_distribution("napari-cryosphere").contributions
IN_MENUS = {item.command for items in _FILES.menus.values() for item in items}
DOCKS = {widget.command for widget in _FILES.widgets or []}
NOT_RUN = {  # readers, writers and samples: napari runs them with paths and layers, see their tests
    *(reader.command for reader in _FILES.readers or []),
    *(writer.command for writer in _FILES.writers or []),
    *(sample.command for sample in _FILES.sample_data or []),
}
COMMANDS = sorted({command.id for command in _FILES.commands or []} - NOT_RUN - DOCKS)


def actions(menu: QMenu) -> Iterator[QAction]:
    menu.aboutToShow.emit()
    for action in menu.actions():
        if action.menu() is None:
            yield action
        else:
            yield from actions(action.menu())


def press(viewer: Any, command: str) -> None:
    """Take a command from the menu bar; one that is in no menu, from the command palette."""
    bar = viewer.window._qt_window.menuBar()
    found = [
        action
        for top in bar.actions()
        for action in actions(top.menu())
        if getattr(action, "_command_id", None) == command
    ]
    assert bool(found) == (command in IN_MENUS | DOCKS)
    if found:
        found[0].trigger()
    else:
        get_app_model().commands.execute_command(command).result()


def said() -> list[str]:
    return [str(record.message) for record in notification_manager.records]


@pytest.fixture
def loaded(viewer: Any, sample: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A viewer with particles, a map, and every dialog answered with no file."""
    for name in ("getSaveFileName", "getOpenFileName"):

        def ask(parent: Any, *_: Any) -> tuple[str, str]:
            assert isinstance(parent, QWidget)  # Qt takes no proxy
            return "", ""

        monkeypatch.setattr(f"qtpy.QtWidgets.QFileDialog.{name}", ask)
    viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    return viewer


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_from_napari(loaded: Any, command: str, qtbot: Any) -> None:
    notification_manager.records.clear()
    press(loaded, command)
    docks = [open_dock(loaded, name) for name in (MAIN, MAPS, GALLERY)]
    qtbot.waitUntil(lambda: not docks[0].controller.runner.busy, timeout=60_000)
    errors = [
        record.message
        for record in notification_manager.records
        if record.severity.value == "error" and "Error" in str(record.message)
    ]
    assert not errors
    assert len({id(dock.controller) for dock in docks}) == 1


def test_a_session_is_saved_and_restored_from_the_menu(
    viewer: Any, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "walk.cryosphere.json"

    def answer(parent: Any, *_: Any) -> tuple[str, str]:
        assert isinstance(parent, QWidget)
        return str(path), ""

    for name in ("getSaveFileName", "getOpenFileName"):
        monkeypatch.setattr(f"qtpy.QtWidgets.QFileDialog.{name}", answer)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    press(viewer, "napari-cryosphere.save_session")
    assert path.is_file()
    viewer.layers.clear()
    press(viewer, "napari-cryosphere.open_session")
    assert [layer.name for layer in viewer.layers] == ["particles"]


@pytest.mark.parametrize("command", sorted(DOCKS))
def test_a_dock_from_the_menu_works_on_the_viewer_itself(viewer: Any, command: str) -> None:
    press(viewer, command)
    dock = open_dock(viewer, MAIN)
    assert dock.controller.viewer is viewer
    assert isinstance(dock, QWidget)
