"""Put small faults into rooms of the package, one at a time, and see whether the room's tests
notice.

    python scripts/mutate so3 imaging reconstruction --number 80 --seed 1

Faults are drawn from the room's lines, each line with the same probability, by the seed. A fault is
tried against the tests of its room that reach its line, and noticed if one of them fails, or takes
three times as long. One that goes unnoticed is a test that lacks, code that does nothing, or a
change of nothing (a faster path left out, a chunk of another size). The checkout is copied, never
changed.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from mutations import Mutation, mutations
from trials import Trials

ROOT = Path(__file__).resolve().parents[2]


def drawn(
    folder: Path, number: int, seed: int
) -> tuple[list[tuple[Path, Mutation]], dict[Path, ast.Module], int]:
    """Return faults of a folder's modules on different lines, the modules, and how many faults
    there are.
    """
    trees = {file: ast.parse(file.read_text()) for file in sorted(folder.glob("*.py"))}
    by_line: dict[tuple[Path, int], list[Mutation]] = defaultdict(list)
    for file, tree in trees.items():
        for mutation in mutations(tree):
            by_line[file, mutation.line].append(mutation)
    rng = random.Random(seed)
    lines = rng.sample(sorted(by_line), min(number, len(by_line)))
    return (
        [(line[0], rng.choice(by_line[line])) for line in lines],
        trees,
        sum(map(len, by_line.values())),
    )


def try_room(room: str, options: argparse.Namespace) -> Counter[str]:
    """Try faults of one room, print how each ended, and return how many ended how."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutate-") as scratch:
        trials = Trials(ROOT, room, Path(scratch))
        chosen, trees, possible = drawn(trials.folder, options.number, options.seed)
        started = time.monotonic()
        trials.measure(options.tests)
        print(
            f"{room}: {len(chosen)} of {possible} faults, {len(trials.lines)} tests "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )
        for place, (file, mutation) in enumerate(chosen):
            if options.only and place not in options.only:
                continue
            tests = trials.tests_of(file, mutation.first, mutation.last)
            verdict = trials.trial(file, mutation.source(trees[file]), tests)
            counts[verdict.name] += 1
            print(
                f"{room} {place:3d} {verdict.name:9s} {verdict.seconds:5.0f} s of {len(tests):3d} tests  "
                f"{file.name}:{mutation.line}:{mutation.column}: {mutation}"
                + (f"\n      {verdict.by[:150]}" if verdict.by else ""),
                flush=True,
            )
    return counts


def main() -> int:
    """Try the rooms that are named; return 1 if a fault went unnoticed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "rooms", nargs="+", help="folders of src/napari_cryosphere with tests in tests/ROOM"
    )
    parser.add_argument("--number", type=int, default=80, help="faults a room")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument(
        "--only", type=int, nargs="+", default=[], help="numbers of the faults to try again"
    )
    parser.add_argument(
        "--tests", default="", help="tests to run, as for pytest -k: leave out what takes long"
    )
    options = parser.parse_args()
    table = {room: try_room(room, options) for room in options.rooms}
    print("\n| room | faults | noticed | of these by time | unnoticed | in lines no test reaches |")
    print("|---|---|---|---|---|---|")
    for room, counts in table.items():
        noticed = counts["failed"] + counts["timeout"]
        print(
            f"| {room} | {counts.total()} | {noticed} | {counts['timeout']} | {counts['passed']} "
            f"| {counts['unreached']} |"
        )
    return int(any(counts["passed"] + counts["unreached"] for counts in table.values()))


if __name__ == "__main__":
    sys.exit(main())
