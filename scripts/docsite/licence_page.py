"""The page with the licences of everything that an installation brings, from the packages'
metadata.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

INTRODUCTION = """# Licences

napari-cryosphere is under the BSD 3-clause licence:

```text
{licence}
```

What `pip install "napari-cryosphere[all]"` brings, and what each package says of its own licence. This table
is X

{copyleft}

| package | version | licence | comes with |
|---|---|---|---|
"""

COPYLEFT = """Under copyleft licences are: {names}. They are installed beside this package, not copied into
it; who redistributes them together has to keep to their terms."""

CLASSIFIER = "License :: "


def licence_page(root: Path) -> str:
    """Return the page as Markdown; ``root`` is the folder of LICENSE."""
    rows, copyleft = [], []
    for name, extra in sorted(dependencies("napari-cryosphere", ("gui", "plots")).items()):
        found = distribution(name)
        terms = licence_of(found)
        rows.append(f"| {found.metadata['Name']} | {found.version} | {terms} | {extra} |")
        if "GPL" in terms or "MPL" in terms:
            copyleft.append(f"{found.metadata['Name']} ({terms})")
    licence = (root / "LICENSE").read_text(encoding="utf-8").strip()
    said = COPYLEFT.format(names=", ".join(copyleft))
    return INTRODUCTION.format(licence=licence, copyleft=said) + "\n".join(rows) + "\n"


def dependencies(package: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Return the installed packages that one needs, however deep, and which part of it needs them
    first.
    """
    found: dict[str, str] = {}
    for extra in ("", *extras):
        waiting = [(package, (extra,) if extra else ())]
        while waiting:
            name, chosen = waiting.pop()
            for requirement in _requirements(name, chosen):
                key = re.sub(r"[-_.]+", "-", requirement.name).lower()
                if key != package and key not in found and _installed(key):
                    found[key] = f"`[{extra}]`" if extra else "the command line"
                    waiting.append((key, tuple(requirement.extras)))
    return found


def licence_of(found: Distribution) -> str:
    """Return what a package says of its licence: an expression, else classifiers, else its short
    text.
    """
    expression = found.metadata.get("License-Expression")
    if expression:
        return expression
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in found.metadata.get_all("Classifier") or []
        if entry.startswith(CLASSIFIER) and entry != "License :: OSI Approved"
    ]
    if classifiers:
        return ", ".join(classifiers)
    text = (found.metadata.get("License") or "").strip().splitlines()
    return text[0] if text and len(text[0]) < 80 else "see the package"


def _requirements(name: str, extras: tuple[str, ...]) -> list[Requirement]:
    wanted = []
    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or ("",)):
            wanted.append(requirement)
    return wanted


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
