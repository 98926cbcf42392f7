"""Aberrations of the lens between cryoSPARC's fields and RELION's columns.

cryoSPARC keeps coefficients in A of the phase over the frequency k (1/A), at angle phi:

| field | phase in radians |
|---|---|
| ``ctf/tilt_A`` | ``-2 pi lambda^2 k^3 (t0 cos phi + t1 sin phi)``; ``t = Cs sin(beam tilt)`` |
| ``ctf/trefoil_A`` | ``2/3 pi lambda^2 k^3 (t0 sin 3 phi + t1 cos 3 phi)`` |
| ``ctf/tetra_A`` | ``2 pi lambda^3 k^4 (-t0 cos 2 phi + t1 sin 2 phi)`` |
|  | ``+ pi/2 lambda^3 k^4 (t2 cos 4 phi - t3 sin 4 phi)`` |
| ``ctf/anisomag`` | none: the matrix of magnification, less the identity |

RELION has the beam tilt in mrad with the same phase (``TiltHelper::insertTilt``), and coefficients of
Zernike polynomials (``Zernike::Z``) in the same frequency. The relation of tilts is also pyem's; those
of trefoil and tetrafoil are as published with the simulator ``specter``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.particles._checks import Place
from napari_cryosphere.particles.cs.records import Records
from napari_cryosphere.particles.ctf_parameters import ANGSTROM_PER_MILLIMETRE, wavelength_angstrom

__all__ = [
    "EVEN",
    "ODD",
    "aberration_columns",
    "aberration_fields",
    "zernike_coefficients",
    "zernike_text",
]

ODD = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike")
EVEN = ("rlnEvenZernike",)
_MAGNIFICATION = ("rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11")
_IDENTITY = np.array([1.0, 0.0, 0.0, 1.0])
_MRAD_PER_RADIAN = 1e3
# Numbers of RELION's polynomials: x and y of order 1, trefoil, x and y of order 3; and of even order.
_X1, _Y1, _TREFOIL_SINE, _TREFOIL_COSINE, _X3, _Y3 = 1, 0, 2, 5, 4, 3
_SINE_2, _COSINE_2, _SINE_2_OF_4, _COSINE_2_OF_4, _SINE_4, _COSINE_4 = 1, 3, 5, 7, 4, 8
_ODD_NUMBER, _EVEN_NUMBER = 6, 9  # polynomials up to order 3 and 4
# share of the largest coefficient that rounding leaves of a polynomial that is not there
_LEFT = 1e-6


def aberration_columns(read: Records) -> dict[str, NDArray[Any]]:
    """Return RELION's columns of the aberrations that a .cs file names, ``(n,)`` each.

    Raises `MetadataError` if a beam tilt is larger than the spherical aberration makes possible.
    """
    columns: dict[str, NDArray[Any]] = {}
    known = "ctf/accel_kv" in read and "ctf/cs_mm" in read
    if known:
        wavelength = wavelength_angstrom(read.numbers("ctf/accel_kv").astype(np.float64))
        tilt = _field(read, "ctf/tilt_A", 2)
        if tilt is not None:
            columns |= _beam_tilt(read, tilt)
        trefoil = _field(read, "ctf/trefoil_A", 2)
        if trefoil is not None:
            odd = np.zeros((read.number, _ODD_NUMBER))
            odd[:, [_TREFOIL_SINE, _TREFOIL_COSINE]] = (
                2 / 3 * np.pi * wavelength[:, None] ** 2 * trefoil
            )
            columns["rlnOddZernike"] = _lists(odd)
        tetrafoil = _field(read, "ctf/tetra_A", 4)
        if tetrafoil is not None:
            scaled = np.pi * wavelength[:, None] ** 3 * tetrafoil
            even = np.zeros((read.number, _EVEN_NUMBER))
            # k^4 cos 2 phi is (Z(2, 4) + 3 Z(2, 2)) / 4
            even[:, [_COSINE_2_OF_4, _SINE_2_OF_4]] = scaled[:, :2] * [-0.5, 0.5]
            even[:, [_COSINE_2, _SINE_2]] = scaled[:, :2] * [-1.5, 1.5]
            even[:, [_COSINE_4, _SINE_4]] = scaled[:, 2:] * [0.5, -0.5]
            columns["rlnEvenZernike"] = _lists(even)
    magnification = _field(read, "ctf/anisomag", 4)
    if magnification is not None:
        matrix = (_IDENTITY + magnification).astype(np.float32)
        columns |= {name: matrix[:, axis] for axis, name in enumerate(_MAGNIFICATION)}
    return columns


def _field(read: Records, name: str, components: int) -> NDArray[np.float64] | None:
    """Return a field as ``(n, components)``; None if it is not there or 0 throughout."""
    if name not in read:
        return None
    values = read.numbers(name, components).astype(np.float64)
    return values if values.any() else None


def _beam_tilt(read: Records, tilt_angstrom: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    cs_angstrom = read.numbers("ctf/cs_mm").astype(np.float64)[:, None] * ANGSTROM_PER_MILLIMETRE
    bad = (np.abs(tilt_angstrom) > np.abs(cs_angstrom)).any(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise MetadataError(
            f"{Place(read.path, '').row(row)}: ctf/tilt_A is {tilt_angstrom[row]}; expected less than "
            f"ctf/cs_mm, {cs_angstrom[row, 0]:g} A: it is the spherical aberration times a tilt"
        )
    safe = np.where(cs_angstrom == 0, 1, cs_angstrom)
    tilt_mrad = np.arcsin(tilt_angstrom / safe) * _MRAD_PER_RADIAN
    return {name: tilt_mrad[:, axis] for axis, name in enumerate(ODD[:2])}


def _lists(coefficients: NDArray[np.float64]) -> NDArray[Any]:
    """Return rows of coefficients as RELION writes them: ``[0,0.1,0]``."""
    different, codes = np.unique(coefficients, axis=0, return_inverse=True)
    texts = [zernike_text(row) for row in different]
    return np.array(texts, dtype=object)[codes.reshape(-1)]


def aberration_fields(table: pd.DataFrame) -> tuple[dict[str, NDArray[Any]], set[str]]:
    """Return cryoSPARC's fields of RELION's aberrations, ``(n, ...)``, and the columns they replace.

    Columns of polynomials that cryoSPARC has no field for are not among these: they have to be kept.

    ``table``: ``n`` rows with RELION's columns of optics.
    """
    fields: dict[str, NDArray[Any]] = {}
    used: set[str] = set()
    if {"rlnVoltage", "rlnSphericalAberration"} <= set(table.columns):
        wavelength = wavelength_angstrom(table["rlnVoltage"].to_numpy(np.float64))
        for names, made in (
            (ODD, _odd_fields(table, wavelength)),
            (EVEN, _even_fields(table, wavelength)),
        ):
            found, whole = made
            fields |= found
            used |= {name for name in names if name in table and whole}
    if set(_MAGNIFICATION) <= set(table.columns):
        fields["ctf/anisomag"] = table[list(_MAGNIFICATION)].to_numpy(np.float64) - _IDENTITY
        used |= set(_MAGNIFICATION)
    return fields, used


def _odd_fields(
    table: pd.DataFrame, wavelength: NDArray[np.float64]
) -> tuple[dict[str, NDArray[Any]], bool]:
    """Return tilt and trefoil, and whether they are all that the columns say."""
    if not set(ODD) & set(table.columns):
        return {}, True
    number = len(table)
    cs_angstrom = table["rlnSphericalAberration"].to_numpy(np.float64) * ANGSTROM_PER_MILLIMETRE
    tilts_mrad = [table.get(name, np.zeros(number)) for name in ODD[:2]]
    tilt = np.stack([np.asarray(tilt, np.float64) for tilt in tilts_mrad], axis=1)
    tilt = cs_angstrom[:, None] * np.sin(tilt / _MRAD_PER_RADIAN)
    odd, whole = _coefficients(table, ODD[2], _ODD_NUMBER)
    unit = np.pi * wavelength[:, None] ** 2
    cubic = odd[:, [_X3, _Y3]]
    tilt -= 1.5 * cubic / unit
    left = odd[:, [_X1, _Y1]] - 2 * cubic
    trefoil = 1.5 * odd[:, [_TREFOIL_SINE, _TREFOIL_COSINE]] / unit
    whole &= _nothing(left, odd)
    return {"ctf/tilt_A": tilt, "ctf/trefoil_A": trefoil}, whole


def _even_fields(
    table: pd.DataFrame, wavelength: NDArray[np.float64]
) -> tuple[dict[str, NDArray[Any]], bool]:
    """Return the tetrafoil, and whether it is all that the column says."""
    if EVEN[0] not in table:
        return {}, True
    even, whole = _coefficients(table, EVEN[0], _EVEN_NUMBER)
    unit = np.pi * wavelength[:, None] ** 3
    twofold = even[:, [_COSINE_2_OF_4, _SINE_2_OF_4]]
    fourfold = even[:, [_COSINE_4, _SINE_4]]
    tetrafoil = np.concatenate([twofold * [-2, 2], fourfold * [2, -2]], axis=1) / unit
    round_ones = even[:, [0, 2, 6]]
    left = np.concatenate([even[:, [_COSINE_2, _SINE_2]] - 3 * twofold, round_ones], axis=1)
    return {"ctf/tetra_A": tetrafoil}, whole and _nothing(left, even)


def _nothing(left: NDArray[np.float64], coefficients: NDArray[np.float64]) -> bool:
    return bool(np.abs(left).max(initial=0) <= _LEFT * np.abs(coefficients).max(initial=0))


def _coefficients(table: pd.DataFrame, name: str, number: int) -> tuple[NDArray[np.float64], bool]:
    """Return the first coefficients of each row's list, and whether there are no others."""
    found = np.zeros((len(table), number))
    if name not in table:
        return found, True
    codes, texts = pd.factorize(table[name].astype(str))
    whole = True
    for code, text in enumerate(texts):
        values = zernike_coefficients(text)
        if values is None:
            return found * 0, False
        found[codes == code, : len(values)] = values[:number]
        whole &= not any(values[number:])
    return found, whole


def zernike_text(coefficients: Iterable[float]) -> str:
    """Return coefficients as RELION writes them: ``[0,0.1,0]``."""
    return f"[{','.join(f'{one:.9g}' for one in coefficients)}]"


def zernike_coefficients(text: object) -> tuple[float, ...] | None:
    """Return the numbers of a list such as ``[0.1,0,2]``; None if one is no finite number."""
    try:
        values = tuple(map(float, str(text).strip().strip("[]").replace(",", " ").split()))
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None
