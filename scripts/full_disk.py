"""Let a disk be full at one write after another, and compare what is left with an undisturbed run.

    python scripts/full_disk.py --growth 4

Every job runs on a disk in memory (Linux, as root) that grows by some kilobytes after each failure,
until the job ends. Each failure must be one line, leave nothing half-written and no lock, and the
same command must go on: what it leaves in the end is, bit for bit, what an undisturbed run leaves.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "jobs"))

from test_interrupted import JOBS, Disk, digests, fill_disk, make_inputs, run

_KILOBYTES_A_PAGE = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--growth", type=int, default=_KILOBYTES_A_PAGE, help="kB a failure")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_inputs(folder)
        for job in options.jobs:
            whole = folder / f"whole_{job}"
            whole.mkdir()
            run(JOBS[job](folder, whole))
            disk = Disk(folder / f"disk_{job}")
            if not disk.ready:
                print("no disk of a given size can be mounted here (Linux, as root)")
                return 1
            try:
                failures = fill_disk(job, folder, digests(whole), disk, options.growth)
            finally:
                disk.close()
            print(f"{job}: full {len(failures)} times, then as undisturbed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
