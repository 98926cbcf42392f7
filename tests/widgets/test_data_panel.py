"""What the dock says of a data set, and dropping files as the world has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt

from napari_cryosphere.errors import CryosphereError, MissingImagesError
from napari_cryosphere.particles import ParticleStack, write_star
from napari_cryosphere.widgets.docks.main.dock import CryosphereDock
from napari_cryosphere.widgets.plugin.readers import get_reader
from napari_cryosphere.widgets.state.layer_data import map_of, particles_of
from napari_cryosphere.widgets.state.viewer_context import Drop, context_of


@pytest.fixture
def dock(viewer: Any, qtbot: Any) -> CryosphereDock:
    _, dock = viewer.window.add_plugin_dock_widget("napari-cryosphere", "CryoSphere")
    return dock


@pytest.fixture
def changed(stack: ParticleStack, tmp_path: Path) -> Any:
    """Return a function that writes the sample's first particles with other columns."""

    def write(number: int = 12, **columns: Any) -> Path:
        path = tmp_path / "changed.star"
        stack[:number].with_columns(columns).save(path)
        return path

    return write


def test_optics_halves_and_warnings_are_in_sight(
    viewer: Any, dock: CryosphereDock, shared_data: Path
) -> None:
    viewer.open(shared_data / "wild/variants/two_optics_groups.star", plugin="napari-cryosphere")
    panel = dock.data
    assert panel.summary.text() == "12 particles · 32 px · 10 Å/px · CTF · poses known"
    assert panel.halves.text() == "half sets 7 and 5 · contrast sign unclear"
    assert panel.optics.rows == [["a", "6", "300", "32", "10"], ["b", "6", "200", "24", "13.33"]]
    assert panel.warnings.text().startswith(
        "⚠ optics groups of 32 px of 10 A, 24 px of 13.3333 A; images are"
    )
    for widget in (panel.summary, panel.halves, panel.optics, panel.warnings):
        assert widget.isVisibleTo(dock)
    viewer.layers.clear()
    assert "Drop" in panel.summary.text()
    for widget in (panel.halves, panel.optics, panel.warnings):
        assert not widget.isVisibleTo(dock)


def test_one_group_needs_no_table(viewer: Any, dock: CryosphereDock, sample: Path) -> None:
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    assert dock.data.halves.text() == "half sets 40 and 40 · particles white"
    assert not dock.data.optics.isVisibleTo(dock)
    assert not dock.data.warnings.isVisibleTo(dock)


def test_many_groups_and_warnings_are_cut_short(viewer: Any, dock: CryosphereDock) -> None:
    group = {
        "name": "g",
        "particles": 1200,
        "voltage_kv": 300.0,
        "box": None,
        "pixel_size_angstrom": 1.0,
    }
    dock.data.optics.show_groups([group] * 9)
    assert dock.data.optics.rows[0] == ["g", "1,200", "300", "–", "1"]
    assert dock.data.optics.rows[-1] == ["and 3 more groups"]
    assert dock.data.optics.toolTip().count("\n") == 9


def test_a_missing_split_is_said(
    viewer: Any, dock: CryosphereDock, changed: Any, tmp_path: Path
) -> None:
    stack = ParticleStack.read(changed())
    table = stack.particles.drop(columns="rlnRandomSubset")
    write_star({"optics": stack.optics, "particles": table}, tmp_path / "unsplit.star")
    viewer.open(tmp_path / "unsplit.star", plugin="napari-cryosphere")
    assert "half sets 6 and 6 (split here)" in dock.data.halves.text()
    assert "no column rlnRandomSubset" in dock.data.warnings.text()


def test_moved_images_are_found_in_the_folder_that_is_named(
    viewer: Any, dock: CryosphereDock, changed: Any, sample: Path, tmp_path: Path, qtbot: Any
) -> None:
    path = changed()
    names = [f"{number}@gone/particles.mrcs" for number in range(1, 13)]
    blocks = ParticleStack.read(path)
    write_star(
        {"optics": blocks.optics, "particles": blocks.particles.assign(rlnImageName=names)},
        path,
        overwrite=True,
    )
    before = len(notification_manager.records)
    viewer.open(path, plugin="napari-cryosphere")
    assert (
        "name their folder in the CryoSphere dock" in notification_manager.records[before].message
    )
    assert (
        dock.data.warnings.text()
        == "⚠ changed.star: its images were not found; name their folder here"
    )
    assert dock.data.warnings.isVisibleTo(dock)
    assert len(viewer.layers) == 0
    dock.data.folder.setText(str(sample))
    qtbot.keyClick(dock.data.folder, Qt.Key.Key_Return)
    assert [layer.name for layer in viewer.layers] == ["changed"]
    assert dock.data.summary.text().startswith("12 particles")
    assert context_of(viewer).image_folder.waiting == []
    viewer.open(path, plugin="napari-cryosphere")  # the folder stays
    assert len(viewer.layers) == 2
    dock.inspector.low_pass.setChecked(False)  # as they are stored
    np.testing.assert_array_equal(
        viewer.layers[1].data[3], ParticleStack.read(sample / "particles.star").images(3)[0]
    )


def test_the_line_on_missing_images_goes_with_the_next_particles(
    viewer: Any, dock: Any, changed: Any, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed()
    path.write_text(path.read_text().replace("particles.mrcs", "gone.mrcs"))
    monkeypatch.setattr(Drop, "over", False)
    viewer.open(path, plugin="napari-cryosphere")
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    assert dock.message.isVisibleTo(dock)  # they came together
    assert dock.message.text.text().startswith("changed.star: its images were not found")
    monkeypatch.setattr(Drop, "over", True)
    viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    assert not dock.message.isVisibleTo(dock)
    viewer.layers.clear()
    assert not dock.data.warnings.isVisibleTo(dock)


def test_without_a_viewer_missing_images_raise(changed: Any, tmp_path: Path) -> None:
    path = changed()
    path.write_text(path.read_text().replace("particles.mrcs", "gone.mrcs"))
    reader = get_reader(str(path))
    assert reader is not None
    with pytest.raises(MissingImagesError, match=r"gone\.mrcs"):
        reader(str(path))


def test_dropping_all_the_world_has(shared_data: Path) -> None:
    """Every file opens as particles or a map, or is refused in one line."""
    opened, refused, messages = [], [], []
    for path in sorted((shared_data / "wild").rglob("*")):
        reader = get_reader(str(path))
        if reader is None:
            continue
        try:
            ((data, options, kind),) = reader(str(path))
        except CryosphereError as error:
            refused.append(path.name)
            messages.append(str(error))
            continue
        assert kind == "image"
        layer = type("Layer", (), {"metadata": options["metadata"]})()
        held = particles_of(layer) or map_of(layer)  # type: ignore[arg-type]
        assert held is not None
        assert np.isfinite(data[len(data) // 2]).all()
        opened.append(path.name)
    assert not any("\n" in message for message in messages)
    assert set(opened) >= {
        *("r31_base.star", "r30_no_optics.star", "two_optics_groups.star", "made_cryosparc.cs"),
        *("compressed_gz.star", "base.mrcs.bz2", "r31_base.star.gz", "stack_named_mrc.star"),
        *("map_origin_nstart.mrc", "constant_images.star", "cryodrgn__hand.5.mrcs"),
    }
    assert set(refused) >= {
        *("truncated.star", "nan_pixels.star", "cs_pickle_object.cs", "missing_stack.star"),
        *("project_relative_path.star", "map_noncubic.mrc", "aspire__sample_data_model.star"),
    }
