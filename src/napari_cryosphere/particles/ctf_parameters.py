"""The numbers that the contrast transfer function of each particle depends on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ANGSTROM_PER_MILLIMETRE", "CtfParameters", "wavelength_angstrom"]

ANGSTROM_PER_MILLIMETRE = 1e7


@dataclass(frozen=True, eq=False)
class CtfParameters:
    """CTF parameters, one value per particle: ``(n,)`` float64. One value serves all particles.

    - ``defocus_u_angstrom``, ``defocus_v_angstrom``: defocus along the two axes of astigmatism;
      underfocus is positive.
    - ``defocus_angle_degrees``: angle of the U axis, from +x towards +y.
    - ``voltage_kv``: acceleration voltage.
    - ``spherical_aberration_mm``: spherical aberration of the objective lens.
    - ``amplitude_contrast``: fraction of amplitude contrast, 0 to 1.
    - ``phase_shift_degrees``: phase shift of a phase plate; 0 without one.
    - ``b_factor_angstrom2``: rlnCtfBfactor: the CTF is multiplied by ``exp(-B s^2 / 4)``; 0 for no
      envelope.
    - ``scale_factor``: rlnCtfScalefactor: the CTF is multiplied by it.
    """

    defocus_u_angstrom: NDArray[np.float64]
    defocus_v_angstrom: NDArray[np.float64]
    defocus_angle_degrees: NDArray[np.float64]
    voltage_kv: NDArray[np.float64]
    spherical_aberration_mm: NDArray[np.float64]
    amplitude_contrast: NDArray[np.float64]
    phase_shift_degrees: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    b_factor_angstrom2: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    scale_factor: NDArray[np.float64] = field(default_factory=lambda: np.ones(1))

    def __post_init__(self) -> None:
        """Turn every field into a float64 array of one dimension; refuse different lengths."""
        values = [
            np.atleast_1d(np.asarray(getattr(self, one.name), dtype=np.float64))
            for one in fields(self)
        ]
        number = max(map(len, values))
        if any(value.shape not in ((1,), (number,)) for value in values):
            raise ValueError(
                "all CTF parameters must be arrays (n,) of one length, or single values"
            )
        for one, value in zip(fields(self), values, strict=True):
            object.__setattr__(self, one.name, np.broadcast_to(value, number).copy())

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.defocus_u_angstrom)

    def __getitem__(self, indices: Any) -> CtfParameters:
        """Return the parameters of some particles (a slice, a mask, an array of integers or one integer)."""
        return CtfParameters(**{one.name: getattr(self, one.name)[indices] for one in fields(self)})


def wavelength_angstrom(voltage_kv: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the relativistic electron wavelength in A, ``(n,)`` (Reimer & Kohl 2008, eq. 2.5)."""
    volts = voltage_kv * 1e3
    return np.asarray(12.2642596 / np.sqrt(volts * (1 + 0.978475e-6 * volts)))
