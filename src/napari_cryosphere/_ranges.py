"""The legal range and the unit of every number that describes particles and their optics.

One table for readers, ``info`` and the jobs' configs. Values outside ``lowest`` to ``highest`` have no
meaning, or overflow the CTF, and are refused; those outside ``usual`` are warned about.
"""

from __future__ import annotations

from dataclasses import dataclass

import annotated_types

__all__ = ["RANGES", "Range"]


@dataclass(frozen=True)
class Range:
    """What values a quantity may have.

    - ``what``: the quantity, in a sentence: ``a voltage``.
    - ``unit``: its unit; empty for fractions and factors.
    - ``lowest``, ``highest``: the legal values, both ends included.
    - ``usual``: the values that microscopes and particles have; None where all legal ones are.
    - ``slips``: units that a value may be in by mistake, and how many of each make one of ``unit``.
    - ``whole``: whether only whole numbers are legal.
    """

    what: str
    unit: str
    lowest: float
    highest: float
    usual: tuple[float, float] | None = None
    slips: tuple[tuple[str, float], ...] = ()
    whole: bool = False

    @property
    def bounds(self) -> annotated_types.Interval:
        """The legal values, for the annotation of a config's field."""
        return annotated_types.Interval(ge=self.lowest, le=self.highest)

    def refusal(self, value: float) -> str:
        """Return why a value is refused: what is legal, and the unit that it looks to be in."""
        positive = "it must be positive" if value <= 0 < self.lowest else ""
        whole = " in whole numbers" if self.whole else ""
        legal = f"{self.what} is {self._from_to(self.lowest, self.highest)}{whole}"
        return "; ".join(filter(None, (positive, legal, self._slip(value))))

    def doubt(self, value: float) -> str:
        """Return why a legal value is warned of: what is usual, and the unit that it looks to be in."""
        usual = self.usual or (self.lowest, self.highest)
        return "; ".join(filter(None, (f"usual is {self._from_to(*usual)}", self._slip(value))))

    def _from_to(self, low: float, high: float) -> str:
        return f"{low:g} to {high:g} {self.unit}".rstrip()

    def _slip(self, value: float) -> str:
        """Return which unit a value looks to be in by mistake; empty if it looks like none."""
        low, high = self.usual or (self.lowest, self.highest)
        for unit, factor in self.slips:
            if low <= value / factor <= high and value != 0:
                return f"{value:g} {unit} would be {value / factor:g} {self.unit}".rstrip()
        return ""


_ANGLE = Range("an angle", "degrees", -36000, 36000)
_PHASE = Range("a phase", "degrees", -720, 720)
_DEFOCUS = Range("a defocus", "A", -1e6, 1e6)
_SHIFT = Range("a shift", "A", -1e6, 1e6)
_SHIFT_PX = Range("a shift", "pixels", -65536, 65536)
_TILT = Range("a beam tilt", "mrad", -100, 100, (-10, 10))
_FLAG = Range("a flag", "", 0, 1, whole=True)
_STRETCH = Range("a magnification", "", 0.5, 2, (0.9, 1.1))
_SHEAR = Range("a shear", "", -0.5, 0.5, (-0.1, 0.1))

#: Ranges by RELION's names.
RANGES: dict[str, Range] = {
    **dict.fromkeys(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), _ANGLE),
    **dict.fromkeys(("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior"), _ANGLE),
    **dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), _SHIFT),
    **dict.fromkeys(("rlnOriginXPriorAngst", "rlnOriginYPriorAngst"), _SHIFT),
    **dict.fromkeys(("rlnOriginX", "rlnOriginY", "rlnOriginXPrior", "rlnOriginYPrior"), _SHIFT_PX),
    **dict.fromkeys(("rlnDefocusU", "rlnDefocusV"), _DEFOCUS),
    "rlnDefocusAngle": _PHASE,
    "rlnPhaseShift": _PHASE,
    # exp(-B s^2 / 4) of -1000 A^2 stays within single precision up to s of 0.59 / A.
    "rlnCtfBfactor": Range("a B-factor", "A^2", -1000, 1e5),
    "rlnCtfScalefactor": Range("a scale factor", "", 0, 1000),
    # Microscopes have 60 to 1300 kV; 3000 kV is the highest that was built.
    "rlnVoltage": Range("a voltage", "kV", 1, 3000, (60, 1300), (("V", 1e3), ("MV", 1e-3))),
    # Objective lenses have 0 (corrected) to 5 mm.
    "rlnSphericalAberration": Range(
        "a spherical aberration", "mm", -100, 100, (-10, 10), (("um", 1e3), ("A", 1e7))
    ),
    "rlnAmplitudeContrast": Range("amplitude contrast", "", 0, 1, slips=(("%", 100),)),
    "rlnImagePixelSize": Range(
        "a pixel size", "A", 0.01, 1000, (0.1, 100), (("um", 1e-4), ("mm", 1e-7), ("m", 1e-10))
    ),
    # The header of an MRC file counts in 32 bits; no detector has more than 2^16 pixels.
    "rlnImageSize": Range("a box", "pixels", 2, 65536, whole=True),
    "rlnDetectorPixelSize": Range("a detector's pixel size", "um", 1e-6, 1e6),
    "rlnMagnification": Range("a magnification", "", 1e-3, 1e9),
    **dict.fromkeys(("rlnBeamTiltX", "rlnBeamTiltY"), _TILT),
    **dict.fromkeys(("rlnMagMat00", "rlnMagMat11"), _STRETCH),
    **dict.fromkeys(("rlnMagMat01", "rlnMagMat10"), _SHEAR),
    **dict.fromkeys(("rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"), _FLAG),
}
