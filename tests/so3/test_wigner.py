"""Wigner functions against scipy and e3nn, and the properties that they exist for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_cryosphere.so3.gauss_legendre import GaussLegendreGrid, gauss_legendre_grid
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.grid_transform import (
    adjoint_on_grid,
    evaluate_alone,
    evaluate_on_grid,
)
from napari_cryosphere.so3.rotations import (
    random_rotations,
    rotation_from_relion_angles,
    to_e3nn_frame,
)
from napari_cryosphere.so3.wigner import (
    band_mask,
    evaluate_at,
    rotate_coefficients,
    small_d,
    wigner_matrices,
)

DTYPES = [(torch.complex64, 2e-4), (torch.complex128, 1e-11)]
E3NN = [(torch.float32, 1e-5), (torch.float64, 1e-10)]


def e3nn_dense(rotations: np.ndarray, l_max: int) -> torch.Tensor:
    """Return e3nn's dense Wigner matrix, ``(k, sum (2 l + 1)^2)`` float64, at rotations in our
    frame.

    Entries of unit mean square each, so that a random function has values of about the root of
    their number.
    """
    from e3nn import o3

    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        angles = o3.matrix_to_angles(torch.from_numpy(to_e3nn_frame(rotations)))
        matrices = [o3.wigner_D(degree, *angles).flatten(1) for degree in range(l_max + 1)]
    finally:
        torch.set_default_dtype(default)
    return torch.cat([m * (2 * degree + 1) ** 0.5 for degree, m in enumerate(matrices)], dim=1)


def gauss_legendre_rotations(grid: GaussLegendreGrid) -> np.ndarray:
    """Return the rotations of a sampling grid, ``(n_tilt, n_rot, n_psi, 3, 3)``."""
    n_tilt, n_rot, n_psi = grid.shape
    tilt = np.degrees(np.arccos(np.polynomial.legendre.leggauss(n_tilt)[0]))
    rot, psi = (360 * np.arange(n) / n for n in (n_rot, n_psi))
    mesh = np.stack(np.meshgrid(tilt, rot, psi, indexing="ij"), -1)[..., [1, 0, 2]]
    return rotation_from_relion_angles(mesh)


@pytest.mark.parametrize(("dtype", "tolerance"), E3NN)
@pytest.mark.parametrize(("l_max", "order"), [(4, 1), (7, 0)])
def test_forward_and_evaluation_equal_e3nn(
    l_max: int, order: int, dtype: torch.dtype, tolerance: float
) -> None:
    """A random function given by e3nn's matrix: analysed by ours, evaluated by ours, compared with
    theirs.
    """
    grid = gauss_legendre_grid(l_max, 1.0, dtype=dtype)
    generator = torch.Generator().manual_seed(3)
    width = sum((2 * degree + 1) ** 2 for degree in range(l_max + 1))
    vectors = torch.randn(2, width, dtype=torch.float64, generator=generator) / width**0.5
    points = gauss_legendre_rotations(grid)
    samples = vectors @ e3nn_dense(points.reshape(-1, 3, 3), l_max).T
    coefficients = grid.from_grid(samples.reshape(2, *grid.shape).to(dtype))
    assert coefficients.real.dtype == dtype
    rotations = SO3Grid(order).rotations()
    theirs = (vectors @ e3nn_dense(rotations, l_max).T).to(dtype)
    on_grid = evaluate_on_grid(coefficients, order).flatten(1)
    scattered = evaluate_at(coefficients, torch.from_numpy(rotations[None]).expand(2, -1, 3, 3))
    scale = float(theirs.abs().max())
    torch.testing.assert_close(on_grid / scale, theirs / scale, atol=tolerance, rtol=0)
    torch.testing.assert_close(scattered / scale, theirs / scale, atol=tolerance, rtol=0)


def _random(batch: int, l_max: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, l_max + 1, 2 * l_max + 1, l_max + 1)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator).to(dtype) * band_mask(
        l_max
    )


def test_small_d_of_degree_one_written_out() -> None:
    angle = 0.7
    c, s = np.cos(angle), np.sin(angle)
    # rows m = -1, 0, 1; columns n = 0, 1 (Varshalovich et al. 1988, table 4.4)
    expected = [[s / 2**0.5, (1 - c) / 2], [c, s / 2**0.5], [-s / 2**0.5, (1 + c) / 2]]
    d = small_d(torch.tensor(angle, dtype=torch.float64), 2)[1, 1:4, :2]
    np.testing.assert_allclose(d.numpy(), expected, atol=1e-13)


def test_character_equals_e3nn() -> None:
    """The trace of D^l does not depend on the basis: it must be that of e3nn's real Wigner matrix."""
    from e3nn import o3

    rotations = torch.from_numpy(random_rotations(20, np.random.default_rng(1)))
    for degree in range(5):
        coefficients = torch.zeros(1, 5, 9, 5, dtype=torch.complex128)
        for order in range(degree + 1):
            coefficients[0, degree, 4 + order, order] = 1.0
        # f = Re sum_n w_n D_nn: the sum over all n, since D_(-n,-n) is the conjugate of D_nn
        ours = evaluate_at(coefficients, rotations[None])[0]
        theirs = torch.stack(
            [o3.Irrep(degree, 1).D_from_matrix(r.double()).trace() for r in rotations]
        )
        torch.testing.assert_close(ours, theirs.double(), atol=2e-5, rtol=0)


def test_degree_one_is_the_rotation_matrix() -> None:
    """R_zz = D^1_00; one entry against scipy ties the frame to the optical axis."""
    coefficients = torch.zeros(1, 2, 3, 2, dtype=torch.complex128)
    coefficients[0, 1, 1, 0] = 1.0
    rotations = Rotation.random(30, random_state=np.random.default_rng(4)).as_matrix()
    values = evaluate_at(coefficients, torch.from_numpy(rotations)[None])[0]
    np.testing.assert_allclose(values.numpy(), rotations[:, 2, 2], atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_grid_equals_scattered(order: int, dtype: torch.dtype, tolerance: float) -> None:
    coefficients = _random(3, 6, dtype)
    rotations = torch.from_numpy(SO3Grid(order).rotations())
    on_grid = evaluate_on_grid(coefficients, order).flatten(1)
    scattered = evaluate_at(coefficients, rotations.expand(3, -1, 3, 3))
    torch.testing.assert_close(on_grid, scattered, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_turning_the_image_is_a_phase(dtype: torch.dtype, tolerance: float) -> None:
    """f(R Rz(phi)) has coefficients c exp(-i n phi), exactly."""
    coefficients, phi = _random(2, 5, dtype), 1.234
    rotations = torch.from_numpy(random_rotations(40, np.random.default_rng(5)))
    turn = torch.from_numpy(Rotation.from_euler("z", phi).as_matrix())
    phases = torch.exp(-1j * phi * torch.arange(6, dtype=torch.float64)).to(dtype)
    moved = evaluate_at(coefficients, (rotations @ turn).expand(2, -1, 3, 3))
    torch.testing.assert_close(
        evaluate_at(coefficients * phases, rotations.expand(2, -1, 3, 3)),
        moved,
        atol=tolerance,
        rtol=0,
    )


def test_turning_the_map_about_z_is_a_phase_too() -> None:
    coefficients, phi = _random(2, 5, torch.complex128), -0.8
    rotations = torch.from_numpy(random_rotations(40, np.random.default_rng(6)))
    turn = torch.from_numpy(Rotation.from_euler("z", phi).as_matrix())
    phases = torch.exp(-1j * phi * torch.arange(-5, 6, dtype=torch.float64))[:, None]
    moved = evaluate_at(coefficients, (turn @ rotations).expand(2, -1, 3, 3))
    torch.testing.assert_close(
        evaluate_at(coefficients * phases, rotations.expand(2, -1, 3, 3)), moved, atol=1e-11, rtol=0
    )


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_synthesis_then_analysis_is_the_identity(dtype: torch.dtype, tolerance: float) -> None:
    coefficients = _random(4, 6, dtype)
    grid = gauss_legendre_grid(6, dtype=coefficients.real.dtype)
    samples = grid.to_grid(coefficients)
    back = grid.from_grid(samples)
    torch.testing.assert_close(back[..., 1:], coefficients[..., 1:], atol=tolerance, rtol=0)
    # at n = 0 only what makes the function real is determined: compare the functions
    torch.testing.assert_close(grid.to_grid(back), samples, atol=20 * tolerance, rtol=0)


@pytest.mark.parametrize(("l_max", "order"), [(0, 1), (6, 1), (6, 4), (9, 3)])
def test_alone_as_in_a_batch(l_max: int, order: int) -> None:
    coefficients = _random(1, l_max, torch.complex64)
    together = evaluate_on_grid(coefficients, order)[0].numpy()
    np.testing.assert_allclose(evaluate_alone(coefficients[0].numpy(), order), together, atol=2e-5)


def test_parseval() -> None:
    """The mean square over the group is sum |c|^2 / (2 l + 1): the transform is unitary."""
    coefficients = _random(1, 5, torch.complex128)
    coefficients[..., 0] = 0  # n > 0 only: every term stands for two
    values = evaluate_on_grid(coefficients, 4)
    degree_weight = 2 * torch.arange(6)[:, None, None] + 1
    expected = 2 * (coefficients.abs() ** 2 / degree_weight).sum()
    assert float((values**2).mean()) == pytest.approx(float(expected), rel=2e-3)


def test_gradients_of_grid_and_scattered() -> None:
    base = _random(2, 3, torch.complex128)
    rotations = torch.from_numpy(random_rotations(5, np.random.default_rng(7))).expand(2, -1, 3, 3)
    assert torch.autograd.gradcheck(lambda c: evaluate_on_grid(c, 0), base.requires_grad_())
    assert torch.autograd.gradcheck(lambda c: evaluate_at(c, rotations), base)
    values = torch.randn(1, 12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    assert torch.autograd.gradcheck(lambda v: adjoint_on_grid(v, 3), values.requires_grad_())


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("order", [0, 1, 2])
def test_adjoint(order: int, dtype: torch.dtype, tolerance: float) -> None:
    """``<evaluate(c), v> = Re <c, adjoint(v)>``, and it is what the gradient uses."""
    coefficients = _random(3, 5, dtype).requires_grad_()
    values = evaluate_on_grid(coefficients, order)
    weights = torch.randn(
        values.shape, generator=torch.Generator().manual_seed(5), dtype=values.dtype
    )
    back = adjoint_on_grid(weights, 5)
    one = float((values * weights).sum().detach())
    assert one == pytest.approx(
        float((coefficients.detach().conj() * back).real.sum()), abs=tolerance * 100
    )
    (values * weights).sum().backward()
    torch.testing.assert_close(coefficients.grad, back, atol=tolerance * 10, rtol=0)


def test_adjoint_refuses_what_is_no_grid() -> None:
    with pytest.raises(ValueError, match="on a HEALPix x S1 grid"):
        adjoint_on_grid(torch.zeros(1, 48, 24), 4)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_turning_the_map_mixes_m(dtype: torch.dtype, tolerance: float) -> None:
    """f(g R) for any g: the left side of equivariance."""
    coefficients = _random(2, 5, dtype)
    turn = random_rotations(1, np.random.default_rng(8))[0]
    rotations = random_rotations(40, np.random.default_rng(9))
    moved = evaluate_at(coefficients, torch.from_numpy(turn @ rotations).expand(2, -1, 3, 3))
    turned = rotate_coefficients(coefficients, turn)
    there = evaluate_at(turned, torch.from_numpy(rotations).expand(2, -1, 3, 3))
    torch.testing.assert_close(there, moved, atol=tolerance, rtol=0)
    grid = SO3Grid(1).rotations()
    on_grid = evaluate_on_grid(turned, 1).flatten(1)
    moved_grid = evaluate_at(coefficients, torch.from_numpy(turn @ grid).expand(2, -1, 3, 3))
    torch.testing.assert_close(on_grid, moved_grid, atol=tolerance, rtol=0)


def test_wigner_matrices_are_a_unitary_representation() -> None:
    first, second = random_rotations(2, np.random.default_rng(10))
    a, b, ab = (wigner_matrices(r, 6) for r in (first, second, first @ second))
    torch.testing.assert_close(a @ b, ab, atol=1e-12, rtol=0)
    inside = (torch.arange(-6, 7).abs() <= torch.arange(7)[:, None]).double()
    torch.testing.assert_close((a @ a.mH).real, torch.diag_embed(inside), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_activation_commutes_with_rotations(dtype: torch.dtype) -> None:
    """Of the map by any rotation, of the image by any rotation about the optical axis."""
    grid = gauss_legendre_grid(4, 3.0, dtype=torch.zeros(0, dtype=dtype).real.dtype)
    # a real function's, at n = 0 too
    coefficients = grid.from_grid(grid.to_grid(_random(40, 4, dtype)))
    active = grid.from_grid(grid.to_grid(coefficients).relu())
    turn = random_rotations(1, np.random.default_rng(11))[0]
    phase = torch.exp(0.7j * torch.arange(5, dtype=torch.float64)).to(dtype)
    scale = active.abs().square().mean().sqrt()
    for turned, expected in (
        (rotate_coefficients(coefficients, turn), rotate_coefficients(active, turn)),
        (coefficients * phase, active * phase),
    ):
        error = grid.from_grid(grid.to_grid(turned).relu()) - expected
        assert float(error.abs().square().mean().sqrt() / scale) < 0.01


def test_analysis_undoes_sampling() -> None:
    grid = gauss_legendre_grid(5, 1.0, dtype=torch.float64)
    coefficients = grid.from_grid(grid.to_grid(_random(3, 5, torch.complex128)))
    again = grid.from_grid(grid.to_grid(coefficients))
    torch.testing.assert_close(again, coefficients, atol=1e-12, rtol=0)


def test_batch_equals_single() -> None:
    coefficients = _random(5, 4, torch.complex128)
    together = evaluate_on_grid(coefficients, 1)
    for index in range(5):
        torch.testing.assert_close(
            evaluate_on_grid(coefficients[index : index + 1], 1)[0], together[index]
        )


def test_tables_made_in_inference_mode_serve_training() -> None:
    """A prediction may come first in a process, as in the dock, and training after."""
    with torch.inference_mode():
        evaluate_on_grid(_random(1, 7, torch.complex64), 1)
        gauss_legendre_grid(7).to_grid(_random(1, 7, torch.complex64))
    coefficients = _random(1, 7, torch.complex64).requires_grad_()
    grid = gauss_legendre_grid(7)
    (evaluate_on_grid(coefficients, 1).sum() + grid.to_grid(coefficients).square().sum()).backward()
    assert coefficients.grad is not None


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 3, 5, 3), torch.zeros(2, 3, 4, 3, dtype=torch.complex64)]
)
def test_what_are_no_coefficients_is_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(..., L \+ 1, 2 L \+ 1, L \+ 1\) complex"):
        evaluate_at(wrong, torch.eye(3).expand(2, 1, 3, 3))
