"""EMDB and EMPIAR by number, against a server in this process with their layout."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import napari_cryosphere as nc
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.evaluation.download import DownloadError

EMPIAR = "empiar/world_availability/10146/data"
EMDB = "pub/databases/emdb/structures/EMD-1234/map"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[str]:
    """The address of a server with one entry of each."""
    root = tmp_path / "archive"
    for path, content in (
        (f"{EMPIAR}/first 1.mrc", b"one"),
        (f"{EMPIAR}/gain/reference.tif", b"three"),
        (f"{EMPIAR}/read.me", b""),
        (f"{EMDB}/emd_1234.map.gz", b"map" * 1000),
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_images_of_an_entry_with_their_folders(archive: str, tmp_path: Path) -> None:
    found = nc.fetch("EMPIAR-10146", tmp_path / "data", server=archive)
    names = ["first 1.mrc", "gain/reference.tif", "read.me"]
    assert found == [tmp_path / "data" / name for name in names]
    assert [path.read_bytes() for path in found] == [b"one", b"three", b""]
    assert not list((tmp_path / "data").rglob(".download"))


def test_a_map_and_what_is_there_is_kept(archive: str, tmp_path: Path) -> None:
    seen: list[object] = []
    (path,) = nc.fetch("emd-1234", tmp_path, server=archive, progress=seen.append)
    assert path == tmp_path / "emd_1234.map.gz"
    assert path.read_bytes() == b"map" * 1000
    assert seen[-1].fraction == 1
    written = path.stat().st_mtime_ns
    nc.fetch("EMD-1234", tmp_path, server=archive)
    assert path.stat().st_mtime_ns == written


def test_only_what_is_asked_for(archive: str, tmp_path: Path) -> None:
    found = nc.fetch("EMPIAR-10146", tmp_path, "gain/*", server=archive)
    assert [path.name for path in found] == ["reference.tif"]
    with pytest.raises(DownloadError, match=r"no file that fits '\*\.star'"):
        nc.fetch("EMPIAR-10146", tmp_path, "*.star", server=archive)


def test_what_is_not_there_is_said(archive: str, tmp_path: Path) -> None:
    with pytest.raises(CryosphereError, match="is no entry: give EMD-1234 or EMPIAR-10146"):
        nc.fetch("10146", tmp_path, server=archive)
    with pytest.raises(DownloadError, match="404"):
        nc.fetch("EMPIAR-99999", tmp_path, server=archive)
    with pytest.raises(DownloadError, match="is there a network"):
        nc.fetch("EMD-1234", tmp_path, server="http://127.0.0.1:1")
