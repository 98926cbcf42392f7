"""Two maps side by side, and the viewer afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from scipy.ndimage import map_coordinates

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction.filters import low_passed
from napari_cryosphere.widgets.control.map_view import MapView
from napari_cryosphere.widgets.state.display_map import (
    RESOLUTION,
    UNIT,
    contour_mesh,
    in_standard_deviations,
)
from napari_cryosphere.widgets.state.layer_data import particle_layer

SURFACES = ["3D  truth", "3D  other"]


@pytest.fixture
def maps(
    viewer_model: ViewerModel,
    stack: ParticleStack,
    truth: DensityMap,
    add_particles: Any,
    add_map: Any,
) -> Any:
    """Particles, a hidden map, and another of a different scale with noise."""
    add_particles(viewer_model, stack)
    noise = np.random.default_rng(0).normal(scale=0.02, size=truth.voxels.shape)
    other = DensityMap(((truth.voxels + noise) * 50).astype(np.float32), truth.pixel_size_angstrom)
    return [
        add_map(viewer_model, truth, "truth", False),
        add_map(viewer_model, other, "other", False),
    ]


def snapshot(viewer: ViewerModel) -> dict[str, Any]:
    camera, grid = viewer.scene.camera, viewer.canvas.grid
    return {
        "ndisplay": viewer.dims.ndisplay,
        "order": viewer.dims.order,
        "point": viewer.dims.point,
        "camera": (tuple(camera.center), camera.zoom, tuple(camera.angles)),
        "grid": (grid.enabled, grid.shape, grid.stride, grid.spacing),
        "scale_bar": viewer.canvas.overlays.scale_bar.visible,
        "layers": [(layer.name, layer.visible) for layer in viewer.layers],
        "names": [
            (layer.name_overlay.visible, layer.name_overlay.font_size) for layer in viewer.layers
        ],
        "active": viewer.layers.selection.active,
        "limits": [tuple(layer.contrast_limits) for layer in viewer.layers],
        "data": [id(layer.data) for layer in viewer.layers],
    }


def test_maps_are_shown_alone_in_a_grid(viewer_model: ViewerModel, maps: Any) -> None:
    view = MapView(viewer_model)
    view.show(maps)
    assert view.active
    assert viewer_model.dims.ndisplay == 3
    assert [layer.name for layer in viewer_model.layers if layer.visible] == SURFACES
    assert viewer_model.canvas.grid.enabled
    assert viewer_model.canvas.grid.actual_shape(viewer_model.layers) == (1, 2)
    assert viewer_model.canvas.overlays.scale_bar.visible
    assert all(layer.name_overlay.visible for layer in view.surfaces.layers)


@pytest.mark.parametrize(
    ("slices", "name"),
    [(False, "map at predicted poses, all but rejected"), (True, "map at predicted poses")],
)
def test_names_fit_their_part_of_the_canvas(
    viewer_model: ViewerModel, maps: Any, slices: bool, name: str
) -> None:
    maps[1].name = name
    view = MapView(viewer_model)
    view.show(maps, slices)
    shown = view.slices.layers if slices else view.surfaces.layers
    cell = viewer_model.canvas.viewbox_size(viewer_model.layers)[1]
    for layer in shown:
        assert layer.name_overlay.visible
        assert len(layer.name) * layer.name_overlay.font_size < 1.1 * cell
    assert len({layer.name_overlay.font_size for layer in shown}) == 1


def test_leaving_restores_everything(viewer_model: ViewerModel, maps: Any) -> None:
    viewer_model.dims.set_point(0, 17)
    maps[1].name = "map at predicted poses, all but rejected of other particles"
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
    with pytest.raises(ValueError, match="one to 6"):
        view.show([])


def test_contours_enclose_the_same_volume(viewer_model: ViewerModel, maps: Any) -> None:
    view = MapView(viewer_model)
    view.show(maps)
    first, second = maps
    for threshold in (2.0, 4.0, 1.0):
        first.iso_threshold = threshold
        assert view.contours.enclosed_fraction(second) == pytest.approx(
            view.contours.enclosed_fraction(first), rel=0.02
        )
    second.iso_threshold = 3.0
    assert view.contours.enclosed_fraction(second) == pytest.approx(
        view.contours.enclosed_fraction(first), rel=0.02
    )
    view.leave()
    before = second.iso_threshold
    first.iso_threshold = 0.3
    assert second.iso_threshold == before


def test_meshes_are_the_contours_and_follow_them(
    viewer_model: ViewerModel, maps: Any, truth: DensityMap
) -> None:
    view = MapView(viewer_model)
    view.show(maps)
    scaled = in_standard_deviations(truth.voxels)
    for threshold in (2.0, 4.0):
        maps[0].iso_threshold = threshold
        for layer, voxels in zip(view.surfaces.layers, (scaled, maps[1].data), strict=True):
            vertices, faces = layer.data[:2]
            level = maps[view.surfaces.layers.index(layer)].iso_threshold
            off = np.abs(map_coordinates(voxels, vertices.T, order=1) - level)
            assert np.percentile(off, 99) < 1e-3  # but for points inside of voxels
            assert len(faces) > 1000
    maps[0].iso_threshold = 1e6  # above everything: nothing to be seen, and no error
    assert len(view.surfaces.layers[0].data[1]) == 1
    viewer_model.layers.remove(view.surfaces.layers[0])
    maps[0].iso_threshold = 2.0  # a mesh that was deleted by hand is not missed
    view.show(maps)
    assert [layer.name for layer in viewer_model.layers if layer.visible] == SURFACES


def test_a_contour_in_noise_has_fewer_faces_than_pairs_of_voxels() -> None:
    noise = np.random.default_rng(0).normal(size=(40,) * 3).astype(np.float32)
    fine = len(contour_mesh(noise, 0.0)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_cryosphere.widgets.state.display_map._MOST_CROSSED", 20_000)
        assert len(contour_mesh(noise, 0.0)[1]) < fine / 3


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
    assert (
        np.abs(np.diff(maps[1].data)).mean()
        < 0.5 * np.abs(np.diff(in_standard_deviations(raw))).mean()
    )
    view.leave()
    assert maps[1].data is raw


def test_low_pass_keeps_what_is_coarser_and_drops_what_is_finer() -> None:
    x = np.arange(64)
    for cycles, kept in ((4, 1.0), (16, 0.0)):  # of 48 and 12 A
        wave = np.broadcast_to(np.cos(2 * np.pi * cycles * x / 64), (64, 64, 64)).astype(np.float32)
        np.testing.assert_allclose(low_passed(wave, 3.0, 20.0), kept * wave, atol=1e-5)


def test_slices_are_central_and_share_a_contrast(
    viewer_model: ViewerModel, maps: Any, truth: DensityMap
) -> None:
    viewer_model.dims.set_point(0, 17)
    before = snapshot(viewer_model)
    view = MapView(viewer_model)
    view.show(maps, slices=True)
    assert viewer_model.dims.ndisplay == 2
    assert viewer_model.canvas.grid.actual_shape(viewer_model.layers) == (2, 3)
    shown = [layer for layer in viewer_model.layers if layer.visible]
    assert [layer.name[:2] for layer in shown] == ["xy", "xz", "yz"] * 2
    scaled = in_standard_deviations(truth.voxels)
    for layer, plane in zip(shown, (scaled[32], scaled[:, 32], scaled[:, :, 32]), strict=False):
        np.testing.assert_array_equal(layer.data, plane)
        np.testing.assert_allclose(
            layer.data_to_world((32, 32)), 0, atol=1e-9
        )  # the centre is the centre
    assert len({tuple(layer.contrast_limits) for layer in shown}) == 1
    shown[0].contrast_limits = (0, 3)
    assert tuple(shown[5].contrast_limits) == (0, 3)
    view.leave()
    assert snapshot(viewer_model) == before


def test_slices_move_in_angstrom_and_stay_inside(
    viewer_model: ViewerModel, maps: Any, truth: DensityMap
) -> None:
    view = MapView(viewer_model)
    view.show(maps, slices=True)
    view.slices.move(12.0)
    np.testing.assert_array_equal(
        view.slices.layers[0].data, in_standard_deviations(truth.voxels)[36]
    )
    view.slices.move(1e6)
    assert view.slices.offset_angstrom == view.slices.reach_angstrom == 31 * 3.0
    viewer_model.layers.remove(view.slices.layers[0])
    view.slices.move(0.0)  # a slice that was deleted by hand is not missed
    view.show(maps)
    assert viewer_model.dims.ndisplay == 3
    assert [layer.name for layer in viewer_model.layers if layer.visible] == SURFACES


def test_a_map_that_grows_is_sliced_anew(
    viewer_model: ViewerModel, maps: Any, truth: DensityMap
) -> None:
    view = MapView(viewer_model)
    view.show(maps, slices=True)
    grown = DensityMap(truth.voxels[::-1].copy(), 3.0)
    view.replace(maps[1], grown)
    np.testing.assert_array_equal(
        view.slices.layers[3].data, in_standard_deviations(grown.voxels)[32]
    )


def test_slices_of_other_maps_are_shown_by_the_layers_that_are_there(
    viewer_model: ViewerModel, maps: Any, truth: DensityMap, add_map: Any
) -> None:
    large = DensityMap(np.pad(truth.voxels, 8), 2.0)
    third = add_map(viewer_model, large, "difference", False)
    third.metadata[UNIT] = float(truth.voxels.std())
    view = MapView(viewer_model)
    view.show(maps[:1], slices=True)
    first = view.slices.layers
    added, laid_out = list[Any](), list[Any]()
    viewer_model.layers.events.inserted.connect(lambda event: added.append(event.value))
    viewer_model.layers.events.end_batch.connect(laid_out.append)
    view.show([maps[1], third], slices=True)
    assert view.slices.layers[:3] == first
    assert added == view.slices.layers[3:]
    assert len(laid_out) == 1
    view.show([third], slices=True)
    assert view.slices.layers == first
    layer = first[0]
    assert layer.name == "xy  difference"
    np.testing.assert_array_equal(layer.data, third.data[40])
    np.testing.assert_allclose(layer.data_to_world((40, 40)), 0, atol=1e-6)
    assert layer.colormap.name == "blue-black-orange"
    assert layer.contrast_limits[0] == -layer.contrast_limits[1]


def test_a_map_removed_while_sliced_takes_its_slices_along(
    viewer_model: ViewerModel, maps: Any
) -> None:
    view = MapView(viewer_model)
    view.show(maps, slices=True)
    viewer_model.layers.remove(maps[1])
    view.forget(maps[1])
    assert [layer.name for layer in viewer_model.layers if layer.visible] == [
        "xy  truth",
        "xz  truth",
        "yz  truth",
    ]
    viewer_model.layers.remove(maps[0])
    view.forget(maps[0])
    assert [layer.name for layer in viewer_model.layers if layer.visible] == ["particles"]


def test_particles_that_come_while_maps_are_in_3d_are_there_afterwards(
    viewer_model: ViewerModel, maps: Any, stack: ParticleStack, add_particles: Any
) -> None:
    view = MapView(viewer_model)
    view.show(maps)
    data, options, _ = particle_layer(stack, "late")
    late = viewer_model.add_image(data, **{**options, "visible": False})
    view.show(maps, slices=True)
    assert not late.visible
    view.leave()
    assert late.visible


def test_maps_of_different_boxes_lie_centre_on_centre(
    viewer_model: ViewerModel, truth: DensityMap, add_map: Any
) -> None:
    small = DensityMap(truth.voxels[8:-8, 8:-8, 8:-8].copy(), 3.0)
    first, second = add_map(viewer_model, truth, "a"), add_map(viewer_model, small, "b")
    view = MapView(viewer_model)
    view.show([first, second])
    for one, other in ((first, second), view.surfaces.layers):
        np.testing.assert_allclose(other.data_to_world((24,) * 3), one.data_to_world((32,) * 3))
    view.leave()
    np.testing.assert_array_equal(second.translate, 0)


def test_a_difference_is_shown_in_units_of_its_map_and_follows_its_contour(
    viewer_model: ViewerModel, truth: DensityMap, add_map: Any
) -> None:
    reference, difference = (
        add_map(viewer_model, truth, "a"),
        add_map(viewer_model, truth, "difference"),
    )
    difference.metadata[UNIT] = 2 * float(truth.voxels.std())
    view = MapView(viewer_model)
    view.show([reference, difference])
    np.testing.assert_allclose(difference.data, truth.voxels / difference.metadata[UNIT], rtol=1e-5)
    reference.iso_threshold = 3.0
    assert difference.iso_threshold == 1.5
    difference.iso_threshold = 0.2
    assert reference.iso_threshold == 3.0
    view.show([reference, difference], slices=True)
    low, high = view.slices.layers[3].contrast_limits
    assert low == -high
