"""Orientation distributions of cryo-EM particles over SO(3): learn, infer, inspect and reconstruct.

``import napari_cryosphere as nc`` offers the names of ``__init__.pyi``, each imported when it is
first used: the package itself loads neither torch nor pandas.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
