"""Fuzz the readers: whatever a file holds, reading it ends well or with one of the package's own
errors.

    pip install -e '.[fuzz]'
    python fuzz/readers.py star --seeds FOLDER --runs 100000  (star, values, cs, csg, mrc)

Kind ``values`` changes numbers of STAR files, and asks for a finite CTF without a warning where
reading ends well; ``csg`` changes cryoSPARC's groups, next to the .cs files that they name.

atheris mutates the seeds, guided by coverage of the readers; every second input is changed by
``mutations.py``, which knows the formats. An input that takes over 5 CPU seconds (60 by the clock)
or 1 GiB, or that raises anything but a CryosphereError, ends the run and is written to the folder.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np

SUFFIXES = {"star": ".star", "values": ".star", "cs": ".cs", "csg": ".csg", "mrc": ".mrcs"}
LARGEST_SEED = 1 << 16
PER_PROCESS = 10_000  # atheris's own memory grows by 35 kB an input


def use(kind: str, folder: Path, data: bytes) -> None:
    """Do with a file what the commands do: read it, read its images, write it; only our own errors
    come.
    """
    from napari_cryosphere.errors import CryosphereError

    path = folder / f"input{SUFFIXES[kind]}"
    path.write_bytes(data)
    check = zlib.crc32(data)
    works = {"mrc": (_read_pixels, _read_map), "values": (_read_values,)}
    for work in works.get(kind, (_read_particles, _convert)):
        try:
            work(path, check)
        except CryosphereError as error:
            if "\n" in str(error) or not str(error):
                raise AssertionError("a message that is not one line") from error


def _read_particles(path: Path, _: int) -> None:
    from napari_cryosphere.particles import ParticleStack

    stack = ParticleStack.read(path, path.parent)
    stack.summary()
    if not np.isfinite(stack.images(slice(0, 100))).all():
        raise AssertionError("pixels that are not finite")


def _read_values(path: Path, _: int) -> None:
    """Read a table and make the CTF of its particles; numpy has nothing to warn of."""
    from napari_cryosphere.imaging.ctf import transfer_values
    from napari_cryosphere.particles import ParticleStack

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack = ParticleStack.read(path, path.parent, require_images=False)
        stack.summary()
        if stack.has_ctf and stack.grids:
            axis = np.linspace(0, 0.5 / stack.pixel_size_angstrom, 5)
            frequencies = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
            values = transfer_values(stack, np.clip(frequencies, 0, 0.4))
            if values is not None and not np.isfinite(values).all():
                raise AssertionError("a CTF that is not finite")


def _convert(path: Path, check: int) -> None:
    """Read without images; write and read again one of two."""
    from napari_cryosphere.particles import ParticleStack

    stack = ParticleStack.read(path, path.parent, require_images=False)
    if check % 4 < 2:
        written = path.with_name("output" + (".star", ".cs")[check % 2])
        stack.save(written, overwrite=True)
        again = ParticleStack.read(written, path.parent, require_images=False)
        if len(again) != len(stack):
            raise AssertionError(f"{len(stack)} particles written, {len(again)} read again")


def _read_pixels(path: Path, check: int) -> None:
    """Read a stack, and one in four as particles, which takes ten times as long."""
    from napari_cryosphere.particles import MrcStack

    stack = MrcStack(path)
    if not np.isfinite(stack.read(slice(0, 100))).all():
        raise AssertionError("pixels that are not finite")
    if check % 4 == 0:
        _read_particles(path, check)


def _read_map(path: Path, _: int) -> None:
    from napari_cryosphere.particles import DensityMap

    DensityMap.read(path)


def main() -> None:
    """Parse the options and run in one process after the other, all with the corpus of the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kind", choices=SUFFIXES)
    parser.add_argument("--seeds", type=Path, required=True, help="folder with files to begin with")
    parser.add_argument("--runs", type=int, default=10_000, help="number of inputs")
    parser.add_argument(
        "--output", type=Path, default=Path("fuzz-output"), help="where bad inputs go"
    )
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.work is not None:
        _fuzz(arguments.kind, arguments.work, arguments.runs, arguments.output)
        return
    memory = Path("/dev/shm")
    total, peak = 0, 0
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        _copy_seeds(arguments.kind, arguments.seeds, Path(folder))
        for start in range(0, arguments.runs, PER_PROCESS):
            number = min(PER_PROCESS, arguments.runs - start)
            command = [
                sys.executable,
                __file__,
                arguments.kind,
                "--seeds",
                arguments.seeds,
                "--work",
                folder,
            ]
            command += ["--runs", str(number), "--output", arguments.output]
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace"
            )
            found = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
            total += int(found.get("number_of_executed_units", 0))
            peak = max(peak, int(found.get("peak_rss_mb", 0)))
            print(f"{arguments.kind}: {total} inputs, peak memory {peak} MB", flush=True)
            if done.returncode:
                sys.exit(
                    f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\nexit status {done.returncode}"
                )


def _copy_seeds(kind: str, seeds: Path, work: Path) -> None:
    """Copy the small files of a kind to the corpus, and the files that they name next to the inputs."""
    corpus = work / "corpus"
    corpus.mkdir()
    suffixes = (".mrcs", ".mrc", ".gz", ".bz2") if kind == "mrc" else (SUFFIXES[kind],)
    for number, path in enumerate(sorted(seeds.rglob("*"))):
        if path.is_file() and path.name.endswith(suffixes) and path.stat().st_size <= LARGEST_SEED:
            shutil.copy(path, corpus / f"{number}")
        if path.name in ("base.mrcs", "base.cs", "other.cs"):
            shutil.copy(path, work / path.name)


def _fuzz(kind: str, work: Path, runs: int, output: Path) -> None:
    """Run atheris in this process, which it does not come back from."""
    import atheris

    with atheris.instrument_imports(include=["napari_cryosphere.particles"]):
        import napari_cryosphere.particles  # noqa: F401
    from mutations import mutated

    def one(data: bytes) -> None:
        start = time.process_time()
        use(kind, work, data)
        if (spent := time.process_time() - start) > 5:
            raise AssertionError(f"{spent:.1f} seconds")

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return mutated(bytes(data), kind, random.Random(seed))[:most]

    warnings.simplefilter("ignore")
    options = [
        *("-timeout=60", "-rss_limit_mb=1024", f"-runs={runs}", f"-max_len={LARGEST_SEED}"),
        *("-print_final_stats=1", f"-artifact_prefix={output}/", str(work / "corpus")),
    ]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
