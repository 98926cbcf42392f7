"""One controller a viewer, for as long as a dock uses it."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from napari.components import ViewerModel

from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.widgets.control.running import SynchronousRunner
from napari_cryosphere.widgets.docks.kit.workbench import take_seat
from napari_cryosphere.widgets.docks.maps.dock import MapDock


def test_docks_of_a_viewer_share_a_controller(viewer_model: ViewerModel) -> None:
    runner = SynchronousRunner()
    first, second = take_seat(viewer_model, runner), take_seat(viewer_model)
    assert first.controller is second.controller
    assert second.controller.runner is runner
    assert take_seat(ViewerModel(), runner).controller is not first.controller


def test_the_last_dock_closes_the_controller(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    first, second = (take_seat(viewer_model, SynchronousRunner()) for _ in range(2))
    controller = first.controller
    first.leave()
    first.leave()
    add_particles(viewer_model, stack)
    assert controller.session is not None
    second.leave()
    viewer_model.layers.clear()
    assert controller.session is not None  # it does not look any more
    fresh = take_seat(viewer_model, SynchronousRunner()).controller
    assert fresh is not controller
    assert fresh.session is None


def test_a_dock_that_has_left_is_deaf(viewer_model: ViewerModel) -> None:
    first, second = (take_seat(viewer_model, SynchronousRunner()) for _ in range(2))
    heard: list[str] = []
    first.connect(first.controller.layers_changed, lambda: heard.append("first"))
    second.connect(first.controller.layers_changed, lambda: heard.append("second"))
    first.connect(viewer_model.events.theme, lambda event: heard.append("theme"))
    first.leave()
    first.controller.layers_changed.emit()
    viewer_model.theme = "light"
    assert heard == ["second"]


def test_nothing_is_kept_alive(stack: ParticleStack, add_particles: Any) -> None:
    viewer = ViewerModel()
    seat = take_seat(viewer, SynchronousRunner())
    add_particles(viewer, stack)
    gone = weakref.ref(viewer), weakref.ref(seat.controller)
    seat.leave()
    del viewer, seat
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_closed_dock_opens_no_plots(viewer: Any, truth: DensityMap) -> None:
    from napari_cryosphere.reconstruction import fourier_shell_correlation

    docks = [MapDock(viewer, SynchronousRunner()) for _ in range(2)]
    added = [
        viewer.window.add_dock_widget(dock, name=f"dock {at}") for at, dock in enumerate(docks)
    ]
    assert docks[0].controller is docks[1].controller
    viewer.window.remove_dock_widget(added[0])
    curve = fourier_shell_correlation(truth.voxels, truth.voxels, truth.pixel_size_angstrom)
    docks[1].controller.maps.add_curve("half-maps", curve, 0.143)
    assert docks[0].fsc is None
    assert docks[1].fsc is not None


@pytest.mark.parametrize("closed", [0, 1])
def test_flags_are_there_for_the_next_dock(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any, closed: int
) -> None:
    seats = [take_seat(viewer_model, SynchronousRunner()) for _ in range(2)]
    add_particles(viewer_model, stack)
    session = seats[closed].controller.session
    assert session is not None
    session.choices.select([3, 5])
    seats[closed].leave()
    other = seats[1 - closed].controller.session
    assert other is session
    assert other.choices.selected.sum() == 2
