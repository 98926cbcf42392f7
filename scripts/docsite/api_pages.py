"""The pages of the programming interface: one a room, each public module by mkdocstrings."""

from __future__ import annotations

import pkgutil

ROOMS = {
    "so3": "Rotations, grids, distributions",
    "particles": "Particles and maps in files",
    "imaging": "From a map to an image, and back to what a network sees",
    "reconstruction": "Maps from particles, and their resolution",
    "alignment": "Particles compared with a map",
    "model": "Networks and model files",
    "training": "How networks learn",
    "evaluation": "Metrics and experiments",
    "jobs": "One function for every verb",
    "widgets": "The napari plugin",
}
"""The public rooms, from the bottom up, and what each is about."""

PACKAGE = "napari_cryosphere"


def public_modules(room: str) -> list[str]:
    """Return the full names of a room's public modules, the room itself first."""
    from importlib.util import find_spec

    spec = find_spec(f"{PACKAGE}.{room}")
    places = spec.submodule_search_locations if spec else None
    names = sorted(
        module.name for module in pkgutil.iter_modules(places) if not module.name.startswith("_")
    )
    return [f"{PACKAGE}.{room}", *(f"{PACKAGE}.{room}.{name}" for name in names)]


def api_pages() -> dict[str, str]:
    """Return the Markdown of the pages, by path under docs/."""
    pages = {f"reference/api/{room}.md": _page(room, title) for room, title in ROOMS.items()}
    rows = [f"| [`{room}`]({room}.md) | {title} |" for room, title in ROOMS.items()]
    text = ["# Programming interface", "", "| room | about |", "|---|---|", *rows, ""]
    text.append(
        "Rooms import only those above them in this table ([architecture](../../architecture.md)). "
    )
    text.append(
        "`errors.CryosphereError` is the one family of exceptions.\n\n::: napari_cryosphere.errors\n"
    )
    return {"reference/api/index.md": "\n".join(text)} | pages


def _page(room: str, title: str) -> str:
    blocks = [f"# {title}\n"]
    for name in public_modules(room):
        blocks.append(f"## {name} {{ #{name} }}\n\n::: {name}\n")
    return "\n".join(blocks)
