"""Distributions written and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from napari_cryosphere.errors import CryosphereError, FileFormatError, OutputExistsError
from napari_cryosphere.so3.distributions import PoseDistribution
from napari_cryosphere.so3.distributions.store import (
    DistributionStore,
    save_distribution,
    write_distributions,
)
from napari_cryosphere.so3.rotations import random_rotations
from napari_cryosphere.so3.wigner import band_mask


def harmonic(number: int, symmetry: str = "D2") -> PoseDistribution:
    coefficients = torch.randn(
        number, 7, 13, 7, dtype=torch.complex64, generator=torch.Generator().manual_seed(1)
    )
    return PoseDistribution.from_coefficients(0.2 * coefficients * band_mask(6), symmetry)


def cells(number: int) -> PoseDistribution:
    rng = np.random.default_rng(2)
    indices = np.sort(rng.permuted(np.tile(np.arange(500), (number, 1)), axis=1)[:, :40])
    indices[0, 10:] = -1
    return PoseDistribution.from_cells(2, indices, rng.normal(size=(number, 40)) * 3)


def poses(number: int) -> PoseDistribution:
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(number, 5))
    weights[1, 2:] = -np.inf
    return PoseDistribution.from_poses(
        random_rotations(5 * number, rng).reshape(number, 5, 3, 3), weights, 4.0
    )


@pytest.mark.parametrize(("make", "tolerance"), [(harmonic, 0.05), (cells, 1e-5), (poses, 1e-3)])
def test_what_is_read_is_what_was_written(make: object, tolerance: float, tmp_path: Path) -> None:
    distribution = make(9)  # type: ignore[operator]
    save_distribution(distribution, tmp_path / "all.zarr")
    with write_distributions(tmp_path / "parts.zarr") as writer:
        for rows in (slice(0, 4), slice(4, 5), slice(5, 9)):
            writer.append(distribution[rows])
    rotations = random_rotations(30, np.random.default_rng(4))[None]
    for name in ("all.zarr", "parts.zarr"):
        store = DistributionStore(tmp_path / name)
        assert len(store) == 9
        assert store.symmetry == distribution.symmetry
        for index in (0, slice(3, 7), slice(None), -1):
            read, expected = store[index], distribution[index]
            assert type(read) is type(expected)
            np.testing.assert_allclose(
                np.exp(read.log_prob(rotations)),
                np.exp(expected.log_prob(rotations)),
                rtol=tolerance,
            )


def test_a_row_is_read_without_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_distribution(harmonic(1000), tmp_path / "d.zarr")
    store, touched = DistributionStore(tmp_path / "d.zarr"), set()
    original = zarr.storage.LocalStore.get

    async def watched(self: object, key: str, *args: object, **options: object) -> object:
        touched.add(key)
        return await original(self, key, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(zarr.storage.LocalStore, "get", watched)
    assert len(store[500]) == 1
    assert len([key for key in touched if "/c/" in key]) == 1


def test_half_floats_are_small(tmp_path: Path) -> None:
    save_distribution(harmonic(640), tmp_path / "d.zarr")
    size = sum(file.stat().st_size for file in (tmp_path / "d.zarr").rglob("*") if file.is_file())
    assert size < 640 * 1500
    assert str(zarr.open_group(tmp_path / "d.zarr")["coefficients"].dtype) == "float16"


def test_nothing_is_half_written(tmp_path: Path) -> None:
    target = tmp_path / "d.zarr"
    save_distribution(cells(3), target)
    with pytest.raises(OutputExistsError):
        save_distribution(cells(4), target)
    with pytest.raises(OutputExistsError), write_distributions(target) as writer:
        writer.append(cells(4))

    def fail() -> None:
        with write_distributions(target, overwrite=True) as writer:
            writer.append(cells(4))
            raise RuntimeError("the power went off")

    with pytest.raises(RuntimeError):
        fail()
    assert len(DistributionStore(target)) == 3
    save_distribution(cells(4), target, overwrite=True)
    assert len(DistributionStore(target)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["d.zarr"]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no readable zarr folder"):
        DistributionStore(tmp_path / "absent.zarr")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    with pytest.raises(FileFormatError, match="holds no pose distributions"):
        DistributionStore(tmp_path / "foreign.zarr")


def test_chunks_that_unfold_into_gigabytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.update_attributes(
        {"format": "napari-cryosphere pose distributions", "version": 1, "symmetry": "C1"}
        | {"kind": "cells"}
    )
    with pytest.raises(FileFormatError, match="holds no array 'ends'"):
        DistributionStore(path)
    size = 1 << 34
    for name in ("ends", "orders", "indices", "log_density"):
        group.create_array(name, shape=(size,), chunks=(size,), dtype="int8")
    with pytest.raises(FileFormatError, match=f"'ends': chunks of {size} bytes"):
        DistributionStore(path)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "d.zarr").mkdir()
    (tmp_path / "d.zarr" / "thesis.tex").touch()
    with pytest.raises(CryosphereError, match="not a zarr folder and is not replaced"):
        save_distribution(cells(2), tmp_path / "d.zarr", overwrite=True)
    assert (tmp_path / "d.zarr" / "thesis.tex").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(CryosphereError, match=r"cannot write to .*file"):
        save_distribution(cells(2), tmp_path / "file" / "d.zarr")


def test_rows_that_are_not_consecutive_are_refused(tmp_path: Path) -> None:
    save_distribution(cells(4), tmp_path / "d.zarr")
    store = DistributionStore(tmp_path / "d.zarr")
    for rows in (slice(None, None, 2), slice(2, 2), slice(None, None, -1)):
        with pytest.raises(IndexError, match="consecutive"):
            store[rows]
    with pytest.raises(IndexError):
        store[4]
    assert len(store[-1]) == 1


def test_kinds_do_not_mix(tmp_path: Path) -> None:
    with write_distributions(tmp_path / "d.zarr") as writer:
        writer.append(cells(2))
        with pytest.raises(ValueError, match="one kind"):
            writer.append(poses(2))
    assert len(DistributionStore(tmp_path / "d.zarr")) == 2
