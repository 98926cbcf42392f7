"""Noise of a stated colour: the spectrum asked for, unit variance, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.imaging.coloured_noise import NoiseSpectrum
from napari_cryosphere.imaging.fourier import from_fourier, to_fourier

BOX, PIXEL_SIZE = 48, 2.5


def drawn(spectrum: NoiseSpectrum, number: int = 400) -> np.ndarray:
    white = torch.from_numpy(
        np.random.default_rng(5).standard_normal((number, BOX, BOX), dtype=np.float32)
    )
    return from_fourier(to_fourier(white) * spectrum.amplitudes(BOX, PIXEL_SIZE)).numpy()


@pytest.mark.parametrize("length", [0.0, 10.0, 60.0])
def test_power_falls_as_stated_and_the_variance_is_one(length: float) -> None:
    noise = drawn(NoiseSpectrum.falling(length))
    assert noise.var() == pytest.approx(1, rel=0.03)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0) / BOX**2
    frequency = np.fft.fftfreq(BOX, PIXEL_SIZE)
    s2 = frequency[:, None] ** 2 + frequency**2
    expected = 1 / (1 + s2 * length**2)
    ratio = power / (expected / expected.mean())
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() < 0.1  # 400 images: 5 to 7 % for every single frequency


def test_white_is_left_as_it_is() -> None:
    np.testing.assert_allclose(
        NoiseSpectrum(np.zeros(1), np.ones(1)).amplitudes(32, 1.0), 1, rtol=1e-6
    )


def test_spectrum_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "noise.csv"
    file.write_text("shell,frequency_per_angstrom,power\n0,0.0,4\n1,0.1,2\n2,0.2,0\n")
    spectrum = NoiseSpectrum.read(file)
    # along x, at k / (box * pixel size)
    power = spectrum.amplitudes(BOX, PIXEL_SIZE).numpy()[0] ** 2
    expected = np.interp(np.arange(BOX // 2 + 1) / (BOX * PIXEL_SIZE), [0, 0.1, 0.2], [4, 2, 0])
    np.testing.assert_allclose(power / power[0], expected / 4, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s,power\n0,1\n", "no column frequency_per_angstrom"),
        ("frequency_per_angstrom,power\n0,1\n0.1,much\n", "line 3: power is 'much'"),
        ("frequency_per_angstrom,power\n0,1\n0.1\n", "line 3: power is None"),
        ("frequency_per_angstrom,power\n0.1,1\n0,1\n", "increase"),
        ("frequency_per_angstrom,power\n0,1\n0.1,-1\n", "not negative"),
        ("frequency_per_angstrom,power\n0,nan\n", "finite"),
        ("frequency_per_angstrom,power\n", "at least one"),
        ("", "no column"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "noise.csv"
    file.write_text(text)
    with pytest.raises(FileFormatError, match=message) as error:
        NoiseSpectrum.read(file)
    assert str(file) in str(error.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"nothing\.csv"):
        NoiseSpectrum.read(tmp_path / "nothing.csv")


def test_a_spectrum_without_power_where_the_images_are_is_refused() -> None:
    beyond = NoiseSpectrum(np.array([0.4, 0.5]), np.array([0.0, 1.0]))
    assert float(beyond.amplitudes(16, 1.0).max()) > 0
    with pytest.raises(ValueError, match="no power at the frequencies of the images"):
        beyond.amplitudes(16, 4.0)
