"""How a network is trained: what is hidden from it, and its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from selfinv.blind_spot import widen
from selfinv.learning.inverter import Looks
from selfinv.learning.masks import FILLS, MaskScheme, RandomPixels, drawn_shape
from selfinv.learning.random import CPU, generator_for
from selfinv.types import InputError


@dataclass(frozen=True)
class Hiding:
    """What is hidden from the network's input.

    Parameters
    ----------
    scheme
        Which values each training step hides; None hides none (the paper's control, not blind).
    fill
        What stands in their place: ``"zero"``, ``"random"`` or ``"neighbours"``.
    joint_channels
        Hide all channels of a pixel together: right where noise is shared between channels.
    validation
        Fraction of the values kept for validation.
    blind_spot
        How far around each hidden value others are hidden too, though not scored, along each spatial axis:
        where noise is correlated, they would tell of its noise (`selfinv.independence`).
    looks
        At the whole measurement in the end, where its values are not pixels; None: one, at all of them.
    most
        How often a run hides each value, on the mean; a longer one hides fewer at a time (`RandomPixels` of
        one density). How much of the noise a network learns by heart goes by how often it is asked for it.
    """

    scheme: MaskScheme | None = field(default_factory=RandomPixels)
    fill: Literal["zero", "random", "neighbours"] = "neighbours"
    joint_channels: bool = False
    validation: float = 0.02
    blind_spot: tuple[int, ...] = ()
    looks: Looks | None = None
    most: float = math.inf

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            raise InputError(f"fill {self.fill!r} is unknown; use one of {', '.join(FILLS)}")
        if not 0.0 < self.validation < 0.5:
            raise InputError(f"the validation fraction must lie in (0, 0.5), got {self.validation}")

    def spread(self, looks: float) -> Hiding:
        """The same, for a run that looks so often at each value."""
        if not isinstance(self.scheme, RandomPixels) or not isinstance(self.scheme.density, float):
            return self
        density = min(self.scheme.density, self.most / looks)
        return replace(self, scheme=replace(self.scheme, density=density))

    def concealed(self, scored: Tensor) -> Tensor:
        """What must not be shown where the values ``scored`` are."""
        return widen(scored, self.blind_spot) if any(self.blind_spot) else scored

    def drawn(
        self,
        shape: Sequence[int],
        step: int,
        seed: int,
        together: Sequence[int] = (),
        device: torch.device = CPU,
    ) -> Tensor:
        """The values that one training step hides and scores, fewer with a blind spot around each.

        ``together`` names further axes along which they are hidden together.
        """
        if self.scheme is None:
            return torch.zeros(tuple(shape), dtype=torch.bool, device=device)
        drawn = drawn_shape(shape, joint_channels=self.joint_channels, together=together)
        hidden = self.scheme.hidden(drawn, step, seed, device)
        if any(self.blind_spot):
            cell = math.prod(2 * b + 1 for b in self.blind_spot)
            generator = generator_for(seed + 8, step, device)
            hidden &= torch.rand(drawn, generator=generator, device=device) < 1.0 / cell
        return hidden.expand(tuple(shape))


@dataclass(frozen=True)
class Training:
    """How the network is trained.

    Parameters
    ----------
    optimiser
        ``"noisy-adam"`` (the paper's), or ``"muon"``: the convolutions' weights by orthogonalised momentum at
        twice the rate, everything else by AdamW (`selfinv.learning.optimiser.Muon`).
    schedule
        ``"plateau"``: the rate falls by 0.9 after 150 steps without a better score; ``"one-cycle"``: up and
        down once.
    max_steps, patience
        Planned steps, and after how many without a better score to stop (None: never).
    weight_decay, l1, kernel_continuity
        Regularisation: L2 and L1 of the weights, and smoothness of the last kernels.
    input_noise
        Noise added to the input, ``0.1 / (1 + 10000 * progress)``, the paper's.
    average
        Length of the moving average of the weights as a fraction of the run; 0 keeps the weights as they are.
    check_every
        Look at the validation values after so many steps; 0 means ten times in all.
    """

    optimiser: Literal["noisy-adam", "muon"] = "muon"
    schedule: Literal["plateau", "one-cycle"] = "one-cycle"
    learning_rate: float = 1.5e-2
    max_steps: int = 600
    patience: int | None = None
    weight_decay: float = 1e-4
    l1: float = 0.0
    kernel_continuity: float = 0.0
    input_noise: bool = False
    average: float = 0.015
    check_every: int = 0
