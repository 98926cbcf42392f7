"""Nouns in notebooks and figures for papers."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import healpy
import numpy as np
import pytest
from matplotlib import image as matplotlib_image

import napari_cryosphere as nc
from napari_cryosphere._html import curve, grey, page, picture
from napari_cryosphere.so3.rotations import random_rotations


@pytest.fixture(scope="module")
def distribution() -> nc.PoseDistribution:
    poses = random_rotations(3, np.random.default_rng(0))
    return nc.PoseDistribution.from_poses(poses[:, None], np.zeros((3, 1)), 6.0)


def decoded(img: str) -> np.ndarray:
    found = re.search(r"base64,([^\"]+)", img)
    assert found
    return matplotlib_image.imread(io.BytesIO(base64.b64decode(found[1])))


def test_pictures_are_png_files() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    np.testing.assert_allclose(decoded(picture(pixels, 10)) * 255, pixels)
    colours = np.random.default_rng(0).integers(0, 255, (4, 5, 4), dtype=np.uint8)
    np.testing.assert_allclose(decoded(picture(colours, 10)) * 255, colours)
    assert decoded(grey(np.eye(8), 10)).max() == 1


def test_text_from_files_is_escaped() -> None:
    evil = "<script>alert('x')</script>\" onload=\"x"
    html = page(evil, {evil: evil}, [grey(np.eye(4), 8, evil)])
    assert "<script>" not in html
    assert '" onload="' not in html
    stack = nc.ParticleStack.from_tables(
        {
            "optics": {"rlnOpticsGroup": 1, "rlnImagePixelSize": 2.0, "rlnImageSize": 8},
            "particles": nc.simulate(nc.phantom(16, 12.0), 2).particles.assign(
                rlnImageName=[f"{n}@<b>evil</b>.mrcs" for n in (1, 2)]
            ),
        },
        require_images=False,
    )
    assert "<b>" not in stack._repr_html_()


def test_a_curve_is_drawn_from_zero_to_one() -> None:
    assert 'points="0.0,0.0 160.0,80.0 320.0,160.0"' in curve([1.0, 0.5, -0.2], [0.143])


def test_the_view_map_is_healpys(distribution: nc.PoseDistribution) -> None:
    """The brightest pixel in healpy's RING order is that of the pose's view direction."""
    maps = distribution.view_map(order=3)
    assert maps.shape == (3, healpy.nside2npix(8))
    np.testing.assert_allclose(maps.sum(1), 1)
    views = distribution.summary().rotations[:, :, 2]
    pixels = healpy.vec2pix(8, *views.T)
    angles = [
        np.degrees(healpy.rotator.angdist(view, healpy.pix2vec(8, int(row.argmax()))))
        for view, row in zip(views, maps, strict=True)
    ]
    assert np.max(angles) < 1.5 * np.degrees(healpy.nside2resol(8))
    assert (maps[np.arange(3), pixels] > 0.2 * maps.max(1)).all()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_for_a_paper(
    distribution: nc.PoseDistribution, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"views.{suffix}"
    figure = nc.draw_views(distribution.view_map(4)[0], path, title="one particle")
    assert path.read_bytes()[:4] in (b"\x89PNG", b"<?xm", b"%PDF")
    sphere, bar = figure.axes
    assert sphere.name == "mollweide"
    assert "relative to uniform" in bar.get_xlabel()
    assert len(sphere.collections) == 2  # the map and its contours
    with pytest.raises(nc.CryosphereError, match="exists"):
        nc.draw_views(distribution.view_map(4)[0], path)


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(nc.CryosphereError, match=r"12 \* 4\*\*order"):
        nc.draw_views(np.ones(100))
    with pytest.raises(nc.CryosphereError, match="must end with"):
        nc.draw_views(np.ones(48), tmp_path / "views.jpg")
