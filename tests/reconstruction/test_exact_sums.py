"""Sums that do not depend on the order in which they are added."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.reconstruction import BackProjector, ExactSums
from napari_cryosphere.so3.rotations import random_rotations

BOX = 16


def projectors(number: int, scale: float = 1.0) -> list[BackProjector]:
    rng = np.random.default_rng(3)
    made = []
    for part in range(number):
        projector = BackProjector(BOX)
        images = scale * rng.normal(size=(5 + part, BOX, BOX)) * 10.0 ** rng.integers(-2, 3)
        projector.add(images, random_rotations(5 + part, rng))
        made.append(projector)
    return made


def added(parts: list[BackProjector]) -> ExactSums:
    sums = ExactSums(BOX)
    for part in parts:
        sums.add(sums.fitting(part), part.inserted)
    return sums


def test_every_order_gives_the_same_bits() -> None:
    parts = projectors(4)
    reference = added(parts).projector().sums()
    for order in permutations(parts):
        np.testing.assert_array_equal(added(list(order)).projector().sums(), reference)
    first, second = added(parts[:1]), added(parts[1:])
    second += first  # sums of sums, as of several machines
    np.testing.assert_array_equal(second.projector().sums(), reference)
    floats = [added([part]).projector() for part in parts]
    forth, back = floats[0].sums().copy(), floats[3].sums().copy()
    for part in parts[1:]:
        forth += part.sums()
    for part in parts[2::-1]:
        back += part.sums()
    assert (forth != back).any()  # what single precision makes of it


def test_the_sum_is_the_sum() -> None:
    parts = projectors(6)
    exact = np.sum([part.sums().astype(np.float64) for part in parts], axis=0)
    got = added(parts).projector()
    np.testing.assert_allclose(got.sums(), exact, rtol=1e-6, atol=1e-9)
    assert got.inserted == sum(part.inserted for part in parts)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_grey_values_of_any_usual_scale_keep_their_digits(scale: float) -> None:
    parts = projectors(3, scale)
    exact = np.sum([part.sums().astype(np.float64) for part in parts], axis=0)
    got = added(parts).projector().sums()
    np.testing.assert_allclose(got[..., :2], exact[..., :2], rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("scale", [1e-12, 1e14])
def test_grey_values_that_do_not_fit_are_refused(scale: float) -> None:
    with pytest.raises(CryosphereError, match="normalise"):
        added(projectors(1, scale))


def test_arrays_bring_sums_back() -> None:
    sums = added(projectors(2))
    again = ExactSums.from_arrays(sums.arrays(), sums.padding, sums.symmetry, sums.inserted)
    np.testing.assert_array_equal(again.projector().sums(), sums.projector().sums())
    with pytest.raises(ValueError, match="padding 3"):
        ExactSums.from_arrays(sums.arrays(), 3, sums.symmetry, sums.inserted)


def test_sums_of_other_boxes_are_not_added() -> None:
    sums = ExactSums(BOX)
    with pytest.raises(ValueError, match="one box"):
        sums += ExactSums(2 * BOX)
