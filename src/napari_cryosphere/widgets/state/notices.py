"""What the window says: in napari's corner in one line, its cause in front, and whole in the dock."""

from __future__ import annotations

import re

from psygnal import Signal

__all__ = ["NOTICES", "Notices", "cause_first", "tell_error", "tell_note"]

_FOLDERS = re.compile(
    r"(?:(?<=\s)|^|(?<=[('\"@]))(?:[A-Za-z]:)?(?:[/\\][^\s/\\:]+)+[/\\](?=[^\s/\\])"
)


class Notices:
    """Passes on what is said."""

    said = Signal(str, bool)
    """Sent with the whole message, and whether it is an error."""


NOTICES = Notices()
"""Of all viewers: a notice does not know whose it is."""


def cause_first(error: BaseException | str) -> str:
    """Return an error's line without the folders of the paths in it: a toast shows some 45 characters."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return _FOLDERS.sub("", text)


def tell_error(error: BaseException | str) -> None:
    """Show an error in napari's corner, and whole in the dock."""
    from napari.utils.notifications import show_error

    NOTICES.said.emit(str(error) or type(error).__name__, True)
    show_error(cause_first(error))


def tell_note(text: str) -> None:
    """Show in napari's corner, and in the dock, what was done."""
    from napari.utils.notifications import show_info

    NOTICES.said.emit(text, False)
    show_info(text)
