"""A run's inputs: opened as its config says, and their checksums, by which a run is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from napari_cryosphere.errors import MetadataError
from napari_cryosphere.imaging.inspection import inspect_images
from napari_cryosphere.jobs.configs import ImagesInput, JobConfig, ParticlesInput
from napari_cryosphere.jobs.events import Note
from napari_cryosphere.particles import ParticleStack

__all__ = [
    "chosen",
    "described",
    "digest_of_file",
    "digest_of_table",
    "open_each",
    "open_particles",
    "refuse_unposed",
    "warnings_of",
]

_HOW = {"resume", "overwrite", "output", "device", "max_memory_gb"}


def open_particles(config: ParticlesInput, *, require_images: bool = True) -> ParticleStack:
    """Return the particles that a config names: those it selects, with the contrast it asks for.

    Raises `CryosphereError` as `ParticleStack.read` and `ParticleStack.select`.
    """
    stack = ParticleStack.read(config.particles, config.data_dir, require_images=require_images)
    return chosen(stack, config)


def open_each(config: ImagesInput, paths: Sequence[Path]) -> list[ParticleStack]:
    """Return the particles of several files as a config selects them; raises as `open_particles`."""
    return [chosen(ParticleStack.read(path, config.data_dir), config) for path in paths]


def chosen(stack: ParticleStack, config: ImagesInput) -> ParticleStack:
    """Return the particles of a stack that a config selects, with the contrast it asks for."""
    if config.select is not None:
        stack = stack.select(config.select)
    return stack.inverted() if config.invert else stack


def refuse_unposed(stack: ParticleStack, wanted: str) -> None:
    """Refuse particles without poses; ``wanted`` says what these are for, and what to do.

    Raises `MetadataError` if they have none.
    """
    if not stack.has_poses:
        raise MetadataError(
            f"{stack.source} has no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) {wanted}"
        )


_FORMAT = 2
"""Of what unfinished runs keep: raised when the same settings come to mean other results."""


def described(config: JobConfig) -> dict[str, Any]:
    """Return the settings that results depend on, maps and masks by the checksums of their files.

    Settings that say how and where results are made are left out.
    """
    settings = config.model_dump(mode="json", exclude=_HOW) | {"format": _FORMAT}
    for name in ("map", "mask"):
        given = getattr(config, name, None)
        if isinstance(given, Path):
            settings[name] = digest_of_file(given)
        elif isinstance(given, tuple):  # one map for each state
            settings[name] = [digest_of_file(path) for path in given]
    return settings


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of_table(stack: ParticleStack) -> str:
    """Return a checksum of the particles' table."""
    digest = hashlib.sha256()
    # a column at a time: text takes much more memory than its checksums
    for name in stack.particles:
        digest.update(str(name).encode())
        digest.update(
            pd.util.hash_array(stack.particles[name].to_numpy(), categorize=False).tobytes()
        )
    return digest.hexdigest()


def warnings_of(stack: ParticleStack, without_ctf: str | None = None) -> Iterator[Note]:
    """Yield what is odd about a table and its images, and what is done without a CTF if there is none.

    Raises `MetadataError` if every pixel of each image that was looked at has one value.
    """
    seen = inspect_images(stack)
    if seen.empty:
        raise MetadataError(
            f"{stack.source}: all {seen.inspected} images looked at have one value in every pixel: "
            "there is no particle in them; extract them again"
        )
    for text in (*stack.warnings, *seen.warnings):
        yield Note(text, warning=True)
    if without_ctf is not None and not stack.has_ctf:
        yield Note(f"the particles have no CTF columns: {without_ctf}", warning=True)
