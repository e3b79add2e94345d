"""The trainable inverse: a network, its bounded output, and its average over symmetries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selfinv.arrangement import always_shown_of
from selfinv.learning.crude import CrudeInverse
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.masks import FILLS, drawn_shape, neighbour_fill
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.random import generator_for
from selfinv.learning.symmetry import Symmetry
from selfinv.learning.unet import PRECISION, UNet, UNetSettings
from selfinv.operators import LinearOperator
from selfinv.operators.boundary import reflect
from selfinv.types import InputError, Pads

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
            self.low = nn.Parameter(torch.zeros((), dtype=PRECISION))
            self.growth = nn.Parameter(torch.zeros((), dtype=PRECISION))
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
class Looks:
    """What is hidden of a whole measurement: parts of it, one at a time, as in training.

    Parameters
    ----------
    parts
        Into how many the values are divided: one part is about as much as each step of training hid.
    partitions
        How many random ones.
    spare
        The share of other values that are hidden besides, as those set apart were in training.
    """

    parts: int
    partitions: int
    spare: float = 0.0

    def __post_init__(self) -> None:
        if self.parts < 2 or self.partitions < 1:
            raise InputError(
                f"looks take 2 parts at least and 1 partition, got {self.parts} and {self.partitions}"
            )

    def count(self, most: int = 8) -> int:
        """How many looks; with ``most`` below 8, for so many eighths of the partitions."""
        return self.parts * max(1, round(self.partitions * most / 8))

    def hidden(self, y: Tensor, operator: LinearOperator, most: int = 8) -> Iterator[tuple[Tensor, Tensor]]:
        """For each look a part, every value once in each partition, and that with what is hidden besides."""
        drawn = drawn_shape(y.shape, joint_channels=False, together=operator.together)
        hideable = ~always_shown_of(operator, y)
        for i in range(self.count(most)):
            partition, k = divmod(i, self.parts)
            part = torch.randint(self.parts, drawn, generator=generator_for(partition)) == k
            concealed = part | (torch.rand(drawn, generator=generator_for(partition, 1 + k)) < self.spare)
            yield part.to(y.device) & hideable, concealed.to(y.device) & hideable


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
    looks
        With ``crude``: what is hidden of a measurement where no value has to be; None: nothing.
    widths
        Of ``fill="neighbours"``: so many (`neighbour_fill`), without asking whether they do.
    """

    fill: str = "neighbours"
    crude: CrudeInverse | None = None
    filters: InverseFilters | None = None
    outliers: OutlierTest | None = None
    looks: Looks | None = None
    widths: int | None = None

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
        if self.widths is not None:
            filled = neighbour_fill(y, hidden, generator, widths=self.widths)
        else:
            filled = FILLS[self.fill](y, hidden, generator) if hidden.any() else y
        if self.outliers is not None:
            filled = self.outliers.replaced(filled, hidden)
        lifted = lift(filled, pads, marks)
        if self.filters is None:
            return lifted
        image, mark = lifted.tensor_split([y.shape[1]], dim=1)
        return torch.cat([image, self.filters(image), mark], dim=1)


@dataclass(frozen=True)
class TrainedInverse:
    """A trained network, and how it is asked for an object.

    Parameters
    ----------
    inverter
        In evaluation mode.
    pads
        How far the object's grid reaches beyond the measurement's, before and after, per spatial axis.
    symmetries
        To average over, the identity first: what the operator suppresses the loss never sees; it differs
        between transformed copies, and averages out.
    entrance
        How the network sees a measurement.
    """

    inverter: Inverter
    pads: Pads
    symmetries: Sequence[Symmetry]
    entrance: Entrance

    @torch.no_grad()
    def __call__(self, y: Tensor, hidden: Tensor, *, most: int = 8) -> Tensor:
        """The object behind a normalised measurement, ``batch channel *space``, without ``hidden`` values.

        Averaged over (at most ``most``) symmetries; where measured values are not pixels, over looks at parts
        of them (`of_parts`).
        """
        if self.entrance.looks is not None:
            assert self.entrance.crude is not None
            return self.entrance.crude.with_rest(self.of_parts(y, hidden, most=most)[0], y, hidden)
        chosen = self._chosen(most)
        frames = []
        for frame, holes in zip(y.split(1), hidden.split(1), strict=True):  # one by one: less memory
            seen = self.look(frame, holes)
            total = torch.zeros_like(seen[:, : self.inverter.network.settings.channels])
            for symmetry in chosen:
                total += self.turned(symmetry, seen)
            frames.append(total / len(chosen))
        return torch.cat(frames)

    @torch.no_grad()
    def of_parts(
        self,
        y: Tensor,
        missing: Tensor,
        forward: Callable[[Tensor], Tensor] | None = None,
        *,
        most: int = 8,
    ) -> tuple[Tensor, Tensor]:
        """The mean of answers to parts of a measurement (`Looks`), and blind predictions with ``forward``.

        A network that improves crude images has learned from such as lack a part of the values, whose errors
        are of their own kind: the crude image of all values is not one of them, and the mean of many is
        better.
        """
        looks, crude = self.entrance.looks, self.entrance.crude
        assert looks is not None
        assert crude is not None
        chosen, count = self._chosen(most), looks.count(most)
        frames, blind = [], torch.zeros_like(y)
        for f in range(len(y)):  # one by one: less memory
            frame, holes = y[f : f + 1], missing[f : f + 1]
            total = torch.zeros(())
            for i, (part, concealed) in enumerate(looks.hidden(frame, crude.operator, most)):
                x = self.turned(chosen[i % len(chosen)], self.look(frame, concealed | holes))
                total = total.to(x) + x / count
                if forward is not None:
                    blind[f : f + 1] += part * forward(x) * (looks.parts / count)
            frames.append(total)
        return torch.cat(frames), blind

    def look(self, y: Tensor, hidden: Tensor) -> Tensor:
        """What the network sees of a measurement, on the object's grid."""
        return self.entrance(y, hidden, self.pads, self.inverter.network.settings.marks, generator_for(0))

    def turned(self, symmetry: Symmetry, seen: Tensor) -> Tensor:
        """The network's answer to a transformed copy of what it sees, transformed back."""
        return symmetry.inverse(self.inverter(symmetry(seen)))

    def _chosen(self, most: int) -> Sequence[Symmetry]:
        return self.symmetries[:: max(1, math.ceil(len(self.symmetries) / most))]
