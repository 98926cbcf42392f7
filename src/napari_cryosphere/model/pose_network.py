"""What every pose network is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["PoseNetwork"]


class PoseNetwork(nn.Module, ABC):
    """Maps images to unnormalised log-densities over SO(3)."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Return what the network makes of images, ``(b, box, box)``, before it reads poses from it.

        Images are real, their background has mean 0 and sd 1, and their phases are flipped.
        """

    @abstractmethod
    def log_density(self, encoded: Tensor) -> Tensor:
        """Return the log-densities of encoded images, see `forward`."""

    @abstractmethod
    def features_of(self, encoded: Tensor) -> Tensor:
        """Return the features of encoded images, see `features`."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the log-densities of images.

        Parameters
        ----------
        images
            As `encode` takes them.

        Returns
        -------
        ``(b, L + 1, 2 L + 1, L + 1)`` complex: coefficients as in `napari_cryosphere.so3.wigner`, what
        `napari_cryosphere.so3.distribution.PoseDistribution.from_coefficients` takes.
        """
        return self.log_density(self.encode(images))

    def features(self, images: Tensor) -> Tensor:
        """Return what the network sees in images, ``(b, f)`` real, the same however they are turned."""
        return self.features_of(self.encode(images))
