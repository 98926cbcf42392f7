"""The random numbers of the C library that RELION randomises phases with.

glibc's ``rand()`` is the additive generator r[i] = r[i - 3] + r[i - 31] modulo 2^32, of which the
lowest bit is dropped. Passed to our post-processing with RELION's seed, it gives RELION's phases, so
that curves can be compared to their last printed digits instead of to the noise of a random draw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LAG = 31
_DISCARDED = 310


class GlibcRandom:
    """The part of numpy's `Generator` that draws phases, with the C library's numbers."""

    def __init__(self, seed: int) -> None:
        self._seed, self._drawn = seed, 0
        self._numbers = np.zeros(0, dtype=np.uint32)

    def random(self, size: int) -> NDArray[np.float64]:
        """Return the next numbers over the largest one, ``(size,)``."""
        stop = self._drawn + size
        if stop > len(self._numbers):
            self._numbers = glibc_rand(self._seed, 2 * stop)
        values = self._numbers[self._drawn : stop] / (2**31 - 1)
        self._drawn = stop
        return values


def glibc_rand(seed: int, number: int) -> NDArray[np.uint32]:
    """Return the first values of ``rand()`` after ``srand(seed)``, ``(number,)`` below 2^31."""
    state = [seed or 1]
    for _ in range(_LAG - 1):
        state.append(16807 * state[-1] % 2147483647)
    values = np.array(state + state[:3], dtype=np.uint32)
    needed = len(values) + _DISCARDED + number
    # 1 = c[1] x + c[2] x^2 ...: values[i] = sum_j taps[j] * values[i - step * j]
    taps = np.zeros(_LAG + 1, dtype=np.uint32)
    taps[[3, _LAG]] = 1
    step = 1
    while len(values) < needed:
        values = _extended(values, taps, step, min(needed, 2 * _LAG * step + _LAG * step))
        taps, step = _squared(taps), 2 * step
    return values[_LAG + 3 + _DISCARDED :][:number] >> np.uint32(1)


def _extended(
    values: NDArray[np.uint32], taps: NDArray[np.uint32], step: int, length: int
) -> NDArray[np.uint32]:
    """Continue a sequence to ``length`` values by a recurrence whose lags are multiples of ``step``."""
    grown = np.empty(max(length, len(values)), dtype=np.uint32)
    grown[: len(values)] = values
    lags = np.flatnonzero(taps)
    reach = int(lags[0]) * step  # so many values follow from known ones at once
    for start in range(len(values), length, reach):
        stop = min(start + reach, length)
        total = np.zeros(stop - start, dtype=np.uint32)
        for lag in lags:
            total += taps[lag] * grown[start - step * lag : stop - step * lag]
        grown[start:stop] = total
    return grown


def _squared(taps: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the recurrence with doubled lags: p(x) p(-x) is a polynomial in x^2 (Graeffe's method)."""
    p = (-taps).astype(np.uint32)
    p[0] = 1
    q = p.copy()
    q[1::2] = -q[1::2]
    product = np.zeros(2 * _LAG + 1, dtype=np.uint32)
    for place, factor in enumerate(p):
        product[place : place + _LAG + 1] += factor * q
    doubled = (-product[::2]).astype(np.uint32)
    doubled[0] = 0
    return doubled
