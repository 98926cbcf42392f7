"""Make the reference lists in tests/data/relion/asymmetric_units.json with RELION 3.1's
relion_refine.

Run it in this folder, on a machine with RELION: ``python make_relion_asymmetric_units.py``. One
iteration on a few projections of the package's phantom writes the view directions that RELION
samples at HEALPix order 3 for each point group; they are pixel centres, stored as RING indices.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.simulate import draw_parameters
from napari_cryosphere.particles import read_star, write_star
from napari_cryosphere.so3.healpix import ang2pix

GROUPS = ["C1", "C2", "C3", "C5", "D1", "D2", "D3", "D7", "T", "O", "I1", "I2", "I3", "I4"]
BOX, PIXEL_SIZE = 32, 6.0


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        protein_phantom(BOX, PIXEL_SIZE).save(folder / "map.mrc")
        write_star(
            draw_parameters(4, seed=5).tables("views.mrcs", BOX, PIXEL_SIZE), folder / "views.star"
        )
        _run(folder, "relion_project", "--i", "map.mrc", "--ang", "views.star", "--o", "views")
        units = {group: _unit(folder, group) for group in GROUPS}
    lines = [
        f'"{group}": {json.dumps(pixels, separators=(",", ":"))}' for group, pixels in units.items()
    ]
    target = Path(__file__).parent / "relion" / "asymmetric_units.json"
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _unit(folder: Path, group: str) -> list[int]:
    """Return the HEALPix pixels of order 3 that RELION samples for a point group."""
    options = "--ini_high 40 --healpix_order 3 --iter 1 --K 1 --particle_diameter 150 --ctf --oversampling 0"
    (folder / group).mkdir()
    _run(
        folder,
        "relion_refine",
        *("--i", "views.star", "--ref", "map.mrc", "--o", f"{group}/run", "--sym", group),
        *("--dont_check_norm", "--flatten_solvent", "--offset_range", "1", "--offset_step", "2"),
        *options.split(),
    )
    directions = read_star(folder / group / "run_it001_sampling.star")["sampling_directions"]
    rot, tilt = (
        np.radians(directions[f"rlnAngle{name}"].to_numpy(float)) for name in ("Rot", "Tilt")
    )
    return sorted(int(pixel) for pixel in ang2pix(8, tilt, rot))


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main()
