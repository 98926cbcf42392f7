"""How values from a file appear in a message."""

from __future__ import annotations

import json
from numbers import Real
from typing import Any

_LONGEST = 80


def shown(value: Any) -> str:
    """Return a number as it is and text quoted on one line, shortened in the middle if it is long."""
    if isinstance(value, Real):
        return f"{float(value):.9g}"
    text = json.dumps(str(value), ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:50]}...{text[-25:]}"


def counted(number: int, noun: str) -> str:
    """Return ``1 stack`` or ``2 stacks``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(values: list[str], most: int = 4) -> str:
    """Return the first few of ``values``, comma-separated, and how many more there are."""
    head = ", ".join(values[:most])
    return head if len(values) <= most else f"{head} and {len(values) - most} more"
