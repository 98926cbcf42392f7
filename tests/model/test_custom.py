"""Networks of other packages: what they return is read as they mean it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import napari_cryosphere as nc
from napari_cryosphere.errors import ModelError
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.model.card import CustomConfig, ModelCard
from napari_cryosphere.model.custom import CustomNetwork, grid_coefficients
from napari_cryosphere.model.pose_model import PoseModel
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.grid import SO3Grid
from napari_cryosphere.so3.irreps import so3_irreps, to_e3nn
from napari_cryosphere.so3.rotations import geodesic_distance_degrees, random_rotations
from napari_cryosphere.so3.wigner import band_mask, evaluate_at

L = 4


class _Constant(nn.Module):
    """Returns the same for every image."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, images: Tensor) -> Tensor:
        return self.value.expand(len(images), *self.value.shape)


RETURNED: dict[str, Tensor] = {}


@nc.pose_network(returns="irreps")
def irreps(box: int, l_max: int) -> nn.Module:
    return _Constant(RETURNED["irreps"])


@nc.pose_network(returns="wigner")
def wigner(box: int, l_max: int) -> nn.Module:
    return _Constant(RETURNED["wigner"])


@nc.pose_network(returns="grid")
def grid(box: int, l_max: int) -> nn.Module:
    return _Constant(RETURNED["grid"])


@nc.pose_network(returns="grid")
def no_module(box: int, l_max: int) -> int:
    return 3


def unmarked(box: int, l_max: int) -> nn.Module:
    raise AssertionError("a function that is not marked is never called")


def made(name: str, l_max: int = L) -> CustomNetwork:
    return CustomNetwork(CustomConfig(factory=f"{__name__}:{name}", l_max=l_max))


def peaked(rotation: np.ndarray) -> Tensor:
    """Return coefficients of 3 trace(R rotation^T), whose only maximum is the rotation."""
    grid = SO3Grid(2)
    values = 3 * np.einsum("nij,ij->n", grid.rotations(), rotation)
    return grid_coefficients(torch.from_numpy(values)[None], L)


def test_values_on_a_grid_are_fitted_by_the_function_that_has_them() -> None:
    shape = (3, L + 1, 2 * L + 1, L + 1)
    drawn = torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    rotations = torch.from_numpy(SO3Grid(2).rotations())
    values = evaluate_at(drawn * band_mask(L), rotations.expand(3, -1, -1, -1))
    again = evaluate_at(grid_coefficients(values, L), rotations.expand(3, -1, -1, -1))
    assert (again - values).abs().max() < 1e-3 * values.std()


@pytest.mark.parametrize("kind", ["irreps", "wigner", "grid"])
def test_a_peak_is_where_the_module_means_it(kind: str) -> None:
    rotation = random_rotations(1, np.random.default_rng(1))[0]
    seen = rotation.T if kind == "irreps" else rotation  # irreps: map to image
    values = 3 * np.einsum("nij,ij->n", SO3Grid(2).rotations(), seen)
    RETURNED["grid"] = torch.from_numpy(values).float()
    RETURNED["wigner"] = peaked(seen)[0]
    RETURNED["irreps"] = to_e3nn(peaked(seen))[0].float()
    found = PoseDistribution.from_coefficients(made(kind)(torch.zeros(2, 32, 32)).detach(), "C1")
    best = found.mode(1).rotations[:, 0]
    assert geodesic_distance_degrees(best, np.stack([rotation] * 2)).max() < 0.5


def test_turned_features_are_those_of_the_turned_image() -> None:
    """An image turned by g shows the map at g Q, Q from map to image: e3nn's D(g) turns the features."""
    q, g = random_rotations(2, np.random.default_rng(2))
    matrix = so3_irreps(L).D_from_matrix(torch.from_numpy(g)).double()
    RETURNED["irreps"] = (to_e3nn(peaked(q)) @ matrix.T)[0].float()
    found = PoseDistribution.from_coefficients(
        made("irreps")(torch.zeros(1, 32, 32)).detach(), "C1"
    )
    assert geodesic_distance_degrees(found.mode(1).rotations[:, 0], (g @ q).T[None]).max() < 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no.such.module:network", "PYTHONPATH"),
        (f"{__name__}:missing", "has no missing"),
        (f"{__name__}:unmarked", "pose_network"),
        (f"{__name__}:no_module", "not a torch module"),
    ],
)
def test_what_is_no_network_is_named(name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        CustomNetwork(CustomConfig(factory=name))


def test_a_wrong_shape_is_named() -> None:
    RETURNED["irreps"] = torch.zeros(7)
    with pytest.raises(ModelError, match=r"returned \(2, 7\); irreps of degree 4 are \(2, 165\)"):
        made("irreps")(torch.zeros(2, 32, 32))


def test_a_model_is_stored_by_name_and_weights(tmp_path: Path) -> None:
    RETURNED["wigner"] = peaked(np.eye(3))[0].to(torch.complex64)
    card = ModelCard(
        network=CustomConfig(factory=f"{__name__}:wigner", l_max=L), pixel_size_angstrom=3.0
    )
    model = PoseModel.create(card)
    model.save(tmp_path / "model.safetensors")
    RETURNED["wigner"] = torch.zeros_like(RETURNED["wigner"])
    again = PoseModel.load(tmp_path)
    torch.testing.assert_close(again.network.state_dict(), model.network.state_dict())


def test_a_name_on_the_command_line_is_a_whole_network() -> None:
    values = {"particles": "x.star", "output": "run", "network": "package.module:make"}
    assert TrainConfig.model_validate(values).network == CustomConfig(factory="package.module:make")


def test_the_example_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    stack = nc.simulate(nc.phantom(box=32, pixel_size_angstrom=4.0), number=64, seed=1)
    model = nc.train(
        stack,
        network="custom_network:rings",
        source="particles",
        epochs=10,
        batch_size=16,
        loss_order=2,
    )
    model.save(tmp_path / "model.safetensors")
    assert model.card.training["loss"] < -0.5
    assert len(nc.infer(stack, nc.PoseModel.load(tmp_path))) == 64
