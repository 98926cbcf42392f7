"""The interface of all pose networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["PoseNetwork", "Shifts"]


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


class PoseNetwork(nn.Module, ABC):
    """Maps images to unnormalised log-densities over SO(3)."""

    @property
    def draws(self) -> bool:
        """Whether it may draw from torch's global generator while it is trained."""
        return True

    @abstractmethod
    def forward(self, images: Tensor, ctf: Tensor | None = None) -> Tensor:
        """Return the log-densities of images.

        Parameters
        ----------
        images
            ``(b, box, box)`` real, background of mean 0 and sd 1, phases flipped.
        ctf
            ``(b, box // 2 + 1)``: mean absolute value of each image's CTF at 0, 1, ... cycles per box;
            None where it is not known. A network may look at it or not.

        Returns
        -------
        ``(b, L + 1, 2 L + 1, L + 1)`` complex: coefficients as in `napari_cryosphere.so3.wigner`,
        what `napari_cryosphere.so3.distributions.PoseDistribution.from_coefficients` takes.
        """

    def poses_and_shifts(
        self, images: Tensor, ctf: Tensor | None = None
    ) -> tuple[Tensor, Shifts | None]:
        """Return what `forward` does, and where the particles lie; None from a network that does not say."""
        return self(images, ctf), None
