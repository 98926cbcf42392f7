"""Two maps side by side, and the viewer afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.display_map import RESOLUTION, in_standard_deviations, low_passed
from napari_cryosphere.widgets.map_view import MapView


@pytest.fixture
def maps(
    viewer_model: ViewerModel, stack: ParticleStack, truth: DensityMap, add_particles: Any, add_map: Any
) -> Any:
    """Particles, a hidden map, and another of a different scale with noise."""
    add_particles(viewer_model, stack)
    noise = np.random.default_rng(0).normal(scale=0.02, size=truth.voxels.shape)
    other = DensityMap(((truth.voxels + noise) * 50).astype(np.float32), truth.pixel_size_angstrom)
    return [add_map(viewer_model, truth, "truth", False), add_map(viewer_model, other, "other", False)]


def snapshot(viewer: ViewerModel) -> dict[str, Any]:
    camera, grid = viewer.scene.camera, viewer.canvas.grid
    return {
        "ndisplay": viewer.dims.ndisplay,
        "order": viewer.dims.order,
        "point": viewer.dims.point,
        "camera": (tuple(camera.center), camera.zoom, tuple(camera.angles)),
        "grid": (grid.enabled, grid.shape, grid.stride, grid.spacing),
        "scale_bar": viewer.canvas.overlays.scale_bar.visible,
        "layers": [(layer.name, layer.visible, layer.name_overlay.visible) for layer in viewer.layers],
        "active": viewer.layers.selection.active,
        "limits": [tuple(layer.contrast_limits) for layer in viewer.layers],
        "data": [id(layer.data) for layer in viewer.layers],
    }


def test_maps_are_shown_alone_in_a_grid(viewer_model: ViewerModel, maps: Any) -> None:
    view = MapView(viewer_model)
    view.show(maps)
    assert view.active
    assert viewer_model.dims.ndisplay == 3
    assert [layer.name for layer in viewer_model.layers if layer.visible] == ["truth", "other"]
    assert viewer_model.canvas.grid.enabled
    assert viewer_model.canvas.grid.actual_shape(viewer_model.layers) == (1, 2)
    assert viewer_model.canvas.overlays.scale_bar.visible
    assert all(layer.name_overlay.visible for layer in maps)


def test_leaving_restores_everything(viewer_model: ViewerModel, maps: Any) -> None:
    viewer_model.dims.set_point(0, 17)
    viewer_model.scene.camera.zoom = 1.7
    viewer_model.layers.selection.active = viewer_model.layers[0]
    before = snapshot(viewer_model)
    thresholds = [layer.iso_threshold for layer in maps]
    view = MapView(viewer_model)
    view.show(maps)
    view.show(maps[:1])
    view.leave()
    assert snapshot(viewer_model) == before
    assert maps[0].iso_threshold == pytest.approx(thresholds[0], rel=1e-4)
    view.leave()
    assert snapshot(viewer_model) == before


def test_one_map_needs_no_grid(viewer_model: ViewerModel, maps: Any) -> None:
    view = MapView(viewer_model)
    view.show(maps[:1])
    assert not viewer_model.canvas.grid.enabled
    with pytest.raises(ValueError, match="one or two"):
        view.show([])


def test_contours_enclose_the_same_volume(viewer_model: ViewerModel, maps: Any) -> None:
    view = MapView(viewer_model)
    view.show(maps)
    first, second = maps
    for threshold in (2.0, 4.0, 1.0):
        first.iso_threshold = threshold
        assert view.enclosed_fraction(second) == pytest.approx(view.enclosed_fraction(first), rel=0.02)
    second.iso_threshold = 3.0
    assert view.enclosed_fraction(second) == pytest.approx(view.enclosed_fraction(first), rel=0.02)
    view.leave()
    before = second.iso_threshold
    first.iso_threshold = 0.3
    assert second.iso_threshold == before


def test_a_removed_map_leaves_the_other(viewer_model: ViewerModel, maps: Any) -> None:
    view = MapView(viewer_model)
    view.show(maps)
    viewer_model.layers.remove(maps[1])
    view.forget(maps[1])
    assert view.layers == (maps[0],)
    assert view.active
    viewer_model.layers.remove(maps[0])
    view.forget(maps[0])
    assert not view.active
    assert viewer_model.dims.ndisplay == 2
    assert viewer_model.layers[0].visible


def test_a_map_is_shown_at_its_resolution(viewer_model: ViewerModel, maps: Any) -> None:
    raw = maps[1].data
    maps[1].metadata[RESOLUTION] = 20.0
    view = MapView(viewer_model)
    view.show(maps)
    assert maps[1].data.std() == pytest.approx(1, rel=1e-3)
    assert np.abs(np.diff(maps[1].data)).mean() < 0.5 * np.abs(np.diff(in_standard_deviations(raw))).mean()
    view.leave()
    assert maps[1].data is raw


def test_low_pass_keeps_what_is_coarser_and_drops_what_is_finer() -> None:
    x = np.arange(64)
    for cycles, kept in ((4, 1.0), (16, 0.0)):  # of 48 and 12 A
        wave = np.broadcast_to(np.cos(2 * np.pi * cycles * x / 64), (64, 64, 64)).astype(np.float32)
        np.testing.assert_allclose(low_passed(wave, 3.0, 20.0), kept * wave, atol=1e-5)
