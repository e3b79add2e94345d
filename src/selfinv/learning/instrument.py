"""A forward operator between the network's objects and normalised measurements."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selfinv.arrangement import for_network, for_operator
from selfinv.learning.normalisation import Normalisation
from selfinv.operators import LinearOperator, random_like
from selfinv.solvers.base import Forward
from selfinv.types import InputError


@dataclass(frozen=True)
class Instrument:
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
        """Whether each value is a sum of light from somewhere, and light from everywhere is seen."""
        if not isinstance(self.operator, LinearOperator):
            return False
        for operator in (self.operator, self.operator.H):
            seen = operator(random_like(self.operator, (1, 1, *operator.in_shape), torch.float32, 0).abs())
            if not float(seen.min()) > -1e-3 * float(seen.max()) or not float(seen.mean()) > 0.0:
                return False
        return True

    def power(self) -> float:
        """The mean square of what is measured of a white object of variance 1, but for the offset."""
        x = random_like(self._linear, (1, 1, *self._linear.in_shape), torch.float32, seed=0)
        return self._scale**2 * float(self._linear(x).square().mean() / x.square().mean())

    @property
    def _linear(self) -> LinearOperator:
        if not isinstance(self.operator, LinearOperator):
            raise InputError("the operator is not linear; it has no adjoint")
        return self.operator

    @property
    def _scale(self) -> float:
        return self.object_normalisation.scale / self.normalisation.scale
