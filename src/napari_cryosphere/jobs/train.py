"""The job ``train``: a run folder with a model in it. Under torchrun all ranks train one network."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_cryosphere._files import append_line, atomic_path, refuse_overwrite, write_json
from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs._training_data import TrainingData, training_data
from napari_cryosphere.jobs._training_sets import TrainingSets
from napari_cryosphere.jobs.configs.training import TrainConfig, TrainingConfig
from napari_cryosphere.jobs.events import Event, Events, Note, Preview, Progress, Result
from napari_cryosphere.jobs.running.compute import choose_device
from napari_cryosphere.jobs.running.inputs import warnings_of
from napari_cryosphere.jobs.running.outputs import claimed
from napari_cryosphere.jobs.running.ranks import Ranks, current_ranks
from napari_cryosphere.jobs.running.references import open_reference
from napari_cryosphere.jobs.running.run_folder import OF_ANY_STATE, remove_stale
from napari_cryosphere.model.card import (
    Calibration,
    ModelCard,
    NetworkConfig,
    NoveltyCard,
    PolarConfig,
    ShiftCard,
    StateCard,
)
from napari_cryosphere.model.image2sphere import Image2Sphere
from napari_cryosphere.model.novelty import FALSE_ALARM_RATE, Novelty
from napari_cryosphere.model.pose_model import MODEL_FILE, PoseModel, build_network, temperatures
from napari_cryosphere.model.pose_network import PoseNetwork, Shifts
from napari_cryosphere.particles import DensityMap, ParticleStack, spread_rows
from napari_cryosphere.so3.distributions import HarmonicDistribution
from napari_cryosphere.so3.symmetry import angular_error_degrees
from napari_cryosphere.training.calibration import (
    calibrate,
    calibrate_shifts,
    calibrate_states,
    tempered,
)
from napari_cryosphere.training.events import TrainingProgress
from napari_cryosphere.training.loop import LoopSettings, ValidationSet, train_network
from napari_cryosphere.training.presets import PRESETS
from napari_cryosphere.training.team import threads_for
from napari_cryosphere.training.trainer import Optimisation, Trainer

__all__ = ["train", "train_on_stack", "train_stack"]

_VALIDATIONS = 10  # over a run, where nobody watches
_PREVIEWED = 8  # particles whose predictions are shown while the network learns: two rows of four
_REPORT_SECONDS = 10.0  # between reports; chosen, not tuned
_CALIBRATED = 250  # held-out particles at most: what a temperature is fitted to
_MOST_STATES = 20  # as PolarConfig.states has it
_FEWEST_OF_STATE = 20  # particles, whose map says next to nothing; chosen, not tuned
_DESCRIBED = 5000  # training particles at most: what novelty is measured from

_MAY_CHANGE = ("overwrite", "resume", "device", "data_dir", "checkpoint_seconds", "output")
"""What a run may be taken up with another value of; its folder may be named otherwise, or have moved."""


def train(config: TrainConfig) -> Events:
    """Train on the particles that the config names."""
    sets = TrainingSets.open(config)
    yield from sets.frame_warnings(config.symmetry)
    yield from _claimed(sets, config, _REPORT_SECONDS)


def train_on_stack(
    stack: ParticleStack, config: TrainConfig, report_seconds: float = _REPORT_SECONDS
) -> Events:
    """Train on particles in memory; ``config.particles`` is only recorded.

    The run folder gets ``config.json`` at the start, a line in ``log.jsonl`` for every report, the
    state in ``checkpoint.safetensors`` every minute, and ``model.safetensors`` at the end; an
    earlier model there is replaced only then. Stopped early, the model learnt so far is written,
    and the state stays; it can be stopped at a report, of which there is one every
    ``report_seconds``.

    Under torchrun the ranks share every batch, and the first one writes. The model is that of one
    process to rounding.

    Raises `MetadataError` if the particles have no poses or are too few. Raises `CryosphereError`
    if a run is to be taken up that has ended or was another. One that is not there is begun.
    """
    yield from _claimed(TrainingSets([stack]), config, report_seconds)


def _claimed(sets: TrainingSets, config: TrainConfig, report_seconds: float) -> Events:
    """Train in a run folder that no other process writes to."""
    init = None if config.init is None else PoseModel.load(config.init)
    if init is not None:
        config = config.model_copy(update={"network": _network_of(init, config)})
    with claimed(folders=[config.output]):
        yield from _train(sets, config, report_seconds, init)


def _train(
    sets: TrainingSets, config: TrainConfig, report_seconds: float, init: PoseModel | None
) -> Events:
    ranks = current_ranks()
    resumed = ranks.of_first(lambda: "goes on" if _goes_on(config) else "begins") == "goes on"
    if ranks.first and not resumed:
        remove_stale(config.output, [f"map{OF_ANY_STATE}.mrc"], [])
    density = None
    if config.map is not None:
        opened = open_reference(config, config.map, sets.stack.grid)
        yield from opened.notes
        density = opened.density
    about = {
        "particles": ", ".join(path.name for path in config.particles),
        "map": None if config.map is None else config.map.name,
    }
    training = yield from _begun(
        sets, config, density, about, ranks, config.output, init, config.encoder_weights
    )
    limits = {
        "checkpoint": config.checkpoint,
        "checkpoint_seconds": config.checkpoint_seconds,
        "report_seconds": report_seconds,
    }
    reports = training.reports(resumed, **limits)
    if not ranks.first:
        for report in reports:
            yield _progress(report)
        yield Result({}, {})
        return
    write_json(config.model_dump(mode="json"), config.output / "config.json", overwrite=True)
    log = _Log(config.output / "log.jsonl", resumed)
    model_path = config.output / MODEL_FILE
    try:
        yield from training.follow(reports, log.add)
    finally:
        reports.close()
        if training.last is not None:
            training.model().save(model_path, overwrite=True)
    metrics = training.metrics()
    config.checkpoint.unlink(missing_ok=True)
    yield Result({"run": config.output, "model": model_path, "log": log.path}, metrics)


def train_stack(
    stack: ParticleStack,
    config: TrainingConfig,
    density: DensityMap | None = None,
    init: PoseModel | None = None,
) -> Generator[Event, None, PoseModel]:
    """Train on particles and return the model; nothing is written.

    ``stack``: particles with poses. ``density``: map to make projections of; None makes it from the
    particles where one is needed. ``init``: model to begin with; None begins with random weights.
    Raises `MetadataError` if the particles have no poses or are too few; `CryosphereError` if the
    config names another network than ``init`` has.
    """
    if init is not None:
        config = config.model_copy(update={"network": _network_of(init, config)})
    about = {"particles": stack.source.name, "map": None}
    sets = TrainingSets([stack])
    training = yield from _begun(sets, config, density, about, Ranks(), init=init)
    reports = training.reports(resumed=False, report_seconds=_REPORT_SECONDS)
    with closing(reports):
        yield from training.follow(reports)
    return training.model()


def _begun(
    sets: TrainingSets,
    config: TrainingConfig,
    density: DensityMap | None,
    about: dict[str, str | None],
    ranks: Ranks,
    folder: Path | None = None,
    init: PoseModel | None = None,
    encoder_weights: Path | None = None,
) -> Generator[Event, None, _Training]:
    """Prepare the particles and a network with its first weights."""
    yield from warnings_of(sets.stack)
    config = yield from _telling_states(sets, config, density)
    torch.manual_seed(config.seed)
    network = build_network(
        config.network
    )  # what cannot be made is said before images are prepared
    data = yield from training_data(sets.stack, config, density, folder, ranks)
    card = ModelCard(
        network=config.network,
        pixel_size_angstrom=data.grid.pixel_size_angstrom,
        symmetry=config.symmetry,
        map_resolution_angstrom=data.map_resolution_angstrom,
    )
    model = PoseModel(network, card).to(choose_device(config.device))
    if init is not None:
        _begin_with(model.network, init.network)
    if encoder_weights is not None:
        _load_encoder(model.network, encoder_weights)
    optimisation = Optimisation(
        config.learning_rate,
        config.weight_decay,
        optimizer=config.optimizer,
        loss_order=config.loss_order,
        seed=config.seed,
    )
    size = min(config.batch_size, len(data.images))
    threads = threads_for(model.network, size, ranks.count)
    trainer = Trainer(model.network, config.symmetry, optimisation, ranks.replicas(), threads)
    return _Training(trainer, card, config, data, about, sets)


def _telling_states(
    sets: TrainingSets, config: TrainingConfig, density: DensityMap | None
) -> Generator[Event, None, TrainingConfig]:
    """Return the config of a network that tells the particles' states apart, where it can learn them.

    Raises `CryosphereError` if the config asks for another number of states.
    """
    network, number = config.network, max(sets.states)
    if not isinstance(network, PolarConfig):
        if number > 1:
            yield _states_not_learnt(number, f"a network of kind {network.kind} has no states")
        return config
    if network.states not in (1, number):
        raise CryosphereError(
            f"network.states is {network.states}, the particles have {number}; omit it: the network has as "
            "many states as the particles"
        )
    why = _against_states(sets, config, density) if number > 1 else ""
    if why:
        yield _states_not_learnt(number, why)
        number = 1
    elif number > 1 and len(sets.states) > 1:
        text = f"states 1 to {number} are taken as the same in all data sets"
        yield Note(text, warning=True)
    return config.model_copy(update={"network": network.model_copy(update={"states": number})})


def _states_not_learnt(number: int, why: str) -> Note:
    return Note(f"the particles' {number} states are not learnt: {why}")


def _against_states(sets: TrainingSets, config: TrainingConfig, density: DensityMap | None) -> str:
    """Return why the states of particles cannot be learnt, in words; nothing if they can."""
    if density is not None or config.labels is not None:
        return "projections are those of one map"
    if len(set(sets.states)) > 1:
        each = zip(sets.names, sets.states, strict=True)
        return ", ".join(f"{name} has {number}" for name, number in each)
    if max(sets.states) > _MOST_STATES:
        return f"a network tells {_MOST_STATES} apart at most"
    probabilities = sets.stack.state_probabilities()
    assert probabilities is not None
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    rarest = int(counts.argmin())
    few = counts[rarest] < _FEWEST_OF_STATE
    return f"state {rarest + 1} has {counts[rarest]} particles" if few else ""


def _begin_with(network: PoseNetwork, first: PoseNetwork) -> None:
    """Give a network another's weights; those that tell states apart if both tell as many."""
    own, weights = network.state_dict(), first.state_dict()
    if own.keys() != weights.keys():  # a head for each state
        weights = {name: weights.get(name, own[name]) for name in own}
        weights |= {name: own[name] for name in own if name.startswith("state_head.")}
    network.load_state_dict(weights)


class _Training:
    """A training run in memory: its reports as events, and the model that it gives.

    ``last``: the last report; None before the first.
    """

    def __init__(
        self,
        trainer: Trainer,
        card: ModelCard,
        config: TrainingConfig,
        data: TrainingData,
        about: dict[str, str | None],
        sets: TrainingSets,
    ) -> None:
        self._trainer, self._card, self._config, self._data = trainer, card, config, data
        self._about, self._start, self._sets = about, time.monotonic(), sets
        self._errors: list[dict[str, float | int | str]] = []
        self._calibration = Calibration()
        learns_shifts = getattr(config.network, "shifts", False) and config.labels is None
        known = learns_shifts and data.validation.shifts_px is not None
        self._shifts = ShiftCard() if known else None
        self._states = None if data.validation.states is None else StateCard()
        self.last: TrainingProgress | None = None

    def reports(self, resumed: bool, **limits: Any) -> Generator[TrainingProgress, None, None]:
        """Train; yields reports."""
        settings = _loop_settings(self._config, len(self._data.images), **limits)
        symmetry, data = self._config.symmetry, self._data
        return train_network(
            self._trainer, data.source, data.validation, symmetry, settings, resumed
        )

    def follow(
        self,
        reports: Generator[TrainingProgress, None, None],
        note: Callable[[TrainingProgress], None] | None = None,
    ) -> Events:
        """Turn reports into events and calibrate at the end. Raises `CryosphereError` without a report."""
        for report in reports:
            self.last = report
            if note is not None:
                note(report)
            yield _progress(report, self._data.grid.pixel_size_angstrom)
            if report.predicted is not None:
                few = report.predicted[:_PREVIEWED]
                yield Preview(report.fraction, self._data.held_out[: len(few)], few)
        if self.last is None:
            raise CryosphereError(
                "the training run ended before its first report; give it more time or particles"
            )
        if self.last.predicted is not None:
            yield Progress(1.0, "calibrating on held-out particles")
            self._calibration = _calibrated(self.last.predicted, self._data.validation)
            self._shifts = self._calibrated_shifts(self.last.predicted_shifts)
            self._states = self._calibrated_states(self.last)
            yield from self._judged_by_set(self.last.predicted)

    def _judged_by_set(self, predicted: HarmonicDistribution) -> Iterator[Note]:
        """Keep and say how far held-out particles of each data set are off, if there are several."""
        if len(self._sets.names) == 1:
            return
        truth, symmetry = self._data.validation.rotations, self._config.symmetry
        rows = self._data.held_out[: len(predicted)]
        found = predicted.summary().rotations
        degrees = angular_error_degrees(truth[: len(rows)], found, symmetry)
        self._errors = self._sets.errors(rows, degrees)
        parts = (
            f"{one['particles']} {one['validation_median_degrees']:.1f} degrees ({one['held_out']})"
            for one in self._errors
        )
        yield Note(f"median error on held-out particles: {', '.join(parts)}")

    def _calibrated_states(self, last: TrainingProgress) -> StateCard | None:
        states, validation = last.predicted_states, self._data.validation
        if last.predicted is None or states is None or validation.states is None:
            return self._states
        poses = tempered(last.predicted, temperatures(self._calibration, validation.ctf))
        return calibrate_states(states, poses, validation.states)

    def _calibrated_shifts(self, predicted: Shifts | None) -> ShiftCard | None:
        known, pixel = self._data.validation.shifts_px, self._data.grid.pixel_size_angstrom
        if self._shifts is None or predicted is None or known is None:
            return self._shifts
        return calibrate_shifts(predicted, known, pixel)

    def model(self) -> PoseModel:
        """Return the model learnt so far."""
        assert self.last is not None
        update = {
            "training": self._summary(self.last),
            "calibration": self._calibration,
            "shifts": self._shifts,
            "states": self._states,
        }
        done = PoseModel(self._trainer.averaged(), self._card.model_copy(update=update))
        return _with_novelty(done, self._data)

    def metrics(self) -> dict[str, float | int | str]:
        """Return the values that a run ends with."""
        assert self.last is not None
        metrics: dict[str, float | int | str] = {
            "images": self.last.images,
            "loss": self.last.loss,
            "seconds": time.monotonic() - self._start,
            "temperature": self._calibration.temperature,
        }
        if self.last.validation_median_degrees is not None:
            metrics["validation_median_degrees"] = self.last.validation_median_degrees
        if self._shifts is not None and self._shifts.median_angstrom is not None:
            metrics["validation_shift_angstrom"] = self._shifts.median_angstrom
        if self._states is not None and self._states.agreement is not None:
            metrics["validation_state_agreement"] = self._states.agreement
        return metrics

    def _summary(self, last: TrainingProgress) -> dict[str, Any]:
        """Return what the card says of how the model came to be."""
        return {
            "particles": self._about["particles"],
            "number": len(self._data.images),
            "source": self._config.source,
            "map": self._about["map"],
            "preset": self._config.preset,
            "images": last.images,
            "seconds": round(time.monotonic() - self._start, 1),
            "loss": last.loss,
            "validation_median_degrees": last.validation_median_degrees,
            "seed": self._config.seed,
        } | ({"data_sets": self._errors} if self._errors else {})


def _calibrated(predicted: HarmonicDistribution, validation: ValidationSet) -> Calibration:
    """Return the calibration of what a network says of held-out particles spread over the set."""
    rows = spread_rows(len(predicted), _CALIBRATED)
    ctf = None if validation.ctf is None else validation.ctf[rows]
    return calibrate(predicted[rows], validation.rotations[rows], ctf)


def _with_novelty(model: PoseModel, data: TrainingData) -> PoseModel:
    """Return a model that tells particles unlike those that were trained on, if they are enough to do so."""
    rows = torch.from_numpy(spread_rows(len(data.images), _DESCRIBED))
    novelty = Novelty.fit(data.images[rows], data.validation.images)
    if novelty is None:
        return model
    told = NoveltyCard(false_alarm_rate=FALSE_ALARM_RATE, particles=len(data.validation.images))
    return PoseModel(model.network, model.card.model_copy(update={"novelty": told}), novelty)


def _network_of(init: PoseModel, config: TrainingConfig) -> NetworkConfig:
    """Return the network that a model begins with; refuse a config that names another.

    How many states it tells apart follows from the particles.
    """
    network, asked = _of_one_state(init.card.network), _of_one_state(config.network)
    if asked not in (network, PRESETS[config.preset].network):
        raise CryosphereError(
            f"the model to begin with has another network than the settings ask for ({network.kind}, "
            f"{_difference(network, asked)}); omit the network's settings, or --init"
        )
    return network


def _of_one_state(network: NetworkConfig) -> NetworkConfig:
    polar = isinstance(network, PolarConfig)
    return network.model_copy(update={"states": 1}) if polar else network


def _difference(first: NetworkConfig, second: NetworkConfig) -> str:
    """Return the first setting in which two networks differ, in words."""
    if first.kind != second.kind:
        return f"not {second.kind}"
    name = next(name for name, value in first if value != getattr(second, name))
    return f"{name} {getattr(first, name)}, not {getattr(second, name)}"


def _load_encoder(network: PoseNetwork, weights: Path) -> None:
    if not isinstance(network, Image2Sphere):
        raise CryosphereError(
            f"{weights} is for a ResNet encoder, which this network does not have; use --preset cesped"
        )
    network.load_encoder_weights(weights)


def _loop_settings(config: TrainingConfig, particles: int, **limits: Any) -> LoopSettings:
    """Return how long a run is; ``limits`` are `LoopSettings`' on reports and checkpoints."""
    waits = (config.halve_after_epochs, config.stop_after_epochs)
    halve_after, stop_after = (None if epochs is None else epochs * particles for epochs in waits)
    watched = halve_after is not None or stop_after is not None
    return LoopSettings(
        batch_size=min(config.batch_size, max(2, particles)),
        minutes=config.minutes,
        total_images=None if config.minutes else round(config.epochs * particles),
        halve_after=halve_after,
        stop_after=stop_after,
        validations=max(_VALIDATIONS, round(config.epochs)) if watched else _VALIDATIONS,
        **limits,
    )


def _goes_on(config: TrainConfig) -> bool:
    """Return whether there is a run to go on with; refuse one that cannot be begun or taken up."""
    if config.resume and config.checkpoint.is_file():
        _check_same_run(config)
        return True
    if config.resume and (config.output / MODEL_FILE).is_file():
        raise CryosphereError(f"the run in {config.output} has ended; start it without --resume")
    refuse_overwrite(config.output / MODEL_FILE, config.overwrite)
    refuse_overwrite(config.checkpoint, config.overwrite)
    return False


def _check_same_run(config: TrainConfig) -> None:
    """Refuse to take up a run that had another config."""
    earlier, now = _as_compared(TrainConfig.of_run(config.output)), _as_compared(config)
    for name in now.keys() - set(_MAY_CHANGE):
        if now[name] != earlier[name]:
            raise CryosphereError(
                f"the run in {config.output} has {name} {_in_words(earlier[name])}, not "
                f"{_in_words(now[name])}; "
                "give the same to go on with it, or another --output"
            )


def _as_compared(config: TrainConfig) -> dict[str, Any]:
    """Return a config's values, files by their whole path: the dock names them so, a shell rarely does."""

    def whole(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(whole(one) for one in value)
        return value.absolute() if isinstance(value, Path) else value

    return {name: whole(value) for name, value in config}


def _in_words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Log:
    """A line of JSON for every report; a run that is taken up replaces the lines after its kept state."""

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if resume and path.is_file() else ""
        self._earlier = text.split("\n")[:-1]  # what follows the last line was cut by a kill
        self._begun = False

    def add(self, report: TrainingProgress) -> None:
        line = {
            field.name: getattr(report, field.name)
            for field in dataclasses.fields(report)
            if not field.name.startswith("predicted")
        }
        if not self._begun:
            kept = [each for each in self._earlier if json.loads(each)["images"] < report.images]
            with atomic_path(self.path, overwrite=True) as temporary:
                temporary.write_text("".join(f"{each}\n" for each in kept), encoding="utf-8")
            self._begun = True
        append_line(self.path, json.dumps(line))


def _progress(report: TrainingProgress, pixel_size_angstrom: float = math.nan) -> Progress:
    metrics = {"loss": report.loss, "images_per_second": report.images_per_second}
    message = f"loss {report.loss:.3f}, {report.images_per_second:.0f} images/s"
    if report.validation_median_degrees is not None and report.validation_mean_degrees is not None:
        metrics["validation_median_degrees"] = report.validation_median_degrees
        metrics["validation_mean_degrees"] = report.validation_mean_degrees
        message += f", validation error {report.validation_median_degrees:.1f} degrees (median)"
    if report.validation_shift_px is not None and math.isfinite(pixel_size_angstrom):
        metrics["validation_shift_angstrom"] = report.validation_shift_px * pixel_size_angstrom
        message += f" and {metrics['validation_shift_angstrom']:.1f} A"
    return Progress(report.fraction, message, metrics, report.remaining_seconds)
