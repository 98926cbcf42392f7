"""STAR files, the tables of RELION: a reader that names the line of an error, and an atomic writer."""

from napari_cryosphere.particles.star.file import read_star, write_star

__all__ = ["read_star", "write_star"]
