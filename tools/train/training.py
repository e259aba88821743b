"""A training that may be stopped at any time and goes on where it was, with the same data in the same order."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

N = TypeVar("N", bound=nn.Module)

Loss = Callable[[int, Random], Tensor]
"""Computes the loss of a step; everything random comes from the generator, or from torch's, seeded for the step."""

_TOLD_EVERY_S = 30.0
_GRADIENT_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long and how fast a network learns.

    Attributes:
        steps: Updates in all.
        rate: Highest learning rate; it rises over ``warm_up`` steps and falls to a fiftieth along a cosine.
        warm_up: Steps of the rise.
        average: Decay of the average of the weights, which is what is kept in the end; short at the beginning.
        decay: Weight decay.
        seed: Of everything random.
    """

    steps: int
    rate: float
    warm_up: int = 100
    average: float = 0.998
    decay: float = 0.0
    seed: int = 1

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        share = min(1.0, (step - self.warm_up) / max(1, self.steps - self.warm_up))
        return self.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


class Training(Generic[N]):
    """A network on its way.

    Args:
        file: Where the state is kept.
        network: What learns; its trainable parameters are taken now. It holds the state after construction.
        recipe: How long and how fast. The number of steps may be another one than when the state was kept.
        save_every_s: Seconds between two states.
    """

    def __init__(self, file: Path, network: N, recipe: Recipe, *, save_every_s: float = 120.0) -> None:
        self._file = file
        self.network = network
        self._recipe = recipe
        self._save_every_s = save_every_s
        self._learned = [weight for weight in network.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(self._learned, lr=recipe.rate, weight_decay=recipe.decay, betas=(0.9, 0.98))
        self._averages = [weight.detach().clone() for weight in self._learned]
        self.step = 0
        if file.exists():
            self._load()

    def run(self, loss: Loss, until: int | None = None) -> None:
        """Take the steps that are left, up to ``until`` or all."""
        end = self._recipe.steps if until is None else min(until, self._recipe.steps)
        device = self._learned[0].device
        started = saved = told = time.monotonic()
        first, total, count = self.step, torch.zeros((), device=device), 0
        while self.step < end:
            total += self._take(loss)
            count += 1
            now = time.monotonic()
            if now - told > _TOLD_EVERY_S or self.step == end:
                pace = (now - started) / (self.step - first)
                log.info(
                    "%s: step %d of %d, loss %.5f, %.3f s a step", self._file.stem, self.step, end, total / count, pace
                )
                told, total, count = now, torch.zeros_like(total), 0
            if now - saved > self._save_every_s:
                self.save()
                saved = time.monotonic()
        self.save()

    @classmethod
    def begun(cls, file: Path, build: Callable[[], N], recipe: Recipe) -> Training[N]:
        """Return the training of a new network, whose first weights depend on the recipe's seed alone."""
        torch.manual_seed(recipe.seed)
        return cls(file, build(), recipe)

    def check_begun(self) -> None:
        """Raise FileNotFoundError if no state was kept: there is nothing but random weights."""
        if not self._file.is_file():
            raise FileNotFoundError(f"no training has left its state in {self._file}")

    def averaged(self) -> N:
        """Return a copy of the network with the average of its weights, ready to be used."""
        network = copy.deepcopy(self.network)
        taught = [weight for weight in network.parameters() if weight.requires_grad]
        with torch.no_grad():
            for weight, average in zip(taught, self._averages, strict=True):
                weight.copy_(average)
        return network.eval()

    def save(self) -> None:
        """Keep the state; a stop at any moment leaves the old one or the new one."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".draft")
        torch.save(
            {
                "step": self.step,
                "weights": [weight.detach() for weight in self._learned],
                "averages": self._averages,
                "optimizer": self._optimizer.state_dict(),
            },
            draft,
        )
        os.replace(draft, self._file)  # noqa: PTH105

    def _load(self) -> None:
        state = torch.load(self._file, map_location=self._learned[0].device, weights_only=True)
        self.step = state["step"]
        with torch.no_grad():
            for weight, kept in zip(self._learned, state["weights"], strict=True):
                weight.copy_(kept)
        self._averages = state["averages"]
        self._optimizer.load_state_dict(state["optimizer"])
        log.info("%s: goes on at step %d", self._file.stem, self.step)

    def _take(self, loss: Loss) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.rate_at(self.step)
        seed = self._recipe.seed * 1_000_003 + self.step
        torch.manual_seed(seed)
        value = loss(self.step, Random(seed))
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._learned, _GRADIENT_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        share = 1 - min(self._recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, [weight.detach() for weight in self._learned], share)
        return value.detach()


def halves_pay(device: torch.device) -> bool:
    """Return whether half precision is quicker there: a CPU without instructions for it takes ten times as long."""
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
