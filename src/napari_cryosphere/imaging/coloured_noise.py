"""Gaussian noise with a stated radial power spectrum."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.imaging.fourier import frequency_grid

__all__ = ["NoiseSpectrum"]

_COLUMNS = ("frequency_per_angstrom", "power")
_POINTS = 2001  # steps of 0.0005 per angstrom: finer than a shell of any box below 2000 A
_HIGHEST_PER_ANGSTROM = 1.0  # cycles per angstrom: beyond the corner of any image of 0.71 A pixels


@dataclass(frozen=True, eq=False)
class NoiseSpectrum:
    """Power of the noise against spatial frequency; only its shape counts.

    Between the given frequencies the power is interpolated linearly, beyond them it is that of the
    nearest. Noise drawn from it has mean 0 and, over the pixels of an image, variance 1: the
    variance of a pixel is the mean of the power over all frequencies of the image's transform.

    ``frequencies``: ``(k,)`` cycles per angstrom, increasing, from 0 or above. ``power``: ``(k,)``,
    not negative.
    """

    frequencies: NDArray[np.float64]
    power: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuse what is no spectrum."""
        frequencies, power = np.asarray(self.frequencies, float), np.asarray(self.power, float)
        if frequencies.ndim != 1 or frequencies.shape != power.shape or not len(power):
            raise ValueError("a noise spectrum needs as many powers as frequencies, at least one")
        if not (
            np.isfinite(frequencies).all()
            and frequencies[0] >= 0
            and (np.diff(frequencies) > 0).all()
        ):
            raise ValueError(
                "the frequencies of a noise spectrum must be finite, from 0 or above, and increase"
            )
        if not (np.isfinite(power).all() and (power >= 0).all() and power.any()):
            raise ValueError(
                "the powers of a noise spectrum must be finite, not negative and not all 0"
            )
        object.__setattr__(self, "frequencies", frequencies)
        object.__setattr__(self, "power", power)

    @classmethod
    def falling(cls, length_angstrom: float) -> NoiseSpectrum:
        """Return ``1 / (1 + (s L)^2)``: flat up to about s = 1/L, then falling; neighbours are correlated."""
        frequencies = np.linspace(0, _HIGHEST_PER_ANGSTROM, _POINTS)
        return cls(frequencies, 1 / (1 + (frequencies * length_angstrom) ** 2))

    @classmethod
    def read(cls, path: Path) -> NoiseSpectrum:
        """Read a CSV file with the columns frequency_per_angstrom and power (others are ignored).

        Raises `FileFormatError` if the file is missing, a column is, or a value is no legal number;
        the line is named.
        """
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                rows = csv.DictReader(stream)
                missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
                if missing:
                    raise FileFormatError(
                        f"{path} has no column {missing[0]}; its first line must be {','.join(_COLUMNS)}"
                    )
                values = [
                    [_number(path, rows.line_num, name, row[name]) for name in _COLUMNS]
                    for row in rows
                ]
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"cannot read the noise spectrum {path}: {error}") from error
        table = np.array(values).reshape(-1, 2)
        try:
            return cls(table[:, 0], table[:, 1])
        except ValueError as error:
            raise FileFormatError(f"{path}: {error}") from error

    def amplitudes(self, box: int, pixel_size_angstrom: float) -> torch.Tensor:
        """Return the filter that gives white noise of variance 1 this spectrum and variance 1.

        ``(box, box // 2 + 1)`` float32 on the grid of a real-input FFT. Raises `ValueError` if the
        spectrum has no power where the images have frequencies.
        """
        radius = (frequency_grid(box).norm(dim=-1) / (box * pixel_size_angstrom)).double().numpy()
        power = np.interp(radius, self.frequencies, self.power)
        # all columns but the first and the last represent their mirror images too
        weights = np.full(box // 2 + 1, 2.0)
        weights[[0, -1]] = 1.0
        mean = (power * weights).sum() / box**2
        if mean <= 0:
            raise ValueError("the noise spectrum has no power at the frequencies of the images")
        return torch.from_numpy(np.sqrt(power / mean).astype(np.float32))


def _number(path: Path, line: int, column: str, text: str | None) -> float:
    try:
        return float(text or "")
    except ValueError as error:
        raise FileFormatError(
            f"{path}: line {line}: {column} is {text!r}; expected a number"
        ) from error
