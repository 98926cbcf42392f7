"""Compare `convert` between STAR and .cs, both ways, with what other programs read of the same files.

    pip install cryosparc-tools igraph scikit-learn && pip install --no-deps cryodrgn  # to test only
    python scripts/compare_converters.py particles.star particles.cs ...

Poses, shifts and CTF are cryoDRGN's of both files (its readers of .cs and of STAR); the files
themselves are read by cryosparc-tools. Coordinates, filaments and beam tilts are compared with
pyem's rules (csparc2star.py: ``pyem`` on PyPI is another project, and pyem is not published there),
trefoil and tetrafoil with cryoSPARC's phases as the simulator specter has them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from cryodrgn.lie_tools import expmap
from cryodrgn.starfile import Starfile
from cryodrgn.utils import R_from_relion
from cryosparc.dataset import Dataset

from napari_cryosphere.particles import ParticleStack
from napari_cryosphere.particles.aberrations import aberrations_of
from napari_cryosphere.particles.ctf_parameters import wavelength_angstrom

CTF = {
    "ctf/df1_A": ("_rlnDefocusU", 1.0),
    "ctf/df2_A": ("_rlnDefocusV", 1.0),
    "ctf/df_angle_rad": ("_rlnDefocusAngle", 180 / np.pi),
    "ctf/accel_kv": ("_rlnVoltage", 1.0),
    "ctf/cs_mm": ("_rlnSphericalAberration", 1.0),
    "ctf/amp_contrast": ("_rlnAmplitudeContrast", 1.0),
    "ctf/phase_shift_rad": ("_rlnPhaseShift", 180 / np.pi),
}
# Largest differences that single precision, in which .cs files are stored, and six decimals explain.
LIMITS = {
    "pose, degrees": 1e-5,
    "shift, pixels": 1e-5,
    "CTF, share of the largest value": 1e-6,
    "coordinates, pixels": 0,
    "filaments that differ": 0,
    "psi prior, degrees": 1e-4,
    "beam tilt, mrad": 1e-5,
    "odd phase, rad": 1e-5,
    "even phase, rad": 1e-5,
    "magnification": 1e-6,
}
_FINEST_FREQUENCY = 0.25  # 1/A, to which phases are compared


def compared(star: Path, cs: Path) -> Iterator[tuple[str, float]]:
    """Yield what is compared and its largest difference between the two files."""
    table, records = Starfile(str(star)), Dataset.load(cs)
    fields = set(records.fields())
    if {"alignments3D/pose", "alignments3D/shift"} <= fields and "_rlnAngleRot" in table.df:
        euler = np.stack([_column(table, f"_rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")], 1)
        vectors = np.asarray(records["alignments3D/pose"], dtype=np.float64)
        vectors = np.where(vectors.any(1, keepdims=True), vectors, 1e-12)
        rotations = expmap(torch.from_numpy(vectors)).numpy().transpose(0, 2, 1)
        apart = np.linalg.norm(R_from_relion(euler) - rotations, axis=(1, 2)) / np.sqrt(2)
        yield "pose, degrees", float(np.degrees(apart.max()))
        origins = np.stack([_column(table, f"_rlnOrigin{axis}Angst") for axis in "XY"], 1)
        pixels = origins / np.asarray(table.apix)[:, None]
        yield "shift, pixels", _apart(pixels, records["alignments3D/shift"])
    there = [name for name in CTF if name in fields]
    values = {name: _column(table, CTF[name][0]) for name in there}
    scaled = {name: records[name] * CTF[name][1] for name in there}
    if there:
        relative = [_apart(values[n], scaled[n]) / max(1, np.abs(scaled[n]).max()) for n in there]
        yield "CTF, share of the largest value", max(relative)
    yield from _by_pyems_rules(table, records, fields)
    yield from _aberrations(star, table, records, fields)


def _by_pyems_rules(table: Starfile, records: Any, fields: set[str]) -> Iterator[tuple[str, float]]:
    if "location/center_x_frac" in fields and "_rlnCoordinateX" in table.df:
        x, y = records["location/center_x_frac"], 1 - records["location/center_y_frac"]
        rows, columns = np.asarray(records["location/micrograph_shape"], dtype=np.float64).T
        found = np.stack([_column(table, f"_rlnCoordinate{axis}") for axis in "XY"], 1)
        yield "coordinates, pixels", _apart(found, np.stack([x * columns, y * rows], 1).round())
    if "filament/filament_uid" in fields:
        keys = pd.DataFrame({"tube": _column(table, "_rlnHelicalTubeID")})
        if "_rlnMicrographName" in table.df:
            keys["where"] = table.df["_rlnMicrographName"].to_numpy()
        ours = keys.groupby(list(keys), sort=False).ngroup().to_numpy()
        theirs = pd.factorize(np.asarray(records["filament/filament_uid"]))[0]
        yield "filaments that differ", float((ours != theirs).sum())
        if "filament/filament_pose" in fields and "_rlnAnglePsiPrior" in table.df:
            wanted = 90 - np.degrees(np.asarray(records["filament/filament_pose"], np.float64))
            apart = (_column(table, "_rlnAnglePsiPrior") - wanted + 180) % 360 - 180
            yield "psi prior, degrees", float(np.abs(apart).max())
    if "ctf/tilt_A" in fields and (_column(table, "_rlnBeamTiltX") != 0).any():
        sine = records["ctf/tilt_A"] / np.asarray(records["ctf/cs_mm"], np.float64)[:, None] * 1e-7
        found = np.stack([_column(table, f"_rlnBeamTilt{axis}") for axis in "XY"], 1)
        yield "beam tilt, mrad", _apart(found, np.arcsin(sine) * 1e3)


def _aberrations(
    star: Path, table: Starfile, records: Any, fields: set[str]
) -> Iterator[tuple[str, float]]:
    """Compare phases of RELION's columns with those of cryoSPARC's fields, at random frequencies."""
    if not {"ctf/tilt_A", "ctf/trefoil_A", "ctf/tetra_A"} & fields:
        return
    found = aberrations_of(ParticleStack.read(star, require_images=False))
    k = np.random.default_rng(0).uniform(-1, 1, (64, 2)) * _FINEST_FREQUENCY / 2**0.5
    radius, angle = np.hypot(*k.T), np.arctan2(k[:, 1], k[:, 0])
    differences: dict[str, list[float]] = {"odd": [], "even": [], "matrix": []}
    for row in np.unique(found.of, return_index=True)[1]:
        kind = found.kinds[found.of[row]]
        wave = float(
            wavelength_angstrom(np.asarray(records["ctf/accel_kv"][row : row + 1], float))[0]
        )

        def field(name: str, number: int, row: int = row) -> Any:
            return np.asarray(records[name][row], float) if name in fields else np.zeros(number)

        tilt, trefoil, tetra = (
            field(f"ctf/{name}_A", size)
            for name, size in (("tilt", 2), ("trefoil", 2), ("tetra", 4))
        )
        odd = -2 * np.pi * (tilt[0] * np.cos(angle) + tilt[1] * np.sin(angle))
        odd += 2 / 3 * np.pi * (trefoil[0] * np.sin(3 * angle) + trefoil[1] * np.cos(3 * angle))
        odd *= wave**2 * radius**3
        even = 2 * np.pi * (-tetra[0] * np.cos(2 * angle) + tetra[1] * np.sin(2 * angle))
        even += np.pi / 2 * (tetra[2] * np.cos(4 * angle) - tetra[3] * np.sin(4 * angle))
        even *= wave**3 * radius**4
        ours = kind.odd_phase(k), kind.even_phase(k)
        differences["odd"].append(_apart(0 if ours[0] is None else ours[0], odd))
        differences["even"].append(_apart(0 if ours[1] is None else -ours[1], even))
        matrix = np.array([1, 0, 0, 1]) + field("ctf/anisomag", 4)
        differences["matrix"].append(_apart(np.array(kind.magnification), matrix))
    yield "odd phase, rad", max(differences["odd"])
    yield "even phase, rad", max(differences["even"])
    yield "magnification", max(differences["matrix"])


def _column(table: Starfile, name: str) -> Any:
    """Return a value for each particle, from its row or its optics group; 0 where there is none."""
    known = name in table.df or (table.data_optics is not None and name in table.data_optics)
    values = table.get_optics_values(name) if known else np.zeros(len(table))
    return np.asarray(values, dtype=np.float64)


def _apart(first: Any, second: Any) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help=".star and .cs files")
    beyond = 0
    for path in parser.parse_args().files:
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / f"made{'.cs' if path.suffix == '.star' else '.star'}"
            ParticleStack.read(path, require_images=False).save(made)
            star, cs = (path, made) if path.suffix == ".star" else (made, path)
            print(f"{path.name} -> {made.suffix}")
            for what, difference in compared(star, cs):
                bad = not difference <= LIMITS[what]
                beyond += bad
                print(
                    f"  {what:32s} {difference:.3g}{'  BEYOND ' * bad}{LIMITS[what] if bad else ''}"
                )
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
