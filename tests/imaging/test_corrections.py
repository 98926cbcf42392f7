"""Aberrations, magnification and earlier treatment of images, against formulas and RELION."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.corrections import corrected_images
from napari_cryosphere.imaging.ctf import transfer_values
from napari_cryosphere.imaging.forward import clean_images, projector_of
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.simulate import draw_parameters, parameters_from_stack
from napari_cryosphere.jobs.reconstruct import reconstruct_stack
from napari_cryosphere.particles import DensityMap, MrcStack, ParticleStack, write_stack, write_star
from napari_cryosphere.particles.aberrations import aberrations_of
from napari_cryosphere.reconstruction import masked_correlation

BOX, PIXEL_SIZE, NUMBER = 48, 3.0, 300
MAGNIFICATION = {
    "rlnMagMat00": 1.02,
    "rlnMagMat01": 0.015,
    "rlnMagMat10": 0.005,
    "rlnMagMat11": 0.985,
}
# each turns phases by several radians at the rim
CASES: dict[str, dict[str, Any]] = {
    "tilt": {"rlnBeamTiltX": 8.0, "rlnBeamTiltY": -5.0},
    "trefoil": {"rlnOddZernike": "[0,0,300,0,0,-200]"},
    "tetrafoil": {"rlnEvenZernike": "[0,0,0,0,0,0,0,900,600]"},
    "magnification": MAGNIFICATION,
    "all": {
        **MAGNIFICATION,
        "rlnBeamTiltX": 8.0,
        "rlnOddZernike": "[0,0,300,0,0,0]",
        "rlnEvenZernike": "[0,0,0,0,0,0,0,900,600]",
    },
}
needs_relion = pytest.mark.skipif(
    shutil.which("relion_reconstruct") is None, reason="RELION is not installed"
)


def relion(folder: Path, program: str, *options: str) -> None:
    subprocess.run([program, *options], cwd=folder, check=True, capture_output=True)


def simulated(folder: Path, columns: dict[str, Any], number: int = NUMBER) -> ParticleStack:
    """Return particles simulated with aberrations, by way of a STAR file that has their columns."""
    density = protein_phantom(BOX, PIXEL_SIZE)
    tables = draw_parameters(number, seed=3, shift_px=2.0).tables("none.mrcs", BOX, PIXEL_SIZE)
    for name, value in columns.items():
        tables["optics"][name] = value
    write_star(tables, folder / "poses.star")
    poses = ParticleStack.read(folder / "poses.star", require_images=False)
    parameters = parameters_from_stack(poses, PIXEL_SIZE)
    images = list(clean_images(projector_of(density), parameters, PIXEL_SIZE))
    write_stack(images, folder / "images.mrcs", PIXEL_SIZE)
    write_star(parameters.tables("images.mrcs", BOX, PIXEL_SIZE), folder / "images.star")
    return ParticleStack.read(folder / "images.star")


def reconstructed(stack: ParticleStack) -> np.ndarray:
    work = reconstruct_stack(stack, regularise=False)
    while True:
        try:
            next(work)
        except StopIteration as done:
            return np.asarray(done.value.density.voxels)


@needs_relion
@pytest.mark.parametrize("name", CASES)
def test_maps_from_aberrated_images_are_relions(name: str, tmp_path: Path) -> None:
    stack = simulated(tmp_path, CASES[name])
    options = ("--i", "images.star", "--o", "map.mrc", "--ctf", "--pad", "2")
    relion(tmp_path, "relion_reconstruct", *options)
    theirs = DensityMap.read(tmp_path / "map.mrc").voxels
    truth = protein_phantom(BOX, PIXEL_SIZE).voxels
    ours = reconstructed(stack)
    assert masked_correlation(theirs, truth) > 0.99  # RELION undoes what was simulated
    assert masked_correlation(ours, theirs) > 0.999
    assert masked_correlation(ours, truth) > 0.998


@needs_relion
def test_tetrafoil_is_that_of_relion_project(tmp_path: Path) -> None:
    stack = simulated(tmp_path, CASES["tetrafoil"], 20)
    protein_phantom(BOX, PIXEL_SIZE).save(tmp_path / "truth.mrc")
    options = ("--i", "truth.mrc", "--o", "theirs", "--ang", "images.star", "--ctf")
    relion(tmp_path, "relion_project", *options, "--angpix", str(PIXEL_SIZE))
    theirs, ours = MrcStack(tmp_path / "theirs.mrcs").read(), stack.images()
    pairs = zip(ours, theirs, strict=True)
    assert min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs) > 0.999


def test_beam_tilt_is_axial_coma(tmp_path: Path) -> None:
    stack = simulated(tmp_path, CASES["tilt"], 2)
    frequencies = np.array([[0.1, 0.0], [0.0, 0.1], [0.07, -0.05]])
    kind = aberrations_of(stack).kinds[0]
    wavelength = 0.019687  # angstrom at 300 kV
    tilt = np.array([8.0, -5.0]) * 1e-3
    squared = (frequencies**2).sum(1)
    coma = -2 * np.pi * 2.7e7 * wavelength**2 * squared * (frequencies @ tilt)
    np.testing.assert_allclose(kind.odd_phase(frequencies), coma, rtol=2e-4)


@pytest.mark.parametrize("name", CASES)
def test_corrected_images_are_those_without_aberrations(name: str, tmp_path: Path) -> None:
    """What alignment and networks are given. Images wrap around, so distortion is undone less exactly."""
    stack = simulated(tmp_path, CASES[name], 40)
    (tmp_path / "plain").mkdir()
    plain = simulated(tmp_path / "plain", {}, 40)
    corrected = corrected_images(stack, stack.images(), stack.grid)
    wanted = plain.images()
    frequencies = np.array([[0.0, 0.0], [0.05, 0.02], [0.1, 0.1]])
    if "rlnEvenZernike" in CASES[name]:  # the CTF is another one, and said to be
        assert not np.allclose(
            transfer_values(stack, frequencies), transfer_values(plain, frequencies), atol=1e-3
        )
        return
    after, before = (
        1
        - np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(c, wanted, strict=True)])
        for c in (corrected, stack.images())
    )
    assert after < (before / 3 if "rlnMagMat00" in CASES[name] else 1e-5)


def test_undistorted_images_of_a_gaussian_are_exact(tmp_path: Path) -> None:
    """A Gaussian seen through M is a Gaussian of another covariance; off centre it stays where it is."""
    tables = draw_parameters(1, seed=0, shift_px=0.0, with_ctf=False).tables("g.mrcs", BOX, 2.0)
    matrix = np.array([[1.03, 0.02], [-0.01, 0.96]])
    for name, value in zip(MAGNIFICATION, matrix.ravel(), strict=True):
        tables["optics"][name] = value
    tables["particles"]["rlnOriginXAngst"], tables["particles"]["rlnOriginYAngst"] = -6.0, 4.0
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    offset = np.stack([x - 3.0, y + 2.0], axis=-1)
    seen = offset @ np.linalg.inv(matrix)  # image M x of a map: its transform is at M k
    image = np.exp(-(seen**2).sum(-1) / 8) / np.linalg.det(matrix)
    write_stack(image[None].astype(np.float32), tmp_path / "g.mrcs", 2.0)
    write_star(tables, tmp_path / "g.star")
    stack = ParticleStack.read(tmp_path / "g.star")
    corrected = corrected_images(stack, stack.images(), stack.grid)[0]
    np.testing.assert_allclose(corrected, np.exp(-(offset**2).sum(-1) / 8), atol=2e-5)


@pytest.mark.parametrize("name", ["flip", "premul"])
def test_flipped_and_premultiplied_images_give_the_map(name: str, shared_data: Path) -> None:
    folder = shared_data / "reports"
    stack = ParticleStack.read(folder / f"{name}.star")
    truth = DensityMap.read(folder / "map.mrc").voxels
    assert not any("flipped" in line or "multiplied" in line for line in stack.warnings)
    assert masked_correlation(reconstructed(stack), truth) > 0.9995


def test_images_of_negative_sign_are_inverted(tmp_path: Path) -> None:
    plain = simulated(tmp_path, {}, 6)
    plain.save(tmp_path / "p.cs")
    records = np.load(tmp_path / "p.cs")
    records["blob/sign"][:4] = -1
    with (tmp_path / "signed.cs").open("wb") as stream:
        np.save(stream, records)
    signed = ParticleStack.read(tmp_path / "signed.cs")
    signs = np.array([-1, -1, -1, -1, 1, 1], dtype=np.float32)[:, None, None]
    np.testing.assert_array_equal(signed.images(), plain.images() * signs)
    signed.save(tmp_path / "signed.star")
    again = ParticleStack.read(tmp_path / "signed.star")
    np.testing.assert_array_equal(again.images(), signed.images())
    again.save(tmp_path / "again.cs")
    np.testing.assert_array_equal(np.load(tmp_path / "again.cs")["blob/sign"][3:5], [-1, 1])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rlnOddZernike", "[0,abc]", r"rlnOddZernike of '\[0,abc\]' is no list of numbers"),
        ("rlnMagMat00", 0.0, "rlnMagMat00 is 0; it must be positive"),
    ],
)
def test_senseless_aberrations_are_refused(
    column: str, value: object, message: str, tmp_path: Path
) -> None:
    tables = draw_parameters(4, seed=0).tables("x.mrcs", BOX, 2.0)
    tables["optics"][column] = value
    write_star(tables, tmp_path / "x.star")
    with pytest.raises(MetadataError, match=message):
        aberrations_of(ParticleStack.read(tmp_path / "x.star", require_images=False))
