"""Public archives by accession number: maps of EMDB, images of EMPIAR.

EMPIAR states no checksums: a file counts as fetched when it has the size that the server says.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Generator, Iterator
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.evaluation.download import DownloadError, RecordFile, fetched, opened

__all__ = ["ARCHIVE", "download_entry"]

ARCHIVE = "https://ftp.ebi.ac.uk"
_ENTRY = re.compile(r"(?P<archive>EMDB?|EMPIAR)-(?P<number>[0-9]{3,6})", re.IGNORECASE)
_MOST_FOLDERS = 1000  # of one entry; more is a server that leads in circles


def download_entry(
    entry: str, folder: Path, pattern: str = "*", server: str = ARCHIVE
) -> Generator[tuple[int, int], None, list[Path]]:
    """Fetch an entry's files into a folder; yields bytes there and bytes in all, returns the paths.

    A call that was stopped goes on where it was; files that are there with their size are kept.
    Raises `CryosphereError` if ``entry`` is no accession number; `DownloadError` if the server
    cannot be reached, has no such entry, or no file fits the pattern.

    - ``entry``: ``EMD-1234`` is its map, ``emd_1234.map.gz``; ``EMPIAR-10146`` its data, subfolders
      kept.
    - ``folder``: made if it is not there.
    - ``pattern``: which files of an EMPIAR entry, such as ``"*.mrc"`` or ``"micrographs/*_0001*"``:
      of the path within the entry, as `fnmatch` reads it.
    - ``server``: of the European Bioinformatics Institute, or a mirror with its layout.
    """
    match = _ENTRY.fullmatch(entry.strip())
    if match is None:
        raise CryosphereError(f"{entry!r} is no entry: give EMD-1234 or EMPIAR-10146")
    number = match["number"]
    if match["archive"].upper() == "EMPIAR":
        root = f"{server}/empiar/world_availability/{number}/data/"
        names = sorted(name for name in _listed(root) if fnmatch(name, pattern))
        if not names:
            raise DownloadError(f"{root} has no file that fits {pattern!r}")
    else:
        root = f"{server}/pub/databases/emdb/structures/EMD-{number}/map/"
        names = [f"emd_{number}.map.gz"]
    files = [
        RecordFile(PurePosixPath(name).name, _size(root, name), "", root + quote(name))
        for name in names
    ]
    total, before = sum(file.size for file in files), 0
    paths = [folder / name for name in names]
    for path, file in zip(paths, files, strict=True):
        if not path.is_file() or path.stat().st_size != file.size:
            path.parent.mkdir(parents=True, exist_ok=True)
            for done in fetched([file], path):
                yield before + done, total
        before += file.size
        yield before, total
    return paths


class _Links(HTMLParser):
    """The targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if (tag, name) == ("a", "href") and value]


def _listed(root: str) -> Iterator[str]:
    """Yield the paths of all files below an address, by the server's listings of folders."""
    folders, seen = [""], 0
    while folders:
        folder, seen = folders.pop(), seen + 1
        if seen > _MOST_FOLDERS:
            raise DownloadError(f"{root} has more than {_MOST_FOLDERS} folders; give a pattern")
        links = _Links()
        with opened(root + quote(folder)) as answer:
            links.feed(answer.read().decode("utf-8", errors="replace"))
        for target in map(unquote, links.targets):
            name = target.removesuffix("/")
            if not name or "/" in name or name in (".", "..") or name.startswith("?"):
                continue  # the folder above, or another order of the same list
            if target.endswith("/"):
                folders.append(f"{folder}{name}/")
            else:
                yield folder + name


def _size(root: str, name: str) -> int:
    """Return how many bytes a file has, as the server says."""
    address = root + quote(name)
    with opened(urllib.request.Request(address, method="HEAD")) as answer:
        length = answer.headers["Content-Length"]
    if length is None:
        raise DownloadError(f"{address}: the server does not say how large it is")
    return int(length)
