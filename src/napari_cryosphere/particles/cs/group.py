"""cryoSPARC's groups of results, .csg: which .cs file holds which fields of a set of particles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_cryosphere.errors import FileFormatError
from napari_cryosphere.particles._checks import shown

__all__ = ["metafiles_of"]

_LARGEST_BYTES = 1 << 20  # a group has some ten results of 100 bytes


def metafiles_of(path: Path) -> dict[str, tuple[Path, int | None]]:
    """Return the .cs file of each result of a group (``blob``, ``ctf``, ...), and its number of items.

    The number is None where the group does not say it.

    Raises
    ------
    FileFormatError
        If the file is missing or no group of particles.
    """
    results = _parsed(path).get("results")
    if not isinstance(results, dict) or not results:
        raise FileFormatError(f"{path} is no group of results: it names none")
    files: dict[str, tuple[Path, int | None]] = {}
    for name, result in results.items():
        metafile = result.get("metafile") if isinstance(result, dict) else None
        if not isinstance(name, str) or not isinstance(metafile, str) or "\0" in metafile:
            raise FileFormatError(
                f"{path}: the result {shown(name)} has no metafile; export the group again"
            )
        # A leading > means the group's own folder.
        items = result.get("num_items")
        number = items if isinstance(items, int) and not isinstance(items, bool) else None
        files[name] = path.parent / metafile.removeprefix(">"), number
    return files


def _parsed(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise FileFormatError(f"{path} is too large for a group of results (.csg)")
        content = yaml.safe_load(path.read_bytes())
    except FileNotFoundError as error:
        raise FileFormatError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError) as error:
        raise FileFormatError(
            f"{path} is no group of results (.csg): it is not YAML; export the group again"
        ) from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path} is no group of results (.csg): it has no results")
    return content
