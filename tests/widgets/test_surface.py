"""A map's surface, drawn in memory."""

from __future__ import annotations

import time

import numpy as np
import pytest

from napari_cryosphere.imaging.comparison import ProjectionMatcher
from napari_cryosphere.particles import DensityMap, ImageGrid
from napari_cryosphere.so3.rotations import rotation_from_relion_angles
from napari_cryosphere.widgets.docks.sphere.map_view import dragged_pose
from napari_cryosphere.widgets.state.surface import Surface, draw_surface, surface_of

POSE = rotation_from_relion_angles(np.array([40.0, 65.0, -110.0]))


@pytest.mark.parametrize("box", [64, 96])
def test_its_outline_is_that_of_the_projection(truth: DensityMap, box: int) -> None:
    """The projector is tested against RELION; wrong axes or an inverted pose would not match."""
    padded = np.zeros((box,) * 3, dtype=np.float32)
    start = (box - truth.box) // 2
    padded[(slice(start, start + truth.box),) * 3] = truth.voxels
    density = DensityMap(padded, truth.pixel_size_angstrom)
    surface = surface_of(density)
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=-1), 1, atol=1e-3)
    grid = ImageGrid(truth.box, truth.pixel_size_angstrom)
    projection = ProjectionMatcher(truth, grid).projections(POSE[None])[0]
    side, farthest = 101, max(box / 64, 1) / surface.spacing
    found = {}
    for name, pose in {"right": POSE, "inverted": POSE.T}.items():
        drawn = draw_surface(surface, pose, side)[..., 3] > 0
        rows, columns = np.indices(drawn.shape) - (side - 1) / 2
        scale = farthest / (0.46 * side)
        sampled = np.rint(np.stack([rows, columns]) * scale + truth.box // 2).astype(int)
        inside = ((sampled >= 0) & (sampled < truth.box)).all(0)
        dense = np.zeros(drawn.shape)
        dense[inside] = projection[tuple(sampled[:, inside])]
        found[name] = float(np.corrcoef(drawn.ravel(), np.sqrt(dense.clip(0)).ravel())[0, 1])
    assert found["right"] > 0.75
    assert found["inverted"] < found["right"] - 0.1


def test_what_is_nearer_hides_what_is_behind() -> None:
    points = np.array([[0, 0, 0.5], [0, 0, -0.5]], dtype=np.float32)
    normals = np.array(
        [[0, 0, 1], [0, 0, -1]], dtype=np.float32
    )  # one turned away, one to the user
    surface = Surface(points, normals, 0.1)
    front = draw_surface(surface, np.eye(3), 51)[25, 25, :3].mean()
    behind = draw_surface(surface, np.diag([1.0, -1.0, -1.0]), 51)[25, 25, :3].mean()
    assert front == behind > 60
    away = Surface(points, -normals, 0.1)
    assert draw_surface(away, np.eye(3), 51)[25, 25, :3].mean() < 0.7 * front


def test_the_front_goes_with_the_mouse() -> None:
    front = POSE @ np.array([0.0, 0.0, -1.0])
    x, y, _ = dragged_pose(POSE, 20.0, 0.0).T @ front
    assert x > 0.1
    assert abs(y) < 1e-9
    x, y, _ = dragged_pose(POSE, 0.0, 20.0).T @ front
    assert y > 0.1
    assert abs(x) < 1e-9


def test_a_picture_is_quick(truth: DensityMap) -> None:
    surface = surface_of(truth)
    start = time.thread_time()
    for _ in range(5):
        draw_surface(surface, POSE, 200)
    assert (time.thread_time() - start) / 5 < 0.1  # 5 to 15 ms on two shared cores
