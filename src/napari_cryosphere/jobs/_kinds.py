"""Kinds of particles, told apart before any of their maps is known for sure.

A search with several maps shares particles out long before the maps are right: of a complex and another
molecule after 10 steps. But it shares out particles of one kind as well. So each half of the particles is
searched on its own, and kinds are what the maps of both make of the same particles alike.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import softmax

from napari_cryosphere.jobs._searches import Searches
from napari_cryosphere.jobs.configs import SearchingConfig
from napari_cryosphere.jobs.events import Event, Note, between, part_of
from napari_cryosphere.jobs.running.journal import Finished
from napari_cryosphere.particles import ParticleStack

__all__ = ["ALIKE", "alike", "kinds_of", "shared_kinds"]

_STEPS = 25  # of a search with several maps; chosen: 10 were enough for another molecule
_JUDGED = 2  # first key of what searches say; 0 and 1 are those of the searches
ALIKE = 0.5
"""How far two divisions of the same particles have to agree (`alike`): 1.00 for a GPCR complex and
beta-galactosidase, 0.15 at most where the complex alone was divided."""


def kinds_of(
    stack: ParticleStack, config: SearchingConfig, journal: Finished
) -> Generator[Event, None, NDArray[np.int64]]:
    """Return which kind each particle is of, ``(n,)``, 0 the most frequent; 0 for all if there is one.

    ``stack``, ``config``: particles with half sets, and settings. ``journal``: keeps the searches,
    and what they say of the particles.
    """
    judged = yield from _judged(stack, config, journal)
    groups = shared_kinds(*judged)
    number = len(np.unique(groups[0]))
    # by the maps of the half that a particle is not in
    columns = [
        np.stack([one[:, of == group].sum(1) for group in range(number)], axis=1)
        for one, of in zip(judged, groups, strict=True)
    ]
    kinds = np.where((stack.half_sets() == 1)[:, None], columns[1], columns[0]).argmax(1)
    counts = np.bincount(kinds, minlength=number)
    number = int((counts > 0).sum())
    text = "one kind of particles is" if number == 1 else f"{number} kinds of particles are"
    yield Note(
        f"of {config.classes} {text} seen in both halves alike"
        + ("" if number == 1 else f": {', '.join(map(str, np.sort(counts)[::-1][:number]))}")
    )
    return np.argsort(np.argsort(-counts, kind="stable"))[kinds]


def _judged(
    stack: ParticleStack, config: SearchingConfig, journal: Finished
) -> Generator[Event, None, list[NDArray[np.float64]]]:
    """Return the probabilities of all particles' states by a search on each half, ``(n, k)`` each."""
    keys, name = [_JUDGED + half for half in (0, 1)], "probabilities"
    if not all(key in journal for key in keys):
        searches = Searches(stack, config, journal, config.classes)
        for half, key in enumerate(keys):
            begun = between(0.5 * half, 0.5 * half + 0.45)
            found = yield from part_of(searches.run(0, half, _STEPS), begun)
            if key in journal:
                continue
            ended = between(0.5 * half + 0.45, 0.5 * half + 0.5)
            logs = yield from part_of(searches.judged(stack, found), ended)
            journal.write(key, {name: softmax(logs, axis=1)})
    return [journal.read(key, [name])[name] for key in keys]


def shared_kinds(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which group each of two searches' states is in, ``(k,)`` each, by how they divide particles.

    States that share most of their particles are in one group. A group that both searches do not fill with
    the same particles is added to the one that it shares most with.

    ``first``, ``second``, ``(n, k)``: probabilities of each search's states, of the same particles.
    """
    common = first.T @ second
    number = len(common)
    each = np.arange(number)
    rows = np.concatenate([each, common.argmax(0)])
    columns = number + np.concatenate([common.argmax(1), each])
    links = coo_array((np.ones(2 * number), (rows, columns)), shape=(2 * number, 2 * number))
    _, groups = connected_components(links, directed=False)
    one, other = groups[:number].astype(np.int64), groups[number:].astype(np.int64)
    while (several := int(one.max()) + 1) > 1:
        parts = [
            np.stack([of[:, groups == group].sum(1) for group in range(several)], axis=1)
            for of, groups in ((first, one), (second, other))
        ]
        agreed = [alike(*(part[:, group] for part in parts)) for group in range(several)]
        worst = int(np.argmin(agreed))
        if agreed[worst] >= ALIKE:
            break
        shared = parts[0].T @ parts[1]
        confused = shared[worst] + shared[:, worst]
        confused[worst] = -1
        into = int(confused.argmax())
        for groups in (one, other):
            groups[groups == worst] = into
            groups[groups > worst] -= 1
    return one, other


def alike(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return how far two probabilities divide the same particles alike: 1 if surely, 0 if by chance.

    Their covariance, over that of divisions with the same shares which are sure. So probabilities that hardly
    differ between particles count for little, be they correlated: those of noise are, by up to 0.8.
    """
    shares = float(first.mean()), float(second.mean())
    most = np.sqrt(np.prod([share * (1 - share) for share in shares]))
    common = float(np.mean((first - shares[0]) * (second - shares[1])))
    return common / float(most) if most > 0 else 0.0
