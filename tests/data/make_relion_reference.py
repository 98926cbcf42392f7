"""Make the reference projections in tests/data/relion with RELION 3.1's relion_project.

Run it in this folder, on a machine with RELION, to make them anew: ``python
make_relion_reference.py``. The map is the package's own phantom; the six views, shifts and CTFs are
drawn with a seed. Astigmatism is 4000 A for all, since realistic values cannot tell the conventions
of its angle apart.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.simulate import draw_parameters
from napari_cryosphere.particles import write_star

FOLDER = Path(__file__).parent / "relion"
BOX, PIXEL_SIZE = 32, 6.0


def main() -> None:
    density = protein_phantom(BOX, PIXEL_SIZE)
    density.save(FOLDER / "phantom.mrc", overwrite=True)
    tables = draw_parameters(6, seed=5, shift_px=3.0).tables("views.mrcs", BOX, PIXEL_SIZE)
    particles = tables["particles"]
    mean = (particles["rlnDefocusU"] + particles["rlnDefocusV"]) / 2
    particles["rlnDefocusU"], particles["rlnDefocusV"] = mean + 2000, mean - 2000
    write_star(tables, FOLDER / "views.star", overwrite=True)
    centred = tables | {"particles": particles.assign(rlnOriginXAngst=0.0, rlnOriginYAngst=0.0)}
    write_star(centred, FOLDER / "centred.star", overwrite=True)
    _project("centred.star", "plain")
    _project("views.star", "shift_ctf", "--ctf")
    _project("centred.star", "flip", "--ctf", "--ctf_phase_flip")
    (FOLDER / "centred.star").unlink()
    (FOLDER / "phantom.mrc").unlink()


def _project(star: str, name: str, *options: str) -> None:
    command = [
        "relion_project",
        "--i",
        "phantom.mrc",
        "--ang",
        star,
        "--o",
        name,
        "--angpix",
        str(PIXEL_SIZE),
    ]
    subprocess.run([*command, *options], cwd=FOLDER, check=True, capture_output=True)
    (FOLDER / f"{name}.star").unlink()


if __name__ == "__main__":
    main()
