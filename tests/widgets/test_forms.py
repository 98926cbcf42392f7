"""Forms that configs declare, and the dock that runs any command by its form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from magicgui.widgets import CheckBox, ComboBox, FileEdit, SpinBox
from napari._qt.qthreading import wait_for_workers_to_quit
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QTabBar

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.commands import COMMANDS
from napari_cryosphere.jobs.configs import AlignConfig, InferConfig, SimulateConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.control.command_run import to_open
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.docks.commands.dock import CommandDock
from napari_cryosphere.widgets.docks.kit.forms import ConfigForm
from napari_cryosphere.widgets.plugin.open_docks import (
    COMMANDS as COMMANDS_DOCK,
)
from napari_cryosphere.widgets.plugin.open_docks import (
    GALLERY,
    MAIN,
    ORIENTATIONS,
    SCATTER,
    open_dock,
)
from napari_cryosphere.widgets.state.layer_data import map_of, particles_of

ROWS = {row.name: row for row in COMMANDS}


def form_of(name: str) -> ConfigForm:
    row = ROWS[name]
    return ConfigForm(row.load_config(), row.fields(), row.fixed)


@pytest.fixture(autouse=True)
def application(qapp: Any) -> None:
    """Widgets need one."""


@pytest.mark.parametrize("name", ROWS)
def test_every_command_has_a_form_with_a_row_for_each_option(name: str) -> None:
    form = form_of(name)
    assert set(form.widgets) == {spec.key for spec in ROWS[name].fields()}
    for key, widget in form.widgets.items():
        assert form.fields[key].help in widget.tooltip


def test_rows_have_the_bounds_and_choices_of_the_config() -> None:
    form = form_of("align")  # kept: it owns its widgets
    widgets = form.widgets
    device, size, local = (widgets[key] for key in ("device", "batch_size", "local_degrees"))
    assert isinstance(device, ComboBox)
    assert device.choices == ("auto", "cpu", "cuda", "mps")
    assert isinstance(size, SpinBox)
    assert (size.min, size.max, size.value) == (1, 4096, 128)
    assert "[>= 0, <= 180]" in local.tooltip
    assert isinstance(widgets["invert"], CheckBox)
    assert isinstance(widgets["map"], FileEdit)
    assert "*.mrc" in widgets["map"].filter
    assert widgets["output"].mode.value == "w"
    assert widgets["data_dir"].mode.value == "d"
    training = form_of("train")
    share = training.widgets["fine_tuning"]
    assert (share.value, "[>= 0, < 1]" in share.tooltip) == ("0.1", True)


def test_empty_rows_say_whether_they_may_stay_so() -> None:
    form = form_of("abinitio")
    said = {
        key: widget.line_edit.native if isinstance(widget, FileEdit) else widget.native
        for key, widget in form.widgets.items()
        if key in ("particles", "diameter_angstrom", "data_dir", "select")
    }
    assert {key: field.placeholderText() for key, field in said.items()} == {
        "particles": "required",
        "diameter_angstrom": "optional",
        "data_dir": "optional",
        "select": "optional",
    }


def test_what_is_untouched_is_left_to_the_config() -> None:
    form = form_of("train")
    form.fill("particles", Path("p.star"))
    form.fill("output", Path("run"))
    form.fill("preset", "cesped")
    made = form.value()
    assert made == TrainConfig(particles="p.star", output="run", preset="cesped")
    assert made.epochs == 400  # the preset's, not the form's


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("align", AlignConfig(particles="p.star", map="m.mrc", output="o.star", local_degrees=5)),
        ("infer", InferConfig(particles="p.star", model="m", output="o.star", select="a > 1")),
        (
            "simulate",
            SimulateConfig(
                map="m.mrc", output="o.star", snr=math.inf, preferred_axis=(1, 0, 0), preference=-4
            ),
        ),
    ],
)
def test_a_config_is_shown_and_read_back(name: str, config: Any) -> None:
    form = form_of(name)
    form.set_value(config)
    assert form.value() == config


def test_values_that_are_not_legal_are_named() -> None:
    form = form_of("align")
    assert form.missing() == ["output", "particles", "map"]
    with pytest.raises(CryosphereError, match="is missing"):
        form.value()
    for key in ("particles", "map", "output"):
        form.fill(key, Path("x.star"))
    assert form.missing() == []
    form.fill("local_degrees", 500.0)
    with pytest.raises(CryosphereError, match=r"^local \(°\): Input should be less than"):
        form.value()
    form.fill("local_degrees", None)
    assert form.value().local_degrees is None


def test_optics_and_numbers_in_a_row() -> None:
    form = form_of("simulate")
    form.fill("map", Path("m.mrc"))
    form.fill("output", Path("o.star"))
    form.fill("optics__defocus_angstrom", (9000.0, 9500.0))
    assert form.value().optics[0].defocus_angstrom == (9000.0, 9500.0)
    several = form_of("evaluate")
    several.fill("truth", (Path("a.star"), Path("b.star")))
    several.fill("predicted", (Path("c.star"),))
    several.fill("output", Path("o"))
    assert several.value().truth == (Path("a.star"), Path("b.star"))


def test_outputs_inside_an_output_are_opened_with_it(sample: Path, tmp_path: Path) -> None:
    star, table = sample / "particles.star", tmp_path / "fsc.csv"
    table.touch()
    assert to_open({"fsc": table}) == []
    assert to_open({"star": star, "stack": sample / "particles.mrcs"}) == [star]
    assert to_open({"run": sample, "star": star}) == [sample]


# ---------------------------------------------------------------------- in the window


@pytest.fixture
def dock(viewer: Any, sample: Path) -> CommandDock:
    dock = CommandDock(viewer)
    viewer.window.add_dock_widget(dock, name="CryoSphere commands")
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    notification_manager.records.clear()
    return dock


def finish(dock: CommandDock, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    wait_for_workers_to_quit()


def test_a_command_runs_and_its_map_is_opened(
    dock: CommandDock, qtbot: Any, viewer: Any, sample: Path, tmp_path: Path
) -> None:
    dock.choose("reconstruct")
    assert dock.form.shown("particles") == str(sample / "particles.star")
    assert dock.form.shown("output") == str(sample / "particles_reconstruct.mrc")
    dock.form.widgets["output"].line_edit.value = ""
    assert not dock.button.isEnabled()
    assert dock.button.toolTip() == dock.needed.text() == "Still needed: output"
    dock.form.widgets["output"].line_edit.value = str(tmp_path / "made.mrc")
    dock.form.widgets["half_maps"].value = True
    dock.form.widgets["select"].value = "rlnRandomSubset > 0"
    assert dock.button.isEnabled()
    dock.button.click()
    assert not dock.button.isEnabled()
    finish(dock, qtbot)
    made = DensityMap.read(tmp_path / "made.mrc")
    (layer,) = (layer for layer in viewer.layers if map_of(layer) is not None)
    np.testing.assert_array_equal(layer.data, made.voxels)
    assert "particles: 80" in dock.said.text()
    assert "half map resolution at FSC 0.143 (A)" in dock.said.text()
    dock.button.click()  # the output is there now: one line, nothing replaced
    finish(dock, qtbot)
    (said,) = notification_manager.records
    assert "already exists" in said.message


def test_what_follows_from_a_value_is_shown(viewer: Any) -> None:
    dock = CommandDock(viewer, SynchronousRunner())
    dock.choose("train")
    dock.form.fill("particles", Path("p.star"))
    dock.form.fill("output", Path("run"))
    dock.form.fill("preset", "cesped")
    assert dock.form.shown("epochs") == "400"
    assert "epochs" not in dock.form.given()
    dock.form.fill("epochs", 7)
    dock.form.fill("preset", "default")
    assert dock.form.value().epochs == 7
    assert dock.form.shown("batch_size") == 32


def test_text_that_a_command_returns_is_shown(dock: CommandDock, qtbot: Any, sample: Path) -> None:
    dock.choose("info")
    dock.form.fill("file", sample / "particles.star")
    dock.button.click()
    finish(dock, qtbot)
    assert "80" in dock.said.text()


def test_the_form_has_the_height_of_the_dock_and_titles_of_docks_are_whole(
    viewer: Any, qtbot: Any
) -> None:
    docks = [
        open_dock(viewer, name) for name in (MAIN, GALLERY, ORIENTATIONS, SCATTER, COMMANDS_DOCK)
    ]
    viewer.window._qt_window.resize(1280, 720)
    viewer.window._qt_window.show()
    dock = docks[-1]
    dock.choose("abinitio")
    qtbot.waitUntil(lambda: dock.stack.height() > 0.6 * dock.height())
    direct = Qt.FindChildOption.FindDirectChildrenOnly

    def whole() -> bool:
        bars = viewer.window._qt_window.findChildren(QTabBar, options=direct)
        (bar,) = (bar for bar in bars if bar.count() == len(docks))
        return bool(bar.elideMode() == Qt.TextElideMode.ElideNone and bar.usesScrollButtons())

    qtbot.waitUntil(whole)


def test_a_wrong_value_is_said_and_nothing_runs(dock: CommandDock, tmp_path: Path) -> None:
    dock.choose("reconstruct")
    dock.form.fill("output", tmp_path / "made.mrc")
    dock.form.fill("symmetry", "Q7")
    dock.button.click()
    (said,) = notification_manager.records
    assert "symmetry" in said.message
    assert not dock.controller.runner.busy
    assert list(tmp_path.glob("*.mrc")) == []


def test_particles_and_symmetry_are_proposed(
    viewer: Any, sample: Path, add_map: Any, truth: DensityMap, tmp_path: Path
) -> None:
    dock = CommandDock(viewer, SynchronousRunner())
    dock.choose("align")
    assert dock.form.missing() == ["particles", "map", "output"]
    viewer.open([sample / "particles.star", sample / "truth.mrc"], plugin="napari-cryosphere")
    dock.controller.choose_symmetry("D2")
    dock.choose("align")
    assert dock.form.missing() == []
    assert dock.form.shown("symmetry") == "D2"
    assert any(particles_of(layer) is not None for layer in viewer.layers)
    assert isinstance(dock.controller.session.stack, ParticleStack)
    folder = tmp_path / "others"
    folder.mkdir()
    dock.controller.session.stack[:20].save(folder / "few.star")
    (folder / "few_align.star").touch()
    viewer.open(folder / "few.star", plugin="napari-cryosphere")  # what nobody has edited follows
    assert dock.form.shown("particles") == str(folder / "few.star")
    assert dock.form.shown("output") == str(folder / "few_align2.star")
