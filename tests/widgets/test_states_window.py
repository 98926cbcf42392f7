"""Several states and components of variability in the window, with clicks and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, Qt

from napari_cryosphere import reconstruct
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.so3.rotations import geodesic_distance_degrees
from napari_cryosphere.widgets.control.controller import Controller
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.plugin.open_docks import (
    GALLERY,
    MAIN,
    MAPS,
    ORIENTATIONS,
    SCATTER,
    open_dock,
)
from napari_cryosphere.widgets.state.layer_data import map_of
from napari_cryosphere.widgets.state.particle_states import ParticleStates, state_colour
from napari_cryosphere.widgets.state.sphere_layer import SphereFrames

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def sorted_star(stack: ParticleStack, tmp_path: Path) -> Path:
    """Particles of two states, the second of which has those of an even row, and coordinates."""
    number = len(stack)
    second = np.arange(number) % 2
    rng = np.random.default_rng(0)
    columns = {
        "rlnClassNumber": second + 1,
        "cryosphereStateProbability1": np.where(second, 0.1, 0.97),
        "cryosphereStateProbability2": np.where(second, 0.9, 0.03),
        "cryosphereComponent1": rng.normal(size=number),
        "cryosphereComponent2": rng.normal(size=number),
        "cryosphereComponentError1": np.full(number, 0.3),
        "cryosphereComponentError2": np.full(number, 0.4),
    }
    path = tmp_path / "sorted.star"
    stack.with_columns(columns).save(path)
    return path


@pytest.fixture
def opened(viewer: Any, sorted_star: Path) -> Any:
    dock = open_dock(viewer, MAIN)
    viewer.open(sorted_star, plugin="napari-cryosphere")
    return dock


def test_the_sphere_has_the_colour_of_the_state(opened: Any, predictions: Any, viewer: Any) -> None:
    controller = opened.controller
    session = controller.session
    rows, distribution, summary = predictions
    session.store.add(rows, distribution, summary)
    controller.show_sphere(session)
    for index, said in ((0, "state 1: 97 %"), (1, "state 2: 90 %")):
        controller.show_particle(index)
        assert viewer.canvas.overlays.text.text.endswith(said)
        picture = np.asarray(session.sphere.data[index])
        left = int(np.flatnonzero(picture[len(picture) // 2, :, 3])[0])
        rim = picture[len(picture) // 2, left, :3]
        np.testing.assert_array_equal(rim, state_colour(index + 1))
        words = picture[4:24, 4:120]
        assert (words[words[..., 3] == 255][:, :3] == state_colour(index + 1)).all()
        assert (words[..., 3] == 255).sum() > 100
    plain = SphereFrames(session.store)[0]
    assert not plain[4:24, 4:120].any()


def test_a_particle_is_compared_with_the_map_of_its_state(
    viewer_model: ViewerModel,
    sorted_star: Path,
    truth: DensityMap,
    add_particles: Any,
    add_map: Any,
) -> None:
    """The second state's map is the first's, turned by 90 degrees: so are the poses that it gives."""
    particles = ParticleStack.read(sorted_star)
    controller = Controller(viewer_model, SynchronousRunner())
    add_particles(viewer_model, particles)
    inspector, session = controller.inspector, controller.session
    turned = DensityMap(np.rot90(truth.voxels, axes=(1, 2)).copy(), truth.pixel_size_angstrom)
    first = add_map(viewer_model, truth, "map", visible=False)
    inspector.choose_map(first)
    inspector.show_source("map")

    def looked_at(index: int) -> float:
        controller.show_particle(index)
        inspector.settle()
        found = session.posteriors.get(index)
        assert found is not None
        return float(geodesic_distance_degrees(found.rotation, particles.rotations()[index]))

    assert looked_at(3) < 12
    second = add_map(viewer_model, turned, "map_class002", visible=False)
    for index, layer in ((2, first), (3, second), (4, first), (3, second)):
        expected = 90 if layer is second else 0
        assert looked_at(index) == pytest.approx(expected, abs=15)
        assert inspector.compared_layer is layer
        assert controller.projection.reference is map_of(layer)
    viewer_model.layers.remove(second)
    assert looked_at(3) < 12


def test_the_particle_names_the_map_of_its_state(
    opened: Any, viewer: Any, truth: DensityMap, add_map: Any
) -> None:
    controller, said = opened.controller, opened.inspector.particle
    first = add_map(viewer, truth, "map", visible=False)
    add_map(viewer, truth, "map_class002", visible=False)
    controller.inspector.choose_map(first)
    assert controller.inspector.source == "network"
    for compared, index, text in (
        (True, 2, "3 of 80"),
        (True, 3, "4 of 80 · map_class002"),
        (False, 5, "6 of 80"),
    ):
        opened.inspector.compare.setChecked(compared)
        controller.show_particle(index)
        assert said.text() == text


def test_states_of_plain_particles_are_none(stack: ParticleStack) -> None:
    assert ParticleStates.of(stack) is None
    single = stack.with_columns({"rlnClassNumber": np.ones(len(stack), dtype=int)})
    assert ParticleStates.of(single) is None
    classes = stack.with_columns({"rlnClassNumber": 2 + np.arange(len(stack)) % 2})
    states = ParticleStates.of(classes)
    assert states is not None
    assert states.known == [2, 3]
    assert states.text(1) == "state 3"


def test_tiles_have_a_stripe_in_the_colour_of_the_state(opened: Any, viewer: Any) -> None:
    gallery = open_dock(viewer, GALLERY)
    viewer.show()
    gallery.view.viewport().repaint()
    image = gallery.view.viewport().grab().toImage()
    seen = {
        image.pixelColor(x, y).getRgb()[:3]
        for x in range(0, image.width(), 4)
        for y in range(image.height())
    }
    assert {state_colour(1), state_colour(2)} <= seen
    assert "state 2: 90 %" in gallery.painter.tip(1)


def test_orientations_in_the_colours_of_the_states(opened: Any, viewer: Any, qtbot: Any) -> None:
    views = open_dock(viewer, ORIENTATIONS)
    viewer.show()
    panel = views.evenness
    qtbot.waitUntil(lambda: views.shown is not None and views.shown.particles == 80, timeout=60_000)
    assert panel.by_state.isVisibleTo(views)
    assert panel.map._hues is None
    qtbot.mouseClick(panel.by_state, LEFT, pos=QPoint(8, 8))
    qtbot.waitUntil(lambda: panel.map._hues is not None, timeout=60_000)
    hues, marginals = panel.map._hues, views._statistics._marginals.astype(np.float64)
    first, second = marginals[::2].sum(0), marginals[1::2].sum(0)
    seen = first + second > 0
    mixed = np.outer(first, state_colour(1)) + np.outer(second, state_colour(2))
    np.testing.assert_allclose(hues[seen], mixed[seen] / (first + second)[seen, None], rtol=1e-3)
    assert "state 2" in panel.key.text()
    qtbot.mouseClick(panel.by_state, LEFT, pos=QPoint(8, 8))
    qtbot.waitUntil(lambda: panel.map._hues is None, timeout=60_000)


def test_components_are_what_the_scatter_shows_first(opened: Any, viewer: Any) -> None:
    scatter = open_dock(viewer, SCATTER)
    assert (scatter.across.name, scatter.up.name) == ("component 1", "component 2")
    offered = scatter._session.filter.quantities
    assert offered["component 1"].label == "component 1 (sd)"
    assert offered["probability of state 2"].text(1) == "90 %"
    assert "cryosphereComponent1" not in offered


def test_the_scatter_has_the_colours_of_the_states(opened: Any, viewer: Any) -> None:
    scatter = open_dock(viewer, SCATTER)
    scatter.show_quantities("component 1", "file order")
    viewer.show()
    for row in (10, 11):
        at = scatter.plot.frame().places(scatter.plot._points[row : row + 1])[0]
        assert scatter.plot._image.image[int(at[1]), int(at[0]), :3].tolist() == list(
            state_colour(row % 2 + 1)
        )
    assert "state 2" in scatter.key.text()
    assert scatter.key.isVisibleTo(scatter)
    scatter._session.choices.select([11])
    at = scatter.plot.frame().places(scatter.plot._points[11:12])[0]
    shown = scatter.plot._image.image[int(at[1]), int(at[0]), :3].tolist()
    assert shown != list(state_colour(2))


def test_a_lasso_around_components_makes_a_map_of_what_it_holds(
    opened: Any, viewer: Any, qtbot: Any
) -> None:
    scatter = open_dock(viewer, SCATTER)
    viewer.window.resize(1200, 850)
    viewer.show()
    qtbot.waitExposed(scatter)
    qtbot.wait(50)
    points, frame = scatter.plot._points, scatter.plot.frame()
    ordered = np.sort(points[:, 0])[20:60]
    gap = int(np.diff(ordered).argmax())
    cut = float(ordered[gap : gap + 2].mean())
    corners = [
        scatter.plot._shown_at((x, y))
        for x, y in (
            (cut, frame.bottom),
            (frame.right, frame.bottom),
            (frame.right, frame.top),
            (cut, frame.top),
        )
    ]
    viewport = scatter.plot.plot.viewport()
    qtbot.mousePress(viewport, LEFT, pos=corners[0])
    for corner in corners[1:]:
        qtbot.wait(15)  # pyqtgraph leaves out some of more than 100 moves a second
        qtbot.mouseMove(viewport, corner)
    qtbot.wait(15)
    qtbot.mouseRelease(viewport, LEFT, pos=corners[-1])
    inside = np.flatnonzero(points[:, 0] > cut)
    chosen = np.flatnonzero(scatter._session.choices.selected)
    assert chosen.tolist() == inside.tolist()
    qtbot.mouseClick(scatter.reconstruct, LEFT)
    dock = open_dock(viewer, MAPS)
    panel = dock.reconstruction
    assert panel.subset.currentText() == f"the selection ({len(inside)})"
    qtbot.mouseClick(panel.half_maps, LEFT, pos=QPoint(8, 8))
    qtbot.mouseClick(panel.reconstruct, LEFT)
    qtbot.waitUntil(lambda: bool(dock.controller.maps.layers), timeout=120_000)
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=120_000)
    made = map_of(dock.controller.maps.layers[0])
    assert made is not None
    stack, others = scatter._session.stack, np.setdiff1d(np.arange(80), inside)
    for rows, same in ((inside, True), (others, False)):
        density = reconstruct(stack[rows], half_maps=False).density
        alike = np.corrcoef(made.voxels.ravel(), density.voxels.ravel())[0, 1]
        assert (alike > 0.999) == same


def test_maps_of_all_states_side_by_side(viewer: Any, qtbot: Any, truth: DensityMap) -> None:
    dock = open_dock(viewer, MAPS)
    maps = dock.controller.maps
    layers = [maps.add_map(truth, name) for name in ("map", "map_class002", "map_class003")]
    maps.add_map(truth, "map_half1")
    viewer.show()
    dock.show_maps()
    assert len(maps.view.layers) == 2
    qtbot.mouseClick(dock.maps.together, LEFT, pos=QPoint(8, 8))
    assert list(maps.view.layers) == layers
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (1, 3)
    for surface, number in zip(maps.view.surfaces.layers, (1, 2, 3), strict=True):
        brightest = np.asarray(surface.colormap.colors)[-1, :3]
        np.testing.assert_allclose(255 * brightest, state_colour(number), atol=0.5)
    qtbot.mouseClick(dock.maps.subtract, LEFT)
    qtbot.waitUntil(lambda: not dock.controller.runner.busy, timeout=60_000)
    assert len(maps.view.layers) == 4
    qtbot.mouseClick(dock.slices_button, LEFT)
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (4, 3)


def test_a_slider_moves_the_map_along_a_component(
    viewer: Any, qtbot: Any, truth: DensityMap, tmp_path: Path
) -> None:
    dock = open_dock(viewer, MAPS)
    maps, panel = dock.controller.maps, dock.maps
    axis = DensityMap(np.roll(truth.voxels, 5, 0) - truth.voxels, truth.pixel_size_angstrom)
    maps.add_map(axis, "component_1")
    assert not panel._motion.isVisibleTo(dock)
    maps.add_map(DensityMap(truth.voxels[8:-8, 8:-8, 8:-8].copy(), 3.0), "component_2")
    mean = maps.add_map(truth, "mean")
    panel.map.choose(mean)
    panel._on_maps_chosen(mean)
    dock.show_maps()
    assert panel._motion.isVisibleTo(dock)
    assert panel.along.count() == 1  # the other's box is another
    assert panel.reference.layer() is None
    before = maps.view.surfaces.layers[0].data[0]
    for _ in range(10):
        qtbot.keyClick(panel.coordinate, Qt.Key.Key_Right)
    assert panel.moved.text() == "+1.0 sd"
    panel.save_map(tmp_path / "moved.mrc")
    written = DensityMap.read(tmp_path / "moved.mrc").voxels
    np.testing.assert_allclose(written, np.roll(truth.voxels, 5, 0), atol=1e-5)
    shown = maps.view.surfaces.layers[0].data[0]
    assert shown[:, 0].mean() == pytest.approx(before[:, 0].mean() + 5, abs=1.5)
    qtbot.mouseClick(dock.particles_button, LEFT)
    assert panel.moved.text() == "mean"
    np.testing.assert_array_equal(mean.data, truth.voxels)
