"""Errors as napari shows them: one line, its cause in front."""

from __future__ import annotations

import re

__all__ = ["cause_first", "tell_error", "tell_note"]

_FOLDERS = re.compile(
    r"(?:(?<=\s)|^|(?<=[('\"@]))(?:[A-Za-z]:)?(?:[/\\][^\s/\\:]+)+[/\\](?=[^\s/\\])"
)


def cause_first(error: BaseException | str) -> str:
    """Return an error's line without the folders of the paths in it: a toast shows some 45 characters."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return _FOLDERS.sub("", text)


def tell_error(error: BaseException | str) -> None:
    """Show an error in napari's corner."""
    from napari.utils.notifications import show_error

    show_error(cause_first(error))


def tell_note(text: str) -> None:
    """Show in napari's corner what was done."""
    from napari.utils.notifications import show_info

    show_info(text)
