"""What is done with one file of a watch: read, posed, kept, and its particles added to the sums."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napari_cryosphere.errors import CryosphereError
from napari_cryosphere.jobs.align import prepare_aligner
from napari_cryosphere.jobs.configs import WatchConfig
from napari_cryosphere.jobs.running.batches import Batches, joined
from napari_cryosphere.jobs.running.compute import choose_device
from napari_cryosphere.jobs.running.inputs import chosen, described, digest_of_file
from napari_cryosphere.jobs.running.map_detail import map_detail
from napari_cryosphere.jobs.running.memory import predicting_batch
from napari_cryosphere.jobs.running.predictor import Predictor, pilot_of
from napari_cryosphere.jobs.running.prefetch import prefetched
from napari_cryosphere.jobs.running.ranks import Ranks
from napari_cryosphere.jobs.running.references import open_reference, pixel_size_notes
from napari_cryosphere.jobs.watching.run import WatchRun
from napari_cryosphere.model.pose_model import PoseModel, model_file
from napari_cryosphere.particles import DensityMap, ParticleStack

__all__ = ["Outcome", "Worker", "serve"]


@dataclass(frozen=True)
class Outcome:
    """What became of a file: its particles count, unless there is a reason why not."""

    name: str
    particles: int = 0
    reason: str = ""


class Worker:
    """Takes one file after the other. ``run``: where the results go."""

    def __init__(self, config: WatchConfig, overwrite: bool) -> None:
        self._config = config
        self._device = choose_device(config.device)
        self._model = PoseModel.load(config.model).to(self._device)
        self._map: DensityMap | None = None
        self._resolution_angstrom: float | None = None
        if config.map is not None:
            opened = open_reference(config, config.map, None)
            self._map = opened.density
            detail = map_detail(config.map, opened.whole, config.resolution_angstrom)
            self._resolution_angstrom = detail.resolution_angstrom
        self.run = WatchRun(
            config.output, self._description(), config.model_dump(mode="json"), overwrite=overwrite
        )

    def _description(self) -> dict[str, Any]:
        """Return all that results depend on, but the particles."""
        kept = (
            *("select", "invert", "map", "map_pixel_size_angstrom", "mask", "mask_radius_angstrom"),
            *("modes", "climbed", "resolution_angstrom", "shift_range_px", "batch_size", "padding"),
        )
        settings = described(self._config)
        return {
            "folder": self._config.folder.resolve(),
            "model": digest_of_file(model_file(self._config.model)),
            "max_memory_gb": self._config.max_memory_gb,
            **{name: settings[name] for name in kept},
        }

    @property
    def states(self) -> int:
        """How many states the model tells apart."""
        card = self._model.card
        return 1 if card.states is None else getattr(card.network, "states", 1)

    def read(self, path: Path) -> tuple[ParticleStack, str]:
        """Return a file's particles and its checksum. Raises CryosphereError if it cannot be read."""
        try:
            star = path.read_bytes()
        except OSError as error:
            raise CryosphereError(f"{path} cannot be read: {error.strerror or error}") from error
        stack = chosen(ParticleStack.read(path, self._config.data_dir), self._config)
        return stack, hashlib.sha256(star).hexdigest()

    def take(self, name: str, stack: ParticleStack, identity: str) -> Outcome:
        """Find poses, keep them, and add the particles to the sums."""
        try:
            posed = self._posed(stack)
        except (CryosphereError, OSError) as error:
            return Outcome(name, reason=str(error))
        self.run.commit(name, identity, posed)
        self.run.take_up(name)
        try:
            self.insert(name)
        except CryosphereError as error:  # grey values that cannot be summed
            self.run.give_up(name)
            return Outcome(name, reason=str(error))
        return Outcome(name, len(posed))

    def insert(self, name: str) -> None:
        """Add the particles of a part to the sums."""
        self.run.insert(name, self._model.card.symmetry, self._config.padding, self.states)

    def _posed(self, stack: ParticleStack) -> ParticleStack:
        """Return a file's particles with poses. Noise and contrast are measured on the file itself."""
        config, aligner = self._config, None
        if self._map is not None:
            if config.map is not None and config.map_pixel_size_angstrom is None:
                pixel_size_notes(config.map, self._map, stack.grid)
            aligner = prepare_aligner(
                stack,
                self._map,
                self._model.card.symmetry,
                self._resolution_angstrom,
                config.shift_range_px,
                self._device,
                pilot_of(self._model, stack, config.modes),
            )
        predictor = Predictor(self._model, stack, aligner, config.modes, config.climbed)
        rows = Batches(len(stack), predicting_batch(config, stack.box)).blocks()
        results = joined(
            predictor.work(batch, read) for batch, read in prefetched(predictor.read, rows)
        )
        return predictor.posed(results)[0]


def serve(config: WatchConfig, ranks: Ranks) -> None:
    """Take what rank 0 hands out, until it says that the watch has ended."""
    worker = Worker(config, overwrite=False)
    for number in range(2**62):
        sent = json.loads(ranks.receive(f"round{number}"))
        if sent["hand_over"]:
            worker.run.hand_over(ranks.rank)
            ranks.wait()
        if sent["end"]:
            return
        names = sent["names"][ranks.rank : ranks.rank + 1]
        for name in names:
            try:
                outcome = worker.take(name, *worker.read(config.folder / name))
            except CryosphereError as error:
                outcome = Outcome(name, reason=str(error))
            ranks.send(f"round{number}/rank{ranks.rank}", json.dumps(asdict(outcome)))
