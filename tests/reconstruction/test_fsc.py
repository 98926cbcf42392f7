"""FSC and post-processing: definitions, RELION's stored answers, live runs where RELION is
installed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import starfile
from glibc_random import GlibcRandom, glibc_rand

from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.imaging.phantom import protein_phantom
from napari_cryosphere.jobs.configs import FscConfig, PostprocessConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Result, follow
from napari_cryosphere.jobs.fsc import fsc
from napari_cryosphere.jobs.postprocess import postprocess
from napari_cryosphere.particles import DensityMap
from napari_cryosphere.reconstruction import (
    conical_fsc,
    corrected_fsc,
    fourier_shell_correlation,
    postprocess_maps,
    soft_mask,
)
from napari_cryosphere.reconstruction.filters import filtered_shells

BOX = 32
COLUMNS = {
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
    "corrected": "rlnFourierShellCorrelationCorrected",
}


def run(events: Events) -> tuple[Result, list[Event]]:
    """Run a job; returns its result and all its events."""
    seen: list[Event] = []
    return follow(events, seen.append), seen


def relion(*command: str | Path, folder: Path) -> str:
    """Run a RELION program, or skip where it is not installed."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    finished = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return finished.stdout


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two noisy half-maps of a phantom, half1.mrc and half2.mrc, and mask.mrc."""
    folder = tmp_path_factory.mktemp("halves")
    density = protein_phantom(64, 3.0)
    rng = np.random.default_rng(4)
    for number in (1, 2):
        noise = rng.normal(scale=0.1, size=density.voxels.shape).astype(np.float32)
        DensityMap(density.voxels + noise, 3.0).save(folder / f"half{number}.mrc")
    DensityMap(soft_mask(density.voxels, 3.0), 3.0).save(folder / "mask.mrc")
    return folder


def test_fsc_of_equal_maps_is_one_and_of_noise_is_small() -> None:
    rng = np.random.default_rng(9)
    first, second = rng.normal(size=(2, BOX, BOX, BOX))
    np.testing.assert_allclose(fourier_shell_correlation(first, first, 2.0).values, 1, atol=1e-12)
    assert np.abs(fourier_shell_correlation(first, second, 2.0).values[4:]).max() < 0.15


def test_fsc_equals_the_definition() -> None:
    """On the stored half of the transform, as RELION sums it."""
    rng = np.random.default_rng(10)
    first = rng.normal(size=(16, 16, 16))
    second = first + rng.normal(size=first.shape)
    f, g = np.fft.rfftn(first), np.fft.rfftn(second)
    k = np.fft.fftfreq(16, 1 / 16)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + np.arange(9) ** 2))
    expected = [
        (f[shell == s] * g[shell == s].conj()).real.sum()
        / np.sqrt((abs(f[shell == s]) ** 2).sum() * (abs(g[shell == s]) ** 2).sum())
        for s in range(9)
    ]
    np.testing.assert_allclose(
        fourier_shell_correlation(first, second, 1.0).values, expected, atol=1e-12
    )


def test_resolution_is_read_at_the_first_crossing() -> None:
    curve = fourier_shell_correlation(np.ones((16,) * 3), np.ones((16,) * 3), 2.0)
    values = np.array([1, 1, 0.9, 0.3, 0.6, 0.1, 0, 0, 0])
    object.__setattr__(curve, "values", values)
    # from 0.9 to 0.3 the curve meets 0.5 two thirds of the way from shell 2 to 3
    assert curve.resolution_angstrom(0.5) == pytest.approx(32 / (2 + 2 / 3))
    object.__setattr__(curve, "values", np.ones(9))
    assert curve.resolution_angstrom() == 4.0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        fourier_shell_correlation(np.zeros((8, 8, 8)), np.zeros((10, 10, 10)), 1.0)


@pytest.mark.parametrize(("kind", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_fsc_keeps_the_precision_that_it_is_given(kind: type, tolerance: float) -> None:
    rng = np.random.default_rng(11)
    first, second = rng.normal(size=(2, BOX, BOX, BOX))
    expected = fourier_shell_correlation(first, second, 2.0).values
    measured = fourier_shell_correlation(first.astype(kind), second.astype(kind), 2.0).values
    np.testing.assert_allclose(measured, expected, atol=tolerance)


def test_fsc_against_relion_image_handler(halves: Path) -> None:
    text = relion(
        *("relion_image_handler", "--i", "half1.mrc", "--fsc", "half2.mrc", "--angpix", "3"),
        folder=halves,
    )
    rows = [line.split() for line in text.splitlines() if len(line.split()) == 4]
    theirs = np.array([float(row[3]) for row in rows if row[0].isdigit()])
    first, second = (DensityMap.read(halves / f"half{number}.mrc").voxels for number in (1, 2))
    np.testing.assert_allclose(
        fourier_shell_correlation(first, second, 3.0).values, theirs, atol=1e-5
    )


@pytest.mark.parametrize("name", ["ribo70S", "betagalD2"])
def test_curves_are_those_that_relion_stored(shared_data: Path, name: str) -> None:
    folder = shared_data / "relion_reference/reconstruct"
    first, second = (
        DensityMap.read(folder / f"{name}_train_half{number}.mrc") for number in (1, 2)
    )
    mask = DensityMap.read(folder / f"{name}_train_mask.mrc").voxels
    curves = corrected_fsc(first, second, mask, GlibcRandom(0))
    stored = starfile.read(folder / f"{name}_train_pp.star")
    for attribute, column in COLUMNS.items():
        np.testing.assert_allclose(
            getattr(curves, attribute).values, stored["fsc"][column], atol=1e-5, err_msg=attribute
        )
    edge = first.box * first.pixel_size_angstrom
    assert edge / curves.resolution_shell == pytest.approx(
        stored["general"]["rlnFinalResolution"], abs=1e-3
    )
    assert edge / curves.randomised_from == pytest.approx(
        stored["general"]["rlnRandomiseFrom"], abs=1e-3
    )


def test_what_halves_began_with_does_not_resolve_finer_shells() -> None:
    """Maps of noise that share shells up to the sixth: the mask spreads them, the correction knows."""
    rng = np.random.default_rng(3)
    beyond = (np.arange(25) > 6).astype(float)
    mask = np.zeros((48, 48, 48), np.float32)
    mask[12:36, 12:36, 12:36] = 1
    seventh = []
    for _ in range(4):
        shared, *noise = (rng.normal(size=(48, 48, 48)).astype(np.float32) for _ in range(3))
        common = filtered_shells(shared, 1 - beyond)
        first, second = (DensityMap(common + filtered_shells(one, beyond), 1.0) for one in noise)
        known = corrected_fsc(first, second, mask, shared_angstrom=48 / 6)
        np.testing.assert_array_equal(known.corrected.values[:7], known.masked.values[:7])
        blind = corrected_fsc(first, second, mask)
        assert blind.corrected.values[7] == blind.masked.values[7]
        seventh.append((known.masked.values[7], known.corrected.values[7]))
    masked, corrected = np.mean(seventh, axis=0)
    assert masked > 0.2
    assert abs(corrected) < 0.143


def test_postprocessing_is_relion_postprocess(halves: Path, tmp_path: Path) -> None:
    """Curves, B-factor and the sharpened map itself."""
    (tmp_path / "pp").mkdir()
    for name in ("half1.mrc", "half2.mrc", "mask.mrc"):
        shutil.copy(halves / name, tmp_path)
    maps = (
        "relion_postprocess",
        "--i",
        "half1.mrc",
        "--i2",
        "half2.mrc",
        "--o",
        "pp/pp",
        "--angpix",
        "3",
    )
    options = ("--mask", "mask.mrc", "--auto_bfac", "--autob_lowres", "20", "--low_pass", "-1")
    relion(*maps, *options, "--force_mask", "--random_seed", "7", folder=tmp_path)
    first, second, mask = (
        DensityMap.read(tmp_path / f"{n}.mrc") for n in ("half1", "half2", "mask")
    )
    made = postprocess_maps(first, second, mask.voxels, fit_from_angstrom=20, rng=GlibcRandom(7))
    theirs = starfile.read(tmp_path / "pp" / "pp.star")
    for attribute, column in COLUMNS.items():
        np.testing.assert_allclose(
            getattr(made.curves, attribute).values, theirs["fsc"][column], atol=1e-4
        )
    assert made.b_factor == pytest.approx(
        theirs["general"]["rlnBfactorUsedForSharpening"], rel=1e-3
    )
    voxels = DensityMap.read(tmp_path / "pp" / "pp.mrc").voxels
    np.testing.assert_allclose(made.density.voxels, voxels, atol=1e-3 * voxels.std())


def test_random_numbers_are_the_c_librarys() -> None:
    """The first values of rand() after srand(1) and srand(42), as glibc gives them."""
    assert glibc_rand(1, 5).tolist() == [1804289383, 846930886, 1681692777, 1714636915, 1957747793]
    assert glibc_rand(42, 3).tolist() == [71876166, 708592740, 1483128881]
    np.testing.assert_array_equal(glibc_rand(3, 5000)[:700], glibc_rand(3, 700))


def test_a_blurred_map_is_sharpened_by_its_b_factor(halves: Path) -> None:
    """Half-maps blurred by B = 200 A^2 are fitted 200 A^2 lower than unblurred ones."""
    fitted = []
    for blur in (0.0, 200.0):
        parts = [_blurred(DensityMap.read(halves / f"half{number}.mrc"), blur) for number in (1, 2)]
        mask = DensityMap.read(halves / "mask.mrc").voxels
        drawn = GlibcRandom(0)
        made = postprocess_maps(*parts, mask, fit_from_angstrom=15, fit_to_angstrom=8, rng=drawn)
        fitted.append(made.b_factor)
    assert fitted[1] - fitted[0] == pytest.approx(-200, rel=0.02)


def test_a_coarse_map_is_not_sharpened() -> None:
    """Half-maps that agree to 22 A and hold noise beyond: a line through that means nothing."""
    rng = np.random.default_rng(4)
    density = protein_phantom(64, 3.0)
    k = np.fft.fftfreq(64, 3.0)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    coarse = np.fft.ifftn(np.fft.fftn(density.voxels) * (radius < 1 / 22)).real
    halves = [
        DensityMap(
            (coarse + rng.normal(scale=0.3 * coarse.std(), size=coarse.shape)).astype("f4"), 3.0
        )
        for _ in range(2)
    ]
    mask = soft_mask(density.voxels, 3.0)
    made = postprocess_maps(*halves, mask)
    assert made.resolution_angstrom > 15
    assert made.b_factor == 0
    assert made.note.startswith("not sharpened: the half-maps agree to ")
    assert postprocess_maps(*halves, mask, b_factor=-50.0).note == ""


def _blurred(density: DensityMap, b_factor: float) -> DensityMap:
    k = np.fft.fftfreq(density.box, density.pixel_size_angstrom)
    squared = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    voxels = np.fft.ifftn(np.fft.fftn(density.voxels) * np.exp(-b_factor / 4 * squared)).real
    return DensityMap(voxels.astype(np.float32), density.pixel_size_angstrom)


def test_the_job_writes_map_mask_and_curves(halves: Path, tmp_path: Path) -> None:
    config = PostprocessConfig(
        half1=halves / "half1.mrc",
        half2=halves / "half2.mrc",
        output=tmp_path / "pp.mrc",
        b_factor=-50.0,
    )
    result, _ = run(postprocess(config))
    assert all(path.is_file() for path in result.outputs.values())
    assert result.metrics["b_factor"] == -50
    assert 6 <= float(result.metrics["resolution_0143_angstrom"]) < 12
    header = (tmp_path / "pp_fsc.csv").read_text().splitlines()[0]
    assert header == "shell,resolution_angstrom,fsc,unmasked,masked,phase_randomised"
    table = starfile.read(tmp_path / "pp_fsc.star")["fsc"]
    root = ElementTree.parse(tmp_path / "pp_fsc.xml").getroot()
    points = [(float(point[0].text or "nan"), float(point[1].text or "nan")) for point in root]
    assert root.tag == "fsc"
    np.testing.assert_allclose(points, table[["rlnResolution", COLUMNS["corrected"]]], atol=1e-6)


def test_the_job_refuses_what_it_cannot_use(halves: Path, tmp_path: Path) -> None:
    config = PostprocessConfig(
        half1=halves / "half1.mrc", half2=halves / "half1.mrc", output=tmp_path / "a.mrc"
    )
    with pytest.raises(MetadataError, match="two halves"):
        run(postprocess(config))
    small = tmp_path / "small.mrc"
    protein_phantom(32, 6.0).save(small)
    with pytest.raises(MetadataError, match="box of 32"):
        run(postprocess(config.model_copy(update={"half2": small})))
    assert list(tmp_path.iterdir()) == [small]


@pytest.mark.parametrize("name", ["map_noncubic", "map_odd_65", "map_anisotropic_voxel"])
def test_maps_of_odd_shapes_are_refused_with_the_remedy(
    shared_data: Path, halves: Path, tmp_path: Path, name: str
) -> None:
    strange = shared_data / f"wild/variants/{name}.mrc"
    config = FscConfig(first=strange, second=halves / "half1.mrc", output=tmp_path / "fsc.csv")
    with pytest.raises(CryosphereError, match=r"pad|crop|resample"):
        run(fsc(config))
    assert not list(tmp_path.iterdir())


def test_an_empty_half_has_no_fsc_and_equal_maps_are_told(halves: Path, tmp_path: Path) -> None:
    DensityMap(np.zeros((64, 64, 64), dtype=np.float32), 3.0).save(tmp_path / "empty.mrc")
    shutil.copy(halves / "half1.mrc", tmp_path / "same.mrc")
    config = FscConfig(
        first=halves / "half1.mrc", second=tmp_path / "empty.mrc", output=tmp_path / "fsc.csv"
    )
    with pytest.raises(MetadataError, match="0 everywhere"):
        run(fsc(config))
    _, events = run(fsc(config.model_copy(update={"second": tmp_path / "same.mrc"})))
    assert any(
        isinstance(event, Note) and event.warning and "same map" in event.text for event in events
    )


def test_cones_show_what_lacks_along_one_axis(halves: Path, tmp_path: Path) -> None:
    """Noise in the frequencies near the z axis alone: the cone along z is the worst."""
    density = protein_phantom(64, 3.0)
    rng = np.random.default_rng(5)
    k = np.fft.fftfreq(64, 1 / 64)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    near_z = np.abs(k[:, None, None]) > 0.9 * radius
    noise = [np.fft.fftn(rng.normal(scale=1.0, size=(64,) * 3)) * near_z for _ in range(2)]
    maps = [
        DensityMap((density.voxels + np.fft.ifftn(part).real).astype(np.float32), 3.0)
        for part in noise
    ]
    cones = conical_fsc(*maps)
    along = np.argmax(np.abs(cones.directions[:, 2]))
    across = np.argmin(np.abs(cones.directions[:, 2]))
    best, worst = cones.resolution_range_angstrom(0.5)
    assert cones.curves[along].resolution_angstrom(0.5) == pytest.approx(worst, rel=0.2)
    assert cones.curves[across].resolution_angstrom(0.5) == pytest.approx(best, rel=0.2)
    assert worst > 2 * best
    assert (cones.lowest.values <= cones.highest.values).all()
    config = FscConfig(
        first=halves / "half1.mrc",
        second=halves / "half2.mrc",
        output=tmp_path / "fsc.csv",
        cones=True,
    )
    result, _ = run(fsc(config))
    assert {"best_cone_0143_angstrom", "worst_cone_0143_angstrom"} <= set(result.metrics)
