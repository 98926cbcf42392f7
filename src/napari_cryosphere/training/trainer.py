"""A network in training: one step after another, in one process or several, kept on disk, taken up again."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from napari_cryosphere._files import write_tensors
from napari_cryosphere.errors import CryosphereError, ModelError
from napari_cryosphere.model.pose_network import PoseNetwork
from napari_cryosphere.so3.pose_summary import EVALUATION_ORDER
from napari_cryosphere.training.loss import pose_loss, shift_loss, state_loss
from napari_cryosphere.training.replicas import Replicas
from napari_cryosphere.training.shared_norm import share_statistics
from napari_cryosphere.training.sources import Batch
from napari_cryosphere.training.team import Team

__all__ = ["Optimisation", "Trainer", "bfloat16_pays"]

_KEY = "napari_cryosphere_training"
_LARGEST_GRADIENT = 1.0  # norm above which gradients are scaled down; chosen, not tuned


@dataclass(frozen=True)
class Optimisation:
    """How a network's weights follow the loss.

    - ``learning_rate``, ``weight_decay``: of the optimiser.
    - ``optimizer``: ``adamw`` (Loshchilov & Hutter 2019) or ``radam`` (Liu et al. 2020).
    - ``loss_order``: order of the grid that predicted densities are normalised on.
    - ``memory``: of the exponential average of the weights, per step; it is what a run leaves
      behind. On noisy images averaging is worth a lower learning rate.
    - ``seed``: of what a network draws while it trains.
    """

    learning_rate: float
    weight_decay: float
    optimizer: Literal["adamw", "radam"] = "adamw"
    loss_order: int = EVALUATION_ORDER
    memory: float = 0.999
    seed: int = 0


class Trainer:
    """A network, the average of its weights, its optimiser, and how many steps these have made.

    The same steps on the same batches give the same weights to the last bit on a CPU, whether or
    not the trainer was saved and loaded between them.

    ``steps``: steps made so far. ``whole``: whether the last step came to its end: False where
    Ctrl-C has caught it half way.

    - ``network``: trained in place.
    - ``symmetry``: point group that the labels are expanded over.
    - ``replicas``: the processes that train this network, each with the same weights; one alone by
      default.
    - ``threads``: of this process, that share its part of a batch.
    """

    def __init__(
        self,
        network: PoseNetwork,
        symmetry: str,
        settings: Optimisation,
        replicas: Replicas | None = None,
        threads: int = 1,
    ) -> None:
        self.network, self.replicas = network, replicas or Replicas()
        self.steps, self.whole = 0, True
        if self.replicas.several:
            share_statistics(network, self.replicas)
        self._symmetry, self._settings = symmetry, settings
        self._parameters = list(network.parameters())
        self._optimizer = self._new_optimizer()
        self._team = Team(network, threads)
        self._average = {name: value.clone() for name, value in network.state_dict().items()}
        learnt = {name for name, _ in network.named_parameters()}
        self._statistics = [
            value for name, value in network.state_dict().items() if name not in learnt
        ]

    def _new_optimizer(self) -> torch.optim.Optimizer:
        rate, decay = self._settings.learning_rate, self._settings.weight_decay
        if self._settings.optimizer == "radam":
            return torch.optim.RAdam(self._parameters, lr=rate, weight_decay=decay)
        return torch.optim.AdamW(self._parameters, lr=rate, weight_decay=decay, fused=True)

    def step(self, batch: Batch, rate: float) -> float:
        """Learn from a batch, or this process's share of it, at a share of the learning rate.

        Returns the loss of the batch, which is the same in all processes. Raises `CryosphereError`
        if the loss is no longer a number, or another process is gone; the weights are then those of
        the step before.
        """
        with self._team.sharing():
            return self._step(batch, rate)

    def _step(self, batch: Batch, rate: float) -> float:
        before = [value.clone() for value in self._statistics]  # the forward pass moves them
        try:
            value = self._find_gradients(batch)
        except BaseException:
            for statistic, earlier in zip(self._statistics, before, strict=True):
                statistic.copy_(earlier)
            raise
        self.whole = False
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * rate
        self._optimizer.step()
        self.steps += 1
        self._follow()
        self.whole = True
        return value

    def _find_gradients(self, batch: Batch) -> float:
        """Leave the gradients of the whole batch's loss in the parameters, clipped; return the loss."""
        torch.manual_seed(self._settings.seed * 1_000_003 + self.steps)
        # the mean over the batch is that of the shares' means, each as heavy as its labels
        total = self.replicas.sum(batch.weights.sum().to(self._parameters[0].device))
        parts = self._team.work(
            lambda network, share: self._part(network, batch.part(share), total), len(batch.images)
        )
        losses, gradients = zip(*parts, strict=True)
        value, whole = self.replicas.sum(torch.stack(losses).sum(0)).tolist()
        if not math.isfinite(whole):
            value = whole if math.isfinite(value) else value
            raise CryosphereError(
                f"the training loss became {value}; try a learning rate ten times lower"
            )
        for parameter, *terms in zip(self._parameters, *gradients, strict=True):
            given = [term for term in terms if term is not None]
            parameter.grad = sum(given[1:], given[0]) if given else None
        self.replicas.sum_gradients(self._parameters)
        torch.nn.utils.clip_grad_norm_(self._parameters, _LARGEST_GRADIENT)
        return value

    def _part(
        self, network: PoseNetwork, batch: Batch, total: Tensor
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Return what a share adds to the loss of a batch of this total weight, and to its gradients.

        Two losses: of the poses, and of all that is known, which the gradients are of.
        """
        device = total.device
        network.train()
        half = network.learns_in_bfloat16 and bfloat16_pays(device)
        # no cache: every weight is used once, and threads would share what is in it
        with torch.autocast(device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            coefficients, shifts, states = network.answers(
                batch.images.to(device, non_blocking=True),
                None if batch.ctf is None else batch.ctf.to(device, non_blocking=True),
            )
        labels = batch.labels_on(device)
        part = labels.weights.sum() / total
        loss = pose_loss(coefficients, labels, self._symmetry, self._settings.loss_order) * part
        whole = loss
        if shifts is not None and labels.shifts_px is not None:
            whole = whole + shift_loss(shifts, labels) * part
        if states is not None and labels.states is not None:
            whole = whole + state_loss(states, labels, self._symmetry) * part
        losses = torch.stack([loss.detach(), whole.detach()])
        return losses, torch.autograd.grad(whole, self._parameters, allow_unused=True)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; its memory grows with the number of steps."""
        decay = min(self._settings.memory, (1 + self.steps) / (10 + self.steps))
        current = self.network.state_dict()
        real = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self._average[n] for n in real], [current[n] for n in real], 1 - decay
        )
        for name in current.keys() - set(real):
            self._average[name].copy_(current[name])

    def averaged(self) -> PoseNetwork:
        """Return a copy of the network with the averaged weights, ready to predict."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(self._average)
        return network.eval()

    def save(self, path: Path, progress: Mapping[str, Any]) -> None:
        """Write everything that further steps depend on, and ``progress`` (JSON), to one safetensors file.

        Raises `CryosphereError` if the file cannot be written; what stood there before is
        untouched.
        """
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self._average.items()}
        for index, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in moments.items()}
        stored = {name: value.detach().cpu().numpy() for name, value in tensors.items()}
        metadata = {_KEY: json.dumps({"steps": self.steps, **progress})}
        try:
            write_tensors(stored, path, metadata, overwrite=True)
        except CryosphereError as error:
            raise CryosphereError(f"{error}; --resume goes on from the state before") from error

    def load(self, path: Path) -> dict[str, Any]:
        """Take up what `save` wrote, and return its ``progress``.

        Raises `ModelError` if the file is missing, broken, or of another network.
        """
        try:
            with safe_open(path, framework="pt") as stored:
                progress: dict[str, Any] = json.loads((stored.metadata() or {})[_KEY])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            parts: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "optimizer": {}}
            for name, value in tensors.items():
                part, rest = name.split(".", 1)
                parts[part][rest] = value
            self.network.load_state_dict(parts["network"])
            for name, value in self._average.items():
                value.copy_(parts["average"][name])
            self._load_optimizer(parts["optimizer"])
        except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
            raise ModelError(
                f"{path} holds no training state that this run could go on from "
                f"({str(error).splitlines()[0]}); start again with --overwrite"
            ) from error
        self.steps = int(progress.pop("steps"))
        return progress

    def _load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, moment = name.split(".", 1)
            state.setdefault(int(index), {})[moment] = value
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": state})


def bfloat16_pays(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: CUDA, and processors that have it built in.

    Weights, sums, transforms, losses and the optimiser stay in float32 (docs/scaling.md).
    """
    if device.type != "cpu":
        return device.type == "cuda"
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
