"""The one exception family of the package.

Every message is a single line that says what was found, where, what is legal and what to do.
The command line prints it and exits with status 1; the napari plugin shows it as a notification.
"""

__all__ = [
    "CryosphereError",
    "FileFormatError",
    "MetadataError",
    "MissingImagesError",
    "ModelError",
    "NotConvergedError",
    "OutputExistsError",
    "RankLostError",
    "SymmetryError",
    "in_one_line",
]


def in_one_line(text: str) -> str:
    r"""Return text with line breaks and all else that is not printable as escapes, such as ``\n``.

    Names of files may hold such characters, also bytes that are no text in the system's encoding.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


class CryosphereError(Exception):
    """Base of everything that this package raises on purpose."""

    def __str__(self) -> str:
        """Return the message on one line."""
        return in_one_line(super().__str__())


class FileFormatError(CryosphereError):
    """A file is not what its name or header claims: truncated, of an unknown mode, no MRC or STAR file."""


class MissingImagesError(FileFormatError):
    """A stack that a table names is not where it was looked for; its folder can be given."""


class MetadataError(CryosphereError):
    """A table or a value in it cannot be used: a missing column, an angle that is not a number."""


class SymmetryError(CryosphereError, ValueError):
    """A point group name that does not exist; a ValueError too, so that configs report it as one."""


class ModelError(CryosphereError):
    """A model file that is broken, or that does not fit the particles."""


class NotConvergedError(CryosphereError):
    """A search ended without an answer that it could confirm."""


class OutputExistsError(CryosphereError):
    """An output is already there and overwriting was not asked for."""


class RankLostError(CryosphereError):
    """Another process of the same run is gone, so that this one cannot go on."""
