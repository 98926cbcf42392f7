"""Wigner coefficients in e3nn's irreps, against e3nn's own D matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cryosphere.so3.irreps import from_e3nn, so3_irreps, to_e3nn
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.wigner import band_mask, evaluate_at, rotate_coefficients

L_MAX = 4


@pytest.fixture
def coefficients() -> torch.Tensor:
    shape = (3, L_MAX + 1, 2 * L_MAX + 1, L_MAX + 1)
    values = torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    return values * band_mask(L_MAX)


@pytest.fixture
def rotations() -> np.ndarray:
    return random_rotations(20, np.random.default_rng(1))


def test_the_function_is_the_sum_over_e3nns_matrices(
    coefficients: torch.Tensor, rotations: np.ndarray
) -> None:
    ours = evaluate_at(coefficients, torch.from_numpy(rotations).expand(3, -1, -1, -1))
    irreps = so3_irreps(L_MAX)
    features, theirs = to_e3nn(coefficients), torch.zeros(3, len(rotations), dtype=torch.float64)
    for part, (number, irrep) in zip(irreps.slices(), irreps, strict=True):
        matrices = irrep.D_from_matrix(torch.from_numpy(rotations)).double()
        copies = features[:, part].unflatten(-1, (number, irrep.dim))
        theirs += torch.einsum("bji,rij->br", copies, matrices)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # e3nn's matrices are in float32


def test_features_turn_as_e3nn_says(coefficients: torch.Tensor, rotations: np.ndarray) -> None:
    turned = to_e3nn(rotate_coefficients(coefficients, rotations[0].T))
    matrix = so3_irreps(L_MAX).D_from_matrix(torch.from_numpy(rotations[0])).double()
    np.testing.assert_allclose(turned, to_e3nn(coefficients) @ matrix.T, atol=1e-5)


def test_a_vector_is_a_vector() -> None:
    """The function R_zx is the component ij of e3nn's l = 1, whose matrix is R in x, y, z."""
    features = torch.zeros(1, 1 + 9, dtype=torch.float64)
    features[0, 1 + 3 * 0 + 2] = 1  # copy x, component z
    made = from_e3nn(features, 1)
    rotations = random_rotations(9, np.random.default_rng(2))
    values = evaluate_at(made, torch.from_numpy(rotations)[None])
    np.testing.assert_allclose(values[0], rotations[:, 2, 0], atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_there_and_back(coefficients: torch.Tensor, dtype: torch.dtype) -> None:
    features = to_e3nn(coefficients.to(dtype))
    assert features.shape[-1] == so3_irreps(L_MAX).dim
    again = from_e3nn(features, L_MAX)
    assert again.dtype == dtype
    np.testing.assert_allclose(to_e3nn(again), features, atol=1e-5)
    rest = slice(1, None)  # n = 0 comes back as the part that a real function has
    np.testing.assert_allclose(again[..., rest], coefficients.to(dtype)[..., rest], atol=1e-5)
    with pytest.raises(ValueError, match=r"degree 3 must be"):
        from_e3nn(features, 3)
