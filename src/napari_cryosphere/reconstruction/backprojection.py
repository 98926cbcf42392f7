"""A map from images and poses: back-projection in Fourier space with CTF weighting."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError, safe_open

from napari_cryosphere._files import write_tensors
from napari_cryosphere.errors import CryosphereError, FileFormatError
from napari_cryosphere.reconstruction._gridding import divide_gridded
from napari_cryosphere.reconstruction._insertion import SliceVolume
from napari_cryosphere.reconstruction._solving import divide, map_from_transform
from napari_cryosphere.reconstruction._symmetry import SumSymmetry
from napari_cryosphere.so3.symmetry import normalise_group_name

__all__ = ["BackProjector", "refuse_unlike_sums"]

_ROW = 64  # images whose transforms are held at once


class BackProjector:
    """Sums of CTF-weighted central slices, and the map that they make.

    With slices F_i, CTFs c_i, weights w_i and trilinear insertion P*_i (the adjoint of the sampling
    in `napari_cryosphere.imaging.projection.Projector`):

        V = (sum_i w_i P*_i c_i F_i) / (sum_i w_i P*_i c_i^2 + regularisation)

    Particles can come in any number of batches; memory depends on the box alone. Sums can be added
    (shards, half-sets) and saved.

    ``box``: even box of the images, in pixels. ``padding``: oversampling of the Fourier volume.
    ``symmetry``: point group of the map. ``inserted``: number of particles inserted so far.
    """

    def __init__(self, box: int, padding: int = 2, symmetry: str = "C1") -> None:
        if box % 2:
            raise ValueError(f"box must be even, not {box}")
        self.box, self.padding = box, padding
        self.symmetry = normalise_group_name(symmetry)
        self._symmetry = SumSymmetry(symmetry)
        y, x = np.meshgrid(np.fft.fftfreq(box, 1 / box), np.arange(box // 2 + 1), indexing="ij")
        self._inside = np.flatnonzero(np.hypot(x, y) <= box / 2)
        self.frequencies = np.stack([x.ravel(), y.ravel()], axis=1)[self._inside].astype(np.float32)
        """``(p, 2)``: x and y of a slice's points, in cycles per box: where `add` takes CTFs."""
        # the x = 0 column of an rfft holds both a point and its mirror image; each counts half
        self._share = np.where(self.frequencies[:, 0] == 0, np.float32(0.5), np.float32(1))
        self._volume = SliceVolume(box * padding, self.frequencies.T * np.float32(padding))
        self.inserted = 0

    def add(
        self,
        images: ArrayLike,
        rotations: ArrayLike,
        ctf: ArrayLike | None = None,
        shifts_px: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        magnification: ArrayLike | None = None,
    ) -> None:
        """Insert particles, each at one pose or at several with weights.

        Raises `ValueError` if shapes do not fit each other; `CryosphereError` if an image, a CTF or
        a weight is not finite, or so large that its transform is not.

        - ``images``: ``(n, box, box)`` real.
        - ``rotations``: ``(n, 3, 3)``, or ``(n, k, 3, 3)`` for k weighted poses per particle; image
          to map coordinates.
        - ``ctf``: ``(n, p)`` at `frequencies`, or ``(n, box, box // 2 + 1)``; None counts as 1.
        - ``shifts_px``, ``(n, 2)``: where the particle's centre sits relative to pixel n // 2, x
          and y; it is moved back.
        - ``weights``: ``(n,)``, or ``(n, k)`` with k poses; non-negative. None counts as 1, or 1 /
          k.
        - ``magnification``, ``(n, 2, 2)``: M that takes an image's frequency k to the undistorted
          one, M k, where it is put (RELION's rlnMagMat00 to 11). None for images without
          distortion.
        """
        pixels = np.asarray(images, dtype=np.float32)
        poses = np.asarray(rotations, dtype=np.float64)
        poses = poses[:, None] if poses.ndim == 3 else poses
        n, modes = poses.shape[:2]
        if pixels.shape != (n, self.box, self.box) or poses.shape[2:] != (3, 3):
            raise ValueError(f"images {pixels.shape} do not fit rotations {np.shape(rotations)}")
        given = np.full((n, modes), 1 / modes) if weights is None else weights
        shares = np.asarray(given, dtype=np.float64).reshape(n, modes)
        if not (np.isfinite(shares).all() and (shares >= 0).all()):
            raise CryosphereError("a particle's weight is negative or not a finite number")
        shifts = np.zeros((n, 2)) if shifts_px is None else np.asarray(shifts_px, dtype=np.float64)
        contrast = None if ctf is None else np.asarray(ctf, dtype=np.float32)
        if contrast is not None and contrast.ndim == 3:
            contrast = contrast.reshape(n, -1)[:, self._inside]
        if magnification is not None:
            matrices = np.asarray(magnification, dtype=np.float64)
            poses = poses.copy()
            poses[..., :2] = poses[..., :2] @ matrices[:, None]
            beyond = np.linalg.norm(self.frequencies @ matrices.swapaxes(1, 2), axis=2)
            inside = (beyond <= self.box / 2).astype(np.float32)
            contrast = inside if contrast is None else contrast * inside
        for start in range(0, n, _ROW):
            rows = slice(start, start + _ROW)
            slices = self._slices(pixels[rows], shifts[rows], start)
            self._insert(
                slices,
                None if contrast is None else contrast[rows],
                poses[rows],
                shares[rows],
                stretched=magnification is not None,
            )
        self.inserted += n

    def _slices(
        self, images: NDArray[np.float32], shifts_px: NDArray[np.float64], first: int
    ) -> NDArray[np.complex64]:
        """Return the images' transforms at `frequencies`, their centres moved to the origin."""
        transforms = scipy.fft.rfft2(images)
        turns = 2j * np.pi / self.box * (self.box // 2 + shifts_px)
        along_x = np.exp(turns[:, :1] * np.arange(self.box // 2 + 1)).astype(np.complex64)
        along_y = np.exp(turns[:, 1:] * np.fft.fftfreq(self.box, 1 / self.box)).astype(np.complex64)
        transforms *= along_y[:, :, None]
        transforms *= along_x[:, None, :]
        slices = transforms.reshape(len(images), -1).take(self._inside, axis=1)
        sums = slices.sum(axis=1)
        if not np.isfinite(sums).all():
            worst = first + int(np.flatnonzero(~np.isfinite(sums))[0])
            raise CryosphereError(
                f"image {worst + 1} of this batch has values that are not finite or too large to sum; "
                "remove the particle"
            )
        return slices

    def _insert(
        self,
        slices: NDArray[np.complex64],
        ctf: NDArray[np.float32] | None,
        poses: NDArray[np.float64],
        shares: NDArray[np.float64],
        stretched: bool,
    ) -> None:
        for mode in range(poses.shape[1]):
            kept: NDArray[np.intp] | slice = np.flatnonzero(shares[:, mode])
            if not shares[:, mode].any():
                continue
            if shares[:, mode].all():
                kept = slice(None)  # no copies
            weight = shares[kept, mode, None].astype(np.float32) * self._share
            factors = weight if ctf is None else weight * ctf[kept]
            powers = weight if ctf is None else factors * ctf[kept]
            for operator in self._symmetry.insertions:
                self._volume.insert(
                    slices[kept], factors, powers, operator @ poses[kept, mode], stretched
                )

    def __iadd__(self, other: BackProjector) -> BackProjector:
        """Add the sums of another back-projector of the same box, padding and symmetry."""
        refuse_unlike_sums(self, other)
        self._volume += other._volume
        self.inserted += other.inserted
        return self

    @staticmethod
    def memory_bytes(box: int, padding: int) -> tuple[int, int]:
        """Return the bytes that sums take while they are filled, and those that solving takes in addition."""
        size = box * padding
        numbers = size * size * (size // 2 + 1)
        # symmetry imposed on a copy of the sums; the quotient; its first inverse transform
        return SliceVolume.memory_bytes(size), numbers * (12 + 12 + 8 + 8 // padding)

    def sums(self) -> NDArray[np.float32]:
        """Return numerator and weight of every voxel before symmetry, ``(m, m, m // 2 + 1, 3)`` float32.

        m is box times padding. Axes: y and x in FFT order, z from 0; real part, imaginary part,
        weight.
        """
        return self._volume.sums()

    def save(self, path: str | PathLike[str], overwrite: bool = False) -> None:
        """Write the sums so far as a safetensors file, for `load` and for adding up elsewhere."""
        about = {
            "box": self.box,
            "padding": self.padding,
            "symmetry": self.symmetry,
            "inserted": self.inserted,
        }
        texts = {key: str(value) for key, value in about.items()}
        write_tensors({"sums": self.sums()}, Path(path), texts, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> BackProjector:
        """Read what `save` wrote. Raises FileFormatError if the file is something else."""
        try:
            with safe_open(path, framework="numpy") as file:
                about, sums = file.metadata() or {}, file.get_tensor("sums")
            box, padding, inserted = (int(about[key]) for key in ("box", "padding", "inserted"))
            return cls.from_sums(box, padding, about["symmetry"], sums, inserted)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise FileFormatError(
                f"{path} does not hold the sums of a reconstruction: {error}"
            ) from error

    @classmethod
    def from_sums(
        cls, box: int, padding: int, symmetry: str, sums: NDArray[np.float32], inserted: int
    ) -> BackProjector:
        """Return a back-projector that goes on from the ``(m, m, m // 2 + 1, 3)`` that `sums` returned."""
        made = cls(box, padding, symmetry)
        made._volume.restore(sums)
        made.inserted = inserted
        return made

    def solve(
        self, ssnr: ArrayLike | None = None, floor: float = 1e-3, *, gridding: bool = False
    ) -> NDArray[np.float32]:
        """Return the map of everything inserted so far, ``(box, box, box)`` float32 in z, y, x order.

        Outside the sphere that touches the box, where padding and interpolation leave nothing but
        noise, the map fades to its mean there over 3 voxels, as in RELION. Raises `CryosphereError`
        if nothing was inserted, or the map would not be finite.

        - ``ssnr``, ``(box // 2 + 1,)``: spectral signal-to-noise ratio of the map, shell by shell.
          The weight of a voxel gets its shell's mean weight / ssnr added (a Wiener filter; RELION's
          1 / tau^2). None divides by the weight alone.
        - ``floor``: smallest weight that is divided by, as a fraction of the mean weight in its
          shell: it keeps frequencies that no slice came near from blowing up.
        - ``gridding``: even out the sampling as relion_reconstruct does, for maps that are compared
          with its own: their noise reaches to Nyquist. Without ``ssnr`` only.
        """
        if gridding and ssnr is not None:
            raise ValueError("gridding and a signal-to-noise ratio exclude each other")
        if self.inserted == 0:
            raise CryosphereError("there is no particle to make a map of")
        sums = self._symmetry.impose(self.sums())
        if gridding:
            transform = divide_gridded(sums, self.padding, floor)
        else:
            transform = divide(
                sums, self.padding, None if ssnr is None else np.asarray(ssnr), floor
            )
        size = self.box * self.padding
        voxels = map_from_transform(transform, self.box, self._symmetry.fall_off(size, self.box))
        if not np.isfinite(voxels).all():
            raise CryosphereError(
                "the map is not finite: images or CTFs have values too large to sum"
            )
        return voxels


class _Sums(Protocol):
    """Sums of a reconstruction, as `BackProjector` and `ExactSums` hold them."""

    box: int
    padding: int
    symmetry: str


def refuse_unlike_sums(first: _Sums, second: _Sums) -> None:
    """Check that sums can be added. Raises `ValueError` if box, padding or symmetry differ."""
    mine, others = ((sums.box, sums.padding, sums.symmetry) for sums in (first, second))
    if mine != others:
        raise ValueError(
            f"only sums of one box, padding and symmetry can be added, not {mine} and {others}"
        )
