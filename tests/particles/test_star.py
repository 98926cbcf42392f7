"""STAR files: what is understood, what is refused with a line number, and write-read-write."""

from __future__ import annotations

import bz2
import errno
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pytest
import starfile
from numpy.testing import assert_array_equal

from napari_cryosphere.errors import (
    CryosphereError,
    FileFormatError,
    MetadataError,
    OutputExistsError,
)
from napari_cryosphere.particles import _opening, read_star, write_star
from napari_cryosphere.particles.star import file as star
from napari_cryosphere.particles.star import reader

PLAIN = "\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnAngleRot #2\n_rlnClassNumber #3\n"


def table(text: str, folder: Path, name: str = "particles") -> pd.DataFrame:
    path = folder / "in.star"
    path.write_bytes(text.encode())
    return read_star(path)[name]


@pytest.fixture
def blocks() -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(0)
    particles = pd.DataFrame(
        {
            "rlnImageName": [f"{i:06d}@stack.mrcs" for i in range(1, 6)],
            "rlnAngleRot": rng.normal(size=5) * 10.0 ** np.arange(-8, 12, 4),
            "rlnOpticsGroup": 1,
            "rlnMicrographName": ["0012", "a b", "x#y", "5'UTR", ""],
            "cryosphereSpread": rng.normal(size=5).astype(np.float32),
        }
    )
    optics = pd.DataFrame(
        {"rlnOpticsGroup": [1], "rlnVoltage": [300.0], "rlnImagePixelSize": [1.0 / 3.0]}
    )
    return {"general": pd.DataFrame({"rlnFinal": [7]}), "particles": particles, "optics": optics}


def test_write_read_write_gives_the_same_bytes(
    blocks: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    write_star(blocks, tmp_path / "a.star")
    again = read_star(tmp_path / "a.star")
    write_star(again, tmp_path / "b.star")
    assert (tmp_path / "a.star").read_bytes() == (tmp_path / "b.star").read_bytes()
    assert list(again) == ["optics", "particles", "general"]
    for column in ("rlnAngleRot", "rlnImageName", "rlnMicrographName", "rlnOpticsGroup"):
        assert_array_equal(again["particles"][column], blocks["particles"][column])
    assert again["optics"]["rlnImagePixelSize"][0] == 1.0 / 3.0


def test_starfile_reads_what_is_written(blocks: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    del blocks["particles"]["rlnMicrographName"]
    write_star(blocks, tmp_path / "a.star")
    read = starfile.read(tmp_path / "a.star")
    assert_array_equal(read["particles"]["rlnImageName"], blocks["particles"]["rlnImageName"])
    np.testing.assert_allclose(
        read["particles"]["rlnAngleRot"], blocks["particles"]["rlnAngleRot"], rtol=1e-15
    )


def test_what_starfile_writes_is_read(blocks: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    blocks["particles"]["rlnMicrographName"] = ["a", "b c", "d", "e", "f"]
    starfile.write(blocks, tmp_path / "a.star", float_format="%.17g")
    read = read_star(tmp_path / "a.star")["particles"]
    for column in ("rlnAngleRot", "rlnImageName", "rlnMicrographName"):
        assert_array_equal(read[column], blocks["particles"][column])


@pytest.mark.parametrize(
    "rows",
    [
        "1@a.mrcs 1.5 3\n2@a.mrcs -2e3 4\n",
        "1@a.mrcs\t1.5\t3\r\n2@a.mrcs\t-2e3\t4\r\n",
        "  1@a.mrcs   1.5  3  \n\n# a comment\n  2@a.mrcs -2000 4 # another\n",
        "\"1@a.mrcs\" 1.5 3\n'2@a.mrcs' -2000.0 4",
    ],
    ids=["spaces", "tabs and CRLF", "comments", "quotes"],
)
def test_layouts_mean_the_same(rows: str, tmp_path: Path) -> None:
    read = table(PLAIN + rows, tmp_path)
    assert list(read["rlnImageName"]) == ["1@a.mrcs", "2@a.mrcs"]
    assert_array_equal(read["rlnAngleRot"], [1.5, -2000.0])
    assert_array_equal(read["rlnClassNumber"], [3, 4])


def test_names_stay_text(tmp_path: Path) -> None:
    text = "data_particles\nloop_\n_rlnMicrographName\n_rlnIsFlip\n0012 True\n1e5 False\n"
    read = table(text, tmp_path)
    assert list(read["rlnMicrographName"]) == ["0012", "1e5"]
    assert list(read["rlnIsFlip"]) == ["True", "False"]


def test_nan_and_inf_are_numbers(tmp_path: Path) -> None:
    read = table(PLAIN + "1@a nan 1\n2@a inf 2\n", tmp_path)
    assert_array_equal(read["rlnAngleRot"], [np.nan, np.inf])


def test_pairs_block_survives(tmp_path: Path) -> None:
    text = "data_general\n\n_rlnPixelSize 1.25\n_rlnTitle 'two words'\n" + PLAIN + "1@a 1 1\n"
    general = table(text, tmp_path, "general")
    assert general["rlnPixelSize"][0] == 1.25
    write_star(read_star(tmp_path / "in.star"), tmp_path / "out.star")
    assert '_rlnTitle "two words"' in (tmp_path / "out.star").read_text()
    assert starfile.read(tmp_path / "out.star")["general"]["rlnPixelSize"] == 1.25


def test_gzip_byte_order_mark_and_latin1(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = PLAIN + "1@a 1 1\n"
    (tmp_path / "a.star.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
    assert len(read_star(tmp_path / "a.star.gz")["particles"]) == 1
    (tmp_path / "b.star").write_bytes(text.replace("1@a", "1@\xb5").encode("latin-1"))
    assert read_star(tmp_path / "b.star")["particles"]["rlnImageName"][0] == "1@\xb5"
    assert "line 8 is not UTF-8" in caplog.text


def test_rows_that_begin_like_keywords(tmp_path: Path) -> None:
    read = table(PLAIN + "data_x/1@a.mrcs 1 1\nloop_ 2 2\n_c 3 3\n", tmp_path)
    assert list(read["rlnImageName"]) == ["data_x/1@a.mrcs", "loop_", "_c"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"# only a comment\n", "no data_ block"),
        (b"<html>\ndata_x\n", "line 1: text before the first data_ block"),
        (b"data_particles\nloop_\n1@a 2\n", "line 2: loop_ without labels"),
        (
            b"data_particles\nloop_\n_a\n_b\n1 2\n3\n",
            "line 6 (row 2): 1 values for 2 labels; the file may",
        ),
        (b"data_particles\nloop_\n_a\n_b\n\n1 2 3\n3 4\n", "line 6 (row 1): 3 values for 2 labels"),
        (
            b"data_particles\nloop_\n_a\n_b\n'1 2' # c\n3 4\n",
            "line 5 (row 1): 1 values for 2 labels",
        ),
        (b"data_particles\nloop_\n_a\n_a\n1 2\n", 'line 4: the label "_a" a second time'),
        (b"data_particles\nloop_\n_\n1\n", "line 3: a label without a name"),
        (b"data_x\nloop_\n_a\n1\ndata_x\nloop_\n_a\n1\n", "line 5: a second block data_x"),
        (b"data_x\n1 2 3\n", "line 2: expected loop_ or a label"),
        (b"data_x\n_a 1 2\n", "line 2: expected a label and one value"),
        (b"data_x\n\0\0", "is a binary file"),
        (b"\x1f\x8b\x08\0garbage", "damaged gzip file"),
    ],
)
def test_broken_files_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.star"
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as caught:
        read_star(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="does not exist"):
        read_star(tmp_path / "none.star")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_star(tmp_path)


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    bad = {"particles": pd.DataFrame({"rlnImageName": ["1@a", "two\nlines"]})}
    with pytest.raises(MetadataError, match="rlnImageName"):
        write_star(bad, tmp_path / "out.star")
    assert list(tmp_path.iterdir()) == []


def test_overwriting_is_asked_for(blocks: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    path = tmp_path / "out.star"
    write_star(blocks, path)
    with pytest.raises(OutputExistsError):
        write_star(blocks, path)
    write_star(blocks, path, overwrite=True)
    with pytest.raises(CryosphereError):
        write_star(blocks, path / "below_a_file.star")


def test_integers_that_would_change_stay_text(tmp_path: Path) -> None:
    rows = "0012 9223372036854775807 18446744073709551615 99999999999999999999 +5 True\n7 1 2 3 4 False\n"
    text = "data_particles\nloop_\n_a\n_b\n_c\n_d\n_e\n_f\n" + rows
    read = table(text, tmp_path)
    assert read["a"].tolist() == ["0012", "7"]
    assert (read["b"].dtype, read["c"].dtype) == (np.int64, np.uint64)
    assert read["d"].tolist() == ["99999999999999999999", "3"]
    assert read["e"].tolist() == ["+5", "4"]
    write_star(read_star(tmp_path / "in.star"), tmp_path / "out.star")
    assert (tmp_path / "out.star").read_text().endswith(rows + "\n")


def test_columns_that_change_their_kind_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cryosphere.particles.star.rows._CHUNK_BYTES", 10)
    rows = [
        f"{i}@a {i} {i} 1.50 {'x y' if i == 7 else 'z'!r} {2**53 + 1 if i == 3 else 0.5}"
        for i in range(10)
    ]
    rows[5] = rows[5].replace(" 5 5 ", " 5.5 word ")
    rows[8] = rows[8].replace(" 1.50 ", " abc ") + " # the end"
    text = "data_particles\nloop_\n_rlnImageName\n_f\n_t\n_m\n_q\n_big\n" + "\n\n".join(rows)
    read = table(text, tmp_path)
    assert read["f"].tolist() == [*range(5), 5.5, *range(6, 10)]
    assert read["t"].tolist() == ["0", "1", "2", "3", "4", "word", "6", "7", "8", "9"]
    assert read["m"].tolist() == ["1.50"] * 8 + ["abc", "1.50"]
    assert read["q"].tolist() == ["z"] * 7 + ["x y", "z", "z"]
    assert read["big"].tolist() == ["0.5"] * 3 + ["9007199254740993"] + ["0.5"] * 6
    lines = (tmp_path / "in.star").read_text().replace(rows[6], rows[6] + " more")
    (tmp_path / "in.star").write_text(lines)
    with pytest.raises(FileFormatError, match=r"line 21 \(row 7\): 7 values for 6 labels"):
        read_star(tmp_path / "in.star")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    text = PLAIN + "1@\u00b5\u00a0x/a.mrcs 1 1\n"
    data = (
        b"\xff\xfe" + text.encode("utf-16-le")
        if encoding.endswith("bom")
        else text.encode(encoding)
    )
    (tmp_path / "a.star").write_bytes(data)
    assert (
        read_star(tmp_path / "a.star")["particles"]["rlnImageName"][0] == "1@\u00b5\u00a0x/a.mrcs"
    )


def test_bzip2_and_other_compressions(tmp_path: Path) -> None:
    (tmp_path / "a.star.bz2").write_bytes(bz2.compress((PLAIN + "1@a 1 1\n").encode()))
    assert len(read_star(tmp_path / "a.star.bz2")["particles"]) == 1
    for content, says in (
        (b"PK\x03\x04" + bytes(99), "zip-compressed, which is not supported; decompress it"),
        (b"\xfd7zXZ" + bytes(99), "xz-compressed"),
        (b"BZh9" + bytes(99), "damaged bzip2 file"),
        (gzip.compress(PLAIN.encode())[:-9], "damaged gzip file"),
    ):
        (tmp_path / "b.star").write_bytes(content)
        with pytest.raises(FileFormatError, match=says):
            read_star(tmp_path / "b.star")


def test_control_characters_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_bytes(f"{PLAIN}1@a 1 1\n1@a\x0c 2 2\n".encode())
    with pytest.raises(FileFormatError, match=r"line 9 \(row 2\): a control character"):
        read_star(tmp_path / "a.star")
    with pytest.raises(MetadataError, match="no STAR file can hold"):
        write_star({"x": pd.DataFrame({"a": ["\x0c"]})}, tmp_path / "b.star")


def test_words_that_look_like_structure_survive(tmp_path: Path) -> None:
    words = ["data_x", "loop_", "_label", "#", "", "a b", "'", '"', "\u00a0", "data_x y"]
    write_star({"x": pd.DataFrame({"a": words})}, tmp_path / "a.star")
    assert read_star(tmp_path / "a.star")["x"]["a"].tolist() == words


def test_very_wide_and_very_many_labels(tmp_path: Path) -> None:
    wide = pd.DataFrame({f"label{i}": [i, -i] for i in range(3000)})
    write_star({"wide": wide}, tmp_path / "a.star")
    assert read_star(tmp_path / "a.star")["wide"].equals(wide)


def test_pairs_are_numbers_where_they_are_written_as_such(tmp_path: Path) -> None:
    """As columns: what would be written otherwise than it stands, stays text."""
    words = {
        "a": "12",
        "b": "1.5e3",
        "c": "0012",
        "d": "1_0",
        "e": "x7",
        "f": str(2**70),
        "rlnImageName": "7",
    }
    lines = "".join(f"_{name} {word}\n" for name, word in words.items())
    (tmp_path / "in.star").write_text("data_job\n\n" + lines)
    row = read_star(tmp_path / "in.star")["job"].iloc[0]
    assert row["a"] == 12
    assert row["b"] == 1500
    for name in ("c", "d", "e", "f", "rlnImageName"):
        assert row[name] == words[name]
    (tmp_path / "bad.star").write_bytes(b"data_job\n_a 1\x05\n")
    with pytest.raises(FileFormatError, match="line 2: a control character"):
        read_star(tmp_path / "bad.star")


def test_values_of_any_kind_are_written(tmp_path: Path) -> None:
    flags = pd.DataFrame({"a": [True, False], "b": pd.Series([1.5, "x y"], dtype=object)})
    write_star({"one": flags, "none": pd.DataFrame()}, tmp_path / "out.star")
    read = read_star(tmp_path / "out.star")
    assert read["one"]["a"].tolist() == [1, 0]
    assert read["one"]["b"].tolist() == ["1.5", "x y"]
    assert read["none"].empty


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, table: pd.DataFrame) -> Iterator[str]:
        yield "data_"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(star, "_block_lines", fail)
    with pytest.raises(CryosphereError, match=r"cannot write .*out.star: No space left"):
        write_star({"particles": pd.DataFrame({"a": [1]})}, tmp_path / "out.star")
    assert list(tmp_path.iterdir()) == []


def test_what_unfolds_without_end_or_cannot_be_unfolded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.star.gz").write_bytes(gzip.compress(b"x" * 5000))
    monkeypatch.setattr(reader, "_MOST_BYTES", 4000)
    with pytest.raises(FileFormatError, match="unfolds to more than"):
        read_star(tmp_path / "a.star.gz")

    def fail(path: Path) -> IO[bytes]:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setitem(_opening._OPENERS, "gzip", fail)
    with pytest.raises(FileFormatError, match="cannot be read: Permission denied"):
        read_star(tmp_path / "a.star.gz")
    (tmp_path / "wide.star").write_bytes(b"\xff\xfed\x00a\x00\x00\xd8")
    with pytest.raises(FileFormatError, match="damaged UTF-16"):
        read_star(tmp_path / "wide.star")
