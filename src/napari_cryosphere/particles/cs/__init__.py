"""cryoSPARC's .cs files, and their conversion to and from RELION's tables."""

from napari_cryosphere.particles.cs.file import read_cs, write_cs

__all__ = ["read_cs", "write_cs"]
