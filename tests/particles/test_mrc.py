"""MRC stacks against mrcfile, and headers that must be refused before anything is allocated."""

from __future__ import annotations

import bz2
import copy
import gzip
import itertools
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from mrcfile.dtypes import HEADER_DTYPE
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from napari_cryosphere.errors import CryosphereError, FileFormatError, OutputExistsError
from napari_cryosphere.particles import MrcStack, write_stack
from napari_cryosphere.particles.mrc import pixel_views as _pixel_views

resource = pytest.importorskip("resource", reason="limits of open files are set on POSIX systems")


@pytest.fixture
def images() -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(7, 6, 8)).astype(np.float32)


def raw(
    path: Path, values: NDArray[np.generic], mode: int, order: str = "<", **fields: object
) -> Path:
    """Write a file by hand: header fields as given, then the values in the byte order asked for."""
    header = np.zeros((), dtype=HEADER_DTYPE.newbyteorder(order))
    header["nz"], header["ny"], header["nx"] = values.shape
    header["mode"] = mode
    header["map"] = b"MAP "
    header["machst"] = [0x44, 0x44, 0, 0] if order == "<" else [0x11, 0x11, 0, 0]
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.tobytes() + values.astype(values.dtype.newbyteorder(order)).tobytes())
    return path


@pytest.mark.parametrize(
    ("dtype", "mode"),
    [("i1", 0), ("i2", 1), ("f4", 2), ("u2", 6), ("f2", 12)],
    ids=lambda value: str(value),
)
def test_modes_that_mrcfile_writes(
    dtype: str, mode: int, images: NDArray[np.float32], tmp_path: Path
) -> None:
    values = np.abs(images * 20).astype(dtype)
    with mrcfile.new(tmp_path / "a.mrcs", data=values) as file:
        file.set_image_stack()
        file.voxel_size = 1.5
        file.set_extended_header(np.zeros(2048, dtype="V1"))
        assert file.header.mode == mode
    stack = MrcStack(tmp_path / "a.mrcs")
    assert stack.shape == (7, 6, 8)
    assert stack.pixel_size_angstrom == pytest.approx(1.5)
    assert stack.warnings == ()
    read = stack.read()
    assert read.dtype == np.float32
    assert_array_equal(read, values.astype(np.float32))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stamp", [b"MAP ", b"\0\0\0\0"])
def test_byte_orders_with_and_without_stamp(
    order: str, stamp: bytes, images: NDArray[np.float32], tmp_path: Path
) -> None:
    machine = (
        [0, 0, 0, 0]
        if stamp[0] == 0
        else ([0x44, 0x41, 0, 0] if order == "<" else [0x11, 0x11, 0, 0])
    )
    path = raw(tmp_path / "a.mrcs", images, 2, order, map=stamp, machst=machine)
    stack = MrcStack(path)
    assert_array_equal(stack.read(), images)
    assert stack.pixel_size_angstrom is None


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress])
def test_compressed_stacks(
    compress: Callable[[bytes], bytes],
    images: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = raw(tmp_path / "a.mrcs", images, 2, nsymbt=0)
    plain = path.read_bytes()
    path.write_bytes(compress(plain))
    stack = MrcStack(path)
    assert "decompress it" in stack.warnings[0]
    assert_array_equal(stack.read([5, 1]), images[[5, 1]])
    assert_array_equal(stack.read(3), images[[3]])
    path.write_bytes(compress(plain[:-4]))
    with pytest.raises(FileFormatError, match=r"damaged .* file"):
        MrcStack(path).read(0)
    path.write_bytes(compress(plain)[:-20])
    with pytest.raises(FileFormatError, match=r"damaged .* file"):
        MrcStack(path).read(0)
    path.write_bytes(compress(plain))
    monkeypatch.setattr("napari_cryosphere.particles.mrc.header.MOST_UNPACKED_BYTES", 1000)
    with pytest.raises(FileFormatError, match="decompress it first"):
        MrcStack(path)


def test_unpacked_stacks_stay_within_the_limit(
    images: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "napari_cryosphere.particles.mrc.pixel_views.MOST_UNPACKED_BYTES", 3 * images.nbytes
    )
    pool = _pixel_views._Pool()
    monkeypatch.setattr("napari_cryosphere.particles.mrc.pixel_views._POOL", pool)
    stacks = []
    for number in range(8):
        path = raw(tmp_path / f"{number}.mrcs", images + number, 2)
        path.write_bytes(gzip.compress(path.read_bytes()))
        stacks.append(MrcStack(path))
        assert_array_equal(stacks[-1].read(), images + number)
    assert sum(view.nbytes for view in pool.views.values()) == 3 * images.nbytes
    assert_array_equal(stacks[0].read(), images)
    stacks.clear()
    assert not pool.views


@pytest.mark.parametrize("axes", list(itertools.permutations((1, 2, 3))))
def test_permuted_axes(
    axes: tuple[int, int, int], images: NDArray[np.float32], tmp_path: Path
) -> None:
    columns, rows, sections = axes
    stored = images.transpose([3 - axis for axis in (sections, rows, columns)])
    path = raw(
        tmp_path / "a.mrcs", np.ascontiguousarray(stored), 2, mapc=columns, mapr=rows, maps=sections
    )
    stack = MrcStack(path)
    assert stack.shape == images.shape
    assert_array_equal(stack.read(), images)
    assert_array_equal(stack.read([4, 0, 2]), images[[4, 0, 2]])
    assert_array_equal(stack.read(6), images[[6]])


def test_few_files_are_mapped_at_a_time(images: NDArray[np.float32], tmp_path: Path) -> None:
    paths = [raw(tmp_path / f"{number}.mrcs", images + number, 2) for number in range(150)]
    stacks = [MrcStack(path) for path in paths]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
    try:
        for _ in range(2):
            for number, stack in enumerate(stacks):
                assert_array_equal(stack.read([2, 0]), (images + number)[[2, 0]])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_another_process_opens_the_file_anew(images: NDArray[np.float32], tmp_path: Path) -> None:
    stack = MrcStack(raw(tmp_path / "a.mrcs", images, 2))
    stack.read()
    assert_array_equal(copy.copy(stack).read([1]), images[[1]])


def test_imod_bytes_are_unsigned_unless_flagged(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    path = raw(tmp_path / "a.mrcs", values, 0)
    data = bytearray(path.read_bytes())
    assert MrcStack(path).read().min() == -128
    data[152:160] = np.array([1146047817, 0], dtype="<i4").tobytes()
    path.write_bytes(data)
    assert_array_equal(MrcStack(path).read(), values)
    data[156:160] = np.array([1], dtype="<i4").tobytes()
    path.write_bytes(data)
    assert MrcStack(path).read().min() == -128


@pytest.mark.parametrize("dtype", ["f4", "i2"])
@pytest.mark.parametrize("chunk", [1, 1 << 24])
def test_any_order_of_indices(
    dtype: str,
    chunk: int,
    images: NDArray[np.float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("napari_cryosphere.particles.mrc.stack._CHUNK_BYTES", chunk)
    values = (images * 100).astype(dtype)
    stack = MrcStack(raw(tmp_path / "a.mrcs", values, 2 if dtype == "f4" else 1))
    for wanted in ([3], [0, 1, 2], [6, 5, 4], [2, 2, 0, 2], [5, 1, 2, 3, 0], []):
        assert_array_equal(
            stack.read(wanted), values[np.array(wanted, dtype=int)].astype(np.float32)
        )
    assert_array_equal(stack.read(slice(1, 7, 2)), values[1::2].astype(np.float32))
    with pytest.raises(IndexError, match="has 7 images"):
        stack.read([7])
    with pytest.raises(IndexError):
        stack.read([-1])


def test_nothing_is_held_open(images: NDArray[np.float32], tmp_path: Path) -> None:
    write_stack(images, tmp_path / "a.mrcs", 1.0)
    stacks = [MrcStack(tmp_path / "a.mrcs") for _ in range(3000)]
    assert sum(len(stack.read([0])) for stack in stacks) == 3000


def test_non_finite_pixels_name_their_images(images: NDArray[np.float32], tmp_path: Path) -> None:
    images[0] = 1e30  # its sum of squares overflows, but every pixel is a number
    images[3, 2, 2] = np.nan
    images[5] = -np.inf
    stack = MrcStack(raw(tmp_path / "a.mrcs", images, 2))
    with pytest.raises(FileFormatError, match=r"in image 4, 6;"):
        stack.read([6, 5, 3, 0])
    assert_array_equal(stack.read([0, 1, 2]), images[:3])


def test_trailing_bytes_are_a_warning(images: NDArray[np.float32], tmp_path: Path) -> None:
    path = raw(tmp_path / "a.mrcs", images, 2)
    path.write_bytes(path.read_bytes() + bytes(999))
    stack = MrcStack(path)
    assert_array_equal(stack.read(), images)
    assert "999 bytes behind its last image" in stack.warnings[0]


def test_file_that_shrinks_after_opening(images: NDArray[np.float32], tmp_path: Path) -> None:
    path = raw(tmp_path / "a.mrcs", images, 2)
    stack = MrcStack(path)
    path.write_bytes(path.read_bytes()[:1100])
    with pytest.raises(FileFormatError, match="become shorter"):
        stack.read()
    path.unlink()
    with pytest.raises(FileFormatError, match="does not exist"):
        stack.read()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mode": 77}, "MRC mode 77, which is not supported; convert it to one of 0"),
        ({"mode": 4}, "MRC mode 4"),
        ({"nx": 0}, "not an MRC file"),
        ({"nx": -8}, "not an MRC file"),
        ({"nsymbt": -1}, "not an MRC file"),
        ({"nz": 8}, "promises 8 x 6 x 8 float32 values, 2560 bytes, but the file has 2368"),
        ({"nx": 100000, "ny": 100000, "nz": 2000000000}, "80000000000000001024 bytes"),
        ({"nsymbt": 100000}, "is truncated"),
    ],
)
def test_bad_headers(
    fields: dict[str, int], says: str, images: NDArray[np.float32], tmp_path: Path
) -> None:
    path = raw(tmp_path / "a.mrcs", images, **{"mode": 2, **fields})
    with pytest.raises(FileFormatError) as caught:
        MrcStack(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an MRC file: 0 bytes"),
        (b"secret" * 10, "not an MRC file: 60 bytes"),
        (b"secret text\n" * 200, "not an MRC file: its header makes no sense"),
        (bytes(2000), "not an MRC file"),
        (b"\x1f\x8b" + bytes(2000), "damaged gzip file"),
        (b"BZh9" + bytes(2000), "damaged bzip2 file"),
        (b"PK\x03\x04" + bytes(2000), "zip-compressed, which is not supported; decompress it"),
    ],
)
def test_other_files(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        MrcStack(path)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value).removeprefix(str(path))


def test_folder_device_and_missing_file(tmp_path: Path) -> None:
    for path, says in ((tmp_path, "folder"), (tmp_path / "none.mrcs", "does not exist")):
        with pytest.raises(FileFormatError, match=says):
            MrcStack(path)
    if Path("/dev/zero").exists():
        with pytest.raises(FileFormatError, match="device"):
            MrcStack("/dev/zero")


def test_mrcfile_accepts_what_is_written(images: NDArray[np.float32], tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    write_stack(images, path, 1.25)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as file:
        assert_array_equal(file.data, images)
        assert file.is_image_stack()
        assert file.voxel_size.x == pytest.approx(1.25)
        assert file.header.rms == pytest.approx(images.std(), rel=1e-5)
        assert file.header.dmean == pytest.approx(images.mean(), rel=1e-4, abs=1e-7)


def test_streaming_gives_the_same_file(images: NDArray[np.float32], tmp_path: Path) -> None:
    write_stack(images, tmp_path / "a.mrcs", 2.0)
    write_stack((image.astype(np.float64) for image in images), tmp_path / "b.mrcs", 2.0)
    write_stack(iter([images[:3], images[3], images[4:]]), tmp_path / "c.mrcs", 2.0)
    contents = {(tmp_path / name).read_bytes()[1024:] for name in ("a.mrcs", "b.mrcs", "c.mrcs")}
    assert len(contents) == 1
    assert MrcStack(tmp_path / "c.mrcs").shape == (7, 6, 8)


def test_a_failed_write_leaves_the_old_file(images: NDArray[np.float32], tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    write_stack(images, path, 2.0)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError):
        write_stack(images, path, 2.0)
    bad = images.copy()
    bad[2, 0, 0] = np.nan
    for wrong, size, says in (
        (bad, 2.0, "image 3 has pixels that are not finite"),
        ([images[0], images[0, :4]], 2.0, "image 2 has shape"),
        ([], 2.0, "no images"),
        (images, 0.0, "pixel size must be positive"),
    ):
        with pytest.raises(CryosphereError, match=says):
            write_stack(wrong, path, size, overwrite=True)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mrcs"]
