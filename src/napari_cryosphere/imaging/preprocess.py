"""Preparation of particle images for a network, in one fixed order.

1. A plane fitted to the background, outside the particle, is taken off, and the background gets
  standard deviation 1.
2. The CTF's sign is undone (phase flip), or the image is multiplied by the CTF.
3. The image is cut about its centre.
4. It is Fourier-rescaled to another grid. White noise of standard deviation 1 keeps it, if step 1
  was taken.
5. It is low-passed.
6. It is multiplied by a soft circle.

Each step is optional; see `Preprocessing`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from napari_cryosphere.imaging.fourier import crop_or_pad, even_box, frequency_grid
from napari_cryosphere.particles.image_grid import ImageGrid, resampling_matrix

__all__ = [
    "Preprocessing",
    "background_mask",
    "background_plane",
    "filtered",
    "low_pass",
    "normalise_background",
    "phase_flip",
    "rescale_to_grid",
    "soft_circle",
]

_FLAT = 1e-6  # of its largest grey value: less spread than that in a background is rounding
_CIRCLE_EDGE_PX = 2.0  # over which the soft circle falls; chosen, not tuned
_LOW_PASS_EDGE_SHELLS = 3  # Fourier pixels over which a low-pass falls


@dataclass(frozen=True)
class Preprocessing:
    """The steps to take, in the module's order; the default is what the pose network is given.

    - ``normalise``: step 1.
    - ``particle_diameter_angstrom``: the background of step 1 lies outside this circle; None for
      the circle inscribed in the image.
    - ``ctf``: step 2: ``"flip"``, ``"multiply"`` or None. Images without a CTF go through as they
      are.
    - ``crop_angstrom``: step 3: width to cut to, rounded to an even number of the images' own
      pixels; None to leave it.
    - ``grid``: step 4: box and pixel size to come to; None to leave it.
    - ``low_pass_angstrom``: step 5: resolution at which the filter has fallen to one half; None to
      leave it.
    - ``mask``: step 6.
    - ``mask_diameter_angstrom``: diameter at which the circle of step 6 reaches zero; None for the
      inscribed circle.
    """

    normalise: bool = True
    particle_diameter_angstrom: float | None = None
    ctf: Literal["flip", "multiply"] | None = "flip"
    crop_angstrom: float | None = None
    grid: ImageGrid | None = None
    low_pass_angstrom: float | None = None
    mask: bool = True
    mask_diameter_angstrom: float | None = None

    def __post_init__(self) -> None:
        """Refuse lengths that are not positive, with a ValueError."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_angstrom") and value is not None and not value > 0:
                raise ValueError(f"{field.name} must be positive, not {value}")

    def result_grid(self, grid: ImageGrid) -> ImageGrid:
        """Return the grid of what comes out for images on a grid."""
        return self.grid or self._cropped(grid)

    def _cropped(self, grid: ImageGrid) -> ImageGrid:
        if self.crop_angstrom is None:
            return grid
        box = min(grid.box, even_box(self.crop_angstrom / grid.pixel_size_angstrom))
        return ImageGrid(box, grid.pixel_size_angstrom)

    def __call__(self, images: Tensor, grid: ImageGrid, ctf: Tensor | None = None) -> Tensor:
        """Take the steps.

        ``images``: ``(n, box, box)`` float32 on ``grid``, their box, which is even, and pixel size. ``ctf``:
        ``(n, box, box // 2 + 1)``, see `napari_cryosphere.imaging.ctf.ctf_2d`; None where it is
        unknown. Returns ``(n, b, b)`` float32 on `result_grid`. An image whose background is
        constant comes back finite.
        """
        if self.normalise:
            images = normalise_background(images, _radius_px(self.particle_diameter_angstrom, grid))
        if ctf is not None and self.ctf is not None:
            images = phase_flip(images, ctf) if self.ctf == "flip" else filtered(images, ctf)
        cropped = self._cropped(grid)
        if cropped != grid:
            images, grid = crop_or_pad(images, cropped.box), cropped
        if self.grid is not None:
            images = rescale_to_grid(images, grid, self.grid, keep_noise=self.normalise)
            grid = self.grid
        if self.low_pass_angstrom is not None:
            images = low_pass(images, self.low_pass_angstrom / grid.pixel_size_angstrom)
        if self.mask:
            images = images * soft_circle(grid.box, _radius_px(self.mask_diameter_angstrom, grid))
        return images


def _radius_px(diameter_angstrom: float | None, grid: ImageGrid) -> float | None:
    return None if diameter_angstrom is None else diameter_angstrom / 2 / grid.pixel_size_angstrom


def _distance_from_centre(box: int) -> Tensor:
    """Return each pixel's distance from pixel n // 2, ``(box, box)`` float32."""
    axis = (torch.arange(box) - box // 2).float()
    return torch.hypot(axis[:, None], axis[None, :])


def background_mask(box: int, radius_px: float | None = None) -> Tensor:
    """Return a particle's background, ``(box, box)`` bool: the pixels outside a circle.

    None means the inscribed circle; a wider one is taken as that, so that the corners always
    remain.
    """
    return _distance_from_centre(box) > min(box / 2, box / 2 if radius_px is None else radius_px)


def soft_circle(box: int, radius_px: float | None = None) -> Tensor:
    """Return a circle (None for the inscribed one) with a raised-cosine edge inside it, ``(box, box)``."""
    radius = min(box / 2, box / 2 if radius_px is None else radius_px)
    ramp = ((radius - _distance_from_centre(box)) / _CIRCLE_EDGE_PX).clamp(0, 1)
    return 0.5 - 0.5 * torch.cos(torch.pi * ramp)


def background_plane(images: Tensor, radius_px: float | None = None) -> tuple[Tensor, Tensor]:
    """Fit a plane to the background of ``(n, box, box)`` images, as RELION's preprocessing does.

    A gradient (uneven illumination or ice) is no noise: it is strongest at the rim of the image,
    where noise is measured. Returns the planes, ``(n, box, box)``, and the background's standard
    deviation about them, ``(n,)`` float64. The deviation of a background that is constant but for
    rounding is exactly 0.
    """
    box = images.shape[-1]
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / (box / 2)
    basis = torch.stack(
        [torch.ones(box, box).double(), axis.expand(box, box), axis[:, None].expand(box, box)]
    )
    outside = background_mask(box, radius_px)
    background, columns = images[:, outside].double().cpu(), basis[:, outside]
    weights = background @ torch.linalg.pinv(columns)
    deviation = (background - weights @ columns).std(dim=1)
    flat = deviation <= _FLAT * background.abs().amax(dim=1)
    planes = (weights @ basis.flatten(1)).to(images).unflatten(1, (box, box))
    return planes, torch.where(flat, torch.zeros_like(deviation), deviation)


def normalise_background(images: Tensor, radius_px: float | None = None) -> Tensor:
    """Give the background of ``(n, box, box)`` images mean 0, no gradient, and sd 1.

    An image whose background is constant (or a plane) has no noise to scale by: it comes back
    unscaled. Mean 0 and sd 1 are CESPED's (section 2.1).
    """
    planes, deviation = background_plane(images, radius_px)
    scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation)).to(images)
    return (images - planes) / scale[:, None, None]


def phase_flip(images: Tensor, ctf: Tensor) -> Tensor:
    """Undo the CTF's sign.

    ``images``: ``(n, box, box)`` real. ``ctf``: ``(n, box, box // 2 + 1)``, see
    `napari_cryosphere.imaging.ctf.ctf_2d`.
    """
    return filtered(images, torch.sign(ctf))


def filtered(images: Tensor, filters: Tensor) -> Tensor:
    """Multiply the transforms of ``(n, box, box)`` images by real filters, ``(n, box, box // 2 + 1)``.

    A filter does not care where the origin is, so that nothing is shifted to it and back.
    """
    return torch.fft.irfft2(torch.fft.rfft2(images) * filters, s=images.shape[-2:])


def rescale_to_grid(images: Tensor, old: ImageGrid, new: ImageGrid, keep_noise: bool) -> Tensor:
    """Bring ``(n, old.box, old.box)`` images to another grid; see `resampling_matrix`.

    Pixels outside the given image are zero. With ``keep_noise`` white noise keeps its standard
    deviation: averaging pixels makes it weaker by the ratio of the pixel sizes, which is multiplied
    back. Without it grey values are kept.
    """
    if old.matches(new):
        return images
    step = new.pixel_size_angstrom / old.pixel_size_angstrom
    matrix = torch.tensor(
        resampling_matrix(old.box, new.box, step), dtype=images.dtype, device=images.device
    )
    factor = step if keep_noise and step > 1 else 1.0
    return (matrix * factor) @ images @ matrix.T


def low_pass(images: Tensor, cutoff_px: float) -> Tensor:
    """Remove what is finer than ``cutoff_px`` pixels; the raised-cosine edge is at one half there.

    ``(..., box, box)`` to the same shape.
    """
    box = images.shape[-1]
    frequencies = frequency_grid(box, images.device).norm(dim=-1)
    ramp = ((box / cutoff_px - frequencies) / _LOW_PASS_EDGE_SHELLS + 0.5).clamp(0, 1)
    return filtered(images, 0.5 - 0.5 * torch.cos(torch.pi * ramp))
