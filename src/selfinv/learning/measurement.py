"""One measurement made ready for training: normalised, validation values set apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.inverter import Entrance, Inverter, TrainedInverse
from selfinv.learning.masks import drawn_shape
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.random import generator_for
from selfinv.learning.symmetry import Symmetry
from selfinv.operators import LinearOperator, device_of
from selfinv.solvers.base import Forward
from selfinv.types import InputError, Pads, Shape, spatial_index

UNITS = 0.25  # of the range: constants that come out as near to themselves have its units
FEWEST = 4  # sets of values hidden together that are enough to score with


@dataclass(frozen=True)
class Measurement:
    """A measurement and all that does not change while a network is trained on it.

    Parameters
    ----------
    y
        ``batch channel *space``, normalised; missing values are 0.
    missing, validation
        Boolean, of the same shape.
    operator
        Object to measurement.
    pads
        How far the object's grid reaches beyond the measurement's, before and after, per spatial axis.
    normalisation
        From the caller's units to those of ``y``.
    object_normalisation
        From the object's units to the network's.
    symmetries
        Grid symmetries to train on and average over, the identity first.
    entrance
        How a network sees it.
    """

    y: Tensor
    missing: Tensor
    validation: Tensor
    operator: Forward
    pads: Pads
    normalisation: Normalisation
    object_normalisation: Normalisation
    symmetries: tuple[Symmetry, ...]
    entrance: Entrance = field(default_factory=Entrance)

    @property
    def object_shape(self) -> Shape:
        """Spatial shape of the object's grid."""
        if self.entrance.crude is not None:
            return self.entrance.crude.shape
        return tuple(n + a + b for n, (a, b) in zip(self.y.shape[2:], self.pads, strict=True))

    @property
    def object_values(self) -> int:
        """Of the object, in all frames: what windows are parts of."""
        return self.y.shape[0] * math.prod(self.object_shape)

    @property
    def can_be_cut(self) -> bool:
        """Whether a part of the measurement depends on a part of the object only."""
        return isinstance(self.operator, LinearOperator) and self.operator.reach is not None

    @cached_property
    def frames_alike(self) -> bool:
        """Whether one frame is measured as any other is: what holds something for each makes all of one."""
        if len(self.y) == 1:
            return True
        operator = self.operator
        shape = operator.in_shape if isinstance(operator, LinearOperator) else self.object_shape
        x = self.y.new_full((1, self.y.shape[1], *shape), 0.5)
        with torch.no_grad():
            return len(operator(self.object_normalisation.undo(x))) == 1

    @property
    def forward_model(self) -> ForwardModel:
        """The operator between the network's units."""
        return ForwardModel(self.operator, self.normalisation, self.object_normalisation)

    def inverse(self, inverter: Inverter) -> TrainedInverse:
        """What a network that was trained on it makes of such a measurement."""
        return TrainedInverse(inverter, self.pads, self.symmetries, self.entrance)

    @property
    def validated(self) -> Tensor:
        """Where there is a value to validate against."""
        return self.validation & ~self.missing


def object_pads(operator: Forward, shape: Sequence[int]) -> Pads:
    """How far an operator's object reaches beyond a measurement of this spatial shape.

    Raises
    ------
    InputError
        If the operator does not measure this shape, or not on the object's pixel grid.
    """
    if not isinstance(operator, LinearOperator):
        return tuple((0, 0) for _ in shape)
    if operator.out_shape != tuple(shape):
        raise InputError(
            f"the operator gives measurements of the shape {operator.out_shape} "
            f"but the image has the spatial shape {tuple(shape)}"
        )
    view = operator.field_of_view
    if view is None or tuple(s.stop - s.start for s in view) != tuple(shape):
        raise InputError("this method needs an operator whose measured values lie on the object's pixel grid")
    return tuple((s.start, n - s.stop) for s, n in zip(view, operator.in_shape, strict=True))


@torch.no_grad()
def gain(operator: Forward) -> float:
    """What an operator makes of a constant object of 1, on average; 1 if that is nothing or not known."""
    if not isinstance(operator, LinearOperator):
        return 1.0
    one = operator(torch.ones(1, 1, *operator.in_shape, device=device_of(operator)))
    mean = float(one.double().mean())
    return mean if abs(mean) > 1e-6 * float(one.abs().max()) else 1.0


def object_units(operator: Forward, y: Tensor, normalisation: Normalisation) -> Normalisation:
    """The object's range, of what an operator makes of constants: what it turns into that of ``y``.

    A function that is nearly the identity, or makes no constants of them, or none near that range, is taken
    to keep units.

    Parameters
    ----------
    y
        ``batch channel *space``, in the caller's units.
    normalisation
        Of it.
    """
    if isinstance(operator, LinearOperator):
        return normalisation.divided_by(gain(operator))
    ends = (normalisation.offset, normalisation.offset + normalisation.scale)
    near = UNITS * normalisation.scale

    @torch.no_grad()
    def response(level: float) -> float:
        """NaN if that is no constant."""
        measured = operator(torch.full_like(y[:1], level, dtype=torch.float32)).double()
        middle = measured.median()
        return float(middle) if float((measured - middle).abs().mean()) <= near else math.nan

    if all(abs(response(end) - end) <= near for end in ends):
        return normalisation
    size = max(map(abs, ends))
    levels = [sign * size * 10.0 ** (k / 8) for sign in (1, -1) for k in range(-48, 49)]
    responses = [(response(level), level) for level in (0.0, *levels)]
    known = [pair for pair in responses if math.isfinite(pair[0])]
    found = [min(known, key=lambda pair: abs(pair[0] - end), default=(math.nan, end)) for end in ends]
    if not all(abs(made - end) <= near for (made, _), end in zip(found, ends, strict=True)):
        return normalisation
    low, high = sorted(level for _, level in found)
    return Normalisation(low, high - low) if high > low else normalisation


def field_of_view(pads: Pads, shape: Sequence[int]) -> tuple[Any, ...]:
    """Where a measurement of this spatial shape lies on its object's grid."""
    return spatial_index(slice(a, a + n) for (a, _), n in zip(pads, shape, strict=True))


def sets_in(candidates: Tensor, drawn: Shape) -> Tensor:
    """Which of the sets that are hidden together (`drawn_shape`) hold any of the ``candidates``."""
    joint = [axis for axis, n in enumerate(drawn) if n == 1]
    return candidates.any(dim=joint, keepdim=True) if joint else candidates


def draw_validation(
    candidates: Tensor, fraction: float, seed: int, *, joint_channels: bool, together: Sequence[int] = ()
) -> Tensor:
    """A fixed random set of the values that the boolean ``candidates`` names, to validate on.

    Of few sets of values that are hidden together, it is a tenth, at least one.
    """
    drawn = drawn_shape(candidates.shape, joint_channels=joint_channels, together=together)
    sets = sets_in(candidates, drawn)
    there = int(sets.sum())
    if not there:
        raise InputError("no measured value can be hidden, and nothing tells a network's success without one")
    place = torch.rand(drawn, generator=generator_for(seed)).to(candidates.device)
    least = max(1, min(FEWEST, there // 10))
    enough = max(fraction, float(place[sets].kthvalue(least).values))
    return (sets & (place <= enough)).expand(candidates.shape) & candidates
