"""Layers written from napari's File menu."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from npe2 import PluginManager

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.pose_summary import PoseSummary
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.map_view import MapView
from napari_cryosphere.widgets.control.running import SynchronousRunner


@pytest.fixture(autouse=True)
def plugins() -> None:
    """Let napari know the plugin, as it does when a viewer opens."""
    PluginManager.instance().discover()


def test_particles_keep_every_column(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any, tmp_path: Path
) -> None:
    layer = add_particles(viewer_model, stack)
    (written,) = layer.save(str(tmp_path / "out.star"), plugin="napari-cryosphere")
    again = ParticleStack.read(written)
    assert len(again) == len(stack)
    assert list(again.particles) == list(stack.particles)
    np.testing.assert_array_equal(again[5:6].images(), stack[5:6].images())


def test_predictions_go_along(
    viewer_model: ViewerModel,
    stack: ParticleStack,
    add_particles: Any,
    predictions: tuple[slice, PoseDistribution, PoseSummary],
    tmp_path: Path,
) -> None:
    controller = Controller(viewer_model, SynchronousRunner())
    layer = add_particles(viewer_model, stack[:40])
    assert controller.session is not None
    controller.session.store.add(*predictions)
    layer.save(str(tmp_path / "out.star"), plugin="napari-cryosphere")
    again = ParticleStack.read(tmp_path / "out.star")
    np.testing.assert_allclose(again.rotations(), predictions[2].rotations, atol=1e-4)
    assert {"cryosphereSpread", "cryosphereInputAngleRot"} <= set(again.particles)


def test_the_file_that_particles_came_from_is_not_replaced(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    controller = Controller(viewer_model, SynchronousRunner())
    layer = add_particles(viewer_model, stack)
    assert controller.session is not None
    before = stack.source.read_bytes()
    with pytest.raises(CryosphereError, match="came from"):
        layer.save(str(stack.source), plugin="napari-cryosphere")
    assert stack.source.read_bytes() == before


def test_a_map_is_written_as_it_is_and_not_as_it_is_shown(
    viewer_model: ViewerModel, truth: DensityMap, add_map: Any, tmp_path: Path
) -> None:
    layer = add_map(viewer_model, truth, "truth")
    MapView(viewer_model).show([layer])
    layer.save(str(tmp_path / "out.mrc"), plugin="napari-cryosphere")
    again = DensityMap.read(tmp_path / "out.mrc")
    np.testing.assert_array_equal(again.voxels, truth.voxels)
    assert again.pixel_size_angstrom == pytest.approx(3.0)


def test_any_cubic_volume_is_a_map_and_others_are_not(tmp_path: Path) -> None:
    volume = Image(np.zeros((8, 8, 8), dtype=np.uint8), scale=(2.5,) * 3)
    volume.save(str(tmp_path / "volume.mrc"), plugin="napari-cryosphere")
    assert DensityMap.read(tmp_path / "volume.mrc").pixel_size_angstrom == 2.5
    for layer, said in (
        (Image(np.zeros((8, 8)), name="flat"), "flat is no map"),
        (Image(np.zeros((8, 8, 8)), scale=(1, 1, 2)), "cubic voxels"),
        (Image(np.zeros((8, 8, 6))), "must be cubic"),
    ):
        with pytest.raises(CryosphereError, match=said):
            layer.save(str(tmp_path / "no.mrc"), plugin="napari-cryosphere")
    with pytest.raises(CryosphereError, match="holds no particles"):
        volume.save(str(tmp_path / "no.star"), plugin="napari-cryosphere")
    assert not list(tmp_path.glob("no.*"))


def test_no_permission_is_said(
    viewer_model: ViewerModel, truth: DensityMap, add_map: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    layer = add_map(viewer_model, truth, "truth")
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(CryosphereError, match="Permission denied"):
        layer.save(str(tmp_path / "out.mrc"), plugin="napari-cryosphere")
    assert list(tmp_path.iterdir()) == []
