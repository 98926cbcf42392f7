"""Downloads that resume, checked and atomic, and CESPED's entries on Zenodo.

A record holds one half of an entry: ``particles_H.star``, ``info_H.json`` and the images, either
whole or as ``particles_H.mrcs.chunk_K``, which are joined in the order of the number K. While a
file is fetched its bytes are in a folder ``.download`` next to it, one file per chunk; an
HTTP range continues what is there. A chunk counts as fetched when its size and its MD5 are those that
the record states; a file appears under its name when all of its chunks do. (pooch, which also
checks hashes, starts a file again after a break: with gigabytes per file that rules it out.)
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from napari_cryosphere._files import atomic_path
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.evaluation.entries import MASK_RECORD, CespedEntry, mark_complete

__all__ = [
    "ZENODO",
    "DownloadError",
    "RecordFile",
    "download_half",
    "download_mask",
    "fetched",
    "opened",
    "record_files",
]

ZENODO = "https://zenodo.org"
_BLOCK_BYTES = 1 << 20  # bytes read at a time: a kill loses a megabyte at most
_TIMEOUT_SECONDS = 60.0  # without a byte; chosen, not tuned
_TRIES = 5  # of a connection before giving up; chosen, not tuned
_PASSING = {429, 500, 502, 503, 504}  # HTTP's: too many requests, or a server that may recover
_CHUNK = re.compile(r"(?P<name>.+\.mrcs)\.chunk_(?P<number>[0-9]+)")
_MD5 = re.compile(r"(?:md5:)?(?P<digest>[0-9a-f]{32})")
_FOLDER = ".download"


class DownloadError(CryosphereError):
    """A download that cannot go on: no network, no such record, or not the bytes that were promised."""


@dataclass(frozen=True)
class RecordFile:
    """One file of a record.

    - ``name``: its name there.
    - ``size``: bytes.
    - ``md5``: its checksum, 32 hexadecimal digits; empty where the archive states none.
    - ``url``: where it is.
    """

    name: str
    size: int
    md5: str
    url: str

    @property
    def target(self) -> str:
        """Name of the file that it is, or is a chunk of."""
        match = _CHUNK.fullmatch(self.name)
        return match["name"] if match else self.name

    @property
    def chunk(self) -> int:
        """Its place in that file."""
        match = _CHUNK.fullmatch(self.name)
        return int(match["number"]) if match else 0


def record_files(record: str, server: str = ZENODO) -> list[RecordFile]:
    """Ask a server what files a record holds.

    Raises `DownloadError` if the server cannot be reached, has no such record, or answers with
    something else.
    """
    address = f"{server}/api/records/{record}"
    with opened(address) as answer:
        try:
            listed = json.load(answer)["files"]
            return [_record_file(record, item, server) for item in listed]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DownloadError(f"{address} does not describe a Zenodo record") from error


def _record_file(record: str, item: dict[str, Any], server: str) -> RecordFile:
    """Read one file's description; Zenodo has called its parts by two names each."""
    name = str(item.get("key") or item["filename"])
    size = item["size"] if "size" in item else item["filesize"]
    match = _MD5.fullmatch(str(item["checksum"]).lower())
    if match is None or Path(name).name != name or name.startswith("."):
        raise ValueError(f"no file name and MD5: {name}, {item['checksum']}")
    return RecordFile(
        name, int(size), match["digest"], f"{server}/records/{record}/files/{quote(name)}"
    )


def download_half(
    entry: CespedEntry, half: int, folder: Path, server: str = ZENODO, *, overwrite: bool = False
) -> Generator[tuple[int, int], None, list[Path]]:
    """Fetch one half of an entry into its folder; yields bytes there and bytes in all.

    What an earlier call has fetched is kept: whole files with the right MD5, and the parts of
    others. The table comes last, so that a half with a table is complete. Raises `DownloadError` if
    the server cannot be reached, or a file's size or MD5 is not what the record states.
    """
    record = entry.records[half]
    files = record_files(record, server)
    groups = _grouped(files, record, half)
    total, before = sum(file.size for file in files), 0
    for target, parts in groups.items():
        size = sum(part.size for part in parts)
        path = folder / target
        if overwrite or not _holds(path, parts):
            for done in fetched(parts, path):
                yield before + done, total
        before += size
        yield before, total
    mark_complete(folder, record, (folder / f"particles_{half}.mrcs").stat().st_size)
    return [folder / target for target in groups]


def _grouped(files: list[RecordFile], record: str, half: int) -> dict[str, list[RecordFile]]:
    """Return each file's chunks in order, the table last. Raises DownloadError if one is missing."""
    groups: dict[str, list[RecordFile]] = {}
    for wanted in (f"info_{half}.json", f"particles_{half}.mrcs", f"particles_{half}.star"):
        parts = sorted(
            (file for file in files if file.target == wanted), key=lambda file: file.chunk
        )
        if not parts:
            names = ", ".join(file.name for file in files)
            raise DownloadError(f"record {record} has no {wanted}; it has {names or 'no files'}")
        numbers = [part.chunk for part in parts]
        if numbers != list(range(len(parts))):
            raise DownloadError(
                f"record {record}: the chunks of {wanted} are {numbers}, not 0, 1, 2 ..."
            )
        groups[wanted] = parts
    return groups


def download_mask(
    entry: CespedEntry, folder: Path, server: str = ZENODO, *, overwrite: bool = False
) -> Generator[tuple[int, int], None, Path]:
    """Fetch an entry's mask as ``mask.mrc``; yields bytes there and bytes in all.

    Raises `DownloadError` if Zenodo has no such mask, or cannot be reached.
    """
    path = folder / "mask.mrc"
    parts = [file for file in record_files(MASK_RECORD, server) if file.name == entry.mask]
    if not parts:
        raise DownloadError(f"record {MASK_RECORD} has no {entry.mask}")
    if overwrite or not _holds(path, parts):
        for done in fetched(parts, path):
            yield done, parts[0].size
    return path


def _holds(path: Path, parts: list[RecordFile]) -> bool:
    """Return whether a file is these chunks, one after the other, by size and MD5."""
    if not path.is_file() or path.stat().st_size != sum(part.size for part in parts):
        return False
    with path.open("rb") as stream:
        for part in parts:
            digest, left = hashlib.md5(usedforsecurity=False), part.size
            while left:
                block = stream.read(min(_BLOCK_BYTES, left))
                digest.update(block)
                left -= len(block)
            if digest.hexdigest() != part.md5:
                return False
    return True


def fetched(parts: list[RecordFile], path: Path) -> Iterator[int]:
    """Fetch a file's chunks, join them and put the file in place; yields bytes there.

    Raises `DownloadError` if the folder cannot be written to, the server cannot be reached, or the
    bytes are not those that were promised.
    """
    folder = path.parent / _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(f"cannot write to {path.parent}: {error.strerror or error}") from error
    before = 0
    for part in parts:
        for done in _fetch_part(part, folder / part.name):
            yield before + done
        before += part.size
    with atomic_path(path, overwrite=True) as temporary, temporary.open("wb") as stream:
        for part in parts:
            with (folder / part.name).open("rb") as chunk:
                shutil.copyfileobj(chunk, stream, _BLOCK_BYTES)
    for part in parts:
        (folder / part.name).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _fetch_part(part: RecordFile, path: Path) -> Iterator[int]:
    """Fetch one chunk, continuing a partial one; yields its bytes so far.

    A connection that breaks is opened again, as often as bytes arrive, and five times in a row
    where none do.
    """
    digest = _Digest(path, part.size)
    path.touch()  # of an empty file nothing comes
    tries = 0
    while digest.size < part.size:
        had = digest.size
        try:
            yield from _append(part, path, digest)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _PASSING:
                raise DownloadError(f"{part.url}: {error.code} {error.reason}") from error
            tries = 1 if digest.size > had else tries + 1
            if tries >= _TRIES:
                raise DownloadError(
                    f"{part.url}: {_reason(error)} after {digest.size} of {part.size} bytes, which are kept; "
                    "the same command goes on from there"
                ) from error
            if tries > 1:  # nothing came: wait
                time.sleep(0.2 * 2**tries)
    if part.md5 and digest.hexadecimal() != part.md5:
        path.unlink()
        raise DownloadError(
            f"{part.url}: the bytes have the MD5 {digest.hexadecimal()}, the record says {part.md5}; they "
            "were deleted, run the command again"
        )
    yield part.size


class _Digest:
    """The MD5 of what a file holds, kept while it grows. A file that is too long is started again."""

    def __init__(self, path: Path, size: int) -> None:
        self.restart()
        if path.is_file() and path.stat().st_size > size:
            path.unlink()
        if path.is_file():
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK_BYTES):
                    self.add(block)

    def restart(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def add(self, block: bytes) -> None:
        self._hash.update(block)
        self.size += len(block)

    def hexadecimal(self) -> str:
        return self._hash.hexdigest()


def _append(part: RecordFile, path: Path, digest: _Digest) -> Iterator[int]:
    """Read from a connection to the end of the file or of the connection; yields the bytes so far."""
    request = urllib.request.Request(part.url)
    if digest.size:
        request.add_header("Range", f"bytes={digest.size}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
        given = answer.headers["Content-Range"] or ""
        if answer.status != 206 or not given.startswith(f"bytes {digest.size}-"):
            digest.restart()  # the server sends the whole file
        with path.open("ab" if digest.size else "wb") as stream:
            while digest.size < part.size:
                # read1 gives what has arrived, so that what comes before a cut is kept
                block = answer.read1(min(_BLOCK_BYTES, part.size - digest.size))
                if not block:
                    raise http.client.IncompleteRead(b"", part.size - digest.size)
                stream.write(block)
                digest.add(block)
                yield digest.size


def opened(address: str | urllib.request.Request) -> http.client.HTTPResponse:
    """Open an address. Raises `DownloadError` if that fails; it says why in one line."""
    name = address if isinstance(address, str) else address.full_url
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(address, timeout=_TIMEOUT_SECONDS)
        return answer
    except urllib.error.HTTPError as error:
        raise DownloadError(f"{name}: {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise DownloadError(
            f"cannot reach {name}: {_reason(error)}; is there a network?"
        ) from error


def _reason(error: Exception) -> str:
    """Return in words why a connection failed."""
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was closed"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
