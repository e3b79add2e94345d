"""The trainable inverse: a network, its bounded output, and its average over symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selfinv.learning.crude import CrudeInverse
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.masks import FILLS
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.random import generator_for
from selfinv.learning.symmetry import Symmetry
from selfinv.learning.unet import UNet, UNetSettings
from selfinv.operators.boundary import reflect
from selfinv.types import InputError

EDGE = 0.01  # of the span: how near to its bounds a residual begins


@dataclass(frozen=True)
class Head:
    """How the network's last layer becomes an object, in normalised units.

    Parameters
    ----------
    kind
        ``"range"``: a sigmoid between two bounds that are learned too. ``"clamp"``: cut to [0, 1] with the
        gradient passed through (the paper's range; a clamp that also stops the gradient makes failed runs).
    overshoot
        With ``"clamp"``, weight of the squared mean overshoot in the loss.
    residual
        With ``"range"``: the network adds to its input, within the bounds, where that is a crude image.
    """

    kind: Literal["range", "clamp"] = "range"
    overshoot: float = 0.1
    residual: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("range", "clamp"):
            raise InputError(f"head {self.kind!r} is unknown; use 'range' or 'clamp'")


class Inverter(nn.Module):
    """From a filled, normalised measurement on the object's grid to the object.

    Parameters
    ----------
    start
        A typical value of the image in [0, 1]; the untrained network answers about this.
    """

    def __init__(self, network: UNetSettings, head: Head, start: float = 0.5) -> None:
        super().__init__()
        self.network = UNet(network)
        self.head = head
        if head.kind == "range":
            self.low = nn.Parameter(torch.zeros(()))
            self.growth = nn.Parameter(torch.zeros(()))
            p = min(max(start, 0.05), 0.95)
            nn.init.constant_(self.network.last.get_parameter("bias"), math.log(p / (1 - p)))
            if head.residual:
                nn.init.zeros_(self.network.last.get_parameter("bias"))
                nn.init.zeros_(self.network.last.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        return self.with_penalty(x)[0]

    def with_penalty(
        self, x: Tensor, passes: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The object, and what leaving the range costs; ``passes`` stands in for a call of the network."""
        raw = (passes or self.network)(x)
        if self.head.kind == "range":
            # Stars are many times brighter than their blurred images: the span must be able to grow fast,
            # though an optimiser moves every parameter by no more than the learning rate in a step.
            span = torch.exp(5.0 * self.growth)
            if self.head.residual:
                inside = (x[:, : raw.shape[1]] - self.low.detach()) / span.detach()
                raw = raw + torch.logit(inside.clamp(EDGE, 1.0 - EDGE))
            return self.low + span * torch.sigmoid(raw), raw.new_zeros(())
        clamped = raw.clamp(0.0, 1.0)
        overshoot = (raw - clamped).abs().mean().square()
        return raw + (clamped - raw).detach(), self.head.overshoot * overshoot


def build_inverter(network: UNetSettings, head: Head, *, start: float = 0.5, seed: int = 0) -> Inverter:
    """An untrained inverter whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):  # torch's initialisers know only the global generator
        torch.manual_seed(seed)
        return Inverter(network, head, start=start)


def lift(y: Tensor, pads: Sequence[tuple[int, int]], marks: int) -> Tensor:
    """Extend a measurement to the object's grid by reflection, and mark (1, 0) what was measured.

    Without the mark a network cannot know where the image ends, and what lies beyond is not a mirror image.
    """
    lifted = reflect(y, pads)
    if not marks:
        return lifted
    mark = y.new_ones(y.shape[0], 1, *y.shape[2:])
    mark = nn.functional.pad(mark, [p for pair in reversed(list(pads)) for p in pair])
    return torch.cat([lifted, mark.expand(-1, marks, *mark.shape[2:])], dim=1)


@dataclass(frozen=True)
class Entrance:
    """How a network sees a measurement of which some values are hidden.

    Parameters
    ----------
    fill
        What stands in for hidden pixels.
    crude
        Where measured values are not pixels: makes a crude image of those that are shown.
    filters
        Where they are, and blurred: make sharper copies of what is shown, to be seen beside it.
    outliers
        There, too: replaces values that stand out as nothing blurred can.
    """

    fill: str = "neighbours"
    crude: CrudeInverse | None = None
    filters: InverseFilters | None = None
    outliers: OutlierTest | None = None

    def __call__(
        self,
        y: Tensor,
        hidden: Tensor,
        pads: Sequence[tuple[int, int]],
        marks: int,
        generator: torch.Generator,
    ) -> Tensor:
        """The network's input on the object's grid; nothing in it depends on a hidden value."""
        if self.crude is not None:
            return lift(self.crude(y, hidden), ((0, 0),) * len(self.crude.shape), marks)
        filled = FILLS[self.fill](y, hidden, generator) if hidden.any() else y
        if self.outliers is not None:
            filled = self.outliers.replaced(filled, hidden)
        lifted = lift(filled, pads, marks)
        if self.filters is None:
            return lifted
        image, mark = lifted.tensor_split([y.shape[1]], dim=1)
        return torch.cat([image, self.filters(image), mark], dim=1)


@torch.no_grad()
def invert(
    model: Inverter,
    y: Tensor,
    missing: Tensor,
    pads: Sequence[tuple[int, int]],
    symmetries: Sequence[Symmetry],
    entrance: Entrance,
    *,
    most: int = 8,
) -> Tensor:
    """Apply a trained inverse to a normalised measurement and average over (at most ``most``) symmetries.

    What the operator suppresses the loss never sees; it differs between transformed copies, and averages out.
    """
    settings = model.network.settings
    chosen = symmetries[:: max(1, math.ceil(len(symmetries) / most))]
    frames = []
    for frame, holes in zip(y.split(1), missing.split(1), strict=True):  # one by one: less memory
        seen = entrance(frame, holes, pads, settings.marks, generator_for(0))
        total = torch.zeros_like(seen[:, : settings.channels])
        for symmetry in chosen:
            total += symmetry.inverse(model(symmetry(seen)))
        frames.append(total / len(chosen))
    return torch.cat(frames)
