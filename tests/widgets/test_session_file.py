"""The workbench, saved and restored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import fourier_shell_correlation
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.control.session_file import (
    flags_of,
    read_session,
    runs_of,
)
from napari_cryosphere.widgets.state.particle_choices import Flag


@pytest.fixture
def saved(
    tmp_path: Path,
    viewer_model: ViewerModel,
    stack: ParticleStack,
    truth: DensityMap,
    add_particles: Any,
    add_map: Any,
    predictions: Any,
    model_file: Path,
) -> Path:
    """A session with flags, predictions and a map that are in memory alone, a curve, a model."""
    controller = Controller(viewer_model, SynchronousRunner())
    some = stack[:40]
    some.save(tmp_path / "forty.star")
    add_particles(viewer_model, ParticleStack.read(tmp_path / "forty.star"), "forty")
    layer = add_map(viewer_model, truth, "a map", visible=False)
    session = controller.session
    assert session is not None
    session.store.add(*predictions)
    session.choices.flag([1, 2], Flag.REJECT)
    session.choices.select([3, 9])
    controller.choose_model(model_file)
    controller.choose_symmetry("C2")
    controller.inspector.choose_map(layer)
    controller.show_particle(12)
    curve = fourier_shell_correlation(truth.voxels, truth.voxels, truth.pixel_size_angstrom)
    controller.maps.add_curve("truth / truth", curve, 0.5, (layer,))
    path = tmp_path / "work.cryosphere.json"
    controller.session_file.save(path)
    controller.close()
    return path


def test_everything_comes_back(
    saved: Path, model_file: Path, truth: DensityMap, predictions: Any
) -> None:
    viewer = ViewerModel()
    controller = Controller(viewer, SynchronousRunner())
    assert controller.session_file.restore(saved) == []
    session = controller.session
    assert session is not None
    assert session.layer.name == "forty"
    assert controller.index == 12
    assert controller.model_path == model_file
    assert controller.symmetry == "C2"
    assert session.choices.rows(Flag.REJECT).tolist() == [1, 2]
    assert np.flatnonzero(session.choices.selected).tolist() == [3, 9]
    np.testing.assert_allclose(viewer.layers["a map"].data, truth.voxels, atol=1e-6)
    assert controller.inspector.map_layer is viewer.layers["a map"]
    curve = controller.maps.curves["truth / truth"]
    np.testing.assert_allclose(curve.fsc.values, 1, atol=1e-6)
    viewer.layers.remove("a map")
    assert not controller.maps.curves
    distribution = session.store.distribution(5)
    assert distribution is not None
    pose = predictions[2].rotations[None, 5]
    np.testing.assert_allclose(
        distribution.log_prob(pose), predictions[1][5].log_prob(pose), atol=0.02
    )
    assert np.nanmedian(session.store.errors_degrees) == pytest.approx(10, abs=3)


def test_saving_again_changes_nothing(saved: Path, tmp_path: Path) -> None:
    controller = Controller(ViewerModel(), SynchronousRunner())
    controller.session_file.restore(saved)
    again = tmp_path / "again.cryosphere.json"
    controller.session_file.save(again)
    first, second = read_session(saved), read_session(again)
    assert second == first


def test_files_that_are_gone_are_named_and_the_rest_restored(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "work.files" / "a_map.mrc").unlink()
    controller = Controller(ViewerModel(), SynchronousRunner())
    assert controller.session_file.restore(saved) == ["a_map.mrc"]
    assert controller.session is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "has version 99; this program reads version 1"),
        ({"format": "other"}, "is no session file"),
        ({"unheard_of": 1}, "unheard_of"),
        ({"particle": "x"}, "particle"),
    ],
)
def test_what_is_not_understood_is_refused(
    saved: Path, change: dict[str, Any], message: str
) -> None:
    saved.write_text(json.dumps(json.loads(saved.read_text()) | change))
    with pytest.raises(FileFormatError, match=message):
        read_session(saved)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.cryosphere.json"
    path.write_text("{")
    with pytest.raises(FileFormatError, match=r"a\.cryosphere\.json is no readable session file"):
        read_session(path)


@pytest.mark.parametrize("flags", [[], [0, 0, 0], [1, 1, 0, 3], [2]])
def test_flags_as_runs(flags: list[int]) -> None:
    given = np.array(flags, dtype=np.uint8)
    np.testing.assert_array_equal(flags_of(runs_of(given), len(given)), given)
