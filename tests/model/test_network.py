"""The network's layers: equivariance, shapes, determinism; the model file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import Image2SphereConfig, ModelCard
from napari_cryosphere.model.pose_model import PoseModel, build_network
from napari_cryosphere.model.sphere import (
    HalfSphere,
    LocalSO3Convolution,
    S2Convolution,
    SO3Activation,
    SO3Convolution,
)
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.wigner import band_mask, evaluate_at, rotate_coefficients

SMALL = Image2SphereConfig(
    box=16, encoder_channels=(4, 8), sphere_channels=6, sphere_order=2, l_max=3, so3_channels=3
)


@pytest.fixture
def model() -> PoseModel:
    torch.manual_seed(0)
    made = PoseModel.create(ModelCard(network=SMALL, pixel_size_angstrom=6.0))
    made.network.eval()
    return made


def rotate_about_image_axes(coefficients: torch.Tensor, rotation: np.ndarray) -> torch.Tensor:
    """Return g with g(R) = f(R Q): analysed from samples, so that nothing of the layers is used."""
    from napari_cryosphere.so3.gauss_legendre import gauss_legendre_grid
    from napari_cryosphere.so3.rotations import rotation_from_relion_angles

    l_max = coefficients.shape[-1] - 1
    grid = gauss_legendre_grid(l_max, dtype=torch.float64)
    n_tilt, n_angles, _ = grid.shape
    tilt = np.degrees(np.arccos(np.polynomial.legendre.leggauss(n_tilt)[0]))
    angles = 360 * np.arange(n_angles) / n_angles
    mesh = np.stack(np.meshgrid(tilt, angles, angles, indexing="ij"), -1)[..., [1, 0, 2]]
    rotations = torch.from_numpy(rotation_from_relion_angles(mesh).reshape(-1, 3, 3) @ rotation)
    flat = coefficients.flatten(0, -4)
    values = evaluate_at(flat, rotations.expand(len(flat), -1, 3, 3)).reshape(
        len(flat), *mesh.shape[:3]
    )
    return grid.from_grid(values).reshape(coefficients.shape)


def as_functions(coefficients: torch.Tensor) -> torch.Tensor:
    rotations = torch.from_numpy(random_rotations(50, np.random.default_rng(20)))
    flat = coefficients.flatten(0, -4)
    return evaluate_at(flat, rotations.expand(len(flat), -1, 3, 3))


def test_so3_convolution_commutes_with_turning_the_view() -> None:
    torch.manual_seed(1)
    layer = SO3Convolution(3, 2, 4).double()
    signal = torch.randn(3, 2, 4, 7, 4, dtype=torch.complex128) * band_mask(3)
    turn = Rotation.from_rotvec([0.4, -0.9, 0.3]).as_matrix()
    before = layer(rotate_about_image_axes(signal, turn))
    after = rotate_about_image_axes(layer(signal), turn)
    torch.testing.assert_close(as_functions(before), as_functions(after), atol=1e-9, rtol=0)


@torch.no_grad()
def test_activation_is_pointwise_on_the_group() -> None:
    """With many more points than the band needs, ReLU commutes with rotation up to its own
    aliasing.
    """
    torch.manual_seed(2)
    layer = SO3Activation(3, 2).eval()
    signal = torch.randn(3, 2, 4, 7, 4, dtype=torch.complex64) * band_mask(3)
    turn = Rotation.from_rotvec([0.4, -0.9, 0.3]).as_matrix()
    before = as_functions(
        layer(rotate_about_image_axes(signal.to(torch.complex128), turn).to(torch.complex64))
    )
    after = as_functions(rotate_about_image_axes(layer(signal).to(torch.complex128), turn))
    error = (before - after).norm() / after.norm()
    assert float(error) < 0.08


def test_half_sphere_of_a_constant_is_half_the_sphere() -> None:
    layer = HalfSphere(16, 4, 3)
    harmonics = layer(torch.ones(1, 1, 16, 16))[0, 0]
    # the mean over the sphere of the indicator of z > 0, short of what falls off the map at the rim
    assert float(harmonics[0, 0].real) == pytest.approx(0.5, abs=0.06)
    assert harmonics[:, 1:].abs().max() < 0.04  # nearly no dependence on the azimuth


def test_half_sphere_turns_with_the_image() -> None:
    """A quarter turn of the feature map is exp(-i n pi / 2), exactly: the grid has that symmetry."""
    torch.manual_seed(3)
    size, l_max = 16, 4
    features = torch.zeros(1, 1, size, size)
    # odd part, symmetric about pixel 8
    features[..., 1:, 1:] = torch.randn(1, 1, size - 1, size - 1)
    turned = torch.zeros_like(features)
    # from +x (right) to +y (down)
    turned[..., 1:, 1:] = torch.rot90(features[..., 1:, 1:], -1, (-2, -1))
    layer = HalfSphere(size, l_max, 3)
    phases = torch.exp(-1j * torch.pi / 2 * torch.arange(l_max + 1))
    torch.testing.assert_close(layer(turned), layer(features) * phases, atol=1e-5, rtol=0)


def test_lift_is_a_correlation_with_a_filter() -> None:
    """c^l_mn = W^l_m s_ln: one harmonic in, the matching Wigner function out."""
    torch.manual_seed(4)
    layer = S2Convolution(3, 1, 1)
    sphere = torch.zeros(1, 1, 4, 4, dtype=torch.complex64)
    sphere[0, 0, 2, 1] = 2.0 - 1.0j
    out = layer(sphere)[0, 0]
    stored = torch.view_as_complex(layer.weight.detach())[2, 0, 1:6, 0]
    signs = torch.tensor([1, -1, 1, -1, 1])
    weight = (stored + signs * stored.flip(0).conj()) / 2  # coefficients of a real filter
    torch.testing.assert_close(out[2, 1:6, 1], weight * (2.0 - 1.0j))
    out = out.detach().clone()
    out[2, 1:6, 1] = 0
    assert out.abs().max() == 0


def test_prediction_does_not_depend_on_the_batch(model: PoseModel) -> None:
    images = torch.randn(7, 16, 16)
    together = model.predict(images).coefficients
    assert torch.equal(together, model.predict(images).coefficients)
    torch.testing.assert_close(
        model.predict(images[2:3]).coefficients[0], together[2], atol=1e-5, rtol=1e-4
    )


def test_logits_start_small() -> None:
    from napari_cryosphere.so3.grid_transform import evaluate_on_grid

    torch.manual_seed(5)
    network = build_network(Image2SphereConfig())
    with torch.inference_mode():
        values = evaluate_on_grid(network(torch.randn(8, 32, 32)), 2)
    assert float(values.std()) < 1


def test_every_weight_gets_a_gradient() -> None:
    network = build_network(SMALL)
    network(torch.randn(4, 16, 16)).abs().sum().backward()
    missing = [
        name
        for name, weight in network.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert not missing


def test_file_round_trip(model: PoseModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = PoseModel.load(path)
    assert loaded.card == model.card
    images = torch.randn(3, 16, 16)
    assert torch.equal(loaded.predict(images).coefficients, model.predict(images).coefficients)
    stored = sum(
        value.numel() * value.element_size() for value in model.network.state_dict().values()
    )
    assert path.stat().st_size < 1.1 * stored + 8192  # weights and card, no tables
    assert PoseModel.load(tmp_path).card == model.card  # a run folder


def test_broken_files_are_refused(model: PoseModel, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ModelError, match="does not exist"):
        PoseModel.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelError, match="not a napari-cryosphere model"):
        PoseModel.load(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match="no model card"):
        PoseModel.load(tmp_path / "foreign.safetensors")
    card = json.loads(model.card.model_dump_json()) | {"symmetry": "Q9"}
    save_file(
        {"a": torch.zeros(1)},
        tmp_path / "card.safetensors",
        {"napari_cryosphere": json.dumps(card)},
    )
    with pytest.raises(ModelError, match="not a napari-cryosphere model"):
        PoseModel.load(tmp_path / "card.safetensors")
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"napari_cryosphere": model.card.model_dump_json()})
    with pytest.raises(ModelError, match="do not fit"):
        PoseModel.load(path)
    model.save(path, overwrite=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a napari-cryosphere model"):
        PoseModel.load(path)


def test_half_sphere_of_drawn_points_is_right_on_average() -> None:
    """Half of the points in training, all of them afterwards; the draw follows torch's seed."""
    torch.manual_seed(6)
    layer, whole = HalfSphere(8, 4, 2, share=0.5), HalfSphere(8, 4, 2)
    features = torch.randn(1, 2, 8, 8)
    exact = whole(features)
    assert torch.equal(layer.eval()(features), exact)
    layer.train()
    torch.manual_seed(7)
    drawn = torch.stack([layer(features) for _ in range(400)])
    torch.manual_seed(7)
    assert torch.equal(layer(features), drawn[0])
    assert not torch.equal(drawn[0], drawn[1])
    error = (drawn.mean(0) - exact).abs().max()
    assert error < 5 * drawn.std(0).max() / 20
    assert not layer.state_dict()


def test_local_filter_with_one_value_rotates_the_map() -> None:
    """f'(R) = f(Q R), Q being the rotation at which the filter is 1: none tilts by more than 22.5
    degrees.
    """
    torch.manual_seed(8)
    layer = LocalSO3Convolution(3, 1, 1)
    signal = torch.randn(1, 1, 4, 7, 4, dtype=torch.complex64) * band_mask(3)
    for which, angles in (
        (0, (0.0, 7.5, 0.0)),
        (191, (315.0, 22.5, 0.0)),
        (12, (0.0, 15.0, 180.0)),
    ):
        layer.weight.data.zero_()[0, 0, which] = 1
        turn = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
        exact = rotate_coefficients(signal, turn)
        torch.testing.assert_close(layer(signal).detach(), exact, atol=1e-5, rtol=0)
