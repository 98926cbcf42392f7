"""The frequencies on which images and projections are compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from napari_cryosphere.imaging.fourier import frequency_grid

__all__ = ["FourierBand"]


@dataclass(frozen=True)
class FourierBand:
    """An image's frequencies from shell 1 to ``max_shell``, one of each conjugate pair.

    Attributes
    ----------
    box
        Even box of the images in pixels.
    max_shell
        Largest frequency in cycles a box, below Nyquist.
    """

    box: int
    max_shell: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_shell < self.box // 2:
            raise ValueError(
                f"max_shell must be from 1 to {self.box // 2 - 1}, not {self.max_shell}"
            )

    @cached_property
    def _selection(self) -> Tensor:
        grid = frequency_grid(self.box)
        x, y = grid.unbind(-1)
        half = (x > 0) | ((x == 0) & (y > 0))
        return half & (grid.norm(dim=-1) <= self.max_shell)

    @cached_property
    def frequencies(self) -> Tensor:
        """``(k, 2)`` float32: (x, y) in cycles a box."""
        return frequency_grid(self.box)[self._selection]

    @cached_property
    def shells(self) -> Tensor:
        """``(k,)`` int64: the shell of each frequency, its length rounded."""
        return self.frequencies.norm(dim=-1).round().long()

    def of(self, transforms: Tensor) -> Tensor:
        """Select the band: ``(..., box, box // 2 + 1)`` from `to_fourier` to ``(..., k)``."""
        return transforms[..., self._selection.to(transforms.device)]

    def after_quarter_turn(self) -> tuple[Tensor, Tensor]:
        """Return where an image turned by 90 degrees has its coefficients: ``(k,)`` places and signs.

        The turned pose's coefficient at frequency ``(x, y)`` is the first pose's at ``(-y, x)``:
        that at the place, conjugated where the sign is -1.
        """
        x, y = self.frequencies.long().unbind(-1)
        index = torch.full((self.box, self.box), -1)
        index[y, x] = torch.arange(len(x))  # negative frequencies count from the end
        straight = index[x, -y]
        signs = torch.where(straight >= 0, 1.0, -1.0)
        return torch.where(straight >= 0, straight, index[-x, y]), signs

    def phases(self, shifts_px: Tensor) -> Tensor:
        """Return the factors that move an image's content by ``(..., 2)`` pixels, ``(..., k)`` complex64."""
        angle = shifts_px @ self.frequencies.to(shifts_px).T * (-2 * math.pi / self.box)
        return torch.polar(torch.ones_like(angle), angle)
