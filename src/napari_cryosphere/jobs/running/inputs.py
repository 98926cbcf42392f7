"""What a run's inputs are, in checksums: a run goes on only with what it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from napari_cryosphere.imaging.inspection import inspect_images
from napari_cryosphere.jobs.configs import JobConfig
from napari_cryosphere.jobs.events import Note
from napari_cryosphere.particles import ParticleStack

__all__ = ["described", "digest_of_file", "digest_of_table", "warnings_of"]

_HOW = {"resume", "overwrite", "output", "device", "max_memory_gb"}


def described(config: JobConfig) -> dict[str, Any]:
    """Return the settings that results depend on, and not those that say how and where they are made."""
    return config.model_dump(mode="json", exclude=_HOW)


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of_table(stack: ParticleStack) -> str:
    """Return a checksum of the particles' table."""
    digest = hashlib.sha256()
    for (
        name
    ) in stack.particles:  # a column at a time: text takes much more memory than its checksums
        digest.update(str(name).encode())
        digest.update(
            pd.util.hash_array(stack.particles[name].to_numpy(), categorize=False).tobytes()
        )
    return digest.hexdigest()


def warnings_of(stack: ParticleStack, without_ctf: str | None = None) -> Iterator[Note]:
    """Yield what is odd about a table and its images, and what is done without a CTF if there is none."""
    for text in (*stack.warnings, *inspect_images(stack).warnings):
        yield Note(text, warning=True)
    if without_ctf is not None and not stack.has_ctf:
        yield Note(f"the particles have no CTF columns: {without_ctf}", warning=True)
