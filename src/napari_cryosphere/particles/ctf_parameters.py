"""The numbers that the contrast transfer function of each particle depends on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CtfParameters"]


@dataclass(frozen=True, eq=False)
class CtfParameters:
    """CTF parameters, one value a particle; all arrays are ``(n,)`` float64.

    Attributes
    ----------
    defocus_u_angstrom, defocus_v_angstrom
        Defocus along the two axes of astigmatism; underfocus is positive.
    defocus_angle_degrees
        Angle of the U axis, from +x towards +y.
    voltage_kv
        Acceleration voltage.
    spherical_aberration_mm
        Spherical aberration of the objective lens.
    amplitude_contrast
        Fraction of amplitude contrast, 0 to 1.
    phase_shift_degrees
        Phase shift of a phase plate; 0 without one.
    """

    defocus_u_angstrom: NDArray[np.float64]
    defocus_v_angstrom: NDArray[np.float64]
    defocus_angle_degrees: NDArray[np.float64]
    voltage_kv: NDArray[np.float64]
    spherical_aberration_mm: NDArray[np.float64]
    amplitude_contrast: NDArray[np.float64]
    phase_shift_degrees: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Turn every field into a float64 array of one dimension; refuse different lengths."""
        for field in fields(self):
            values = np.atleast_1d(np.asarray(getattr(self, field.name), dtype=np.float64))
            object.__setattr__(self, field.name, values)
        shapes = {getattr(self, field.name).shape for field in fields(self)}
        if len(shapes) != 1 or len(shapes.pop()) != 1:
            raise ValueError("all CTF parameters must be arrays (n,) of one length")

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.defocus_u_angstrom)

    def __getitem__(self, indices: Any) -> CtfParameters:
        """Return the parameters of some particles (a slice, a mask, an array of integers or one integer)."""
        return CtfParameters(**{field.name: getattr(self, field.name)[indices] for field in fields(self)})
