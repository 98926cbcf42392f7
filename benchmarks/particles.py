"""Opening a large STAR file, random access to a large stack, and a data set of many stacks.

Each side of the first comparison runs in a process of its own, for its memory; the sides take
turns. The files are made in a temporary folder (TMPDIR chooses the disk): 0.3 GB for the table and
6.6 GB for the stack, a tenth of that with --quick.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import options, report
from numpy.typing import NDArray

from napari_cryosphere.particles import MrcStack, ParticleStack, stack_writer

_BOX = 128
_PER_STACK = 200
_BATCH = 256
_STACKS = 30_000
_LABELS = (
    *("rlnImageName", "rlnMicrographName", "rlnOpticsGroup", "rlnRandomSubset", "rlnGroupNumber"),
    *(
        "rlnClassNumber",
        "rlnAngleRot",
        "rlnAngleTilt",
        "rlnAnglePsi",
        "rlnOriginXAngst",
        "rlnOriginYAngst",
    ),
    *("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnCoordinateX", "rlnCoordinateY"),
    *("rlnNormCorrection", "rlnMaxValueProbDistribution"),
)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:])
        return
    arguments = options(__doc__ or "")
    number = 100_000 if arguments.quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        rows = _open_star(Path(folder), number)
        rows += _random_access(Path(folder), 10_000 if arguments.quick else 100_000)
        rows += _many_stacks(Path(folder), _STACKS)
    report("particles", rows, arguments, ["numpy", "pandas", "starfile"])


def _open_star(folder: Path, number: int) -> list[dict[str, Any]]:
    """Compare opening particles with their images to a bare ``starfile.read``."""
    star = folder / "particles.star"
    _write_star(star, number, number // _PER_STACK)
    for stack in range(number // _PER_STACK):
        _sparse_stack(folder / f"Extract/job012/Movies/FoilHole_{stack:06d}_Data.mrcs", _PER_STACK)
    found: dict[str, list[dict[str, float]]] = {"starfile": [], "ours": []}
    for _ in range(3):
        for side, results in found.items():
            command = [sys.executable, __file__, "--child", side, str(star)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            results.append(json.loads(output))
    best = {
        side: {key: min(one[key] for one in all_) for key in all_[0]}
        for side, all_ in found.items()
    }
    rows = [
        _row(f"open {number} rows, CPU s", best["ours"]["seconds"], best["starfile"]["seconds"]),
        _row(
            f"open {number} rows, peak MB", best["ours"]["megabytes"], best["starfile"]["megabytes"]
        ),
    ]
    return rows + [
        _row(f"then {key}, ms", best["ours"][key], None) for key in ("len", "slice", "first image")
    ]


def _child(side: str, path: str) -> None:
    """Open the file and print what it cost."""
    if side == "starfile":
        import starfile as reader

        def read() -> Any:
            return reader.read(path)
    else:

        def read() -> Any:
            return ParticleStack.read(path)

    start = time.process_time()
    opened = read()
    found = {"seconds": time.process_time() - start}
    found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if side == "ours":
        works: dict[str, Callable[[], Any]] = {
            "len": lambda: len(opened),
            "slice": lambda: opened[len(opened) // 4 : 3 * len(opened) // 4],
            "first image": lambda: opened.images(0),
        }
        for name, work in works.items():
            start = time.perf_counter()
            work()
            found[name] = 1e3 * (time.perf_counter() - start)
    print(json.dumps(found))


def _random_access(folder: Path, number: int) -> list[dict[str, Any]]:
    """Compare reading images at random, from memory, to a bare memory map."""
    path, star = folder / "stack.mrcs", folder / "stack.star"
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((1000, _BOX, _BOX), dtype=np.float32)
    with stack_writer(path, 1.3) as append:
        for _ in range(number // 1000):
            append(noise)
    names = "".join(f"{index + 1:06d}@stack.mrcs 1.3\n" for index in range(number))
    star.write_text("data_particles\nloop_\n_rlnImageName\n_rlnImagePixelSize\n" + names)
    bare = np.memmap(path, dtype="<f4", mode="r", offset=1024, shape=(number, _BOX, _BOX))
    stack, particles = MrcStack(path), ParticleStack.read(star)
    for start in range(0, number, 1000):  # warm: the file in memory, every page known to both maps
        bare[start : start + 1000].max()
        stack.read(slice(start, start + 1000))
        particles.images(slice(start, start + 1000))
    batches = [rng.integers(0, number, _BATCH) for _ in range(8)]
    singles = rng.integers(0, number, 8 * _BATCH).tolist()
    fresh = rng.permutation(number)[: 8 * _BATCH].reshape(8, _BATCH)

    def unread() -> list[NDArray[np.float32]]:
        opened = MrcStack(path)
        opened.read(0)
        return [opened.read(batch) for batch in fresh]

    sides: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        f"{_BATCH} images, ParticleStack": (
            lambda: [particles.images(batch) for batch in batches],
            lambda: [bare[batch] for batch in batches],
        ),
        f"{_BATCH} images, MrcStack": (
            lambda: [stack.read(batch) for batch in batches],
            lambda: [bare[batch] for batch in batches],
        ),
        f"{_BATCH} images, MrcStack, each for the first time": (
            unread,
            lambda: [bare[b] for b in fresh],
        ),
        "one image, ParticleStack": (
            lambda: [particles.images(one) for one in singles],
            lambda: [np.array(bare[one]) for one in singles],
        ),
        "one image, MrcStack": (
            lambda: [stack.read(one) for one in singles],
            lambda: [np.array(bare[one]) for one in singles],
        ),
    }
    return [
        _row(f"{name}, of {number}: us/image", *_microseconds(ours, other, 8 * _BATCH))
        for name, (ours, other) in sides.items()
    ]


def _microseconds(
    ours: Callable[[], Any], other: Callable[[], Any], images: int
) -> tuple[float, float]:
    """Return the least CPU time an image of both sides, which take turns."""
    best = [np.inf, np.inf]
    for _ in range(9):
        for side, work in enumerate((ours, other)):
            start = time.process_time()
            work()
            best[side] = min(best[side], 1e6 * (time.process_time() - start) / images)
    return best[0], best[1]


def _many_stacks(folder: Path, number: int) -> list[dict[str, Any]]:
    """Open a data set of many stacks, and read an image of each, with 256 open files at most."""
    star = folder / "many.star"
    lines = [f"1@many/{index // 1000:03d}/{index:06d}.mrcs 1.3" for index in range(number)]
    star.write_text(
        "data_particles\nloop_\n_rlnImageName\n_rlnImagePixelSize\n" + "\n".join(lines) + "\n"
    )
    for index in range(number):
        _sparse_stack(folder / f"many/{index // 1000:03d}/{index:06d}.mrcs", 1, box=16)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        start = time.process_time()
        stack = ParticleStack.read(star)
        opened = time.process_time()
        stack.images()
        read = time.process_time()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    return [
        _row(f"open {number} stacks, 256 files at most, CPU s", opened - start, None),
        _row(f"read an image of each of {number} stacks, CPU s", read - opened, None),
    ]


def _row(task: str, ours: float, other: float | None) -> dict[str, Any]:
    return {
        "task": task,
        "ours": ours,
        "other": "" if other is None else other,
        "ratio": "" if other is None else ours / other,
    }


def _write_star(path: Path, number: int, stacks: int) -> None:
    """Write a table such as RELION's refinements write."""
    rng = np.random.default_rng(0)
    optics = "rlnOpticsGroup 1\n_rlnVoltage 300.0\n_rlnSphericalAberration 2.7\n_rlnAmplitudeContrast 0.1\n"
    with path.open("w") as stream:
        stream.write(f"\ndata_optics\n\n_{optics}_rlnImagePixelSize 1.3\n_rlnImageSize {_BOX}\n")
        stream.write("\ndata_particles\n\nloop_\n")
        stream.writelines(f"_{label} #{at}\n" for at, label in enumerate(_LABELS, 1))
        for stack in range(stacks):
            values = rng.random((_PER_STACK, 12)) * [
                360,
                180,
                360,
                9,
                9,
                2e4,
                2e4,
                180,
                4e3,
                4e3,
                1,
                1,
            ]
            place = f"Movies/FoilHole_{stack:06d}_Data.mrc"
            for row in range(_PER_STACK):
                numbers = " ".join(f"{value:12.6f}" for value in values[row])
                stream.write(
                    f"{row + 1:06d}@Extract/job012/{place}s MotionCorr/job002/{place} "
                    f"{1:12d} {1 + row % 2:12d} {stack + 1:12d} {1:12d} {numbers}\n"
                )
    if number != stacks * _PER_STACK:
        raise ValueError("the number of rows must be a multiple of the images in a stack")


def _sparse_stack(path: Path, number: int, box: int = _BOX) -> None:
    """Write a stack of zeros that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = np.zeros(256, dtype="<i4")
    header[[0, 1, 2, 3, 7, 8, 9, 16, 17, 18]] = box, box, number, 2, box, box, 1, 1, 2, 3
    header.view("<f4")[10:13] = 1.3 * box, 1.3 * box, 1.3
    header[52] = int.from_bytes(b"MAP ", "little")
    header[53] = 0x4444
    with path.open("wb") as stream:
        stream.write(header.tobytes())
        stream.truncate(1024 + number * box * box * 4)


if __name__ == "__main__":
    main()
