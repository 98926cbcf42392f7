"""The forward model against RELION 3.1's own projections, and the wrong conventions against them too."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles import CtfParameters, DensityMap, MrcStack, read_star, write_star
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
            table[name].to_numpy(dtype=float) for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")
        )

    def ctf(self, angle_sign: float = 1.0, angle_offset: float = 0.0, swap: bool = False) -> torch.Tensor:
        ones = np.ones(len(self.u))
        u, v = (self.v, self.u) if swap else (self.u, self.v)
        angle = angle_sign * self.angle + angle_offset
        return ctf_2d(
            CtfParameters(u, v, angle, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones), BOX, PIXEL_SIZE
        )


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
    assert (ours * theirs).sum() / (theirs**2).sum() == pytest.approx(1, abs=0.005)  # a plain sum over z


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda r: r.swapaxes(-1, -2), id="transposed pose"),
        pytest.param(lambda r: np.diag([1.0, 1.0, -1.0]) @ r @ np.diag([1.0, 1.0, -1.0]), id="mirrored hand"),
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
    transforms = projector.slices(views.rotations) * shift_phases(views.shifts_px, BOX) * views.ctf()
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
    torch.testing.assert_close(views.ctf(angle_offset=90.0, swap=True), views.ctf(), atol=2e-4, rtol=0)


def test_ctf_at_the_origin_is_the_amplitude_contrast(views: Views) -> None:
    torch.testing.assert_close(views.ctf()[:, 0, 0], torch.full((6,), 0.1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("star", "option", "least"),
    [
        ("noshift", None, 0.9995),
        ("shift", None, 0.9995),
        ("noshift", "--ctf", 0.9985),
        ("shift", "--ctf", 0.9985),
        ("noshift", "--ctf_phase_flip", 0.9985),
        ("astig", "--ctf", 0.9985),
    ],
)
def test_live_relion_views_of_a_ribosome(
    shared_data: Path, tmp_path: Path, star: str, option: str | None, least: float
) -> None:
    """What relion_project makes here and now, of a map that is not ours."""
    if shutil.which("relion_project") is None:
        pytest.skip("relion_project is not installed")
    truth = shared_data / "particles" / "ribo70S_truth.mrc"
    density = DensityMap.read(truth)
    pixel_size = density.pixel_size_angstrom
    blocks = read_star(shared_data / "relion_reference" / "conventions" / f"{star}.star")
    optics = blocks["optics"].assign(rlnImagePixelSize=pixel_size)
    write_star(blocks | {"optics": optics}, tmp_path / "views.star")
    options = [] if option is None else ["--ctf"] if option == "--ctf" else ["--ctf", option]
    command = ["relion_project", "--i", str(truth), "--ang", "views.star", "--o", "seen", *options]
    subprocess.run([*command, "--angpix", str(pixel_size)], cwd=tmp_path, check=True, capture_output=True)
    table = blocks["particles"]
    values = {column: table[column].to_numpy(dtype=float) for column in table if column != "rlnImageName"}
    rotations = rotation_from_relion_angles(np.stack([values[name] for name in ANGLES], 1))
    shifts = -np.stack([values["rlnOriginXAngst"], values["rlnOriginYAngst"]], 1) / pixel_size
    transforms = Projector(density.voxels).slices(rotations)
    transforms = transforms * shift_phases(torch.from_numpy(shifts), density.box)
    if option is not None:
        ones = np.ones(len(table))
        defocus = (values["rlnDefocusU"], values["rlnDefocusV"], values["rlnDefocusAngle"])
        ctf = ctf_2d(
            CtfParameters(*defocus, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones), density.box, pixel_size
        )
        transforms = transforms * (ctf if option == "--ctf" else ctf.abs())
    assert correlation(from_fourier(transforms).numpy(), MrcStack(tmp_path / "seen.mrcs").read()) >= least


def test_stored_views_of_another_map(shared_data: Path) -> None:
    """Shift, CTF, flip and astigmatism applied to RELION's own plain views give RELION's other views."""
    folder = shared_data / "relion_reference" / "conventions"
    plain = torch.from_numpy(MrcStack(folder / "p_plain.mrcs").read())
    for name in ("p_shift", "p_ctf", "p_shift_ctf", "p_flip", "p_astig"):
        blocks = read_star(folder / f"{name}.star")
        table = blocks["particles"]
        pixel_size = float(blocks["optics"]["rlnImagePixelSize"].iloc[0])
        values = {column: table[column].to_numpy(dtype=float) for column in table if column != "rlnImageName"}
        ones = np.ones(len(table))
        shifts = -np.stack([values["rlnOriginXAngst"], values["rlnOriginYAngst"]], 1) / pixel_size
        transforms = to_fourier(plain) * shift_phases(torch.from_numpy(shifts), plain.shape[-1])
        defocus = (values["rlnDefocusU"], values["rlnDefocusV"], values["rlnDefocusAngle"])
        parameters = CtfParameters(*defocus, 300 * ones, 2.7 * ones, 0.1 * ones, 0 * ones)
        ctf = ctf_2d(parameters, plain.shape[-1], pixel_size)
        if name != "p_shift":
            transforms = transforms * (ctf.abs() if name == "p_flip" else ctf)
        images = from_fourier(transforms).numpy()
        assert correlation(images, MrcStack(folder / f"{name}.mrcs").read()) > 0.9985, name
