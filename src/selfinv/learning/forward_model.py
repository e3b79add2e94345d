"""A forward operator between the network's objects and normalised measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from selfinv.arrangement import for_network, for_operator
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.random import generator_for
from selfinv.operators import LinearOperator, device_of, dot_test, random_like
from selfinv.operators.tangent import Tangent
from selfinv.solvers.base import Forward
from selfinv.types import InputError, spatial_index

NOISE = 0.05  # of the range: so little that a function is nearly linear
ROUNDING = 1e-4  # relative; single precision leaves 1e-5
DARK = 0.05  # of the most light: where less comes from, or arrives, hardly anything is measured


@dataclass(frozen=True)
class ForwardModel:
    """An operator in the network's units.

    Parameters
    ----------
    operator
        In the caller's units.
    normalisation, object_normalisation
        From these to those of the measurement, and of the object, ``batch channel *space``.
    """

    operator: Forward
    normalisation: Normalisation
    object_normalisation: Normalisation

    def __call__(self, x: Tensor) -> Tensor:
        """What is measured of an object."""
        measured = self.operator(for_operator(self.operator, self.object_normalisation.undo(x)))
        return self.normalisation.apply(measured)

    def respond(self, change: Tensor) -> Tensor:
        """How a change of the object changes what is measured."""
        return self.scale * self._linear(for_operator(self.operator, change))

    def adjoint(self, y: Tensor) -> Tensor:
        """The adjoint of `respond`."""
        return self.scale * for_network(self.operator, self._linear.adjoint(y))

    def near(self, x: Tensor) -> ForwardModel:
        """Linear about an object ``x`` in the network's units: itself, or a function's tangent there."""
        if isinstance(self.operator, LinearOperator):
            return self
        return replace(self, operator=Tangent(self.operator, self.object_normalisation.undo(x)))

    def has_its_adjoint(self, channels: int) -> bool:
        """Whether derivatives there and back agree: not where part of a function's gradient is cut off."""
        return dot_test(self._linear, dtype=torch.float32, channels=channels) <= ROUNDING

    def adds_up(self, channels: int = 1) -> bool:
        """Whether each value is a sum of light from somewhere, as far as one random object shows."""
        if not isinstance(self.operator, LinearOperator):
            return False  # its tangent may
        linear = self.operator
        for operator in (linear, linear.H):
            shape = (1, channels, *operator.in_shape)
            seen = operator(random_like(linear, shape, torch.float32, 0).abs())
            if not float(seen.min()) > -1e-3 * float(seen.max()) or not float(seen.mean()) > 0.0:
                return False
        return True

    def is_local(self) -> bool:
        """Whether values that see a point of the object see mostly its neighbourhood: not so of projections.

        Told of the point that is seen best, by where its light, seen, would be put back: half of it within
        an eighth of the object (of short axes, four samples) to each side.
        """
        light = self._linear.adjoint(
            self._linear(torch.ones(1, 1, *self._linear.in_shape, device=device_of(self._linear)))
        )
        x = torch.zeros_like(light).flatten()
        brightest = int(light.argmax())
        x[brightest] = 1.0
        image = self._linear.adjoint(self._linear(x.view_as(light))).abs()
        place = np.unravel_index(brightest, light.shape)[2:]
        reach = [max(4, n // 8) for n in light.shape[2:]]
        near = image[
            spatial_index(
                slice(max(0, int(i) - r), int(i) + r + 1) for i, r in zip(place, reach, strict=True)
            )
        ]
        return float(near.sum()) > 0.5 * float(image.sum())

    def power(self, channels: int, shaped: Callable[[Tensor], Tensor] = lambda x: x) -> tuple[float, ...]:
        """Of each channel, the mean square of what is measured of a white object of variance 1.

        Or of one ``shaped`` from that. Where anything is measured at all; without the offset. Of a tangent,
        in parts of its `sensitivity`.
        """
        operator, shape = self._linear, (1, channels, *self._linear.in_shape)
        x = random_like(operator, shape, torch.float32, seed=0)
        squares = operator(shaped(x)).square()
        light = operator(torch.ones_like(x)).expand_as(squares)
        lit, scale = light > DARK * light.amax(), self.scale**2
        if isinstance(operator, Tangent):
            squares, scale = squares / light.square().clamp_min(1e-30), 1.0
        total = (squares * lit).flatten(2).sum(-1) / lit.flatten(2).sum(-1).clamp_min(1)
        return tuple((scale * total / x.square().mean())[0].tolist())

    def sensitivity(self, x: Tensor) -> Tensor:
        """How much more is measured at each place if all of the object gets brighter; 1 of an operator.

        Of a function that differs from place to place: a logarithm hardly grows where there is much light.
        ``x`` is an object of the shape and channels meant.
        """
        if not isinstance(self.operator, Tangent):
            return x.new_ones(())
        light = self.respond(torch.ones_like(x))
        return light.clamp_min(DARK * float(light.amax()))

    @torch.no_grad()
    def passed(self, like: Tensor) -> float:
        """The mean square of what is measured of white noise of variance 1 in the object, all channels.

        Of a function, of a little noise on an object in the middle of the range.

        Parameters
        ----------
        like
            An object, ``1 channel *space``; of any values.
        """
        if isinstance(self.operator, LinearOperator):
            power = self.power(like.shape[1])
            return sum(power) / len(power)
        noise = NOISE * torch.randn(like.shape, generator=generator_for(0)).to(like)
        middle = torch.full_like(like, 0.5)
        return float((self(middle + noise) - self(middle)).square().mean()) / NOISE**2

    @property
    def _linear(self) -> LinearOperator:
        if not isinstance(self.operator, LinearOperator):
            raise InputError("the operator is not linear; it has no adjoint")
        return self.operator

    @property
    def scale(self) -> float:
        """What a change of 1 in the object is, in units of the measurement, where all of it is seen."""
        return self.object_normalisation.scale / self.normalisation.scale
