"""Check the relative links, pictures and headings of the top level's pages; MkDocs does so for
docs/.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(
    r"!?\[[^\]]*\]\(\s*<?([^)>\s]+)>?[^)]*\)|<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\""
)
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
OUTSIDE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages() -> list[Path]:
    """Return the Markdown files of the top level."""
    return sorted(ROOT.glob("*.md"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    found: set[str] = set()
    text = re.sub(
        r"^(```|~~~).*?^\1", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for heading in re.findall(r"^#+\s+(.*?)\s*#*$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        count = sum(1 for name in found if re.fullmatch(re.escape(anchor) + r"(-\d+)?", name))
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


def problems(page: Path) -> list[str]:
    """Return one line for each link of a page that leads nowhere."""
    lines = []
    for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        link = match.group(1) or match.group(2)
        if OUTSIDE.match(link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            lines.append(f"{page.relative_to(ROOT)}: {link} does not exist")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            lines.append(f"{page.relative_to(ROOT)}: {link} names no heading of {target.name}")
    return lines


def main() -> int:
    """Print what is broken; return 1 if anything is."""
    checked = pages()
    broken = [line for page in checked for line in problems(page)]
    for line in broken:
        print(line, file=sys.stderr)
    print(f"{len(checked)} pages, {len(broken)} broken links")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
