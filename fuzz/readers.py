"""Fuzz the readers: whatever a file holds, reading it ends well or with one of the package's own errors.

    pip install -e '.[fuzz]'
    python fuzz/readers.py star --seeds FOLDER --runs 100000      (kinds: star, cs, mrc)

atheris mutates the seeds, guided by coverage of the readers; every second input is changed by
``mutations.py``, which knows the formats. An input that takes over 5 seconds or 1 GiB, or that raises
anything but a CryosphereError, ends the run and is written to the folder.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np

SUFFIXES = {"star": ".star", "cs": ".cs", "mrc": ".mrcs"}
LARGEST_SEED = 1 << 16


def use(kind: str, folder: Path, data: bytes) -> None:
    """Do with a file what the commands do: read it, read its images, write it; only our own errors come."""
    from napari_cryosphere.errors import CryosphereError

    path = folder / f"input{SUFFIXES[kind]}"
    path.write_bytes(data)
    for work in (_read_particles, _convert) if kind != "mrc" else (_read_particles, _read_map):
        try:
            work(path, zlib.crc32(data))
        except CryosphereError as error:
            if "\n" in str(error) or not str(error):
                raise AssertionError("a message that is not one line") from error


def _read_particles(path: Path, _: int) -> None:
    from napari_cryosphere.particles import ParticleStack

    stack = ParticleStack.read(path, path.parent)
    stack.summary()
    if not np.isfinite(stack.images(slice(0, 100))).all():
        raise AssertionError("pixels that are not finite")


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


def _read_map(path: Path, _: int) -> None:
    from napari_cryosphere.particles import DensityMap

    DensityMap.read(path)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kind", choices=SUFFIXES)
    parser.add_argument("--seeds", type=Path, required=True, help="folder with files to begin with")
    parser.add_argument("--runs", type=int, default=10_000, help="number of inputs")
    parser.add_argument("--output", type=Path, default=Path("fuzz-output"), help="where bad inputs go")
    arguments = parser.parse_args()

    import atheris

    with atheris.instrument_imports(include=["napari_cryosphere.particles"]):
        import napari_cryosphere.particles  # noqa: F401
    from mutations import mutated

    warnings.simplefilter("ignore")
    memory = Path("/dev/shm")
    work = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    corpus = work / "corpus"
    corpus.mkdir()
    suffixes = {"star": (".star",), "cs": (".cs",), "mrc": (".mrcs", ".mrc", ".gz", ".bz2")}[arguments.kind]
    for number, path in enumerate(sorted(arguments.seeds.rglob("*"))):
        if path.is_file() and path.name.endswith(suffixes) and path.stat().st_size <= LARGEST_SEED:
            shutil.copy(path, corpus / f"{number}")
        if path.name == "base.mrcs":
            shutil.copy(path, work / path.name)
    arguments.output.mkdir(parents=True, exist_ok=True)

    def one(data: bytes) -> None:
        use(arguments.kind, work, data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return mutated(bytes(data), arguments.kind, random.Random(seed))[:most]

    options = [
        *("-timeout=5", "-rss_limit_mb=1024", f"-runs={arguments.runs}", f"-max_len={LARGEST_SEED}"),
        *("-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={arguments.output}/"),
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
