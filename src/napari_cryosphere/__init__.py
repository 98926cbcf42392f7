"""Orientation distributions of cryo-EM particles over SO(3): learn, infer, inspect and reconstruct.

The package's rooms, from the bottom up: ``so3``, ``particles``, ``imaging``, ``reconstruction``,
``model``, ``training``, ``jobs``, the command line ``cli`` and the napari plugin ``widgets``.
Importing the package itself loads none of them.
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("napari-cryosphere")
