"""Kill runs with SIGKILL at random moments, let them go on, and compare with runs that nobody killed.

    python scripts/random_kills.py --kills 100 --seed 1

Every job in turn is killed up to three times at a random moment, then runs to its end. What it
leaves must be, bit for bit, what an uninterrupted run leaves, without a temporary file.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "jobs"))

from test_interrupted import JOBS, digests, kill_at_random, make_inputs, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    options = parser.parse_args()
    rng, killed, runs, wrong = random.Random(options.seed), Counter[str](), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        wanted = {}
        for job in options.jobs:
            (folder / f"whole_{job}").mkdir()
            run(JOBS[job](folder, folder / f"whole_{job}"))
            wanted[job] = digests(folder / f"whole_{job}")
        while killed.total() < options.kills:
            job = options.jobs[runs % len(options.jobs)]
            out = folder / f"run{runs}"
            out.mkdir()
            left = min(3, options.kills - killed.total())
            killed[job] += kill_at_random(job, folder, out, rng, left, 3.0)
            runs += 1
            if digests(out) != wanted[job]:
                wrong += 1
                print(f"{job}: differs: {digests(out).items() ^ wanted[job].items()}", flush=True)
            print(f"{killed.total()} kills, {runs} runs, {wrong} that differ", flush=True)
    print(dict(killed))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
