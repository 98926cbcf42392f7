"""Parameters of simulated particles: poses, shifts, defocus, optics groups; drawn or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_cryosphere._ranges import RANGES
from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.orientations import draw_rotations
from napari_cryosphere.particles import CtfParameters, ParticleStack, pose_columns
from napari_cryosphere.particles.aberrations import AberrationsOfImages, aberrations_of

__all__ = ["OpticsGroup", "ParticleParameters", "draw_parameters", "parameters_from_stack"]

_Defocus: TypeAlias = Annotated[float, RANGES["rlnDefocusU"].bounds]


class OpticsGroup(BaseModel):
    """A microscope's settings, and what is drawn for the micrographs taken with them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voltage_kv: Annotated[float, RANGES["rlnVoltage"].bounds] = 300.0
    """Accelerating voltage."""
    spherical_aberration_mm: Annotated[float, RANGES["rlnSphericalAberration"].bounds] = 2.7
    """Spherical aberration of the objective lens."""
    amplitude_contrast: Annotated[float, RANGES["rlnAmplitudeContrast"].bounds] = 0.1
    """Share of amplitude contrast in the CTF."""
    phase_shift_degrees: Annotated[float, RANGES["rlnPhaseShift"].bounds] = 0.0
    """Phase plate's shift (rlnPhaseShift)."""
    b_factor_angstrom2: Annotated[float, RANGES["rlnCtfBfactor"].bounds] = 0.0
    """Envelope ``exp(-B s^2 / 4)`` of the CTF (rlnCtfBfactor)."""
    defocus_angstrom: tuple[_Defocus, _Defocus] = (8000.0, 25000.0)
    """Lowest and highest mean defocus of a micrograph; underfocus is positive."""
    defocus_spread_angstrom: Annotated[float, Field(ge=0)] = 100.0
    """Standard deviation of the particles' defocus within a micrograph."""
    astigmatism_angstrom: Annotated[float, Field(ge=0)] = 300.0
    """Largest difference of defocus U and V of a micrograph."""
    micrographs: Annotated[int, Field(ge=1)] = 20
    """Number of micrographs that the group's particles are spread over."""

    @model_validator(mode="after")
    def _ordered(self) -> OpticsGroup:
        low, high = self.defocus_angstrom
        if not low <= high:
            raise ValueError(
                f"defocus_angstrom must be the lowest and the highest, not {low:g} and {high:g}"
            )
        return self


@dataclass(frozen=True)
class ParticleParameters:
    """The truth behind simulated particles.

    - ``rotations``: ``(n, 3, 3)``; image to map coordinates.
    - ``shifts_px``, ``(n, 2)``: where the particle's centre sits relative to pixel n // 2, x and y.
    - ``ctf``: microscope and defocus of every particle, or None for images without a CTF.
    - ``micrographs``: ``(n,)`` name of the micrograph that each particle comes from, or None.
    - ``half_sets``: ``(n,)`` 1 or 2.
    - ``optics_groups``: ``(n,)`` number of each particle's optics group, from 1.
    - ``aberrations``: beam tilt, trefoil, anisotropic magnification and so on, or None without any.
    - ``states``: ``(n,)`` number of the map that each particle is a projection of, from 0; None for
      one map.
    - ``motion_degrees``: ``(n,)`` angle by which a part of each particle is turned; None for a map
      that stands still.
    """

    rotations: NDArray[np.float64]
    shifts_px: NDArray[np.float64]
    ctf: CtfParameters | None
    micrographs: NDArray[np.object_] | None
    half_sets: NDArray[np.int64]
    optics_groups: NDArray[np.int64]
    aberrations: AberrationsOfImages | None = None
    states: NDArray[np.int64] | None = None
    motion_degrees: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Return the number of particles."""
        return len(self.rotations)

    def __getitem__(self, rows: slice | NDArray[Any]) -> ParticleParameters:
        """Return the parameters of some particles (a slice, a mask or integers)."""
        return ParticleParameters(
            self.rotations[rows],
            self.shifts_px[rows],
            None if self.ctf is None else self.ctf[rows],
            None if self.micrographs is None else self.micrographs[rows],
            self.half_sets[rows],
            self.optics_groups[rows],
            None if self.aberrations is None else self.aberrations[rows],
            None if self.states is None else self.states[rows],
            None if self.motion_degrees is None else self.motion_degrees[rows],
        )

    def tables(
        self, stack_name: str, box: int, pixel_size_angstrom: float
    ) -> dict[str, pd.DataFrame]:
        """Return RELION 3.1's optics and particles tables for a stack of these particles in order."""
        number = len(self)
        columns: dict[str, object] = {
            "rlnImageName": [f"{index + 1:06d}@{stack_name}" for index in range(number)],
            "rlnMicrographName": self.micrographs,
            "rlnOpticsGroup": self.optics_groups,
            "rlnRandomSubset": self.half_sets,
            # RELION's origin is the shift that would bring the particle back to the centre
            **pose_columns(self.rotations, -self.shifts_px * pixel_size_angstrom),
        }
        if self.micrographs is None:
            del columns["rlnMicrographName"]
        if self.states is not None:
            columns["rlnClassNumber"] = self.states + 1
        if self.motion_degrees is not None:
            columns["cryosphereMotionAngle"] = self.motion_degrees
        if self.ctf is not None:
            columns |= _ctf_columns(self.ctf)
        optics = self._optics(box, pixel_size_angstrom)
        return {"optics": optics, "particles": pd.DataFrame(columns)}

    def _optics(self, box: int, pixel_size_angstrom: float) -> pd.DataFrame:
        """Return the optics table; a group's values are those of its first particle."""
        groups, first = np.unique(self.optics_groups, return_index=True)
        optics: dict[str, object] = {
            "rlnOpticsGroupName": [f"opticsGroup{group}" for group in groups],
            "rlnOpticsGroup": groups,
            "rlnImagePixelSize": pixel_size_angstrom,
            "rlnImageSize": box,
            "rlnImageDimensionality": 2,
        }
        if self.ctf is not None:
            optics |= {
                "rlnVoltage": self.ctf.voltage_kv[first],
                "rlnSphericalAberration": self.ctf.spherical_aberration_mm[first],
                "rlnAmplitudeContrast": self.ctf.amplitude_contrast[first],
            }
        if self.aberrations is not None:
            optics |= self.aberrations.optics_columns(first)
        return pd.DataFrame(optics)


def _ctf_columns(ctf: CtfParameters) -> dict[str, object]:
    """Return the particles' CTF columns; those that RELION takes for granted only where they matter."""
    columns: dict[str, object] = {
        "rlnDefocusU": ctf.defocus_u_angstrom,
        "rlnDefocusV": ctf.defocus_v_angstrom,
        "rlnDefocusAngle": ctf.defocus_angle_degrees,
    }
    if ctf.phase_shift_degrees.any():
        columns["rlnPhaseShift"] = ctf.phase_shift_degrees
    if ctf.b_factor_angstrom2.any():
        columns["rlnCtfBfactor"] = ctf.b_factor_angstrom2
    if (ctf.scale_factor != 1).any():
        columns["rlnCtfScalefactor"] = ctf.scale_factor
    return columns


def draw_parameters(
    number: int,
    seed: int,
    shift_px: float = 3.0,
    with_ctf: bool = True,
    *,
    preference: float = 0.0,
    preferred_axis: ArrayLike = (0.0, 0.0, 1.0),
    preferred_share: float = 1.0,
    optics: Sequence[OpticsGroup] = (OpticsGroup(),),
) -> ParticleParameters:
    """Draw poses, shifts and CTFs at random.

    Poses are uniform on SO(3) or prefer an axis; shifts are uniform in +- ``shift_px`` in x and in
    y. Each micrograph has a mean defocus and an astigmatism drawn from its optics group's range,
    and its particles vary about them. Particles are spread at random over the micrographs. Halves
    alternate. The same ``seed`` gives the same particles.

    - ``preference``, ``preferred_axis``, ``preferred_share``: see
      :func:`napari_cryosphere.imaging.orientations.draw_rotations`; the axis is ``(3,)``.
    - ``optics``: the optics groups, numbered from 1 in this order.
    """
    rng = np.random.default_rng(seed)
    rotations = draw_rotations(number, rng, preference, preferred_axis, preferred_share)
    shifts = rng.uniform(-shift_px, shift_px, size=(number, 2))
    group_of = np.repeat(np.arange(len(optics)), [group.micrographs for group in optics])
    if number < len(group_of):
        group_of = group_of[np.linspace(0, len(group_of) - 1, number).astype(int)]
    micrograph = np.sort(rng.integers(len(group_of), size=number))
    group = group_of[micrograph]

    def of_micrograph(name: str) -> NDArray[np.float64]:
        return np.array([getattr(one, name) for one in optics])[group_of]

    def of_particle(name: str) -> NDArray[np.float64]:
        return np.array([getattr(one, name) for one in optics])[group]

    low, high = of_micrograph("defocus_angstrom").T
    defocus = rng.uniform(low, high)[micrograph]
    defocus = defocus + rng.normal(size=number) * of_particle("defocus_spread_angstrom")
    astigmatism = rng.uniform(0, of_micrograph("astigmatism_angstrom"))[micrograph]
    angle = rng.uniform(0, 180, len(group_of))[micrograph]
    ctf = CtfParameters(
        defocus_u_angstrom=defocus + astigmatism / 2,
        defocus_v_angstrom=defocus - astigmatism / 2,
        defocus_angle_degrees=angle,
        voltage_kv=of_particle("voltage_kv"),
        spherical_aberration_mm=of_particle("spherical_aberration_mm"),
        amplitude_contrast=of_particle("amplitude_contrast"),
        phase_shift_degrees=of_particle("phase_shift_degrees"),
        b_factor_angstrom2=of_particle("b_factor_angstrom2"),
    )
    names = np.array([f"mic{index + 1:03d}.mrc" for index in range(len(group_of))], dtype=object)
    return ParticleParameters(
        rotations=rotations,
        shifts_px=shifts,
        ctf=ctf if with_ctf else None,
        micrographs=names[micrograph],
        half_sets=np.arange(number) % 2 + 1,
        optics_groups=group + 1,
    )


def parameters_from_stack(
    stack: ParticleStack, pixel_size_angstrom: float, with_ctf: bool = True
) -> ParticleParameters:
    """Take poses, shifts, CTFs, aberrations, micrographs, halves and optics groups from particles.

    Images are not needed. Particles of one optics group with different aberrations, as RELION 3.0's
    files may have them, come in groups of their own.

    ``stack``: particles with poses. ``pixel_size_angstrom``: pixel size of the images to simulate;
    shifts keep their angstroms. ``with_ctf``: whether the images have a CTF. Raises `MetadataError`
    if the particles have no poses, or no CTF though one is wanted.
    """
    if with_ctf and not stack.has_ctf:
        raise MetadataError(
            f"{stack.source} has no CTF to simulate with; add its columns or pass --no-ctf"
        )
    aberrations = aberrations_of(stack) if with_ctf else None
    groups = stack.optics_groups()
    if aberrations is not None and aberrations.harmless:
        aberrations = None
    if aberrations is not None and "rlnBeamTiltX" in stack.particles:
        pairs = np.stack([groups, aberrations.of], axis=1)
        groups = 1 + np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return ParticleParameters(
        rotations=stack.rotations(),
        shifts_px=-stack.shifts_angstrom() / pixel_size_angstrom,
        ctf=stack.ctf_parameters() if with_ctf else None,
        micrographs=stack.micrographs(),
        half_sets=stack.half_sets(),
        optics_groups=groups,
        aberrations=aberrations,
    )
