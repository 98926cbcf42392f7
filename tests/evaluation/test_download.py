"""Downloads against a server in this process that cuts connections, ignores ranges and serves wrong
bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from napari_cryosphere.evaluation import download
from napari_cryosphere.evaluation.download import (
    DownloadError,
    download_half,
    download_mask,
    record_files,
)
from napari_cryosphere.evaluation.entries import MASK_RECORD, cesped_entry

ENTRY = cesped_entry("TEST")
RECORD = ENTRY.records[0]


class Zenodo:
    """A server with the layout of Zenodo's records.

    Attributes
    ----------
    files
        Contents by record and name.
    cuts
        Numbers of bytes after which the coming answers break off; then they are whole.
    ranges
        Whether ranges are served.
    asked
        The first byte of each request for a file.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.asked: list[int] = []
        self.old_names = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, format: str, *values: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        record = re.fullmatch(r"/api/records/(\w+)", request.path)
        file = re.fullmatch(r"/records/(\w+)/files/(.+)", request.path)
        if record and record[1] in self.files:
            self._send(request, 200, json.dumps({"files": self._listing(record[1])}).encode(), 0)
        elif file and file[2] in self.files.get(file[1], {}):
            self._send_file(request, self.files[file[1]][file[2]])
        else:
            request.send_error(404)

    def _listing(self, record: str) -> list[dict[str, object]]:
        name, size = ("filename", "filesize") if self.old_names else ("key", "size")
        prefix = "" if self.old_names else "md5:"
        return [
            {
                name: key,
                size: len(content),
                "checksum": prefix + self.checksums.get(key, md5(content)),
            }
            for key, content in self.files[record].items()
        ]

    checksums: dict[str, str] = {}  # noqa: RUF012

    def _send_file(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        first = 0
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range") or "")
        if asked:
            self.asked.append(int(asked[1]))
            first = int(asked[1]) if self.ranges else 0
        else:
            self.asked.append(0)
        self._send(request, 206 if first else 200, content[first:], first)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, content: bytes, first: int
    ) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        if status == 206:
            last = first + len(content)
            request.send_header("Content-Range", f"bytes {first}-{last - 1}/{last}")
        request.end_headers()
        if "/files/" in request.path and self.cuts:
            content = content[: self.cuts.pop(0)]
            request.close_connection = True
        request.wfile.write(content)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zenodo]:
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    zenodo = Zenodo()
    rng = np.random.default_rng(0)
    # twelve chunks: in the order of their names 10 and 11 would come after 1
    chunks = {f"particles_0.mrcs.chunk_{k}": rng.bytes(400 + 7 * k) for k in range(12)}
    shuffled = dict(sorted(chunks.items(), reverse=True))
    zenodo.files[RECORD] = {
        "particles_0.star": b"data_particles\n" * 9,
        **shuffled,
        "info_0.json": b'{"symmetry": "C1"}',
    }
    zenodo.files[MASK_RECORD] = {ENTRY.mask: rng.bytes(900), "other_mask.mrc": b"x"}
    zenodo.checksums = {}
    yield zenodo
    zenodo.close()


def stack_bytes(server: Zenodo) -> bytes:
    return b"".join(server.files[RECORD][f"particles_0.mrcs.chunk_{k}"] for k in range(12))


def fetch(server: Zenodo, folder: Path, **options: bool) -> list[tuple[int, int]]:
    return list(download_half(ENTRY, 0, folder, server.address, **options))


@pytest.mark.parametrize("old_names", [False, True])
def test_chunks_are_joined_in_numeric_order(
    server: Zenodo, tmp_path: Path, old_names: bool
) -> None:
    server.old_names = old_names
    progress = fetch(server, tmp_path)
    assert (tmp_path / "particles_0.mrcs").read_bytes() == stack_bytes(server)
    assert (tmp_path / "particles_0.star").read_bytes() == server.files[RECORD]["particles_0.star"]
    assert progress[-1][0] == progress[-1][1] == sum(map(len, server.files[RECORD].values()))
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    left = {path.name for path in tmp_path.iterdir()}
    marker = f"SUCCESSFUL_DOWNLOAD_{RECORD}.txt"  # by which CESPED's package knows that the half is there
    assert left == {"info_0.json", "particles_0.mrcs", "particles_0.star", marker}


def test_cut_at_any_byte_it_goes_on_from_there(server: Zenodo, tmp_path: Path) -> None:
    """One connection a byte or so: every answer breaks off, and the next begins where it did."""
    server.files[RECORD] = {
        "particles_0.star": b"data_particles\n",
        "particles_0.mrcs": bytes(range(60)),
        "info_0.json": b'{"symmetry": "C1"}',
    }
    server.cuts = [1, 2, 5] * 40
    fetch(server, tmp_path)
    assert (tmp_path / "particles_0.mrcs").read_bytes() == bytes(range(60))
    assert {1, 3, 8, 9, 11, 16} <= set(server.asked)


@pytest.mark.parametrize("cut", [0, 1, 137, 399, 400, 401, 2500, 5000])
def test_a_stopped_download_is_resumed_by_the_next(
    server: Zenodo, tmp_path: Path, cut: int
) -> None:
    """The generator closed anywhere, as by Ctrl-C; no file is there before it is whole."""
    stopped = download_half(ENTRY, 0, tmp_path, server.address)
    server.cuts = [50] * 200  # so that bytes come in small pieces
    for done, _ in stopped:
        if done >= cut:
            break
    stopped.close()
    assert not (tmp_path / "particles_0.star").exists()
    kept = sum(path.stat().st_size for path in (tmp_path / ".download").glob("*"))
    server.cuts, server.asked = [], []
    fetch(server, tmp_path)
    assert (tmp_path / "particles_0.mrcs").read_bytes() == stack_bytes(server)
    whole = [len(content) for content in server.files[RECORD].values()]
    assert len(server.asked) <= len(whole)
    # what was there was not fetched
    assert kept == 0 or len(server.asked) < len(whole) or max(server.asked) > 0


def test_a_server_without_ranges_sends_all_again(server: Zenodo, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [10, 20, 10_000, 30]
    fetch(server, tmp_path)
    assert (tmp_path / "particles_0.mrcs").read_bytes() == stack_bytes(server)


def test_a_wrong_md5_is_refused_and_the_bytes_deleted(server: Zenodo, tmp_path: Path) -> None:
    server.checksums = {"particles_0.mrcs.chunk_3": "0" * 32}
    with pytest.raises(
        DownloadError, match=r"chunk_3: the bytes have the MD5 [0-9a-f]{32}, the record says 0{32}"
    ) as e:
        fetch(server, tmp_path)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "particles_0.mrcs").exists()
    assert not (tmp_path / ".download" / "particles_0.mrcs.chunk_3").exists()
    assert (tmp_path / ".download" / "particles_0.mrcs.chunk_2").exists()  # good chunks stay
    server.checksums = {}
    fetch(server, tmp_path)
    assert (tmp_path / "particles_0.mrcs").read_bytes() == stack_bytes(server)


def test_what_is_there_is_checked_and_not_fetched_again(server: Zenodo, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    server.asked = []
    fetch(server, tmp_path)
    assert server.asked == []
    damaged = bytearray((tmp_path / "particles_0.mrcs").read_bytes())
    damaged[77] ^= 1
    (tmp_path / "particles_0.mrcs").write_bytes(damaged)
    fetch(server, tmp_path)
    assert (tmp_path / "particles_0.mrcs").read_bytes() == stack_bytes(server)
    server.asked = []
    fetch(server, tmp_path, overwrite=True)
    assert len(server.asked) == 14


def test_no_bytes_five_times_in_a_row_is_one_line(server: Zenodo, tmp_path: Path) -> None:
    server.cuts = [0] * 5
    with pytest.raises(
        DownloadError, match=r"closed after 0 of \d+ bytes, which are kept"
    ) as caught:
        fetch(server, tmp_path)
    assert "\n" not in str(caught.value)


def test_no_network_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"cannot reach http://127\.0\.0\.1:9/api/records/.*is there a network"
    ) as e:
        list(download_half(ENTRY, 0, tmp_path / "new", "http://127.0.0.1:9"))
    assert "\n" not in str(e.value)
    assert not (tmp_path / "new").exists()


def test_a_record_that_is_not_there(server: Zenodo, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404"):
        list(download_half(cesped_entry("10166"), 0, tmp_path, server.address))


@pytest.mark.parametrize("gone", ["info_0.json", "particles_0.star", "particles_0.mrcs.chunk_4"])
def test_a_record_that_lacks_a_file_is_refused(server: Zenodo, tmp_path: Path, gone: str) -> None:
    del server.files[RECORD][gone]
    with pytest.raises(DownloadError, match="chunk" if "chunk" in gone else gone):
        fetch(server, tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_that_leave_the_folder_are_refused(server: Zenodo) -> None:
    server.files[RECORD]["../evil"] = b"x"
    with pytest.raises(DownloadError, match="does not describe"):
        record_files(RECORD, server.address)


def test_the_mask_of_an_entry(server: Zenodo, tmp_path: Path) -> None:
    list(download_mask(ENTRY, tmp_path, server.address))
    assert (tmp_path / "mask.mrc").read_bytes() == server.files[MASK_RECORD][ENTRY.mask]
