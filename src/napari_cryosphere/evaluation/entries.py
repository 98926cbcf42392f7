"""CESPED's entries, those on Zenodo and local ones in the same layout.

A folder of entries, CESPED's ``benchmarkDir``, has a folder for each: ``TARGET/particles_H.star``,
``particles_H.mrcs`` and ``info_H.json`` for the halves H = 0 and 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError, FileFormatError, MetadataError
from napari_cryosphere.particles import ParticleStack, stack_writer, write_star
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = [
    "CESPED_ENTRIES",
    "CespedEntry",
    "LocalEntry",
    "add_half",
    "cesped_entry",
    "local_entries",
    "local_entry",
]

HALVES = (0, 1)
"""Names of the two halves in the files of the CESPED benchmark."""

_CHUNK = 256  # images copied at once
_WEIGHT = "rlnMaxValueProbDistribution"
_MARKER = "SUCCESSFUL_DOWNLOAD_{}.txt"


@dataclass(frozen=True)
class CespedEntry:
    """An entry that Zenodo holds.

    - ``name``: what the paper calls it: its EMPIAR number, or TEST.
    - ``composition``: what the particles are.
    - ``box``: pixels along an edge of an image, of 1.5 A each.
    - ``resolution_angstrom``: where the half-maps' FSC falls below 0.143, without a mask and with
      one (Supplementary Table 1); None where the paper does not say.
    - ``particles``: number of particles in both halves; None where the paper does not say.
    - ``records``: Zenodo's records of half 0 and half 1.
    - ``alias``: another name of the same data: CESPED's package calls 10647 by the number of its
      EMPIAR neighbour.
    - ``mask``: name of the mask in Zenodo's record of masks.
    """

    name: str
    composition: str
    symmetry: str
    box: int
    resolution_angstrom: tuple[float, float] | None
    particles: int | None
    records: tuple[str, str]
    mask: str
    alias: str | None = None


PIXEL_SIZE_ANGSTROM = 1.5
"""Of all entries' images (section 2.1)."""
MASK_RECORD = "11092291"
"""Zenodo's record of the entries' masks."""

# Supplementary Table 1; records as CESPED's package has them.
CESPED_ENTRIES: tuple[CespedEntry, ...] = (
    CespedEntry(
        "10166",
        "Human 26S proteasome bound to the chemotherapeutic Oprozomib",
        "C1",
        284,
        (5.0, 3.9),
        238631,
        ("8353634", "8353702"),
        "10166_mask.mrc",
    ),
    CespedEntry(
        "10786",
        "Substance P-Neurokinin Receptor G protein complexes (SP-NK1R-miniGs399)",
        "C1",
        184,
        (3.3, 3.0),
        288659,
        ("8352275", "8352281"),
        "10786_mask.mrc",
    ),
    CespedEntry(
        "10280",
        "Calcium-bound TMEM16F in nanodisc with supplement of PIP2",
        "C2",
        182,
        (3.6, 3.0),
        459504,
        ("8353722", "8353737"),
        "10280_mask.mrc",
    ),
    CespedEntry(
        "11120",
        "M22 bound TSHR Gs 7TM G protein",
        "C1",
        232,
        (3.4, 3.0),
        244973,
        ("8352296", "8352300"),
        "11120_mask.mrc",
    ),
    CespedEntry(
        "10647",
        "PKM2 in complex with L-threonine",
        "D2",
        222,
        (3.7, 3.3),
        234956,
        ("8387534", "8390711"),
        "10648_mask.mrc",
        alias="10648",
    ),
    CespedEntry(
        "10409",
        "Replicating SARS-CoV-2 polymerase (Map 1)",
        "C1",
        240,
        (3.3, 3.0),
        406001,
        ("8386582", "8386660"),
        "10409_mask.mrc",
    ),
    CespedEntry(
        "10374",
        "Human ABCG2 transporter with inhibitor MZ29 and 5D3-Fab",
        "C2",
        216,
        (3.7, 3.0),
        323681,
        ("8386774", "8386881"),
        "10374_mask.mrc",
    ),
    CespedEntry(
        "TEST",
        "A small subset of 11120",
        "C1",
        232,
        None,
        None,
        ("10998049", "10998591"),
        "11120_mask.mrc",
    ),
)


def cesped_entry(name: str) -> CespedEntry:
    """Return an entry by its name or its other name, in any case.

    Raises `CryosphereError` if there is none; the message lists them.
    """
    for entry in CESPED_ENTRIES:
        if name.upper() in (entry.name, entry.alias):
            return entry
    known = ", ".join(entry.name for entry in CESPED_ENTRIES)
    raise CryosphereError(f"Zenodo has no CESPED entry {name!r}; it has {known}")


@dataclass(frozen=True)
class LocalEntry:
    """An entry on disk.

    - ``name``: name of its folder.
    - ``folder``: where its files are.
    - ``symmetry``: point group, from ``info_0.json``.
    - ``simulated``: whether ``info_0.json`` says that the particles are simulated.
    """

    name: str
    folder: Path
    symmetry: str
    simulated: bool

    def star(self, half: int) -> Path:
        """Return the table of half 0 or half 1."""
        return self.folder / f"particles_{half}.star"

    def read(self, half: int) -> ParticleStack:
        """Read a half's particles."""
        return ParticleStack.read(self.star(half))

    @property
    def mask(self) -> Path | None:
        """The entry's mask, ``mask.mrc``, where there is one."""
        path = self.folder / "mask.mrc"
        return path if path.is_file() else None


def local_entry(benchmark_dir: Path, name: str) -> LocalEntry:
    """Return an entry of which both halves exist.

    Raises `CryosphereError` if a file is missing, or the two halves' point groups differ;
    `FileFormatError` if an info file is no JSON object with a symmetry.
    """
    folder = benchmark_dir / name
    missing = [
        f"{stem}_{half}.{suffix}"
        for half in HALVES
        for stem, suffix in (("particles", "star"), ("info", "json"))
        if not (folder / f"{stem}_{half}.{suffix}").is_file()
    ]
    if missing:
        raise CryosphereError(
            f"{folder} lacks {', '.join(missing)}; fetch the entry with 'cesped download {name}' or make one "
            "from your particles with 'cesped add'"
        )
    infos = [_info(folder / f"info_{half}.json") for half in HALVES]
    groups = [normalise_group_name(str(info["symmetry"])) for info in infos]
    if groups[0] != groups[1]:
        raise MetadataError(f"{folder}: half 0 has the symmetry {groups[0]}, half 1 {groups[1]}")
    return LocalEntry(name, folder, groups[0], bool(infos[0].get("simulated", False)))


def _info(path: Path) -> dict[str, object]:
    try:
        info = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path} is not JSON; download it again") from error
    if not isinstance(info, dict) or not isinstance(info.get("symmetry"), str):
        raise FileFormatError(
            f'{path} names no point group; it should be such as {{"symmetry": "C1"}}'
        )
    return info


def local_entries(benchmark_dir: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names of the folders that hold particles, with the halves that exist."""
    if not benchmark_dir.is_dir():
        return
    for folder in sorted(path for path in benchmark_dir.iterdir() if path.is_dir()):
        halves = tuple(
            half
            for half in HALVES
            if all((folder / f"particles_{half}.{suffix}").is_file() for suffix in ("star", "mrcs"))
        )
        if halves:
            yield folder.name, halves


def add_half(
    stack: ParticleStack,
    benchmark_dir: Path,
    name: str,
    half: int,
    symmetry: str,
    *,
    simulated: bool = False,
    overwrite: bool = False,
) -> Iterator[int]:
    """Write particles as one half of a local entry; yields how many images are written.

    All images are brought to one grid and copied into one stack, in the table's order. The table,
    which says that the half is complete, is written last. What CESPED's package looks for is written
    too, so that it reads the entry. Simulated poses that have no rlnMaxValueProbDistribution get 1:
    they are certain.

    Raises `MetadataError` if the particles have no poses, or there are none; `OutputExistsError` if
    the half exists and ``overwrite`` is False.
    """
    if not len(stack) or not stack.has_poses:
        lack = "no poses" if len(stack) else "no particles"
        raise MetadataError(
            f"{stack.source}: {lack} for half {half}; an entry needs particles with poses"
        )
    folder = benchmark_dir / name
    images = folder / f"particles_{half}.mrcs"
    with stack_writer(images, stack.pixel_size_angstrom, overwrite) as append:
        for first in range(0, len(stack), _CHUNK):
            rows = slice(first, min(first + _CHUNK, len(stack)))
            append(stack.images(rows))
            yield rows.stop
    info = {"symmetry": normalise_group_name(symmetry)} | ({"simulated": True} if simulated else {})
    with atomic_path(folder / f"info_{half}.json", overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(info) + "\n")
    mark_complete(folder, str(half), images.stat().st_size)
    table = stack.particles.assign(
        rlnImageName=[f"{index + 1:06d}@{images.name}" for index in range(len(stack))],
        rlnRandomSubset=half + 1,
    )
    if simulated and _WEIGHT not in table:
        table = table.assign(**{_WEIGHT: 1.0})
    optics = stack.optics.assign(
        rlnImagePixelSize=stack.pixel_size_angstrom, rlnImageSize=stack.box
    )
    write_star({"optics": optics, "particles": table}, folder / f"particles_{half}.star", overwrite)


def mark_complete(folder: Path, record: str, size: int) -> None:
    """Write the file by which CESPED's package knows that a record (or a local half) is complete."""
    with atomic_path(folder / _MARKER.format(record), overwrite=True) as temporary:
        temporary.write_text(f"{record}\n{size}\n")
