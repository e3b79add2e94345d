"""A forward operator between the network's objects and normalised measurements."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selfinv.arrangement import for_network, for_operator
from selfinv.learning.normalisation import Normalisation
from selfinv.operators import LinearOperator, random_like
from selfinv.solvers.base import Forward
from selfinv.types import InputError, spatial_index

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
        return self._scale * self._linear(for_operator(self.operator, change))

    def adjoint(self, y: Tensor) -> Tensor:
        """The adjoint of `respond`."""
        return self._scale * for_network(self.operator, self._linear.adjoint(y))

    def adds_up(self) -> bool:
        """Whether each value is a sum of light from somewhere, as far as one random object shows."""
        if not isinstance(self.operator, LinearOperator):
            return False
        for operator in (self.operator, self.operator.H):
            seen = operator(random_like(self.operator, (1, 1, *operator.in_shape), torch.float32, 0).abs())
            if not float(seen.min()) > -1e-3 * float(seen.max()) or not float(seen.mean()) > 0.0:
                return False
        return True

    def is_local(self) -> bool:
        """Whether values that see a point of the object see mostly its neighbourhood: not so of projections.

        Told by half of the adjoint's image of a point in the middle, within an eighth of the object to each
        side.
        """
        shape = (1, 1, *self._linear.in_shape)
        x = torch.zeros(shape, device=random_like(self._linear, shape, torch.float32, 0).device)
        x[(0, 0, *(n // 2 for n in shape[2:]))] = 1.0
        image = self._linear.adjoint(self._linear(x)).abs()
        near = image[spatial_index(slice(n // 2 - n // 8, n // 2 + n // 8 + 1) for n in shape[2:])]
        return float(near.sum()) > 0.5 * float(image.sum())

    def power(self, channels: int) -> tuple[float, ...]:
        """Of each channel, the mean square of what is measured of a white object of variance 1.

        Where anything is measured at all; without the offset.
        """
        operator, shape = self._linear, (1, channels, *self._linear.in_shape)
        x = random_like(operator, shape, torch.float32, seed=0)
        squares = operator(x).square()
        light = operator(torch.ones_like(x)).expand_as(squares)
        lit = light > DARK * light.amax()
        total = (squares * lit).flatten(2).sum(-1) / lit.flatten(2).sum(-1).clamp_min(1)
        return tuple((self._scale**2 * total / x.square().mean())[0].tolist())

    @property
    def _linear(self) -> LinearOperator:
        if not isinstance(self.operator, LinearOperator):
            raise InputError("the operator is not linear; it has no adjoint")
        return self.operator

    @property
    def _scale(self) -> float:
        return self.object_normalisation.scale / self.normalisation.scale
