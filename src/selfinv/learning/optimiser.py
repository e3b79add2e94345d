"""Optimisers beyond torch's own, and averaging of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class NoisyAdam(torch.optim.Adam):
    """Adam that jolts every parameter after each step by ``lr * noise / (1 + step) * N(0, 1)``.

    The paper's variant (Kobayashi et al. 2020, arXiv:2006.06156): a single image gives too little
    stochasticity by itself.

    Parameters
    ----------
    noise
        Amplitude of the first jolt relative to the learning rate.
    generator
        Where the jolts are drawn from.
    """

    def __init__(
        self, params: Iterable[Tensor], *, noise: float = 0.1, generator: torch.Generator, **settings: Any
    ) -> None:
        super().__init__(params, **settings)
        self.noise = noise
        self.generator = generator
        self.steps_taken = 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = super().step(closure)
        for group in self.param_groups:
            amplitude = group["lr"] * self.noise / (1 + self.steps_taken)
            for p in group["params"]:
                p.add_(torch.randn(p.shape, generator=self.generator).to(p), alpha=amplitude)
        self.steps_taken += 1
        return loss


class WeightAverage:
    """An exponential moving average of a model's weights and buffers, debiased while it is young."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average a step toward the model's present weights."""
        self.updates += 1
        # Early on a plain running mean, later the exponential one: no memory of the initial weights.
        decay = min(self.decay, (self.updates - 1) / self.updates)
        weights = model.state_dict()
        moving = [name for name, value in weights.items() if value.is_floating_point()]
        # One call for all of them: a network has many small tensors.
        torch._foreach_lerp_([self.average[n] for n in moving], [weights[n] for n in moving], 1.0 - decay)
        for name in weights.keys() - moving:
            self.average[name].copy_(weights[name])
