"""Build small sets of reference data with RELION 3.1, for tests where no larger ones are at hand.

``python make_reference_sets.py FOLDER`` takes seconds. Files have the names of the sets that they
stand for (``particles/ribo70S_train.star``), but the molecules are the package's phantom: one
without symmetry and four around D2's axes. RELION projects, modulates, reconstructs and
post-processes; numpy adds white noise. Every draw has a seed.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from napari_cryosphere.imaging.ctf import ctf_2d
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.imaging.simulate import ParticleParameters, draw_parameters
from napari_cryosphere.particles import DensityMap, MrcStack, read_star, write_stack, write_star
from napari_cryosphere.reconstruction import soft_mask
from napari_cryosphere.so3.rotations import rotation_from_vector

PARTS = ("particles", "relion_reference", "reports")
"""The folders that are built."""

Tables = dict[str, pd.DataFrame]


def main(folder: Path) -> None:
    for part in PARTS:
        (folder / part).mkdir(parents=True)
    asymmetric = _sharpened(protein_phantom(64, 3.4), 5.0)
    tetramer = _around_two_fold_axes(protein_phantom(64, 6.0), 3.2)
    for density, name, symmetry, snr, numbers in (
        (asymmetric, "ribo70S", "C1", 0.1, (1000, 1000)),
        (tetramer, "betagalD2", "D2", 0.2, (600, 480)),
    ):
        particles = folder / "particles"
        density.save(particles / f"{name}_truth.mrc")
        for kind, number in zip(("train", "test"), numbers, strict=True):
            parameters = draw_parameters(number, seed=number + len(kind))
            _simulate(particles, f"{name}_{kind}", density, parameters, snr)
            if (name, kind) == ("betagalD2", "train"):
                _disturbed(folder / "relion_reference" / "bgal_pert.star", parameters)
        _reconstruct(folder, f"{name}_train", density, symmetry)
    _conventions(folder / "relion_reference" / "conventions")
    _reports(folder / "reports")


def relion(folder: Path, program: str, *arguments: object) -> None:
    command = [program, *map(str, arguments)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)


def _sharpened(density: DensityMap, pixel_size: float) -> DensityMap:
    """Return a map with a fifth of what is coarser than its domains, so that views differ more."""
    voxels = density.voxels - 0.8 * gaussian_filter(density.voxels, 3)
    return DensityMap((voxels / voxels.max()).astype(np.float32), pixel_size)


def _around_two_fold_axes(density: DensityMap, pixel_size: float) -> DensityMap:
    """Return four copies of a map moved off its centre, related by half turns about x, y and z."""
    off = np.roll(density.voxels, (7, 7, 7), (0, 1, 2))
    turned = [np.roll(np.flip(off, axes), 1, axes) for axes in ((0, 1), (0, 2), (1, 2))]
    voxels = off + sum(turned)
    return DensityMap((voxels / voxels.max()).astype(np.float32), pixel_size)


def _project(
    folder: Path, name: str, density: DensityMap, tables: Tables, *options: str
) -> np.ndarray:
    """Return RELION's projections, ``(n, box, box)``; leaves the table as ``name.star``."""
    write_star(tables, folder / f"{name}.star", overwrite=True)
    density.save(folder / "projected.mrc", overwrite=True)
    views = ("--i", "projected.mrc", "--ang", f"{name}.star", "--o", "clean")
    relion(folder, "relion_project", *views, "--angpix", density.pixel_size_angstrom, *options)
    images = MrcStack(folder / "clean.mrcs").read()
    for left in ("projected.mrc", "clean.mrcs", "clean.star"):
        (folder / left).unlink()
    return images


def _simulate(
    folder: Path, name: str, density: DensityMap, parameters: ParticleParameters, snr: float
) -> None:
    """Write ``name.star`` and ``name.mrcs``; the signal-to-noise ratio is that of whole images."""
    size = density.pixel_size_angstrom
    tables = parameters.tables(f"{name}.mrcs", density.box, size)
    images = _project(folder, name, density, tables, "--ctf")
    if np.isfinite(snr):
        noise = np.random.default_rng(len(images)).normal(size=images.shape)
        images = images * np.sqrt(snr) / images.std() + noise
    write_stack(images.astype(np.float32), folder / f"{name}.mrcs", size)


def _disturbed(path: Path, parameters: ParticleParameters) -> None:
    """Write the training set's table with poses about 8 degrees and shifts about 1 pixel off."""
    rng = np.random.default_rng(8)
    turns = rotation_from_vector(rng.normal(scale=np.radians(5), size=(len(parameters), 3)))
    moved = replace(
        parameters,
        rotations=parameters.rotations @ turns,
        shifts_px=parameters.shifts_px + rng.normal(scale=0.8, size=(len(parameters), 2)),
    )
    write_star(moved.tables("betagalD2_train.mrcs", 64, 3.2), path)


def _reconstruct(folder: Path, name: str, density: DensityMap, symmetry: str) -> None:
    """Write RELION's map, half-maps, mask and curves of a set at its true poses."""
    output = folder / "relion_reference" / "reconstruct"
    output.mkdir(exist_ok=True)
    size = density.pixel_size_angstrom
    DensityMap(soft_mask(density.voxels, size), size).save(output / f"{name}_mask.mrc")
    for made, options in (
        ("full", ()),
        ("half1", ("--subset", 1)),
        ("half2", ("--subset", 2)),
    ):
        target = output / f"{name}_{made}.mrc"
        given = ("--i", f"{name}.star", "--o", target, "--sym", symmetry, "--ctf", *options)
        relion(folder / "particles", "relion_reconstruct", *given)
    halves = ("--i", f"{name}_half1.mrc", "--i2", f"{name}_half2.mrc")
    options = ("--mask", f"{name}_mask.mrc", "--force_mask", "--skip_fsc_weighting")
    # it writes a log into the folder that the output's name begins with
    made = f"../{output.name}/{name}_pp"
    relion(output, "relion_postprocess", *halves, *options, "--angpix", size, "--o", made)
    curves = read_star(output / f"{name}_pp.star")["fsc"]
    table = curves[["rlnSpectralIndex", "rlnResolution", "rlnFourierShellCorrelationUnmaskedMaps"]]
    table.astype(float).to_csv(output / f"{name}_fsc.csv", index=False)


def _conventions(folder: Path) -> None:
    """Write six views of a third map: plain, shifted, with CTF, flipped, and very astigmatic."""
    folder.mkdir()
    density = _sharpened(protein_phantom(64, 3.4, seed=3), 3.4)
    density = DensityMap(density.voxels * 10, 3.4)  # of another sum than the sets' maps
    shifted = draw_parameters(6, seed=6).tables("x.mrcs", 64, 3.4)
    origins = ["rlnOriginXAngst", "rlnOriginYAngst"]
    table = shifted["particles"]
    table[origins] += np.copysign(3.4, table[origins])  # a pixel at least
    centred = table.assign(**dict.fromkeys(origins, 0.0))
    astigmatic = centred.assign(rlnDefocusV=table["rlnDefocusU"] - 4000)
    stars = {"shift": table, "noshift": centred, "astig": astigmatic}
    for name, particles in stars.items():
        columns = [column for column in particles if not column.startswith(("rlnMicro", "rlnRan"))]
        stars[name] = particles[columns]
        write_star(shifted | {"particles": stars[name]}, folder / f"{name}.star")
    for kind, (star, options) in {
        "plain": ("noshift", ()),
        "shift": ("shift", ()),
        "ctf": ("noshift", ("--ctf",)),
        "shift_ctf": ("shift", ("--ctf",)),
        "flip": ("noshift", ("--ctf", "--ctf_phase_flip")),
        "astig": ("astig", ("--ctf",)),
    }.items():
        tables = shifted | {"particles": stars[star]}
        images = _project(folder, f"p_{kind}", density, tables, *options)
        write_stack(images, folder / f"p_{kind}.mrcs", 3.4)


def _reports(folder: Path) -> None:
    """Write particles without noise, phase-flipped, premultiplied and with old priors, and maps and
    masks with senseless headers or voxels.
    """
    size = 3.0
    density = DensityMap(gaussian_filter(protein_phantom(48, 4.0).voxels, 0.7), size)
    mask = soft_mask(density.voxels, size)
    for name, voxels, header in (
        ("map", density.voxels, size),
        ("map_header_1A", density.voxels, 1.0),
        ("map_header_3.05A", density.voxels, 3.05),
        ("mask_header_1A", mask, 1.0),
        ("mask_zero", np.zeros_like(mask), size),
        ("map_constant", np.full((24, 24, 24), 5, np.float32), size),
    ):
        DensityMap(voxels, header).save(folder / f"{name}.mrc")
    parameters = draw_parameters(200, seed=5, shift_px=2.0)
    _simulate(folder, "p", density, parameters, np.inf)
    tables = parameters.tables("flip.mrcs", 48, size)
    flipped = _project(folder, "flip", density, tables, "--ctf", "--ctf_phase_flip")
    write_stack(flipped, folder / "flip.mrcs", size)
    optics = tables["optics"].assign(rlnCtfDataArePhaseFlipped=1)
    write_star(tables | {"optics": optics}, folder / "flip.star", overwrite=True)
    _premultiplied(folder, parameters, density)
    few = parameters[:100]
    _simulate(folder, "n", density, few, 1.0)
    truth = few.tables("n.mrcs", 48, size)
    write_star(truth, folder / "stale_priors_truth.star")
    away = replace(few, rotations=few.rotations @ rotation_from_vector([0.0, 0.7, 0.1]))
    table = away.tables("n.mrcs", 48, size)["particles"]
    priors = {f"rlnAngle{angle}Prior": table[f"rlnAngle{angle}"] for angle in ("Tilt", "Psi")}
    priors |= {"rlnAngleRotPrior": table["rlnAngleRot"]}
    priors |= {f"rlnOrigin{axis}PriorAngst": table[f"rlnOrigin{axis}Angst"] for axis in "XY"}
    write_star(truth | {"particles": table.assign(**priors)}, folder / "stale_priors.star")


def _premultiplied(folder: Path, parameters: ParticleParameters, density: DensityMap) -> None:
    """Write images multiplied by their CTF once more: as RELION's own of the CTF's square."""
    size = density.pixel_size_angstrom
    assert parameters.ctf is not None
    ctf = ctf_2d(parameters.ctf, density.box, size).numpy()
    images = MrcStack(folder / "p.mrcs").read()
    again = np.fft.irfft2(np.fft.rfft2(images) * ctf, s=images.shape[1:]).astype(np.float32)
    write_stack(again, folder / "premul.mrcs", size)
    tables = parameters.tables("premul.mrcs", density.box, size)
    optics = tables["optics"].assign(rlnCtfDataAreCtfPremultiplied=1)
    write_star(tables | {"optics": optics}, folder / "premul.star")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
