"""The README's results and the figures of the docs, from the JSON files that benchmarks have written.

``python scripts/results.py`` writes both anew; ``--check`` says whether the README quotes the files.
`docs/results/NAME.json` is what ``python benchmarks/SCRIPT.py --json docs/results/NAME.json`` wrote on
the machine named in it (`demo.json`: metrics.json of ``make demo``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, IMAGES, README = ROOT / "docs" / "results", ROOT / "docs" / "images", ROOT / "README.md"
BEGIN, END = "<!-- results: written by scripts/results.py -->\n", "<!-- end of results -->"
OURS, OTHERS = "#3b5bdb", "#adb5bd"
_TICKS_MS = (10, 20, 50, 100, 200, 500)
INCHES, DPI = (5.2, 3.4), 130


def row(name: str, **wanted: object) -> dict[str, Any]:
    """Return the row of a benchmark whose columns have the values wanted; of all its files.

    Raises
    ------
    LookupError
        If there is none.
    """
    for path in sorted(RESULTS.glob(f"{name}*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for each in content.get("rows", [content]):
            if all(each.get(column) == value for column, value in wanted.items()):
                return dict(each)
    raise LookupError(f"docs/results/{name}*.json: no row with {wanted}")


def results() -> Iterator[tuple[str, str, str]]:
    """Yield the README's lines: task, result, and the command that gives it; what was not run is left out."""
    for task, told, command in _LINES:
        with suppress(LookupError):
            yield task, told(), command


def _errors(degrees: float, beyond_percent: float) -> str:
    return f"median {degrees:.2f} degrees, {_percent(beyond_percent)} beyond 30"


def _percent(value: float) -> str:
    return "none" if value == 0 else f"{value:.1f} %"


def _demo() -> str:
    demo = row("demo")
    errors = _errors(demo["median_pose_error_degrees"], 100 * demo["fraction_beyond_30_degrees"])
    return (
        f"{errors}; map at {demo['resolution_to_truth_05_angstrom']:.1f} A to the truth (FSC 0.5), "
        f"masked correlation {demo['masked_correlation_to_truth']:.3f}"
    )


def _align(task: str) -> str:
    one = row("alignment-comparison", task=task)
    theirs = _errors(one["relion_degrees"], one["relion_beyond_30_%"])
    return (
        f"{_errors(one['ours_degrees'], one['ours_beyond_30_%'])}, shifts "
        f"{one['ours_shift_px']:.2f} px, {one['ours_cpu_s']:.1f} CPU s (RELION 3.1.3: {theirs}, "
        f"{one['ratio']:.0f} times the CPU)"
    )


def _posteriors() -> str:
    sets = [row("alignment-calibration", set=name) for name in ("ribo70S_test", "betagalD2_test")]
    shares = [" and ".join(f"{one[f'in_{part}_%_set']:.1f} %" for one in sets) for part in (50, 90)]
    return f"50 % sets: {shares[0]}; 90 % sets: {shares[1]} (ribosome and beta-galactosidase)"


def _realistic() -> str:
    rungs = [row("realistic", set=name) for name in ("r0", "r1", "r2", "r4", "all")]
    ours, theirs = ([one[f"{who}beyond_30_%"] for one in rungs] for who in ("", "relion_"))
    junk = [one["auroc_junk"] for one in rungs if one["set"] in ("r2", "all")]
    return (
        f"{min(ours):.1f} to {max(ours):.1f} % of good particles beyond 30 degrees (RELION: "
        f"{min(theirs):.1f} to {max(theirs):.1f} %); `cryospherePresence` ranks junk with AUROC "
        f"{min(junk):.3f} to {max(junk):.3f}"
    )


def _states() -> str:
    one = row("states")
    return (
        f"AUROC of the state {one['auroc']:.4f}; poses of the second state to "
        f"{one['two_maps_median_degrees_state_2']:.1f} degrees "
        f"({one['one_map_median_degrees_state_2']:.1f} with the first map alone)"
    )


def _found_states() -> str:
    one, seeds = row("states"), range(3)
    own, rank = (
        [one[f"refine_one_map_seed_{seed}_{what}"] for seed in seeds]
        for what in ("own_percent_state_2", "auroc")
    )
    return (
        f"{min(own):.0f} to {max(own):.0f} % of the second state's in their own class, "
        f"AUROC {min(rank):.4f} to {max(rank):.4f}"
    )


def _learnt_states() -> str:
    one = row("states")
    return (
        f"AUROC of the state {one['network_auroc']:.2f}, {one['network_right_percent']:.0f} % right where it "
        f"claims {100 * one['network_mean_probability_of_chosen']:.0f} % (`align` with both maps: "
        f"{one['align_right_percent']:.0f} % right)"
    )


def _refined(sample: str) -> str:
    one = row("refinement", sample=sample, program="napari-cryosphere")
    return (
        f"{_errors(one['median_degrees'], one['beyond_30_percent'])}, half-maps "
        f"{one['fsc_0143_angstrom']:.1f} A, {one['cpu_s']:.0f} CPU s"
    )


def _real() -> str:
    one = row("apoferritin")
    return (
        f"half-maps {one['fsc_0143_angstrom']:.1f} A (FSC 0.143) and {one['fsc_05_angstrom']:.1f} A (0.5), "
        f"mean confidence {one['mean_confidence']:.2f}, {one['cpu_s']:.0f} CPU s"
    )


def _alone(sample: str) -> str:
    one = row("abinitio", sample=sample)
    return (
        f"{_errors(one['refined_median_degrees'], one['refined_beyond_30_percent'])}, masked correlation "
        f"{one['refined_correlation']:.3f}, {one['abinitio_cpu_s'] + one['refine_cpu_s']:.0f} CPU s"
    )


_LINES: list[tuple[str, Callable[[], str], str]] = [
    (
        "1000 simulated particles (SNR 0.3), the shipped model, a map from its poses",
        _demo,
        "make demo",
    ),
    (
        "`align` from nothing: 500 ribosome particles (70S, SNR 0.05), true map at 20 A",
        lambda: _align("70S from nothing, map 20 A"),
        "benchmarks/alignment.py",
    ),
    (
        "`align` from nothing: 500 beta-galactosidase particles (D2), true map",
        lambda: _align("D2 from nothing, map full"),
        "benchmarks/alignment.py",
    ),
    (
        "do its posteriors hold the truth (map, CTF and noise known)?",
        _posteriors,
        "benchmarks/alignment.py",
    ),
    (
        "`align` on five realistic simulations: solvent noise, gradients, neighbours, a second state, junk, "
        "wrong CTFs",
        _realistic,
        "benchmarks/realistic.py",
    ),
    (
        "`align` with the maps of two states, 400 realistic particles",
        _states,
        "benchmarks/states.py",
    ),
    (
        "`refine --classes 2` from the first state's map alone, 1500 simulated particles (SNR 0.05, 30 % "
        "in the second state), three seeds",
        _found_states,
        "benchmarks/states.py",
    ),
    (
        "a network that tells two states apart, 12 minutes on a busy machine, 1000 others (SNR 0.05)",
        _learnt_states,
        "benchmarks/states.py",
    ),
    (
        "`refine`: 2000 beta-galactosidase particles, true map at 40 A",
        lambda: _refined("betagalD2"),
        "benchmarks/refinement.py",
    ),
    (
        "`refine`: 4000 ribosome particles, true map at 40 A",
        lambda: _refined("ribo70S"),
        "benchmarks/refinement.py",
    ),
    (
        "`refine`: 1865 real apoferritin particles (octahedral), atomic model's map at 30 A",
        _real,
        "examples/apoferritin/run.py",
    ),
    (
        "images alone, `abinitio` and `refine`: 2000 beta-galactosidase particles",
        lambda: _alone("betagalD2"),
        "benchmarks/abinitio.py",
    ),
    (
        "images alone, `abinitio` and `refine`: 4000 ribosome particles",
        lambda: _alone("ribo70S"),
        "benchmarks/abinitio.py",
    ),
]


def table() -> str:
    """Return the README's table with its markers."""
    cells = ["| task | result | from |", "|---|---|---|"]
    cells += [f"| {task} | {result} | `{command}` |" for task, result, command in results()]
    return BEGIN + "\n".join(cells) + "\n" + END


def quoted(readme: str) -> str:
    """Return the part of the README between the markers, these included."""
    return readme[readme.index(BEGIN) : readme.index(END) + len(END)]


def draw() -> None:
    """Draw the figures of the docs."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    for name, drawn in (("alignment", _draw_alignment), ("realistic", _draw_realistic)):
        if not list(RESULTS.glob(f"{name}*.json")):
            continue
        figure, axes = plt.subplots(figsize=INCHES, dpi=DPI, layout="constrained")
        drawn(axes)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(IMAGES / f"results_{name}.png", metadata={"Software": None})
        plt.close(figure)


def _draw_alignment(axes: Any) -> None:
    """Error against CPU time, one line from RELION to this package per task."""
    for task in (
        "70S from nothing, map 20 A",
        "D2 from nothing, map full",
    ):
        one = row("alignment-comparison", task=task)
        cost = [1e3 * one[f"{who}_cpu_s"] / one["particles"] for who in ("relion", "ours")]
        error = [one[f"{who}_degrees"] for who in ("relion", "ours")]
        axes.plot(cost, error, color=OTHERS, linewidth=1, zorder=1)
        axes.scatter(cost[:1], error[:1], color=OTHERS, label="RELION 3.1.3", zorder=2)
        axes.scatter(cost[1:], error[1:], color=OURS, label="align", zorder=2)
        axes.annotate(
            task.replace(" from nothing, map", ","),
            (cost[1], error[1]),
            (8, -12),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set(
        xscale="log",
        xlabel="CPU ms per particle, start included",
        ylabel="median error (degrees)",
        ylim=(0, None),
    )
    axes.set_xticks(_TICKS_MS, [str(tick) for tick in _TICKS_MS])
    axes.minorticks_off()
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:2], labels[:2], frameon=False, loc="upper left")


def _draw_realistic(axes: Any) -> None:
    """Particles lost, rung by rung, next to RELION's."""
    names = {
        "r0": "base",
        "r1": "contrast,\nneighbours",
        "r2": "15 % junk",
        "r4": "second\nstate",
        "all": "everything",
    }
    rungs = [row("realistic", set=name) for name in names]
    for offset, who, color, label in (
        (-0.2, "", OURS, "align"),
        (0.2, "relion_", OTHERS, "RELION 3.1.3"),
    ):
        places = [number + offset for number in range(len(rungs))]
        axes.bar(
            places, [one[f"{who}beyond_30_%"] for one in rungs], 0.38, color=color, label=label
        )
    axes.set(
        xticks=range(len(rungs)),
        xticklabels=list(names.values()),
        ylabel="good particles beyond 30 degrees (%)",
    )
    axes.legend(frameon=False)


def main() -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the README differs"
    )
    arguments = parser.parse_args()
    readme = README.read_text(encoding="utf-8")
    if arguments.check:
        return int(quoted(readme) != table())
    README.write_text(readme.replace(quoted(readme), table()), encoding="utf-8")
    draw()
    return 0


if __name__ == "__main__":
    sys.exit(main())
