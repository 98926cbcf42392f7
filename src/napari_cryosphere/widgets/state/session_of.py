"""From a layer to the session that works on its particles."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cryosphere.widgets.control.controller import Session

__all__ = ["note_session", "session_in"]

_KEY = "cryosphere_session"


def note_session(session: Session) -> None:
    """Note a session with its layer, weakly: a copy of the layer has none of its own."""
    session.layer.metadata[_KEY] = weakref.ref(session)


def session_in(metadata: Mapping[str, Any]) -> Session | None:
    """Return the session that a layer's metadata name; None if there is none any more."""
    noted = metadata.get(_KEY)
    return None if noted is None else noted()
