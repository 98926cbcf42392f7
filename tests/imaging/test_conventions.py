"""The conventions, against relion_project run here and now on two maps, and against views that it
once made.

Six views, six kinds of image each: plain, shifted, with CTF, shifted with CTF, phase-flipped, and
with 4000 A of astigmatism. What is wrong on purpose must miss the bar that what is right must
reach.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.fourier import from_fourier, shift_phases, to_fourier
from napari_cryosphere.imaging.projection import Projector
from napari_cryosphere.particles import CtfParameters, DensityMap, MrcStack, read_star, write_star
from napari_cryosphere.so3.rotations import rotation_from_relion_angles

BAR = 0.9985
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
MAPS = ("ribo70S", "betagalD2")
KINDS = {  # the STAR file to project with, and RELION's options
    "plain": ("noshift", []),
    "shift": ("shift", []),
    "ctf": ("noshift", ["--ctf"]),
    "shift_ctf": ("shift", ["--ctf"]),
    "flip": ("noshift", ["--ctf", "--ctf_phase_flip"]),
    "astig": ("astig", ["--ctf"]),
}
MIRROR = np.diag([1.0, 1.0, -1.0])


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array(
        [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]
    )


class Forward:
    """The forward model for the rows of a STAR file, with one thing at a time made wrong on
    request.
    """

    def __init__(self, table: pd.DataFrame, pixel_size: float, box: int) -> None:
        columns = [column for column in table if column != "rlnImageName"]
        self.values = {column: table[column].to_numpy(dtype=float) for column in columns}
        self.rotations = rotation_from_relion_angles(
            np.stack([self.values[name] for name in ANGLES], 1)
        )
        self.pixel_size, self.box = pixel_size, box

    def phases(self, sign: float = 1.0) -> torch.Tensor:
        origins = np.stack([self.values["rlnOriginXAngst"], self.values["rlnOriginYAngst"]], 1)
        return shift_phases(torch.from_numpy(-sign * origins / self.pixel_size), self.box)

    def ctf(self, angle: Callable[[np.ndarray], np.ndarray] = lambda angle: angle) -> torch.Tensor:
        optional = {
            "phase_shift_degrees": "rlnPhaseShift",
            "b_factor_angstrom2": "rlnCtfBfactor",
            "scale_factor": "rlnCtfScalefactor",
        }
        parameters = CtfParameters(
            self.values["rlnDefocusU"],
            self.values["rlnDefocusV"],
            angle(self.values["rlnDefocusAngle"]),
            300,
            2.7,
            0.1,
            **{
                name: self.values[column]
                for name, column in optional.items()
                if column in self.values
            },
        )
        return ctf_2d(parameters, self.box, self.pixel_size)

    def apply(self, transforms: torch.Tensor, kind: str) -> np.ndarray:
        """Shift and modulate the transforms of centred views as the kind of image needs."""
        transforms = transforms * self.phases()
        if "ctf" in kind or kind == "astig":
            transforms = transforms * self.ctf()
        elif kind == "flip":
            transforms = transforms * self.ctf().abs()
        return from_fourier(transforms).numpy()


class LiveRelion:
    """relion_project on the true maps of the simulated sets; every run is made once."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.particles = data / "particles"
        self.stars = data / "relion_reference" / "conventions"
        self.folder = folder
        self._seen: dict[tuple[str, str], np.ndarray] = {}
        self._projectors: dict[str, Projector] = {}
        self._maps = {name: DensityMap.read(self.particles / f"{name}_truth.mrc") for name in MAPS}

    def table(self, kind: str) -> pd.DataFrame:
        return read_star(self.stars / f"{KINDS[kind][0]}.star")["particles"]

    def projector(self, name: str) -> Projector:
        if name not in self._projectors:
            self._projectors[name] = Projector(self._maps[name].voxels)
        return self._projectors[name]

    def forward(self, name: str, kind: str) -> Forward:
        return Forward(self.table(kind), self._maps[name].pixel_size_angstrom, self._maps[name].box)

    def images(self, name: str, kind: str) -> np.ndarray:
        if (name, kind) not in self._seen:
            self._seen[name, kind] = self.project(name, self.table(kind), KINDS[kind][1])
        return self._seen[name, kind]

    def project(self, name: str, table: pd.DataFrame, options: list[str]) -> np.ndarray:
        pixel_size = self._maps[name].pixel_size_angstrom
        optics = read_star(self.stars / "noshift.star")["optics"].assign(
            rlnImagePixelSize=pixel_size
        )
        write_star(
            {"optics": optics, "particles": table}, self.folder / "views.star", overwrite=True
        )
        source = self.particles / f"{name}_truth.mrc"
        command = [
            "relion_project",
            "--i",
            str(source),
            "--ang",
            "views.star",
            "--o",
            "seen",
            *options,
        ]
        command += ["--angpix", str(pixel_size)]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        return MrcStack(self.folder / "seen.mrcs").read()


@pytest.fixture(scope="module")
def relion(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> LiveRelion:
    if shutil.which("relion_project") is None:
        pytest.skip("relion_project is not installed")
    return LiveRelion(shared_data, tmp_path_factory.mktemp("relion"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAPS)
def test_every_kind_of_image_is_reproduced(relion: LiveRelion, name: str, kind: str) -> None:
    forward = relion.forward(name, kind)
    ours = forward.apply(relion.projector(name).slices(forward.rotations), kind)
    theirs = relion.images(name, kind)
    assert correlations(ours, theirs).min() >= BAR
    # grey values too
    assert (ours * theirs).sum() / (theirs**2).sum() == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda r: r.swapaxes(-1, -2), id="transposed pose"),
        pytest.param(lambda r: MIRROR @ r @ MIRROR, id="mirrored hand"),
        pytest.param(lambda r: r @ np.diag([1.0, -1.0, -1.0]), id="seen from behind"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAPS)
def test_wrong_poses_fail(
    relion: LiveRelion, name: str, kind: str, wrong: Callable[[np.ndarray], np.ndarray]
) -> None:
    forward = relion.forward(name, kind)
    ours = forward.apply(relion.projector(name).slices(wrong(forward.rotations)), kind)
    found = correlations(ours, relion.images(name, kind))
    assert np.median(found) < 0.9
    assert found.max() < 0.97  # in every single view


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MAPS)
def test_half_a_pixel_off_centre_fails(relion: LiveRelion, name: str, kind: str) -> None:
    forward = relion.forward(name, kind)
    moved = relion.projector(name).slices(forward.rotations) * shift_phases(
        torch.full((6, 2), -0.5), 64
    )
    assert correlations(forward.apply(moved, kind), relion.images(name, kind)).max() < 0.99


@pytest.mark.parametrize("name", MAPS)
def test_shift_the_other_way_fails(relion: LiveRelion, name: str) -> None:
    forward = relion.forward(name, "shift")
    wrong = relion.projector(name).slices(forward.rotations) * forward.phases(sign=-1.0)
    assert correlations(from_fourier(wrong).numpy(), relion.images(name, "shift")).max() < 0.97


@pytest.mark.parametrize("kind", ["ctf", "shift_ctf", "flip", "astig"])
@pytest.mark.parametrize("name", MAPS)
def test_flipped_ctf_sign_fails(relion: LiveRelion, name: str, kind: str) -> None:
    forward = relion.forward(name, kind)
    ours = -forward.apply(relion.projector(name).slices(forward.rotations), kind)
    assert correlations(ours, relion.images(name, kind)).max() < 0


@pytest.mark.parametrize("wrong", ["negated", "turned by 90 degrees"])
@pytest.mark.parametrize("name", MAPS)
def test_wrong_astigmatism_angle_fails(relion: LiveRelion, name: str, wrong: str) -> None:
    forward = relion.forward(name, "astig")
    ctf = forward.ctf(lambda angle: -angle if wrong == "negated" else angle + 90)
    ours = from_fourier(relion.projector(name).slices(forward.rotations) * ctf).numpy()
    found = correlations(ours, relion.images(name, "astig"))
    assert (found < BAR).sum() >= 4  # one view's angle, 92 degrees, is nearly its own negative
    assert found.min() < 0.98


@pytest.mark.parametrize(
    "column", [{"rlnPhaseShift": 90.0}, {"rlnCtfBfactor": 300.0}, {"rlnCtfScalefactor": 0.6}]
)
def test_phase_shift_envelope_and_scale(relion: LiveRelion, column: dict[str, float]) -> None:
    """Correlation cannot see a scale and hardly an envelope: the grey values are compared."""
    name, value = "betagalD2", next(iter(column.values()))
    values = np.linspace(0.5, 1, 6) * value
    table = relion.table("astig").assign(**{next(iter(column)): values})
    theirs = relion.project(name, table, ["--ctf"])
    errors = []
    for chosen in (table, relion.table("astig")):
        forward = Forward(chosen, 3.2, 64)
        ours = forward.apply(relion.projector(name).slices(forward.rotations), "astig")
        errors.append(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    assert errors[0] < 0.01
    assert errors[1] > 0.1  # without the column


@pytest.fixture(scope="module")
def stored(shared_data: Path) -> Path:
    return shared_data / "relion_reference/conventions"


def stored_forward(folder: Path, kind: str) -> Forward:
    blocks = read_star(folder / f"p_{kind}.star")
    return Forward(blocks["particles"], float(blocks["optics"]["rlnImagePixelSize"].iloc[0]), 64)


@pytest.mark.parametrize("kind", KINDS)
def test_stored_views_follow_from_the_plain_ones(stored: Path, kind: str) -> None:
    plain = torch.from_numpy(MrcStack(stored / "p_plain.mrcs").read())
    ours = stored_forward(stored, kind).apply(to_fourier(plain), kind)
    assert correlations(ours, MrcStack(stored / f"p_{kind}.mrcs").read()).min() >= BAR


def test_stored_astigmatism_tells_the_sign_of_its_angle(stored: Path) -> None:
    forward = stored_forward(stored, "astig")
    plain = to_fourier(torch.from_numpy(MrcStack(stored / "p_plain.mrcs").read()))
    ours = from_fourier(plain * forward.ctf(np.negative)).numpy()
    found = correlations(ours, MrcStack(stored / "p_astig.mrcs").read())
    assert (found < BAR).sum() >= 5
    assert found.min() < 0.9


def central_line(image: np.ndarray, direction: np.ndarray, centre: float) -> np.ndarray:
    """Return an image's transform along a direction (x, y), at 1 to 20 cycles a box, by its
    definition.
    """
    box = len(image)
    axis = np.arange(box) - centre
    k = np.arange(1, 21)[:, None] * direction
    along_x, along_y = (np.exp(-2j * np.pi * k[:, [i]] * axis / box) for i in (0, 1))
    return np.einsum("ky,yx,kx->k", along_y, image, along_x)


def common_line_agreement(
    images: np.ndarray, rotations: np.ndarray, centre: float = 32.0
) -> np.ndarray:
    """Return the correlation of each two views along the line that their planes share."""
    found = []
    for i, j in combinations(range(len(images)), 2):
        shared = np.cross(rotations[i][:, 2], rotations[j][:, 2])
        shared /= np.linalg.norm(shared)
        a, b = (central_line(images[n], (rotations[n].T @ shared)[:2], centre) for n in (i, j))
        found.append(np.vdot(a, b).real / np.linalg.norm(a) / np.linalg.norm(b))
    return np.array(found)


def test_stored_plain_views_share_their_common_lines(stored: Path) -> None:
    """Their map is not at hand; that they are views of one map, posed and centred as we say, needs
    none.

    Common lines cannot tell a map from its mirror image: the hand is tested against live
    projections above.
    """
    images = MrcStack(stored / "p_plain.mrcs").read().astype(float)
    rotations = stored_forward(stored, "plain").rotations
    assert common_line_agreement(images, rotations).min() >= BAR
    assert common_line_agreement(images, rotations.swapaxes(1, 2)).mean() < 0.8
    assert common_line_agreement(images, rotations, centre=31.5).min() < 0.98
    behind = rotations @ np.diag([1.0, -1.0, -1.0])
    assert common_line_agreement(images, behind).mean() < 0.95


def test_stored_plain_views_are_of_neither_map_at_hand(stored: Path, shared_data: Path) -> None:
    """A projection's sum is its map's sum from everywhere, and so is the distance of its centre of
    mass.
    """
    images = MrcStack(stored / "p_plain.mrcs").read().astype(float)
    sums = images.sum((1, 2))
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)
    for name in MAPS:
        total = DensityMap.read(shared_data / f"particles/{name}_truth.mrc").voxels.sum(dtype=float)
        assert not 0.5 < sums[0] / total < 2  # 2535 against 604 and 8802
