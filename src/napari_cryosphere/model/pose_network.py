"""The interface of all pose networks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["PoseNetwork"]


class PoseNetwork(nn.Module, ABC):
    """Maps images to unnormalised log-densities over SO(3)."""

    @property
    def draws(self) -> bool:
        """Whether it may draw from torch's global generator while it is trained."""
        return True

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
