"""The interface of all pose networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["PoseNetwork", "Shifts", "at_least_single"]


class Shifts(NamedTuple):
    """Where particles lie in their images: Gaussians of equal width along x and y.

    Attributes
    ----------
    means_px
        ``(b, 2)`` x and y of the particle's centre from pixel n // 2, in pixels of the network's box.
    variances_px2
        ``(b,)`` along each axis.
    """

    means_px: Tensor
    variances_px2: Tensor


def at_least_single(values: Tensor) -> Tensor:
    """Return values in float32 where they have less: bfloat16 has no transforms or complex numbers."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class PoseNetwork(nn.Module, ABC):
    """Maps images to unnormalised log-densities over SO(3).

    What it returns is in float32 at least, also where it learns in bfloat16.
    """

    @property
    def draws(self) -> bool:
        """Whether it may draw from torch's global generator while it is trained."""
        return True

    @property
    def learns_in_bfloat16(self) -> bool:
        """Whether its gradients are the same under autocast to bfloat16, but for rounding."""
        return False

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return the log-densities of images.

        Parameters
        ----------
        images
            ``(b, box, box)`` real, background of mean 0 and sd 1, phases flipped.

        Returns
        -------
        ``(b, L + 1, 2 L + 1, L + 1)`` complex: coefficients as in `napari_cryosphere.so3.wigner`,
        what `napari_cryosphere.so3.distributions.PoseDistribution.from_coefficients` takes.
        """

    def poses_and_shifts(self, images: Tensor) -> tuple[Tensor, Shifts | None]:
        """Return what `forward` does, and where the particles lie; None from a network that does not say."""
        return self(images), None
