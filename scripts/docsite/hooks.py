"""MkDocs hooks: the pages that are made of code and of files outside docs/, so that they cannot go
stale.

`mkdocs.yml` names this file. Pages made here: every command, every config, the programming
interface room by room, the licences of what gets installed, and the top level's CHANGELOG and
CONTRIBUTING.
"""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

from api_pages import api_pages
from command_page import command_page
from config_page import config_page
from licence_page import licence_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = ("CHANGELOG.md", "CONTRIBUTING.md")
# in pages of the top level: links into docs/ and to other files of the repository
INTO_DOCS = re.compile(r"\]\(docs/")
OF_REPOSITORY = re.compile(
    r"\[([^\]]*)\]\((?!https?:|#)([^)]*\.(?:toml|py|yml|yaml|cff)|LICENSE)\)"
)

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])</(?P=tag)>',
    re.DOTALL,
)


def generated_pages() -> dict[str, str]:
    """Return the Markdown of every made page, by its path under docs/."""
    pages = {
        "reference/commands.md": command_page(),
        "reference/configs.md": config_page(),
        "licences.md": licence_page(ROOT),
        **api_pages(),
    }
    for name in TOP_LEVEL:
        text = (ROOT / name).read_text(encoding="utf-8")
        text = OF_REPOSITORY.sub(r"`\2`", INTO_DOCS.sub("](", text))
        pages[name.lower()] = text
    return pages


def on_page_content(html: str, **_: object) -> str:
    """Turn formulas into MathML, which browsers show by themselves: no script, nothing fetched."""
    from latex2mathml.converter import convert

    def mathml(match: re.Match[str]) -> str:
        inline, block = match["inline"], match["block"]
        return convert(unescape(inline or block), display="inline" if inline else "block")

    return FORMULA.sub(mathml, html)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages to those of docs/."""
    from mkdocs.structure.files import File

    for path, text in generated_pages().items():
        files.append(File.generated(config, path, content=text))
    return files
