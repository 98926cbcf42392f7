"""Particles in a viewer that goes 3D."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.widgets.control.flat_guard import keep_flat


def test_3d_hides_particles_and_reads_nothing(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    layer = add_particles(viewer_model, stack)
    made = layer.data.frames_made
    viewer_model.dims.ndisplay = 3
    assert not layer.visible
    assert layer.data.frames_made == made
    viewer_model.dims.ndisplay = 2
    assert layer.visible


def test_rolled_axes_hide_particles_too(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    layer = add_particles(viewer_model, stack)
    made = layer.data.frames_made
    viewer_model.dims.roll()
    assert not layer.visible
    assert layer.data.frames_made == made
    viewer_model.dims.order = (0, 1, 2)
    assert layer.visible


def test_what_the_user_has_hidden_stays_hidden(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    layer = add_particles(viewer_model, stack)
    layer.visible = False
    viewer_model.dims.ndisplay = 3
    viewer_model.dims.ndisplay = 2
    assert not layer.visible


def test_a_viewer_has_one_guard(viewer_model: ViewerModel) -> None:
    assert keep_flat(viewer_model) is keep_flat(viewer_model)


def test_the_3d_button_of_a_window_is_harmless(viewer: Any, sample: Path) -> None:
    (layer,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    made = layer.data.frames_made
    viewer.dims.ndisplay = 3
    viewer.screenshot(flash=False)
    assert layer.data.frames_made == made
    viewer.dims.ndisplay = 2
    assert layer.visible


def test_particles_that_come_in_3d_wait(viewer: Any, sample: Path) -> None:
    viewer.open(sample / "truth.mrc", plugin="napari-cryosphere")
    viewer.layers[0].visible = False
    viewer.dims.ndisplay = 3
    (layer,) = viewer.open(sample / "particles.star", plugin="napari-cryosphere")
    assert not layer.visible
    viewer.dims.ndisplay = 2
    assert layer.visible


def test_showing_particles_in_3d_is_refused_with_a_reason(
    viewer_model: ViewerModel, stack: ParticleStack, add_particles: Any
) -> None:
    layer = add_particles(viewer_model, stack)
    viewer_model.dims.ndisplay = 3
    with pytest.raises(Exception, match="one at a time, in 2D"):
        layer.visible = True
