"""Refinement of several states at once: every half has a map of each, and shares its particles out.

States begin with a map of each. Or the particles are first refined together, and each half finds states
in what its own map leaves over (`_state_starts`). Then every iteration aligns a half's particles to the
maps of all of its states: a particle goes into each at its pose there, weighted by the probability of that
state. The halves share nothing but the maps they began with. At the end every particle is compared with the
maps of the other half, which it is not in, and the states' probabilities that are written are what these
say.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_cryosphere.jobs._refinement import (
    BEYOND_SHELLS,
    HALVES_OF_ITERATION,
    MAPS_OF_ITERATION,
    RESOLVED,
    SETTLED_ITERATIONS,
    SETTLED_SHELLS,
    Iteration,
    Maps,
    Refinement,
    by_other_half,
    reference_of,
)
from napari_cryosphere.jobs._state_starts import START_SHELLS, alike, found_states, merged_columns
from napari_cryosphere.jobs._states import States, state_posterior
from napari_cryosphere.jobs.align import (
    Pilot,
    align_rows_to_states,
    batches_of,
    found_of_states,
    pilot_about_known,
    pilot_around,
    with_alignment,
)
from napari_cryosphere.jobs.events import Event, Note, Progress, between, part_of
from napari_cryosphere.jobs.running.batches import Arrays
from napari_cryosphere.jobs.running.journal import Journal
from napari_cryosphere.jobs.running.map_detail import MapDetail
from napari_cryosphere.jobs.running.run_folder import UNFINISHED
from napari_cryosphere.particles import DensityMap, ImageGrid, ParticleStack
from napari_cryosphere.reconstruction import fourier_shell_correlation, resampled_map
from napari_cryosphere.reconstruction.filters import low_passed
from napari_cryosphere.reconstruction.map_alignment import align_near
from napari_cryosphere.so3.pose_summary import SUMMARY, PoseSummary
from napari_cryosphere.so3.symmetry import angular_error_degrees

__all__ = ["ClassRefinement", "StateIteration"]

_TOGETHER = 2
"""Iterations before states are sought: the first compares with a coarse map, the second with the
particles' own."""
_REACH_DEGREES = 15.0
"""How far poses are sought that were found with a map of all states; chosen, not tuned. Those of a
complex with a domain turned by 15 degrees were 10 degrees off."""
_HARDLY = 0.01  # probability of a state below which a particle's pose in it is not searched for
_NOTHING = 1e-3  # probability below which a particle is not put into a state's map
_FEWEST = 10.0  # particles of a half below which a state is empty; chosen, not tuned
_FRAME_DEGREES = 0.2  # smaller turns of a state's frame are left; chosen, not tuned


@dataclass(frozen=True)
class StateIteration:
    """All states after one iteration, in the order of their starting maps or the largest first.

    ``number``: counted from 1, with the iterations of all states together. ``each``: what each
    state's iteration is: ``stack`` holds all particles at their poses in that state. ``states``:
    probabilities, shares and presence.
    """

    number: int
    each: tuple[Iteration, ...]
    states: States

    def rows(self) -> list[dict[str, float]]:
        """Return the lines of history.csv, one for each state."""
        return [
            one.row() | {"state": state, "share": float(share)}
            for state, (one, share) in enumerate(
                zip(self.each, self.states.shares, strict=True), start=1
            )
        ]

    def summary(self) -> PoseSummary:
        """Return how sure each particle's pose in its most probable state is."""
        return PoseSummary(
            *(self._of_best([getattr(one.summary, name) for one in self.each]) for name in SUMMARY)
        )

    def particles(self) -> ParticleStack:
        """Return all particles at their poses in their most probable states."""
        stacks = [one.stack for one in self.each]
        shifts = self._of_best([one.shifts_angstrom() for one in stacks])
        likelihood = self._of_best(
            [one.particles["rlnLogLikeliContribution"].to_numpy(float) for one in stacks]
        )
        shifts_px = -shifts / stacks[0].pixel_size_angstrom
        symmetry = self.each[0].maps.density.symmetry
        posed = with_alignment(stacks[0], shifts_px, likelihood, self.summary(), symmetry)
        return posed.with_columns(self.states.columns())

    def _of_best(self, values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return of each state's ``(n, ...)`` values those of the particles' own."""
        each = np.arange(len(self.states.best))
        return np.stack(values)[self.states.best, each]


class ClassRefinement(Refinement):
    """The two halves of a refinement of several states."""

    def of_states(self) -> Iterator[Event | Iteration | StateIteration]:
        """Yield progress and every finished iteration; if there is one state alone, as `Refinement` does."""
        if len(self._starts) > 1:
            yield from self._from_maps()
            return
        (start,) = self._starts
        stack, references = self._stack, (start, start)
        compared = self._config.initial_resolution_angstrom
        together = max(1, min(_TOGETHER, self._config.iterations - 1))
        for number in range(1, together + 1):
            work = self._iterate(number, stack, references, compared)
            done = yield from part_of(work, self._course(number))
            stack = done.stack
            references, compared = self._next_references(done)
            yield done
        wanted = self._config.classes
        mine = [stack[rows] for rows in self._half_rows]
        telling = found_states(mine, references, done.mask, wanted, self._config)
        here = self._course(together)(1.0)
        shares = yield from part_of(telling, between(here, here))
        probabilities = self._both(*shares)
        number = probabilities.shape[1]
        if number < wanted:
            yield Note(
                f"the halves tell {number} of {wanted} states apart"
                if number > 1
                else f"of {wanted} states the halves find one and the same: no more than one is there, "
                "or there are too few particles to tell"
            )
        if number == 1:
            first = min(together + 1, self._config.iterations)
            yield from self._from(first, stack, references, compared)
            return
        yield from self._states_from(done, probabilities, compared)

    def _states_from(
        self, begun: Iteration, probabilities: NDArray[np.float64], compared: float
    ) -> Generator[Event | Iteration | StateIteration, None, None]:
        """Iterate from first probabilities of states, ``(n, k)``, until nothing improves."""
        there = begun.stack.particles["cryospherePresence"].to_numpy(float)
        states = States(probabilities, probabilities.mean(0), there)
        making = self._reconstructed(
            begun.number,
            [begun.stack] * len(probabilities.T),
            [begun.summary] * len(probabilities.T),
            states,
            compared,
        )
        here = self._course(begun.number)(1.0)
        first = yield from part_of(making, between(here, here))
        yield from self._until_settled(first, fresh=True)

    def _from_maps(self) -> Generator[Event | Iteration | StateIteration, None, None]:
        """Iterate from a map of each state, which the halves share."""
        first = yield from part_of(self._first_of_maps(), self._course(1))
        if self._config.iterations > 1:
            yield first
        yield from self._until_settled(first)

    def _first_of_maps(self) -> Generator[Event, None, StateIteration]:
        """Align all particles to the starting maps and reconstruct each state."""
        compared, several = self._config.initial_resolution_angstrom, len(self._starts)
        stack, found = self._stack.on_grid(self._grid_for(compared)), list[Arrays]()
        for half, rows in enumerate(self._half_rows):
            pilot = self._pilot(1, stack[rows], judging=False)
            every, pilots = [stack] * several, [pilot] * several
            work = self._align_states(1, half, every, self._starts, compared, pilots, pilot)
            found.append((yield from work))
        posed = self._posed_in_states([stack] * several, found)
        making = self._reconstructed(1, *posed, compared)
        return (yield from part_of(making, MAPS_OF_ITERATION))

    def _until_settled(
        self, first: StateIteration, fresh: bool = False
    ) -> Generator[Event | Iteration | StateIteration, None, None]:
        """Iterate until nothing improves; ``fresh`` poses are those of a map of all states."""
        done, best, settled = first, [0.0] * len(first.each), 0
        for number in range(first.number + 1, self._config.iterations + 1):
            references, compared = self._references_of(done)
            work = self._iterate_states(number, done, references, compared, fresh)
            done, fresh = (yield from part_of(work, self._course(number))), False
            done, notes = self._told_apart(done)
            yield from notes
            if len(done.each) == 1:
                one = done.each[0]
                again = self._next_references(one)
                yield from self._from(min(number + 1, self._config.iterations), one.stack, *again)
                return
            if notes:
                best, settled = [0.0] * len(done.each), 0
            shells = [self._field / one.resolution_angstrom for one in done.each]
            improved = any(s > b + SETTLED_SHELLS for s, b in zip(shells, best, strict=True))
            settled = 0 if improved else settled + 1
            best = [max(pair) for pair in zip(shells, best, strict=True)]
            if settled >= SETTLED_ITERATIONS or number == self._config.iterations:
                break
            yield done
        judging = self._judged_states(done)
        yield (yield from part_of(judging, between(self._course(done.number)(1.0), 1.0)))

    @property
    def _field(self) -> float:
        return self._stack.grid.field_angstrom

    def _references_of(self, done: StateIteration) -> tuple[list[Maps], float]:
        """Return each state's references, and the finest detail to compare with any of them, angstrom.

        A state's reference is what all states have in common, and what is its own as far as the halves
        agree on that. So a state with few particles has the detail that it shares with the others, and
        these do not draw its particles by it.
        """
        mask = _joined_mask([one.mask for one in done.each])
        halves = [np.stack([one.maps.halves[half].voxels for one in done.each]) for half in (0, 1)]
        common = [np.tensordot(done.states.shares, maps, 1).astype(np.float32) for maps in halves]
        first = done.each[0].maps.density

        def density(voxels: NDArray[np.float32]) -> DensityMap:
            return replace(first, voxels=voxels)

        curve = self._fsc(density(common[0]), density(common[1]), mask).corrected
        shared = [reference_of(density(voxels), mask, curve).voxels for voxels in common]
        references = list[Maps]()
        for state in range(len(done.each)):
            own = [density(maps[state] - mean) for maps, mean in zip(halves, common, strict=True)]
            inside = [one.voxels * mask.voxels for one in own]
            agreed = fourier_shell_correlation(inside[0], inside[1], first.pixel_size_angstrom)
            parts = [reference_of(one, mask, agreed).voxels for one in own]
            references.append((density(shared[0] + parts[0]), density(shared[1] + parts[1])))
        finest = min(
            curve.resolution_angstrom(RESOLVED), *(o.resolution_angstrom for o in done.each)
        )
        compared = self._field / (int(self._field / finest) + BEYOND_SHELLS)
        return references, min(compared, self._config.initial_resolution_angstrom)

    def _iterate_states(
        self,
        number: int,
        before: StateIteration,
        references: list[Maps],
        compared: float,
        fresh: bool,
    ) -> Generator[Event, None, StateIteration]:
        """Align both halves to all of their states' references and reconstruct these."""
        grid = self._grid_for(compared)
        stacks = [one.stack.on_grid(grid) for one in before.each]
        found = []
        for half in range(2):
            mine = [maps[half] for maps in references]
            pilots = self._pilots(stacks, before.states, self._half_rows[half], fresh)
            found.append(
                (yield from self._align_states(number, half, stacks, mine, compared, pilots))
            )
        stacks, summaries, states = self._posed_in_states(stacks, found)
        making = self._reconstructed(number, stacks, summaries, states, compared, before)
        return (yield from part_of(making, MAPS_OF_ITERATION))

    def _pilots(
        self, stacks: Sequence[ParticleStack], states: States, rows: NDArray[np.int64], fresh: bool
    ) -> list[Pilot]:
        """Return how a half's particles are aligned to each state's map: around what is known of them.

        In states that they are hardly in, particles are only climbed, from their poses in the best one.
        ``fresh`` poses were found with a map of all states.
        """
        best, pilots = states.best, list[Pilot]()
        each = np.arange(len(best))
        rotations = np.stack([one.rotations() for one in stacks])
        shifts = np.stack([one.shifts_angstrom() for one in stacks])
        for state, stack in enumerate(stacks):
            hardly = states.probabilities[:, state] < _HARDLY
            own = np.where(hardly, best, state)
            mine = stack.with_poses(rotations[own, each], shifts_angstrom=shifts[own, each])[rows]
            if self._config.local_degrees is not None:
                pilots.append(pilot_around(mine, self._config.local_degrees))
                continue
            sure, lost = self._sure_and_lost(stack[rows])
            reach = _REACH_DEGREES if fresh else 0.0
            pilots.append(pilot_about_known(mine, sure | hardly[rows], lost, reach))
        return pilots

    def _align_states(
        self,
        number: int,
        half: int,
        stacks: Sequence[ParticleStack],
        references: Sequence[DensityMap],
        compared: float,
        pilots: Sequence[Pilot],
        measuring: Pilot | None = None,
    ) -> Generator[Event, None, Arrays]:
        """Align one half to all states' references; of every particle and state, by name.

        Noise is measured at the particles' own poses, or where ``measuring`` finds them.
        """
        config, mine = self._config, stacks[0][self._half_rows[half]]
        batches, several = batches_of(mine, config), len(references)
        folder = config.output / UNFINISHED / f"states{several}_{number:02d}_half{half + 1}"
        journal = Journal(folder, self._identity, config.resume, self._ranks)
        if any(block.start not in journal for block in batches.blocks()):
            details = [MapDetail(compared, "as far as the half-maps agree")] * several
            place = HALVES_OF_ITERATION[half]
            yield Progress(place(0.0), f"iteration {number}, half {half + 1}: measuring noise")
            work = align_rows_to_states(
                mine,
                references,
                config,
                details,
                pilot_around(mine, 0.0) if measuring is None else measuring,
                pilots,
                batches,
                self._ranks,
                journal,
            )
            yield from part_of(work, place)
        return found_of_states(batches, journal, several)

    def _posed_in_states(
        self, stacks: Sequence[ParticleStack], found: Sequence[Arrays]
    ) -> tuple[list[ParticleStack], list[PoseSummary], States]:
        """Return the particles at their poses in every state, how sure these are, and which state it is."""
        both = {name: self._both(*(half[name] for half in found)) for name in found[0]}
        states = self._states_of(found)
        posed, summaries = list[ParticleStack](), list[PoseSummary]()
        for state, stack in enumerate(stacks):
            summary = PoseSummary(*(both[name][:, state] for name in SUMMARY))
            shifts_px, likelihood = both["shifts_px"][:, state], both["log_likelihood"][:, state]
            symmetry, there = self._config.symmetry, states.presence
            posed.append(with_alignment(stack, shifts_px, likelihood, summary, symmetry, there))
            summaries.append(replace(summary, confidence=summary.confidence * there))
        return posed, summaries, states

    def _states_of(self, found: Sequence[Arrays]) -> States:
        """Return the posterior of the states: each half's, with shares of its own."""
        halves = [state_posterior(one["presence_evidence"], one["confidence"]) for one in found]
        probabilities = self._both(*(one.probabilities for one in halves))
        there = self._both(*(one.presence for one in halves))
        counts = [len(one.presence) for one in halves]
        shares = np.average([one.shares for one in halves], axis=0, weights=counts)
        return States(probabilities, shares, there)

    def _reconstructed(
        self,
        number: int,
        stacks: Sequence[ParticleStack],
        summaries: Sequence[PoseSummary],
        states: States,
        compared: float,
        before: StateIteration | None = None,
    ) -> Generator[Progress, None, StateIteration]:
        """Reconstruct every state."""
        each = []
        for state, (stack, summary) in enumerate(zip(stacks, summaries, strict=True)):
            share = states.probabilities[:, state]
            share = np.where(share < _NOTHING, 0.0, share)
            part = between(state / len(stacks), (state + 1) / len(stacks))
            made = yield from part_of(self._reconstruct(stack, compared, share), part)
            change = float("nan")
            if before is not None:
                earlier, mine = before.each[state].stack, states.best == state
                angles = angular_error_degrees(
                    earlier.rotations()[mine], stack.rotations()[mine], self._config.symmetry
                )
                change = float(np.median(angles)) if mine.any() else change
            each.append(Iteration(number, stack, summary, *made, compared, change))
        return StateIteration(number, tuple(each), states)

    def _told_apart(self, done: StateIteration) -> tuple[StateIteration, list[Note]]:
        """Return an iteration without empty states and twins, and what is said of them."""
        notes = list[Note]()
        while len(done.each) > 1:
            weight = done.states.probabilities * done.states.presence[:, None]
            counts = np.min([weight[rows].sum(0) for rows in self._half_rows], axis=0)
            if counts.min() < _FEWEST:
                gone = int(counts.argmin())
                kept = int(counts.argmax())
                notes.append(
                    Note(
                        f"iteration {done.number}: a state is empty ({counts[gone]:.0f} particles of a half)"
                    )
                )
            else:
                twins = self._twins(done)
                if twins is None:
                    break
                kept, gone = twins
                notes.append(
                    Note(
                        f"iteration {done.number}: the halves do not tell two states apart: they are one"
                    )
                )
            probabilities = merged_columns(done.states.probabilities, (kept, gone))
            shares = np.delete(done.states.shares, gone)
            shares = shares / shares.sum()
            each = tuple(one for state, one in enumerate(done.each) if state != gone)
            done = StateIteration(
                done.number, each, States(probabilities, shares, done.states.presence)
            )
        return done, notes

    def _twins(self, done: StateIteration) -> tuple[int, int] | None:
        """Return two states that the halves do not both tell apart, None if there are none."""
        grid = done.each[0].stack.grid
        box = min(4 * START_SHELLS, grid.box)
        coarse = ImageGrid(box, grid.field_angstrom / box)

        def small(density: DensityMap) -> NDArray[np.float32]:
            return resampled_map(density, box, coarse.pixel_size_angstrom).voxels

        mask = np.clip(small(_joined_mask([one.mask for one in done.each])), 0, 1)
        resolution = grid.field_angstrom / START_SHELLS
        halves = [
            np.stack(
                [
                    low_passed(small(one.maps.halves[half]), coarse.pixel_size_angstrom, resolution)
                    for one in done.each
                ]
            )
            for half in range(2)
        ]
        return alike(halves, mask)

    def _judged_states(self, done: StateIteration) -> Generator[Event, None, StateIteration]:
        """Return the last iteration with states and uncertainties from the maps of the other half.

        States that were sought are laid into the frame of the first; all are made with all detail.
        """
        references, compared = self._references_of(done)
        stacks, found = [one.stack for one in done.each], list[Arrays]()
        for half in range(2):
            others = [maps[1 - half] for maps in references]
            pilots = self._pilots(stacks, done.states, self._half_rows[half], fresh=False)
            found.append(
                (
                    yield from self._align_states(
                        done.number + 1, half, stacks, others, compared, pilots
                    )
                )
            )
        states = self._states_of(found)
        both = {name: self._both(*(half[name] for half in found)) for name in SUMMARY}
        symmetry, judged, sought = self._config.symmetry, list[Iteration](), len(self._starts) == 1
        for state, one in enumerate(done.each):
            other = PoseSummary(*(both[name][:, state] for name in SUMMARY))
            other = replace(other, confidence=other.confidence * states.presence)
            summary = by_other_half(one.summary, other, symmetry)
            stack = _laid(one, done.each[0]) if state and sought else one.stack
            summary = replace(summary, rotations=stack.rotations())
            shifts_px = -stack.shifts_angstrom() / stack.pixel_size_angstrom
            likelihood = one.stack.particles["rlnLogLikeliContribution"].to_numpy(float)
            stack = with_alignment(stack, shifts_px, likelihood, summary, symmetry)
            stack = stack.with_columns({"cryospherePresence": states.presence})
            judged.append(replace(one, stack=stack.on_grid(self._stack.grid), summary=summary))
        summaries = [one.summary for one in judged]
        making = self._reconstructed(
            done.number, [one.stack for one in judged], summaries, done.states, compared
        )
        whole = yield from part_of(making, MAPS_OF_ITERATION)
        changes = [one.change_degrees for one in done.each]
        each = [
            replace(one, change_degrees=change)
            for one, change in zip(whole.each, changes, strict=True)
        ]
        order = np.arange(len(each))
        if sought:
            order = np.argsort(-states.shares, kind="stable")
        sorted_states = States(
            states.probabilities[:, order], states.shares[order], states.presence
        )
        return StateIteration(done.number, tuple(each[state] for state in order), sorted_states)


def _joined_mask(masks: Sequence[DensityMap]) -> DensityMap:
    """Return where any of several masks is."""
    return replace(masks[0], voxels=np.max([mask.voxels for mask in masks], axis=0))


def _laid(state: Iteration, first: Iteration) -> ParticleStack:
    """Return a state's particles with its map laid on the first's, as far as their likeness goes."""
    turn = align_near(first.maps.density, state.maps.density)
    angle = angular_error_degrees(turn.rotation[None], np.eye(3)[None])[0]
    if angle < _FRAME_DEGREES:
        return state.stack
    rotations = state.stack.rotations()
    centres = np.einsum("nji,j->ni", rotations, turn.shift_angstrom)[:, :2]
    shifts = state.stack.shifts_angstrom() - centres
    return state.stack.with_poses(turn.rotation.T @ rotations, shifts_angstrom=shifts)
