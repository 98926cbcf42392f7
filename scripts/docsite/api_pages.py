"""The pages of the programming interface: what ``import napari_cryosphere as nc`` offers, and the
names in ``__all__`` of its packages. Everything else is internal.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = "napari_cryosphere"
SOURCE = Path(__file__).resolve().parents[2] / "src" / PACKAGE
PAGES = {
    "so3.distributions": "Distributions over poses",
    "particles": "Particles and maps in files",
    "reconstruction": "Maps from particles, and their resolution",
}
"""The packages whose ``__init__`` names a public face, and what each is about."""


def public_names(package: str = "") -> dict[str, str]:
    """Return the public names of a package, or of the whole, each with the module that defines it."""
    file = SOURCE.joinpath(*package.split("."), "__init__.py") if package else None
    tree = ast.parse((file or SOURCE / "__init__.pyi").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: f"{PACKAGE}.{node.module.removeprefix(PACKAGE + '.')}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__"
        for alias in node.names
        if alias.name != "__version__"
    }


def api_pages() -> dict[str, str]:
    """Return the Markdown of the pages, by path under docs/."""
    front = public_names()
    listed = set(front)
    pages = {}
    for package, title in PAGES.items():
        others = {name: home for name, home in public_names(package).items() if name not in listed}
        pages[f"reference/api/{package}.md"] = f"# {title}\n\n{_entries(others)}"
        listed |= set(others)
    rows = [f"| [`{package}`]({package}.md) | {title} |" for package, title in PAGES.items()]
    text = [
        "# Programming interface",
        "",
        "`import napari_cryosphere as nc` offers the names below; each is imported when it is first",
        "used. Functions take nouns and options and return nouns. More, for those who build on it:",
        "",
        "| package | about |",
        "|---|---|",
        *rows,
        "",
        "What is in neither is internal and may change.",
        "",
        _entries(front),
    ]
    return {"reference/api/index.md": "\n".join(text)} | pages


def _entries(names: dict[str, str]) -> str:
    """Return a heading and mkdocstrings' block of each name."""
    return "\n".join(f"## {name}\n\n::: {home}.{name}\n" for name, home in sorted(names.items()))
