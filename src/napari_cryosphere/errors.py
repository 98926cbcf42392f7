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
    "OutputExistsError",
    "RankLostError",
    "SymmetryError",
]


class CryosphereError(Exception):
    """Base of everything that this package raises on purpose."""


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


class OutputExistsError(CryosphereError):
    """An output is already there and overwriting was not asked for."""


class RankLostError(CryosphereError):
    """Another process of the same run is gone, so that this one cannot go on."""
