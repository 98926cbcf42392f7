"""When a map from random poses is believed: searches on different particles find it, none explains more."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cryosphere.errors import NotConvergedError
from napari_cryosphere.jobs._searches import EARLY_STEPS, STEPS, Found, Searches
from napari_cryosphere.jobs.configs import SearchingConfig
from napari_cryosphere.jobs.events import Event, Note, part_of
from napari_cryosphere.particles import DensityMap, ParticleStack
from napari_cryosphere.reconstruction import FourierShellCorrelation, fourier_shell_correlation
from napari_cryosphere.reconstruction.map_alignment import align_maps

__all__ = ["AGREEMENT", "Believed", "confirmed", "laid_on", "mean_fsc"]

AGREEMENT = 0.8
"""Mean FSC of two searches' maps in the finer half of the shells that counts as one map. Right ones have
0.9 and more; wrong ones of a ribosome 0.5, with preferred views 0.68 and 0.73. It is not enough: wrong ones
of the small phantom agree by 0.6 to 0.94 as well, one of beta-galactosidase by 0.92.
"""
_REACH = 0.1
"""Share of what the best map explains (evidence over that of noise alone) by which a map may explain less
to be believed. On the small phantom right maps differ by 3 %, wrong ones explain 20 to 25 % less.
"""


@dataclass(frozen=True)
class Believed:
    """What two searches found that share no particle.

    ``density``: the map, of the search that explains more. ``curve``: its FSC with the map that the
    other search found. ``history``: one row per step of all searches.
    """

    density: DensityMap
    curve: FourierShellCorrelation
    history: pd.DataFrame


def laid_on(first: DensityMap, second: DensityMap) -> tuple[DensityMap, FourierShellCorrelation]:
    """Return the second map laid on the first, whichever hand it has, and their FSC."""
    laid = align_maps(first, second).apply(second)
    size = first.pixel_size_angstrom
    return laid, fourier_shell_correlation(first.voxels, laid.voxels, size)


def mean_fsc(curve: FourierShellCorrelation, last_shell: int) -> float:
    """Return the mean of a curve over the finer half of the shells compared."""
    return float(curve.values[last_shell // 2 : last_shell + 1].mean())


class _Competition:
    """Searches of both halves, of several starts the best first.

    ``found``: maps of the searches that were finished, by half. ``begun``: how many searches each
    half has begun. ``steps``: how many steps they may have had, for the progress: those that ended
    before count as whole.
    """

    def __init__(self, searches: Searches, config: SearchingConfig, since: float) -> None:
        self.found: tuple[list[Found], list[Found]] = ([], [])
        self.begun = [0, 0]
        self.steps = 0
        self._searches, self._config, self._since = searches, config, since
        self._early: tuple[dict[int, float], dict[int, float]] = ({}, {})  # evidence by start
        self._courses: dict[tuple[int, int], NDArray[np.float64]] = {}

    def goes_on(self, half: int) -> bool:
        """Return whether starts and time are left for another search of a half."""
        left = bool(self._early[half]) or self.begun[half] < self._config.starts
        return left and not self._late()

    def _late(self) -> bool:
        most = self._config.minutes
        return most is not None and time.monotonic() - self._since > 60 * most

    def steps_to_come(self, half: int) -> int:
        """Return how many steps another search of a half may have, with those of its rivals."""
        if self._early[half]:
            return STEPS - EARLY_STEPS
        rivals = 1 if self.found[half] else self._searches.rivals
        return STEPS + (rivals - 1) * EARLY_STEPS

    def search(self, half: int, wanted: int) -> Generator[Event, None, None]:
        """Finish another search of a half: of those begun the one whose map explains most.

        Its progress is that of all steps that are ``wanted`` so far.
        """
        early = self._early[half]
        last = min(self.begun[half] + self._searches.rivals, self._config.starts)
        while not early or (len(self.found[half]) == 0 and self.begun[half] < last):
            start = self.begun[half]
            if start and early and self._late():
                break
            begun = yield from self._run(start, half, wanted, EARLY_STEPS)
            early[start] = begun.evidence
            self.begun[half] += 1
        best = max(early, key=lambda start: early[start])
        found = yield from self._run(best, half, wanted)
        del early[best]
        self.found[half].append(found)

    def _run(
        self, start: int, half: int, wanted: int, steps: int | None = None
    ) -> Generator[Event, None, Found]:
        """Search to the end, or to a number of steps, from a start or from where it was left early."""
        before = self.steps - (EARLY_STEPS if start in self._early[half] else 0)
        number = steps or STEPS
        work = self._searches.run(start, half, steps)
        found = yield from part_of(work, lambda part: (before + part * number) / wanted)
        self.steps = before + number
        self._courses[start, half] = found.history
        return found

    def verdict(self) -> _Verdict:
        """Compare the maps of both halves that were found so far."""
        nothing = self._searches.evidence_of_nothing
        best = max(one.evidence for half in self.found for one in half)
        least = best - _REACH * (best - nothing)
        lacking = [
            number
            for number, half in enumerate(self.found)
            if all(one.evidence < least for one in half)
        ]
        agreement = set_aside = 0.0
        pair = None
        for new in self.found[0]:
            for other in self.found[1]:
                _, curve = laid_on(new.density, other.density)
                value = mean_fsc(curve, self._searches.course.max_shell)
                if min(new.evidence, other.evidence) < least:
                    set_aside = max(set_aside, value)
                elif value > agreement:
                    agreement = value
                    pair = (curve, new, other) if value >= AGREEMENT else None
        return _Verdict(agreement, set_aside, lacking or [0, 1], pair)

    def history(self) -> pd.DataFrame:
        """Return one row per step of all searches."""
        names = ["start", "half", "step", "shell", "evidence", "sharpness"]
        rows = np.concatenate([self._courses[key] for key in sorted(self._courses)])
        return pd.DataFrame(rows, columns=names)


@dataclass(frozen=True)
class _Verdict:
    """How far the best maps of both halves agree.

    - ``agreement``: best mean FSC of two maps of different halves that explain the images as well
      as any.
    - ``set_aside``: best mean FSC of two of which one explains less.
    - ``lacking``: halves that have to be searched further.
    - ``pair``: their FSC and the two maps, if they agree.
    """

    agreement: float
    set_aside: float
    lacking: list[int]
    pair: tuple[FourierShellCorrelation, Found, Found] | None

    def __str__(self) -> str:
        text = f"best mean FSC {self.agreement:.2f}, {AGREEMENT} needed"
        if self.set_aside >= AGREEMENT:
            text += f"; {self.set_aside:.2f} of maps that explain the images less than another does"
        return text


def confirmed(
    stack: ParticleStack, searches: Searches, config: SearchingConfig, since: float
) -> Generator[Event, None, Believed]:
    """Search until two searches of different halves agree and none explains more.

    ``stack``, ``searches``, ``config``: particles, their searches, and settings. ``since``: when
    the run began, in seconds of `time.monotonic`: its minutes count from there. Raises
    `NotConvergedError` if none do within the starts and minutes.
    """
    competition = _Competition(searches, config, since)
    wanted = [0, 1]
    while True:
        steps = competition.steps + sum(competition.steps_to_come(half) for half in wanted)
        for half in wanted:
            yield from competition.search(half, steps)
        verdict = competition.verdict()
        if verdict.pair is not None:
            curve, new, other = verdict.pair
            yield Note(
                f"two searches on different particles found one map: mean FSC {verdict.agreement:.2f}"
            )
            better = max(new, other, key=lambda one: one.evidence)
            return Believed(better.density, curve, competition.history())
        numbers = " and ".join(str(len(half)) for half in competition.found)
        yield Note(f"after {numbers} searches the halves' maps do not agree: {verdict}")
        wanted = verdict.lacking
        if not all(competition.goes_on(half) for half in wanted):
            break
    raise NotConvergedError(
        f"{stack.source}: {numbers} searches from random poses on the halves of the particles found no "
        f"map twice ({verdict}): nothing that can be believed is seen; check contrast (--invert), "
        "--diameter and --symmetry, remove junk, or allow more --starts and --minutes"
    )
