"""The picture of a distribution against healpy's own Mollweide projection."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from healpy.projector import MollweideProj

from napari_cryosphere.so3 import mollweide
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.rotations import (
    relion_angles_from_rotation,
    rotation_from_relion_angles,
)
from napari_cryosphere.widgets.state import sphere_picture
from napari_cryosphere.widgets.state.sphere_density import (
    ViewDensity,
    contour_density,
    drawn_sigma_degrees,
    smoothed_views,
    views_of,
)
from napari_cryosphere.widgets.state.sphere_frame import add_frame
from napari_cryosphere.widgets.state.sphere_layer import HEIGHT, WIDTH


@pytest.mark.parametrize("order", [0, 2, 3])
def test_every_pixel_is_that_of_healpy(order: int) -> None:
    """Paint each view with a colour of its own: every pixel shows the cell that mollview would look
    up.
    """
    grid = SO3Grid(order)
    x, y = np.meshgrid(
        (np.arange(256) - 127.5) / (0.97 * 128) * 2, (63.5 - np.arange(128)) / (0.97 * 64)
    )
    inverse = MollweideProj().xy2vec(np.ma.masked_array(x), np.ma.masked_array(y))
    inside = (x / 2) ** 2 + y**2 < 0.995
    expected = healpy.vec2pix(grid.n_side, *(np.asarray(v)[inside] for v in inverse))
    entries = sphere_picture._lookup(grid.n_side, 128, 256)[inside]
    plain = entries < 2 * grid.n_views  # not on the rim
    shown = entries[plain] % grid.n_views
    assert (shown != expected[plain]).mean() < 1e-3  # ties of rounding on borders of cells
    assert plain.mean() > 0.95


def test_hue_is_relions_psi_at_the_peak() -> None:
    grid = SO3Grid(2)
    for cell in (5, 1234, 4000):
        view, psi = divmod(cell, grid.n_psi)
        cells = np.zeros((grid.n_views, grid.n_psi))
        cells[view, psi], cells[view, (psi + 7) % grid.n_psi] = 0.7, 0.3
        angle = relion_angles_from_rotation(grid.rotations(cell))[2]
        views = smoothed_views(cells)
        brightest = int(views.density.argmax())
        assert np.cos(views.psi_radians[brightest] - np.radians(angle)) > 0.9999
        row, column = np.rint(mollweide.mollweide_position(grid.rotations(cell)[:, 2])).astype(int)
        expected = sphere_picture.density_colours(views.density.max(), np.radians(angle))[0, :3]
        shown = sphere_picture.rasterise(cells)[row - 1 : row + 2, column - 1 : column + 2, :3]
        assert np.abs(shown.astype(int) - expected).max(-1).min() < 6


def test_brightness_is_absolute() -> None:
    """The uniform density is grey on every sphere; a hundred times as dense is bright and coloured."""
    uniform = sphere_picture.rasterise(np.full((48, 12), 1 / 576))[40, 100, :3].astype(int)
    assert np.ptp(uniform) <= 2
    assert 50 < uniform.max() < 110
    dense = sphere_picture.density_colours([1.0, 10.0, 100.0, 1000.0, 1e6], 1.0)[0, :, :3]
    brightness = dense.astype(float) @ [0.2126, 0.7152, 0.0722]
    np.testing.assert_allclose(brightness[0], uniform.mean(), atol=3)
    assert (np.diff(brightness[:4]) > 25).all()
    np.testing.assert_array_equal(dense[3], dense[4])
    assert np.ptp(dense[2].astype(int)) > 60
    empty = sphere_picture.rasterise(np.zeros((12, 6)))[40, 100, :3]
    assert empty.max() < 50


def test_shape_must_be_that_of_a_grid() -> None:
    with pytest.raises(ValueError, match="on a HEALPix x S1 grid"):
        sphere_picture.rasterise(np.zeros((48, 24)))


def test_corners_are_transparent_and_nothing_is_shared() -> None:
    cells = np.full((48, 12), 1 / 576)
    first = sphere_picture.rasterise(cells)
    assert first[0, 0, 3] == 0
    assert first[64, 128, 3] == 255
    before = sphere_picture.rasterise(cells).copy()
    sphere_picture.draw_cross(first, (1.0, 0.0, 0.0))
    sphere_picture.draw_ring(first, (0.0, 1.0, 0.0))
    np.testing.assert_array_equal(sphere_picture.rasterise(cells), before)
    assert (first != before).any()


@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 0, -1), (-1, 0, 0), (-1, 1e-9, 0)])
def test_marks_at_the_border_are_clipped(direction: tuple[float, float, float]) -> None:
    picture = sphere_picture.rasterise(np.full((48, 12), 1 / 576))
    sphere_picture.draw_cross(picture, direction)
    sphere_picture.draw_ring(picture, direction)
    assert picture.shape == (128, 256, 4)


def test_colour_wheel_is_even_and_within_range() -> None:
    colours = sphere_picture.in_plane_colours(24)
    assert colours.min() >= 0
    assert colours.max() <= 1
    steps = np.linalg.norm(np.diff(np.vstack([colours, colours[:1]]), axis=0), axis=1)
    assert steps.max() < 2.5 * steps.min()


def fisher(concentration: float, order: int = 7) -> ViewDensity:
    """Return Fisher's distribution of views around +x, whose credible discs are known by formula."""
    x, _, _ = healpy.pix2vec(2**order, np.arange(12 * 4**order))
    density = np.exp(concentration * (x - 1))
    return ViewDensity((density / density.mean()).astype(np.float32), np.zeros(len(x), np.float32))


@pytest.mark.parametrize("concentration", [10.0, 60.0, 400.0])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_contour_is_that_of_fishers_distribution(concentration: float, level: float) -> None:
    """Fisher (1953): the probability within r is 1 - exp(k (cos r - 1)), but for exp(-2 k)."""
    views = fisher(concentration)
    border = contour_density(views.density, level)
    radius = np.degrees(np.arccos(1 + np.log(1 - level) / concentration))
    area = (views.density > border).mean()
    assert np.degrees(np.arccos(1 - 2 * area)) == pytest.approx(radius, rel=0.02)

    picture = np.zeros((400, 800, 4), dtype=np.uint8)
    sphere_picture.draw_contour(picture, views, level, (255, 0, 0))
    rows, columns = np.nonzero(picture[..., 0] > 128)
    drawn = [mollweide.direction_at(*place, 400, 800) for place in zip(rows, columns, strict=True)]
    angles = [np.degrees(np.arccos(direction[0])) for direction in drawn if direction is not None]
    assert np.mean(angles) == pytest.approx(radius, abs=0.4)
    assert np.ptp(angles) < 2.5


def test_no_contour_where_nothing_is_known() -> None:
    for density in (np.zeros(48), np.ones(48), fisher(0.3, 2).density):
        picture = np.zeros((64, 128, 4), dtype=np.uint8)
        views = ViewDensity(density.astype(np.float32), np.zeros(len(density), np.float32))
        sphere_picture.draw_contour(picture, views)
        assert not picture.any()


def test_a_certain_particle_is_a_spot_of_the_least_size_at_its_place() -> None:
    grid = SO3Grid(4)
    for view in (0, 777, 1536):
        cells = np.zeros((grid.n_views, grid.n_psi))
        cells[view, 5] = 1.0
        views = smoothed_views(cells)
        assert views.density.mean() == pytest.approx(1, abs=0.07)
        centre = healpy.pix2vec(16, view)
        angles = np.degrees(
            np.arccos(np.clip(np.stack(healpy.pix2vec(64, np.arange(49152))).T @ centre, -1, 1))
        )
        variance = (views.density * angles**2).sum() / views.density.sum() / 2
        assert np.sqrt(variance) == pytest.approx(drawn_sigma_degrees(4), rel=0.15)
        lit = sphere_picture.rasterise(cells, 350, 700)[..., :3].max(-1) > 128
        assert lit.sum() > 600


def test_a_coarse_grid_of_cells_is_drawn_smoothly() -> None:
    """Cells of 7 degrees, in a large picture: neighbouring views differ little."""
    pose = rotation_from_relion_angles(np.array([30.0, 50.0, 70.0]))
    cells = PoseDistribution.from_poses(pose[None, None], np.zeros((1, 1)), 12.0).cells()
    assert set(np.unique(cells.orders)) == {3}
    views = views_of(cells)
    assert len(views.density) == 12 * 4**6
    mates = healpy.get_all_neighbours(64, np.arange(49152))
    nats = np.log(np.maximum(views.density, 1e-9))
    steps = np.abs(nats[mates] - nats)[(mates >= 0) & (views.density > 5)]
    assert steps.max() < 0.4


@pytest.mark.parametrize("draw", ["draw_cross", "draw_diamond", "draw_ring"])
@pytest.mark.parametrize("radius", [8.0, 24.0])
def test_marks_stand_around_their_view_and_leave_it_free(draw: str, radius: float) -> None:
    direction = (1.0, 0.0, 0.0)
    row, column = mollweide.mollweide_position(direction, 160, 320).round().astype(int)
    picture = np.full((160, 320, 4), 77, dtype=np.uint8)
    getattr(sphere_picture, draw)(picture, direction, (10, 200, 30), radius)
    rows, columns = np.nonzero((picture != 77).any(-1))
    far = np.hypot(rows - row, columns - column)
    assert 0.7 * radius - 2.5 < far.min() < far.max() < 1.6 * radius + 3
    np.testing.assert_allclose([rows.mean(), columns.mean()], [row, column], atol=0.1)
    assert (picture[..., 1] > 110).sum() > 12  # in its colour
    assert (picture[..., :3].max(-1) < 60).sum() > 12  # with a dark line around it


def test_the_marks_of_one_view_do_not_hide_each_other() -> None:
    drawn = []
    for draw in ("draw_cross", "draw_diamond", "draw_ring"):
        picture = np.zeros((160, 320, 4), dtype=np.uint8)
        getattr(sphere_picture, draw)(picture, (1.0, 0.0, 0.0), (255, 255, 255), 24.0)
        drawn.append(picture[..., 0] > 128)
    together = np.sum(drawn, axis=0)
    assert (together > 1).sum() < 0.02 * (together > 0).sum()


def test_labels_give_way_to_marks_and_scales_are_clear_of_the_rim() -> None:
    """What the frame draws next to a mark is nothing, and elsewhere what it draws without the mark."""
    blank = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    whole, given_way = blank.copy(), blank.copy()
    add_frame(whole)
    view = rotation_from_relion_angles(np.array([-118.0, 88.0, 0.0]))[:, 2]
    place = mollweide.mollweide_position(view, HEIGHT, WIDTH)
    add_frame(given_way, [tuple(place)], 30.0)
    rows, columns = np.indices((HEIGHT, WIDTH))
    near = np.hypot(rows - place[0], columns - place[1]) < 30
    assert whole[near].any()
    assert not given_way[near].any()
    labels = (whole != given_way).any(-1)
    assert 20 < labels.sum() < 600  # one label
    np.testing.assert_array_equal(whole[~labels], given_way[~labels])

    up = (rows - (HEIGHT - 1) / 2) / (mollweide.MARGIN * HEIGHT / 2)
    across = (columns - (WIDTH - 1) / 2) / (mollweide.MARGIN * WIDTH / 2)
    rim = np.abs(np.hypot(up, across) - 1) < 0.01
    assert not whole[rim & (rows > 0.6 * HEIGHT), 3].any()
