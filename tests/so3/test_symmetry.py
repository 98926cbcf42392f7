"""Point groups and asymmetric units against RELION."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.errors import SymmetryError
from napari_cryosphere.so3.asymmetric_unit import expand, inside_asymmetric_unit, reduce
from napari_cryosphere.so3.healpix import pix2vec
from napari_cryosphere.so3.rotations import random_rotations, rotation_from_relion_angles
from napari_cryosphere.so3.symmetry import angular_error_degrees, normalise_group_name, point_group

RELION = Path(__file__).parents[1] / "data" / "relion"
STORED = json.loads((RELION / "symmetry_operators.json").read_text())
UNITS = json.loads((RELION / "asymmetric_units.json").read_text())


def same_operators(relion: np.ndarray, ours: np.ndarray) -> bool:
    """Whether two groups are one, to the six digits that RELION prints and accumulates."""
    distances = np.abs(relion[:, None] - ours[None]).max((-1, -2))
    return (
        len(relion) == len(ours) and distances.min(1).max() < 1e-5 and distances.min(0).max() < 1e-5
    )


@pytest.mark.parametrize("name", sorted(STORED))
def test_operators_equal_relion(name: str) -> None:
    assert same_operators(np.array(STORED[name]), point_group(name))


@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="RELION is not installed")
@pytest.mark.parametrize("name", ["C1", "C6", "D2", "D5", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_operators_equal_what_relion_prints(name: str) -> None:
    command = ["relion_refine", "--print_symmetry_ops", "--sym", name]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    number = r"[-+0-9.e]+\s+"
    blocks = re.findall(rf"R\(\d+\)=\s+((?:{number}){{9}})", printed)
    operators = np.array([block.split() for block in blocks], dtype=float).reshape(-1, 3, 3)
    assert same_operators(operators, point_group(name))


@pytest.mark.parametrize("name", ["C1", "C5", "D2", "D7", "T", "O", "I1", "I2", "I3", "I4"])
def test_group_closes(name: str) -> None:
    group = point_group(name)
    products = (group[:, None] @ group[None]).reshape(-1, 3, 3)
    assert np.abs(products[:, None] - group[None]).max((-1, -2)).min(1).max() < 1e-12
    np.testing.assert_allclose(group[0], np.eye(3), atol=1e-12)


@pytest.mark.parametrize(
    "name", ["", "C0", "D", "Q7", "T5", "I9", "C1.5", "C1000", "c4;rm", "Ｃ４", "C4 D2", "C-3"]
)
def test_wrong_names_list_the_valid_ones(name: str) -> None:
    with pytest.raises(SymmetryError, match=r"C1, C2.*I4"):
        point_group(name)


def test_names_are_canonical() -> None:
    assert normalise_group_name("d7") == "D7"
    assert normalise_group_name("i") == "I2"


def test_error_ignores_symmetry_mates_and_only_those() -> None:
    rng = np.random.default_rng(2)
    truth = random_rotations(50, rng)
    group = point_group("D3")
    mates = group[rng.integers(len(group), size=50)] @ truth
    assert angular_error_degrees(truth, mates, "D3").max() < 1e-5
    assert np.median(angular_error_degrees(truth, mates, "C1")) > 30
    wrong_side = truth @ group[1]
    assert np.median(angular_error_degrees(truth, wrong_side, "D3")) > 10


@pytest.mark.parametrize("name", sorted(UNITS))
def test_unit_is_the_one_that_relion_samples(name: str) -> None:
    """RELION lists the HEALPix points of order 3 in its unit, less those that nearly repeat
    another.

    Every point it lists is in ours; a point of ours that it leaves out lies within 5 degrees of the
    unit's border, where an equivalent of it may be listed instead.
    """
    centres = pix2vec(8, np.arange(768))
    listed = np.isin(np.arange(768), UNITS[name])
    inside = inside_asymmetric_unit(centres, name)
    assert inside[listed].all()
    group = point_group(name)
    mates = np.einsum("gij,nj->gni", group, centres[inside & ~listed])
    cosines = (mates @ centres[listed].T).max((0, 2)) if (inside & ~listed).any() else np.ones(1)
    assert cosines.min() > np.cos(np.radians(7.4))  # the grid's spacing


@pytest.mark.parametrize(
    "name", ["C1", "C2", "C3", "C7", "D1", "D2", "D5", "T", "O", "I1", "I2", "I3", "I4"]
)
def test_unit_holds_every_view_once(name: str) -> None:
    rotations = random_rotations(4_000, np.random.default_rng(3))
    inside = inside_asymmetric_unit(expand(rotations, name)[..., 2], name)
    np.testing.assert_array_equal(inside.sum(1), 1)


@pytest.mark.parametrize("name", ["C1", "C4", "D2", "T", "O", "I2", "I4"])
def test_reduction_and_expansion(name: str) -> None:
    rotations = random_rotations(500, np.random.default_rng(4))
    reduced = reduce(rotations, name)
    assert inside_asymmetric_unit(reduced[:, :, 2], name).all()
    assert angular_error_degrees(rotations, reduced, name).max() < 1e-6
    # it is the same for all equivalents, and stays where it is
    for mates in np.moveaxis(expand(rotations, name), 1, 0):
        np.testing.assert_allclose(reduce(mates, name), reduced, atol=1e-12)
    np.testing.assert_allclose(reduce(reduced, name), reduced, atol=1e-15)


def test_dihedral_unit_is_the_upper_half() -> None:
    """What RELION's local searches need: tilt at most 90 degrees."""
    reduced = reduce(rotation_from_relion_angles([[200.0, 130.0, 20.0], [90.0, 90.0, 0.0]]), "D2")
    assert (reduced[:, 2, 2] >= -1e-12).all()
