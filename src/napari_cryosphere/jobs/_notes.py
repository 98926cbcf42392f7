"""What is said of particles before a job works on them."""

from __future__ import annotations

from collections.abc import Iterator

from napari_cryosphere.imaging.inspection import inspect_images
from napari_cryosphere.jobs.events import Note
from napari_cryosphere.particles import ParticleStack

__all__ = ["warnings_of"]


def warnings_of(stack: ParticleStack, without_ctf: str | None = None) -> Iterator[Note]:
    """Yield what is odd about a table and its images, and what is done without a CTF if there is none."""
    for text in (*stack.warnings, *inspect_images(stack).warnings):
        yield Note(text, warning=True)
    if without_ctf is not None and not stack.has_ctf:
        yield Note(f"the particles have no CTF columns: {without_ctf}", warning=True)
