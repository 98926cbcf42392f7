"""The forward model against stored RELION 3.1 projections of the phantom, and wrong conventions
too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles import CtfParameters, MrcStack, read_star
from napari_cryosphere.so3.rotations import rotation_from_relion_angles

RELION = Path(__file__).parents[1] / "data" / "relion"
BOX, PIXEL_SIZE = 32, 6.0
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True))


class Views:
    """The six views that RELION projected."""

    def __init__(self) -> None:
        table = read_star(RELION / "views.star")["particles"]
        self.angles = table[ANGLES].to_numpy(dtype=float)
        self.rotations = rotation_from_relion_angles(self.angles)
        origins = table[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(dtype=float)
        self.shifts_px = torch.from_numpy(-origins / PIXEL_SIZE)
        self.u, self.v, self.angle = (
            table[name].to_numpy(dtype=float)
            for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
        )

    def ctf(
        self, angle_sign: float = 1.0, angle_offset: float = 0.0, swap: bool = False
    ) -> torch.Tensor:
        u, v = (self.v, self.u) if swap else (self.u, self.v)
        angle = angle_sign * self.angle + angle_offset
        return ctf_2d(CtfParameters(u, v, angle, 300, 2.7, 0.1), BOX, PIXEL_SIZE)


@pytest.fixture(scope="module")
def views() -> Views:
    return Views()


@pytest.fixture(scope="module")
def projector() -> Projector:
    return Projector(protein_phantom(BOX, PIXEL_SIZE).voxels)


def relion(name: str) -> np.ndarray:
    return MrcStack(RELION / f"{name}.mrcs").read()


def test_plain_views(views: Views, projector: Projector) -> None:
    ours, theirs = projector.project(views.rotations).numpy(), relion("plain")
    assert correlation(ours, theirs) > 0.9995
    # a plain sum over z
    assert (ours * theirs).sum() / (theirs**2).sum() == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda r: r.swapaxes(-1, -2), id="transposed pose"),
        pytest.param(
            lambda r: np.diag([1.0, 1.0, -1.0]) @ r @ np.diag([1.0, 1.0, -1.0]), id="mirrored hand"
        ),
        pytest.param(lambda r: r @ np.diag([1.0, -1.0, -1.0]), id="seen from behind"),
    ],
)
def test_wrong_poses_fail(
    views: Views, projector: Projector, wrong: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert correlation(projector.project(wrong(views.rotations)).numpy(), relion("plain")) < 0.95


def test_half_pixel_centre_fails(views: Views, projector: Projector) -> None:
    moved = projector.slices(views.rotations) * shift_phases(torch.full((6, 2), -0.5), BOX)
    assert correlation(from_fourier(moved).numpy(), relion("plain")) < 0.99


def test_shift_and_ctf(views: Views, projector: Projector) -> None:
    transforms = (
        projector.slices(views.rotations) * shift_phases(views.shifts_px, BOX) * views.ctf()
    )
    assert correlation(from_fourier(transforms).numpy(), relion("shift_ctf")) > 0.9985


@pytest.mark.parametrize("wrong", ["shift sign", "ctf sign", "angle negated", "angle turned by 90"])
def test_wrong_shift_or_ctf_fails(views: Views, projector: Projector, wrong: str) -> None:
    shifts = -views.shifts_px if wrong == "shift sign" else views.shifts_px
    sign = -1.0 if wrong == "ctf sign" else 1.0
    ctf = views.ctf(-1.0 if wrong == "angle negated" else 1.0, 90.0 if "90" in wrong else 0.0)
    transforms = projector.slices(views.rotations) * shift_phases(shifts, BOX) * ctf * sign
    assert correlation(from_fourier(transforms).numpy(), relion("shift_ctf")) < 0.985


def test_phase_flipped_images(views: Views, projector: Projector) -> None:
    transforms = projector.slices(views.rotations) * views.ctf().abs()
    assert correlation(from_fourier(transforms).numpy(), relion("flip")) > 0.9985


def test_defocus_u_and_v_may_be_swapped(views: Views) -> None:
    torch.testing.assert_close(
        views.ctf(angle_offset=90.0, swap=True), views.ctf(), atol=2e-4, rtol=0
    )


def test_ctf_at_the_origin_is_the_amplitude_contrast(views: Views) -> None:
    torch.testing.assert_close(views.ctf()[:, 0, 0], torch.full((6,), 0.1), atol=1e-5, rtol=0)
