"""Optimisers beyond torch's own, and averaging of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from selfinv.learning.inverter import Inverter
from selfinv.learning.random import generator_for
from selfinv.learning.settings import Training


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


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices with nearly the same singular vectors and all singular values near 1 (0.7 to 1.2).

    A few steps of an odd polynomial of degree 5, applied to the singular values by matrix products alone
    (Newton-Schulz; coefficients of Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    Parameters
    ----------
    matrices
        Of any shape ``matrix row column``; a zero matrix is returned as it is.
    """
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-30)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT  # the products below are then of the smaller size
    for _ in range(5):
        square = x @ x.mT
        polynomial = torch.baddbmm(square, square, square, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """AdamW whose groups with ``orthogonal=True`` move by their momentum, orthogonalised.

    Such a parameter is taken as a matrix of outputs by everything else, and every direction of it moves as
    far in a step, not only the few in which the gradient is large (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon). The momentum is the group's first beta. For the weights of
    layers whose scale is normalised away; ``weight_decay`` then keeps the relative rate up.
    """

    _warned_capturable_if_run_uncaptured = True  # its first steps are not, before a recorder knows them

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        moved = []
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            if moving and group.get("orthogonal"):
                self._move(moving, group)
                moved += [(p, p.grad) for p in moving]
        for p, _ in moved:
            p.grad = None  # AdamW passes it by
        loss = super().step(closure)
        for p, gradient in moved:
            p.grad = gradient
        return loss

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """All at once where possible: they are many, small, and mostly of one shape."""
        rate, beta = group["lr"], group["betas"][0]
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [cast(Tensor, p.grad) for p in weights]
        momenta = [self.state[p]["momentum"] for p in weights]
        torch._foreach_lerp_(momenta, gradients, 1.0 - beta)
        ahead = torch._foreach_lerp(gradients, momenta, beta)  # Nesterov's
        torch._foreach_mul_(weights, 1.0 - rate * group["weight_decay"])
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p, direction in zip(weights, ahead, strict=True):
            alike.setdefault(direction.flatten(1).shape, []).append((p, direction.flatten(1)))
        for (rows, columns), pairs in alike.items():
            moves = orthogonalised(torch.stack([direction for _, direction in pairs]))
            scale = max(1.0, rows / columns) ** 0.5
            for (p, _), move in zip(pairs, moves, strict=True):
                p.sub_(move.reshape(p.shape) * (rate * scale))


def muon_groups(model: nn.Module, hidden: Sequence[Tensor], rate: float) -> list[dict[str, Any]]:
    """The parameters of ``model`` for `Muon`: ``hidden`` ones at twice the ``rate`` and orthogonalised.

    Their scale is (nearly) normalised away: only the decay keeps them from growing, and steps of one size
    from meaning less and less.
    """
    known = {id(p) for p in hidden}
    others = [p for p in model.parameters() if id(p) not in known]
    orthogonal = {"orthogonal": True, "lr": 2.0 * rate, "weight_decay": 0.5}
    return [{"params": others, "lr": rate}, {"params": list(hidden), **orthogonal}]


def one_cycle(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Every group's rate up and down once in ``steps`` (Smith 2018, arXiv:1803.09820)."""
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    total = max(steps, 10) + 1  # the schedule needs a step or two for each of its phases
    return torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, total_steps=total, pct_start=0.2, cycle_momentum=False
    )


def optimiser_and_schedule(
    training: Training, model: Inverter, likelihood: nn.Module | None, seed: int, *, replayed: bool
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | ReduceLROnPlateau]:
    """What moves an `Inverter`'s weights, and those of the noise beside them, and how its rate changes.

    Parameters
    ----------
    replayed
        Its steps are to be recorded as a CUDA graph.
    """
    optimiser: torch.optim.Optimizer
    if training.optimiser == "noisy-adam":
        generator = generator_for(seed + 3)
        optimiser = NoisyAdam(model.parameters(), lr=training.learning_rate, generator=generator)
    else:
        groups = muon_groups(model, model.network.hidden_weights(), training.learning_rate)
        if likelihood is not None:
            # These few start from rough guesses and should be there before the network is.
            rate = 5.0 * training.learning_rate
            groups.append({"params": list(likelihood.parameters()), "lr": rate, "weight_decay": 0.0})
        device = next(model.parameters()).device
        settings: dict[str, Any] = {"fused": device.type in ("cpu", "cuda"), "capturable": replayed}
        if replayed:  # numbers would be recorded
            groups = [group | {"lr": torch.tensor(group["lr"], device=device)} for group in groups]
        optimiser = Muon(groups, weight_decay=training.weight_decay, **settings)
    if training.schedule == "plateau":
        return optimiser, ReduceLROnPlateau(optimiser, factor=0.9, patience=150)
    return optimiser, one_cycle(optimiser, training.max_steps)


class WeightAverage:
    """An exponential moving average of a model's weights and buffers, debiased while it is young.

    The model must change them in place, as optimisers do.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        weights = model.state_dict()
        self.average = {k: v.detach().clone() for k, v in weights.items()}
        moving = [name for name, value in weights.items() if value.is_floating_point()]
        counts = [name for name in weights if name not in moving]
        self._moving = [self.average[n] for n in moving], [weights[n] for n in moving]
        self._counts = [self.average[n] for n in counts], [weights[n] for n in counts]

    @torch.no_grad()
    def update(self) -> None:
        """Move the average a step toward the model's present weights."""
        self.updates += 1
        # Early on a plain running mean, later the exponential one: no memory of the initial weights.
        decay = min(self.decay, (self.updates - 1) / self.updates)
        # One call for all of them: a network has many small tensors.
        torch._foreach_lerp_(*self._moving, 1.0 - decay)
        if self._counts[0]:
            torch._foreach_copy_(*self._counts)
