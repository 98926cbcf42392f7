"""Networks from other packages, by what they return: e3nn irreps, Wigner coefficients, or a grid.

A function that makes a torch module is marked by `pose_network`; ``package.module:function`` then names a
network that is trained, calibrated, stored and compared like the package's own. A model file holds that name
and the weights. Reading one imports the module named, which has to be installed or on ``PYTHONPATH``, and
calls nothing that is not marked.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from napari_cryosphere.errors import ModelError
from napari_cryosphere.model.card import CustomConfig
from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.so3.grid import SO3Grid, order_of_size
from napari_cryosphere.so3.grid_transform import adjoint_on_grid, evaluate_on_grid
from napari_cryosphere.so3.irreps import from_e3nn

__all__ = ["CustomNetwork", "Returns", "grid_coefficients", "pose_network"]

Returns: TypeAlias = Literal["irreps", "wigner", "grid"]
"""What a network's module returns for ``(b, box, box)`` images, see `pose_network`."""

_MARK = "__cryosphere_returns__"
_CORRECTIONS = 2
"""Corrections of the quadrature on the grid: HEALPix's is exact to 1e-2 at order 2 and degree 6;
each correction multiplies the error by as much again."""

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


def pose_network(returns: Returns) -> Callable[[Factory], Factory]:
    """Mark a function ``(box, l_max, **options) -> torch.nn.Module`` as one that makes pose networks.

    The module takes images ``(b, box, box)``, real, background of mean 0 and sd 1, phases flipped, and
    returns the logarithm of a density over rotations, up to a constant per image.

    ``returns`` says in which form:

    - ``irreps``: real features ``(b, (L + 1) (2 L + 1) (2 L + 3) / 3)``, laid out as
      ``so3.irreps.so3_irreps(L)``; vectors are x and y of the image, z the optical axis. The
      density is over the rotation that takes the map to the image: turning an image by g turns the
      features of an equivariant network by ``D_from_matrix(g)``.
    - ``wigner``: complex ``(b, L + 1, 2 L + 1, L + 1)``, coefficients as in `so3.wigner`, over the
      rotation R that takes the image to the map (``r_map = R r_img``).
    - ``grid``: real ``(b, n)``, values at ``so3.grid.SO3Grid(order).rotations()``, the same R; n
      gives the order. They are fitted by coefficients up to degree L.
    """

    def mark(factory: Factory) -> Factory:
        setattr(factory, _MARK, returns)
        return factory

    return mark


class CustomNetwork(PoseNetwork):
    """Another package's module, with its output as Wigner coefficients.

    ``config``: names the function that makes the module. Raises `ModelError` if there is no such
    function, it is not marked by `pose_network`, or it makes no module.
    """

    def __init__(self, config: CustomConfig) -> None:
        super().__init__()
        factory, self._returns = _factory(config.factory)
        try:
            module = factory(box=config.box, l_max=config.l_max, **config.options)
        except (TypeError, ValueError) as error:
            raise ModelError(f"network {config.factory}: {error}") from error
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"network {config.factory} made {type(module).__name__}, not a torch module"
            )
        self.module, self._config = module, config

    def forward(self, images: Tensor, ctf: Tensor | None = None) -> Tensor:
        """Return coefficients ``(b, L + 1, 2 L + 1, L + 1)`` of images ``(b, box, box)``; the CTF is ignored.

        Raises `ModelError` if the module returns another shape than it is marked for.
        """
        made, l_max = self.module(images), self._config.l_max
        expected = {
            "irreps": (len(images), (l_max + 1) * (2 * l_max + 1) * (2 * l_max + 3) // 3),
            "wigner": (len(images), l_max + 1, 2 * l_max + 1, l_max + 1),
            "grid": (len(images), _grid_size(made)),
        }[self._returns]
        if tuple(made.shape) != expected:
            raise ModelError(
                f"network {self._config.factory} returned {tuple(made.shape)}; "
                f"{self._returns} of degree {l_max} are {expected}"
            )
        if self._returns == "wigner":
            return made.to(torch.complex64)
        if self._returns == "irreps":
            return from_e3nn(made.float(), l_max, inverse=True)
        return grid_coefficients(made.float(), l_max)


def grid_coefficients(values: Tensor, l_max: int) -> Tensor:
    """Fit functions on a HEALPix x S1 grid by Wigner coefficients.

    Pixels of equal area make the coefficients ``(2 l + 1) / n`` times the adjoint's; what the sum leaves over
    is fitted again.

    ``values``: ``(b, n)`` real, at the rotations of `SO3Grid`, the views slowest. Returns
    ``(b, L + 1, 2 L + 1, L + 1)`` complex. Differentiable.
    """
    grid = SO3Grid(order_of_size(values.shape[1]))
    on_grid = values.unflatten(1, (grid.n_views, grid.n_psi))
    degree = torch.arange(l_max + 1, device=values.device, dtype=values.dtype)
    scale = (2 * degree[:, None, None] + 1) / grid.size
    scale = scale * torch.where(degree == 0, 1.0, 0.5)  # n > 0 is stored for both signs
    found = scale * adjoint_on_grid(on_grid, l_max)
    for _ in range(_CORRECTIONS):
        left = on_grid - evaluate_on_grid(found, grid.order)
        found = found + scale * adjoint_on_grid(left, l_max)
    return found


def _grid_size(values: Tensor) -> int:
    """Return the number of values per image, 0 if no grid has as many."""
    try:
        order_of_size(values.shape[-1])
    except ValueError:
        return 0
    return values.shape[-1]


def _factory(name: str) -> tuple[Callable[..., object], Returns]:
    """Import a marked function ``package.module:function``, and return it with its mark."""
    where, _, function = name.partition(":")
    try:
        factory = getattr(import_module(where), function)
    except ImportError as error:
        raise ModelError(
            f"network {name}: {error}; install its package, or name its folder in PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise ModelError(f"network {name}: {where} has no {function}") from error
    returns = getattr(factory, _MARK, None)
    if returns not in ("irreps", "wigner", "grid"):
        raise ModelError(
            f'network {name}: mark the function with @napari_cryosphere.pose_network(returns="irreps")'
        )
    return factory, returns
