"""The states that particles were assigned to, their probabilities and their colours."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_cryosphere.particles import ParticleStack

__all__ = ["ParticleStates", "state_colour"]

Colour: TypeAlias = tuple[int, int, int]

_COLOURS: tuple[Colour, ...] = (
    (74, 163, 223),
    (240, 160, 75),
    (92, 196, 137),
    (214, 120, 201),
    (224, 108, 117),
    (181, 166, 66),
)
"""Those of the FSC curves: told apart on black and on white; the seventh state has the first's again."""


def state_colour(number: int) -> Colour:
    """Return the colour of a state, sRGB 0-255; states count from 1."""
    return _COLOURS[(number - 1) % len(_COLOURS)]


@dataclass(frozen=True, eq=False)
class ParticleStates:
    """Each particle's state, as ``align`` and ``refine`` write it, or RELION's class.

    ``numbers``, ``(n,)``: rlnClassNumber, the states counting from 1. ``probabilities``,
    ``(n, k)``: cryosphereStateProbability1 to k; None in a file without them.
    """

    numbers: NDArray[np.int64]
    probabilities: NDArray[np.float64] | None

    @classmethod
    def of(cls, stack: ParticleStack) -> ParticleStates | None:
        """Return the states of a stack; None if it has none, or a single one."""
        from napari_cryosphere.particles import CLASS_NUMBER, STATE_PROBABILITY

        table = stack.particles
        if CLASS_NUMBER not in table:
            return None
        numbers = np.nan_to_num(table[CLASS_NUMBER].to_numpy(np.float64)).astype(np.int64)
        names = []
        for number in count(1):
            if f"{STATE_PROBABILITY}{number}" not in table:
                break
            names.append(f"{STATE_PROBABILITY}{number}")
        if len(names) < 2 and len(np.unique(numbers)) < 2:
            return None
        return cls(numbers, table[names].to_numpy(dtype=np.float64) if names else None)

    @property
    def known(self) -> list[int]:
        """The states' numbers, ascending."""
        if self.probabilities is not None:
            return list(range(1, self.probabilities.shape[1] + 1))
        return [int(number) for number in np.unique(self.numbers)]

    @property
    def colours(self) -> NDArray[np.uint8]:
        """``(n, 3)``: the colour of each particle's state, sRGB 0-255."""
        return np.array(_COLOURS, np.uint8)[(self.numbers - 1) % len(_COLOURS)]

    @property
    def key(self) -> str:
        """The states with their colours, as rich text."""
        part = "<span style='color: #{:02x}{:02x}{:02x}'>■</span> state {}"
        return " &nbsp; ".join(part.format(*state_colour(name), name) for name in self.known)

    def colour(self, row: int) -> Colour:
        """Return the colour of a particle's state."""
        return state_colour(int(self.numbers[row]))

    def text(self, row: int) -> str:
        """Return a particle's state and its probability, where that is known."""
        number = int(self.numbers[row])
        if self.probabilities is None or not 1 <= number <= self.probabilities.shape[1]:
            return f"state {number}"
        return f"state {number}: {100 * self.probabilities[row, number - 1]:.0f} %"
