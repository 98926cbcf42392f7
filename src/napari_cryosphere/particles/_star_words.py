"""Quotes and comments in STAR files, and text without either that means the same."""

from __future__ import annotations

import re

__all__ = ["hide", "show", "words_of"]

# A quoted word, or a comment: both begin where a word begins. The look-behind comes second, so that the
# search leaps from mark to mark.
_SPECIAL = re.compile(
    rb"""\"(?<![^ \t\n]\")([^"\n]*)"(?=[ \t\n])"""
    rb"""|'(?<![^ \t\n]')([^'\n]*)'(?=[ \t\n])"""
    rb"""|\#(?<![^ \t\n]\#)[^\n]*"""
)
_MARKS = (b'"', b"'", b"#")
# What stands for an empty word, and for a space or tab within quotes, while a chunk is parsed.
_EMPTY, _SPACE, _TAB = "\x01", "\x02", "\x03"
_HIDE = bytes.maketrans(b" \t", (_SPACE + _TAB).encode())
_SHOW = str.maketrans({_EMPTY: None, _SPACE: " ", _TAB: "\t"})


def hide(text: bytes) -> bytes:
    """Remove comments and quotes; spaces in quotes, and empty words, become characters of their own.

    The text ends with a line end. Text without quotes and comments comes back as the same object.
    """

    def plain(match: re.Match[bytes]) -> bytes:
        inner = match[1] if match[1] is not None else match[2]
        if inner is None:
            return b""
        return inner.translate(_HIDE) or _EMPTY.encode()

    return _SPECIAL.sub(plain, text) if any(mark in text for mark in _MARKS) else text


def show(word: str) -> str:
    """Return a word of hidden text as it was meant."""
    return word.translate(_SHOW)


def words_of(line: bytes) -> list[str]:
    """Split a line into words: quotes keep spaces together, ``#`` at the start of a word begins a comment."""
    words = hide(line.strip() + b"\n").split()
    return [show(word.decode("utf-8")) for word in words]
