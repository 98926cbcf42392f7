"""Apoferritin, EMPIAR-10146: from public micrographs to a map, and how sure each pose is.

    python examples/apoferritin/run.py --fetch micrographs          # downloads the entry and stops
    python examples/apoferritin/run.py --micrographs micrographs_ctf.star --map 4y08.cif --output apoferritin
    python examples/apoferritin/run.py --particles particles.star --map model.mrc --output apoferritin

CTFs are fitted by another program between the first step and the second: RELION's CTF job (CTFFIND or Gctf)
writes ``micrographs_ctf.star``. ``--map`` is a map, or an atomic model (PDB or mmCIF, human H ferritin is
4Y08), of which nothing finer than 30 A is used. ``--solve`` also trains a network on the poses found and
writes a page of results. What came out is in ``values.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
from pick import extract

import napari_cryosphere as nc
from napari_cryosphere.particles import read_star

ENTRY, SYMMETRY = "EMPIAR-10146", "O"
DIAMETER_ANGSTROM = 124.0  # outer diameter of the shell of 24 subunits
BOX, START_ANGSTROM = 128, 30.0


def reference(path: Path, pixel_size_angstrom: float, output: Path) -> Path:
    """Return the file of a map; of an atomic model one is made on the particles' grid."""
    if path.suffix.lower() not in (".pdb", ".cif", ".ent"):
        return path
    density = nc.density(path, pixel_size_angstrom, box=BOX, resolution_angstrom=5.0, assembly="1")
    density.save(output / "model.mrc", overwrite=True)
    return output / "model.mrc"


def command(*words: str | Path) -> None:
    """Run a command of napari-cryosphere; what it says is shown."""
    subprocess.run([sys.executable, "-m", "napari_cryosphere", *map(str, words)], check=True)


def values(refined: Path) -> dict[str, float]:
    """Return what a run of `refine` reached."""
    history = pd.read_csv(refined / "history.csv")
    last = history.iloc[-1]  # the iteration that the run ended with
    table = read_star(refined / "particles.star")["particles"]
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "particles": len(table),
        "fsc_0143_angstrom": float(last["resolution_0143_angstrom"]),
        "fsc_05_angstrom": float(last["resolution_05_angstrom"]),
        "mean_confidence": float(table["cryosphereConfidence"].mean()),
        "surer_than_90_percent": 100 * float((table["cryosphereConfidence"] > 0.9).mean()),
        "iterations": int(history["iteration"].max()),
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--fetch", type=Path, help=f"download {ENTRY} into this folder and stop")
    parser.add_argument("--micrographs", type=Path, help="micrographs_ctf.star: pick and extract")
    parser.add_argument(
        "--particles", type=Path, help="extracted particles, instead of micrographs"
    )
    parser.add_argument("--map", type=Path, help="map or atomic model to begin with")
    parser.add_argument("--output", type=Path, default=Path("apoferritin"))
    parser.add_argument("--solve", action="store_true", help="also train, predict, write a page")
    arguments = parser.parse_args()
    output = arguments.output
    if arguments.fetch:
        for path in nc.fetch(ENTRY, arguments.fetch, progress=lambda event: print(event.message)):
            print(path)
        return
    if arguments.map is None or (arguments.micrographs is None) == (arguments.particles is None):
        parser.error("give --map, and --micrographs or --particles")
    particles = arguments.particles
    output.mkdir(parents=True, exist_ok=True)
    if particles is None:
        tables = read_star(arguments.micrographs)
        particles = extract(
            tables["micrographs"], tables["optics"], output / "extracted", BOX, DIAMETER_ANGSTROM
        )
    start = reference(arguments.map, nc.read_star(particles).pixel_size_angstrom, output)
    common = (particles, "--map", start, "--symmetry", SYMMETRY, "--overwrite")
    refining = ("--initial-resolution", START_ANGSTROM, "--output", output / "refined")
    command("refine", *common, *refining)
    found = values(output / "refined")
    (output / "values.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    if arguments.solve:
        command("solve", *common, "--output", output / "solved")


if __name__ == "__main__":
    main()
