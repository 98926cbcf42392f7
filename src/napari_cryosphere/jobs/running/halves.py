"""The sums of the two half sets: filled from particles, shared between ranks, solved for maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.corrections import corrected_images
from napari_cryosphere.imaging.ctf import transfer_values
from napari_cryosphere.jobs.running.prefetch import prefetched
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.particles.aberrations import aberrations_of
from napari_cryosphere.reconstruction import (
    BackProjector,
    FourierShellCorrelation,
    WeightedPoses,
    compare_maps,
    fourier_shell_correlation,
    ssnr_of_full_map,
    write_fsc_csv,
)

__all__ = ["CHUNK", "Halves", "Reconstruction", "chunks", "refuse_empty_half", "refuse_few_in_half"]

CHUNK = 128
"""Particles that are read and inserted at a time."""


@dataclass(frozen=True)
class Reconstruction:
    """A map; with half-maps also these and their FSC.

    - ``density``: the map of all particles.
    - ``halves``: half-maps without regularisation, as post-processing wants them.
    - ``curve``: their FSC.
    - ``particles``: how many particles the map is made from.
    """

    density: DensityMap
    halves: tuple[DensityMap, ...] = ()
    curve: FourierShellCorrelation | None = None
    particles: int = 0

    def save(self, paths: Mapping[str, Path], *, overwrite: bool) -> dict[str, Path]:
        """Write the map and, if there is an FSC, the half-maps and it; return the paths written.

        ``paths`` are those of ``map``, ``half1``, ``half2`` and ``fsc``.
        """
        roles = ["map"]
        if self.curve is not None:
            roles += ["half1", "half2", "fsc"]
            for role, half in zip(roles[1:], self.halves, strict=False):
                half.save(paths[role], overwrite)
            write_fsc_csv({"fsc": self.curve}, paths["fsc"], overwrite=overwrite)
        self.density.save(paths["map"], overwrite)
        return {role: paths[role] for role in roles}

    def _repr_html_(self) -> str:
        """Return the map and the FSC of its halves, for notebooks."""
        parts = [part for part in (self.density, self.curve) if part is not None]
        return "".join(part._repr_html_() for part in parts)


class Halves:
    """Two back-projectors, one a half set, that fill while particles come.

    - ``grid``: the images' box and pixel size.
    - ``symmetry``: point group of the map.
    - ``padding``: oversampling of the Fourier volume.
    - ``pair``: sums to go on from; by default none.
    """

    def __init__(
        self,
        grid: ImageGrid,
        symmetry: str,
        padding: int,
        pair: tuple[BackProjector, BackProjector] | None = None,
    ) -> None:
        self.grid, self._symmetry = grid, symmetry
        self.pair = pair or (
            BackProjector(grid.box, padding, symmetry),
            BackProjector(grid.box, padding, symmetry),
        )

    @property
    def inserted(self) -> int:
        """How many particles are in the sums."""
        return sum(half.inserted for half in self.pair)

    def fill(
        self,
        stack: ParticleStack,
        poses: WeightedPoses,
        rows: Sequence[slice] | None = None,
        ahead: int = 2,
    ) -> Iterator[int]:
        """Insert particles; yields how many are done.

        ``stack``, ``poses``: the particles and where each goes, one row a particle. ``rows``:
        which, `CHUNK` or fewer at a time; all by default. ``ahead``: how many chunks of images are
        read ahead.
        """
        of, shifts_px = stack.half_sets(), -stack.shifts_angstrom() / stack.pixel_size_angstrom
        frequencies = self.pair[0].frequencies / self.grid.field_angstrom
        magnification = aberrations_of(stack).matrices()

        def read(chunk: slice) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
            part = stack[chunk]
            images = corrected_images(part, part.images(), self.grid, undistort=False)
            return images, transfer_values(part, frequencies, undistorted=False)

        done = 0
        for chunk, (images, ctf) in prefetched(
            read, chunks(len(stack)) if rows is None else rows, ahead
        ):
            for half, projector in enumerate(self.pair, start=1):
                mine = np.flatnonzero(of[chunk] == half)
                if len(mine):
                    projector.add(
                        images[mine],
                        poses.rotations[chunk][mine],
                        None if ctf is None else ctf[mine],
                        shifts_px[chunk][mine],
                        poses.weights[chunk][mine],
                        None if magnification is None else magnification[chunk][mine],
                    )
            done += len(images)
            yield done

    def save(self, folder: Path, name: str) -> None:
        """Write the sums for another process to add."""
        for half, projector in enumerate(self.pair, start=1):
            projector.save(folder / f"{name}_half{half}.safetensors", overwrite=True)

    def add_saved(self, folder: Path, name: str) -> None:
        """Add sums that `save` wrote."""
        for half, projector in enumerate(self.pair, start=1):
            projector += BackProjector.load(folder / f"{name}_half{half}.safetensors")

    def _density(self, voxels: NDArray[np.float32]) -> DensityMap:
        return DensityMap(voxels, self.grid.pixel_size_angstrom, self._symmetry)

    def snapshot(self) -> DensityMap:
        """Return the map of the particles so far; the sums go on growing."""
        maps = [half.solve() * half.inserted for half in self.pair if half.inserted]
        return self._density(np.sum(maps, axis=0) / self.inserted)

    def solve(
        self, half_maps: bool, mask: DensityMap | None = None, regularise: bool = True
    ) -> Reconstruction:
        """Return the final maps; the sums of the halves become one.

        ``half_maps``: whether to return the half-maps and their FSC. ``mask``: for the FSC.
        ``regularise``: whether the map of all particles is Wiener-filtered by its half-maps' FSC.
        """
        both = all(half.inserted for half in self.pair)
        maps = [self._density(half.solve()) for half in self.pair] if both else []
        ssnr = None
        if both and regularise:
            unmasked = fourier_shell_correlation(
                maps[0].voxels, maps[1].voxels, self.grid.pixel_size_angstrom
            )
            ssnr = ssnr_of_full_map(unmasked)
        count = self.inserted
        curve = compare_maps(maps[0], maps[1], mask).curve if both and half_maps else None
        full, other = self.pair
        full += other
        density = self._density(full.solve(ssnr))
        return Reconstruction(density, tuple(maps) if half_maps else (), curve, count)


def refuse_empty_half(stack: ParticleStack, otherwise: str = "") -> None:
    """Check that both half sets have particles; ``otherwise`` says what else to do if not.

    Raises `MetadataError` if a half set is empty.
    """
    counts = [int((stack.half_sets() == half).sum()) for half in (1, 2)]
    if min(counts) == 0:
        raise MetadataError(
            f"{stack.source}: all particles are in half {1 + int(counts[0] == 0)}; half-maps need both "
            f"halves: {otherwise}remove rlnRandomSubset for a new split"
        )


def refuse_few_in_half(stack: ParticleStack, fewest: int) -> None:
    """Check that both half sets have so many particles. Raises `MetadataError` if one has fewer."""
    refuse_empty_half(stack)
    number = min(int((stack.half_sets() == half).sum()) for half in (1, 2))
    if number < fewest:
        raise MetadataError(
            f"{stack.source}: {number} particles in one half, which are too few: {fewest} in each half "
            "are needed at least; give more particles"
        )


def chunks(number: int) -> list[slice]:
    """Return the rows of all chunks of so many particles."""
    return [slice(start, min(start + CHUNK, number)) for start in range(0, number, CHUNK)]
