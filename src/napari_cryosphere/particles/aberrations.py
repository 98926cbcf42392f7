"""What images hold beyond defocus and astigmatism: lens aberrations, magnification, earlier treatment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._tables import GROUP
from napari_cryosphere.particles.cs.aberrations import zernike_coefficients, zernike_text
from napari_cryosphere.particles.ctf_parameters import (
    ANGSTROM_PER_MILLIMETRE,
    CtfParameters,
    wavelength_angstrom,
)

if TYPE_CHECKING:
    from napari_cryosphere.particles.stack import ParticleStack

__all__ = ["Aberrations", "AberrationsOfImages", "aberrations_of"]

Treatment: TypeAlias = Literal["none", "phase-flipped", "premultiplied"]

_TILT = ("rlnBeamTiltX", "rlnBeamTiltY")
_ODD, _EVEN = "rlnOddZernike", "rlnEvenZernike"
_MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_FLIPPED, _PREMULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"
_NEUTRAL: dict[str, float | str] = {
    **dict.fromkeys((*_TILT, _FLIPPED, _PREMULTIPLIED), 0.0),
    **dict.fromkeys((_ODD, _EVEN), ""),
    **dict(zip(_MAGNIFICATION, (1.0, 0.0, 0.0, 1.0), strict=True)),
}
_UNTURNED = (1.0, 0.0, 0.0, 1.0)
# Radians; trefoil of 10,000 A and tetrafoil of a millimetre stay far below it. Chosen, not tuned.
_LARGEST_COEFFICIENT = 1e9
_RADIANS_PER_MILLIRADIAN = 1e-3


@dataclass(frozen=True)
class Aberrations:
    """What all images of a kind hold, in RELION's conventions.

    - ``odd_zernike``: coefficients in radians of the antisymmetric phase (rlnOddZernike; beam tilt
      is in it), over polynomials of the frequency in 1/angstrom.
    - ``even_zernike``: coefficients of what is taken off the phase of `ctf_values`
      (rlnEvenZernike): RELION adds it to a phase of the opposite sign.
    - ``magnification``: ``(a, b, c, d)`` of the matrix ``[[a, b], [c, d]]`` (rlnMagMat00 to 11),
      which takes an image's frequencies to the undistorted ones.
    - ``treatment``: what was done to the images: their phases flipped, or multiplied by their CTF.
    """

    odd_zernike: tuple[float, ...] = ()
    even_zernike: tuple[float, ...] = ()
    magnification: tuple[float, float, float, float] = _UNTURNED
    treatment: Treatment = "none"

    @property
    def matrix(self) -> NDArray[np.float64] | None:
        """The magnification as ``(2, 2)``, x before y; None where images are not distorted."""
        if self.magnification == _UNTURNED:
            return None
        return np.array(self.magnification, dtype=np.float64).reshape(2, 2)

    def odd_phase(self, frequencies: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """Return the phase that turns an image's transform, ``(p,)`` radians; None for 0 everywhere.

        ``frequencies`` is ``(p, 2)``: undistorted x and y in 1/angstrom.
        """
        return _zernike_sum(self.odd_zernike, _odd_order, frequencies)

    def even_phase(self, frequencies: NDArray[np.floating]) -> NDArray[np.float64] | None:
        """Return what is added to the phase of `ctf_values`, ``(p,)`` radians; see `odd_phase`."""
        total = _zernike_sum(self.even_zernike, _even_order, frequencies)
        return None if total is None else -total


class AberrationsOfImages:
    """Aberrations of a set's images. ``kinds``: the different ones. ``of``, ``(n,)``: each image's index."""

    def __init__(self, kinds: tuple[Aberrations, ...], of: NDArray[np.int64]) -> None:
        self.kinds, self.of = kinds, of

    def __getitem__(self, rows: Any) -> AberrationsOfImages:
        """Return those of some images (a slice, a mask or integers)."""
        return AberrationsOfImages(self.kinds, self.of[rows])

    def matrices(self) -> NDArray[np.float64] | None:
        """Return each image's magnification, ``(n, 2, 2)``; None where no image is distorted."""
        if all(kind.matrix is None for kind in self.kinds):
            return None
        return np.array([kind.magnification for kind in self.kinds]).reshape(-1, 2, 2)[self.of]

    @property
    def harmless(self) -> bool:
        """Whether no image needs anything but its CTF."""
        return self.kinds == (Aberrations(),)

    def parts(self) -> Iterator[tuple[NDArray[np.int64], Aberrations]]:
        """Yield the rows of each kind that occurs, ``(k,)``, and the kind."""
        for number, kind in enumerate(self.kinds):
            rows = np.flatnonzero(self.of == number)
            if len(rows):
                yield rows, kind

    def optics_columns(self, first: NDArray[np.int64]) -> dict[str, list[Any]]:
        """Return RELION's columns for optics groups whose first images are at rows ``first``."""
        chosen = [self.kinds[number] for number in self.of[first]]
        columns: dict[str, list[Any]] = {}
        for name, values in (
            (_ODD, [kind.odd_zernike for kind in chosen]),
            (_EVEN, [kind.even_zernike for kind in chosen]),
        ):
            longest = max(map(len, values))
            if longest:  # RELION reads lists of one length
                padded = [(*each, *[0.0] * (longest - len(each))) for each in values]
                columns[name] = [zernike_text(each) for each in padded]
        if any(kind.matrix is not None for kind in chosen):
            for place, name in enumerate(_MAGNIFICATION):
                columns[name] = [kind.magnification[place] for kind in chosen]
        return columns


def aberrations_of(stack: ParticleStack) -> AberrationsOfImages:
    """Return the aberrations that a stack's columns name; an optics group's value goes before a row's.

    Raises `MetadataError` if a list of Zernike coefficients cannot be read, or a magnification
    matrix is singular.
    """
    names = [name for name in _NEUTRAL if name in stack.optics or name in stack.particles]
    if not names:
        return AberrationsOfImages((Aberrations(),), np.zeros(len(stack), dtype=np.int64))
    keys = [name for name in names if name not in stack.optics]
    table = stack.particles[[GROUP, *keys]]
    of = table.groupby([GROUP, *keys], sort=False, dropna=False).ngroup().to_numpy(dtype=np.int64)
    _, first = np.unique(of, return_index=True)
    optics = stack.optics.set_index(GROUP)
    values = {
        name: optics.loc[table[GROUP].iloc[first], name].to_numpy()
        if name in optics
        else table[name].to_numpy()[first]
        for name in names
    }
    tilted = bool(set(_TILT) & set(names)) and stack.has_ctf
    ctf = stack.ctf_parameters()[first] if tilted else None
    kinds = []
    for row in range(len(first)):
        known = {name: values[name][row] for name in names if not pd.isna(values[name][row])}
        found = _NEUTRAL | known
        kinds.append(_kind(found, None if ctf is None else ctf[row], str(stack.source)))
    distinct = list(dict.fromkeys(kinds))
    return AberrationsOfImages(
        tuple(distinct), np.array([distinct.index(kind) for kind in kinds], dtype=np.int64)[of]
    )


def _kind(found: dict[str, Any], ctf: CtfParameters | None, source: str) -> Aberrations:
    magnification = tuple(float(found[name]) for name in _MAGNIFICATION)
    a, b, c, d = magnification
    if not a * d - b * c > 0.5:  # a distortion of 50 % is none, but a typing error
        raise MetadataError(
            f"{source}: {_MAGNIFICATION[0]} to 11 of [[{a:g}, {b:g}], [{c:g}, {d:g}]] are no anisotropic "
            "magnification, which is near [[1, 0], [0, 1]]; correct or remove the columns"
        )
    odd = list(_numbers(found[_ODD], _ODD, source))
    tilt = [float(found[name]) for name in _TILT]
    if any(tilt) and ctf is not None:  # without a microscope's voltage and Cs it means nothing
        _add_tilt(odd, tilt, ctf)
    treatment: Treatment = "none"
    if float(found[_PREMULTIPLIED]):
        treatment = "premultiplied"
    elif float(found[_FLIPPED]):
        treatment = "phase-flipped"
    even = _numbers(found[_EVEN], _EVEN, source)
    odd_values, even_values = (tuple(values) if any(values) else () for values in (odd, even))
    return Aberrations(odd_values, even_values, (a, b, c, d), treatment)


def _add_tilt(odd: list[float], tilt_mrad: list[float], ctf: CtfParameters) -> None:
    """Add axial coma of a beam tilt: ``-2 pi Cs lambda^2 s^2 (s . tilt)``.

    As polynomials: ``r^2 x = (Z(1,3) + 2 Z(1,1)) / 3``, and likewise for y.
    """
    odd += [0.0] * (6 - len(odd))
    cs_angstrom = float(ctf.spherical_aberration_mm[0]) * ANGSTROM_PER_MILLIMETRE
    wavelength = float(wavelength_angstrom(ctf.voltage_kv)[0])
    scale = 2 * np.pi * cs_angstrom * wavelength**2 * _RADIANS_PER_MILLIRADIAN
    for tilt, (linear, cubic) in zip(tilt_mrad, ((1, 4), (0, 3)), strict=True):
        odd[cubic] -= scale * tilt / 3
        odd[linear] -= 2 * scale * tilt / 3


def _numbers(text: Any, name: str, source: str) -> tuple[float, ...]:
    """Return the coefficients of a list; refuse what is none, and what no lens has."""
    values = zernike_coefficients(text)
    if values is None:
        raise MetadataError(
            f"{source}: {name} of {text!r} is no list of numbers such as [0.1,0,2.5]; correct or remove it"
        )
    if max(map(abs, values), default=0) > _LARGEST_COEFFICIENT:
        raise MetadataError(
            f"{source}: {name} of {text!r} has coefficients above {_LARGEST_COEFFICIENT:g} radians; "
            "correct or remove it"
        )
    return values


def _odd_order(index: int) -> tuple[int, int]:
    """Return m and n of the odd polynomial of an index: RELION's order."""
    k = int(((1 + 4 * index) ** 0.5 - 1) / 2)
    n = 2 * k + 1
    return 2 * (index - k * (k + 1)) - n, n


def _even_order(index: int) -> tuple[int, int]:
    """Return m and n of the even polynomial of an index: RELION's order."""
    k = int(index**0.5)
    return 2 * (index - k * k - k), 2 * k


def _zernike_sum(
    coefficients: tuple[float, ...], order: Any, frequencies: NDArray[np.floating]
) -> NDArray[np.float64] | None:
    """Return the sum of Zernike polynomials of the frequency (1/angstrom, no unit circle), ``(p,)``."""
    if not coefficients:
        return None
    x, y = np.asarray(frequencies, dtype=np.float64).T
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    total = np.zeros_like(radius)
    for index, coefficient in enumerate(coefficients):
        if coefficient:
            m, n = order(index)
            around = np.cos(m * angle) if m >= 0 else np.sin(-m * angle)
            total += coefficient * _radial(abs(m), n, radius) * around
    return total


def _radial(m: int, n: int, radius: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the radial polynomial R(m, n)."""
    value = np.zeros_like(radius)
    for k in range((n - m) // 2 + 1):
        below = factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k)
        value += (-1) ** k * factorial(n - k) / below * radius ** (n - 2 * k)
    return value
