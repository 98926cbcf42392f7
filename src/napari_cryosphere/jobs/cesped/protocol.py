"""The job ``cesped run``: CESPED's gold-standard protocol on one entry.

Two models are trained, one on each half, and each predicts the poses of the other half. Half-maps
from these poses, their mean, and the poses themselves are compared with those of the truth. What
the paper's appendices add is done on request: refining the predicted poses locally (F), and models
of another entry (H).
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import numpy as np

from napari_cryosphere._files import refuse_overwrite
from napari_cryosphere.errors import CryosphereError, MetadataError
from napari_cryosphere.evaluation.cesped_report import Measured, report_files, write_report
from napari_cryosphere.evaluation.entries import HALVES, LocalEntry, local_entry
from napari_cryosphere.evaluation.half_maps import FIGURE_OF_MERIT
from napari_cryosphere.evaluation.matching import matched_halves
from napari_cryosphere.jobs.cesped.refinement import Refined, refine_predictions
from napari_cryosphere.jobs.cesped.transfer import frame_of
from napari_cryosphere.jobs.configs import InferConfig
from napari_cryosphere.jobs.configs.evaluation import CespedConfig, EvaluateConfig
from napari_cryosphere.jobs.configs.training import TrainConfig
from napari_cryosphere.jobs.evaluate import Evaluation, evaluate_halves, write_evaluation
from napari_cryosphere.jobs.events import Event, Events, Progress, Result
from napari_cryosphere.jobs.infer import infer
from napari_cryosphere.jobs.running.outputs import claims
from napari_cryosphere.jobs.running.references import open_mask
from napari_cryosphere.jobs.running.stages import ONE_HALF, Stages, result_of
from napari_cryosphere.jobs.train import train
from napari_cryosphere.model.pose_model import MODEL_FILE
from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["run_entry"]

# what predictions depend on; what comes after them is done again when a run is resumed
_MATTERS = (
    *("entry", "benchmark_dir", "minutes", "preset", "network", "train"),
    *("trained_on", "models", "confidence"),
)


@claims(folders=("output",))
def run_entry(config: CespedConfig) -> Events:
    """Run the protocol and write ``report.md``, ``report.csv`` and ``report.json``.

    Raises `CryosphereError` if the entry is not there, or its particles have no poses to learn
    from.
    """
    run = _Run(config)
    yield from run.train()
    yield from run.predict()
    found = yield from run.evaluate()
    refined = None
    if config.local_degrees is not None:
        refined = yield from refine_predictions(
            found, config, run.entry, run.mask, run.settings(), run.stages
        )
        write_evaluation(refined.evaluation, refined.settings, config.output / "refined")
    outputs = run.write_report(found, refined)
    yield Progress(1.0, "done")
    metrics = {name: value for name, value in found.values().items() if value is not None}
    yield Result({f"report_{name}": path for name, path in outputs.items()}, metrics)


class _Run:
    """One run: its entry, its folder, and what is done so far."""

    def __init__(self, config: CespedConfig) -> None:
        self.config, self.folder = config, config.output
        if not config.resume:
            for path in (self.folder / "stages.json", *report_files(self.folder).values()):
                refuse_overwrite(path, config.overwrite)
        self.entry = local_entry(config.benchmark_dir, config.entry)
        self.source: LocalEntry | None = None
        if config.trained_on is not None:
            self.source = local_entry(config.benchmark_dir, config.trained_on)
            if self.source.symmetry != self.entry.symmetry:
                raise MetadataError(
                    f"{config.trained_on} has the symmetry {self.source.symmetry}, {config.entry} "
                    f"{self.entry.symmetry}; train on an entry of the same molecule"
                )
        self.mask_file = config.mask or self.entry.mask
        self.mask: DensityMap | None = None
        self.notes: list[str] = []
        if self.mask_file is not None:
            opened = open_mask(self.mask_file, self.entry.read(HALVES[0]).grid, "the entry")
            self.mask, self.notes = opened.density, [note.text for note in opened.notes]
        described = config.model_dump(mode="json", exclude={"resume", "overwrite"})
        self.stages = Stages(self.folder, described, _MATTERS, config.resume)
        self.described = described

    def star(self, half: int) -> Path:
        """Return where the predicted poses of a half go."""
        return self.folder / f"predicted_{half}.star"

    def model(self, half: int) -> Path:
        """Return the run folder of the model that is trained on a half."""
        return (self.config.models or self.folder) / f"model_{half}"

    def train(self) -> Generator[Event, None, None]:
        """Train the two models, unless another run's are used."""
        if self.config.models is not None:
            missing = [
                self.model(half) for half in HALVES if not (self.model(half) / MODEL_FILE).is_file()
            ]
            if missing:
                raise CryosphereError(
                    f"{missing[0]} holds no {MODEL_FILE}; give the output of 'cesped run'"
                )
            return
        entry = self.source or self.entry
        for half in HALVES:
            given = {
                "particles": entry.star(half),
                "output": self.model(half),
                "symmetry": entry.symmetry,
                "minutes": self.config.minutes,
                "preset": self.config.preset,
                "network": self.config.network,
                "device": self.config.device,
                "overwrite": True,
            } | self.config.train
            settings = TrainConfig.model_validate({k: v for k, v in given.items() if v is not None})
            if self.config.resume and settings.checkpoint.is_file():
                settings = settings.model_copy(update={"resume": True})
            work = result_of(train(settings), f"training on half {half}", ONE_HALF)
            yield from self.stages.once(f"train_{half}", work, 0.4 * half, 0.4)

    def predict(self) -> Generator[Event, None, None]:
        """Predict each half's poses by the model that was trained on the other half."""
        for half in HALVES:
            yield from self.stages.once(
                f"predict_{half}", self._predicted(half), 0.8 + 0.02 * half, 0.02
            )

    def _predicted(self, half: int) -> Generator[Event, None, None]:
        """Predict a half; the confidence also goes to the column by which CESPED weighs particles."""
        settings = InferConfig(
            particles=self.entry.star(half),
            model=self.model(1 - half),
            output=self.star(half),
            device=self.config.device,
            overwrite=True,
        )
        yield from result_of(infer(settings), f"predicting half {half}", ONE_HALF)
        if self.config.confidence != "none":
            stack = ParticleStack.read(self.star(half))
            merit = stack.particles[self.config.confidence].to_numpy(dtype=np.float64)
            stack.with_columns({FIGURE_OF_MERIT: merit}).save(self.star(half), overwrite=True)

    def evaluate(self) -> Generator[Event, None, Evaluation]:
        """Compare poses and maps with the truth's."""
        truth = [self.entry.read(half) for half in HALVES]
        predicted = [ParticleStack.read(self.star(half)) for half in HALVES]
        if self.source is not None:
            turn, said = yield from frame_of(self.entry, self.source)
            self.notes.append(said)
            predicted = [
                stack.with_poses(turn @ stack.rotations(), symmetry=self.entry.symmetry)
                for stack in predicted
            ]
        settings = self.settings()
        work = evaluate_halves(matched_halves(truth, predicted), settings, self.mask)
        found = yield from self.stages.timed("evaluate", work, 0.84, 0.06)
        write_evaluation(found, settings, settings.output)
        return found

    def settings(self) -> EvaluateConfig:
        """Return how predictions are evaluated."""
        return EvaluateConfig(
            truth=tuple(self.entry.star(half) for half in HALVES),
            predicted=tuple(self.star(half) for half in HALVES),
            output=self.folder / "evaluation",
            symmetry=self.entry.symmetry,
            mask=self.mask_file,
            maps=True,
            predicts=self.config.predicts,
            weighted=self.config.confidence != "none",
            relion=self.config.relion,
            overwrite=True,
        )

    def write_report(self, found: Evaluation, refined: Refined | None) -> dict[str, Path]:
        """Write the report next to the published values."""
        name, simulated = self.entry.name, self.entry.simulated
        lines = [Measured(name, found.values(), simulated, tuple(self.notes))]
        if refined is not None:
            label = f"{name}, refined within {self.config.local_degrees:g}°"
            note = f"{self.config.rounds} rounds of reconstruction and align --local, each half by itself."
            lines.append(Measured(label, refined.evaluation.values(), simulated, (note,)))
            lines += [
                Measured(f"{name}, {what}", other.values(), simulated)
                for what, other in refined.others.items()
            ]
        details = f"## Config\n\n```json\n{json.dumps(self.described, indent=2)}\n```\n"
        title = f"CESPED protocol on {name}"
        return write_report(
            lines, self.folder, title, self.stages.markdown() + details, overwrite=True
        )
