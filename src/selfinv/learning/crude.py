r"""A first guess at the object where measured values are not pixels: angles, frequencies, random sums.

There is no neighbour then to fill a hidden value from, and no image to show to a network. So the hidden
values are left out of the equations, and a few steps of conjugate gradients on

.. math:: \min_x \sum_{i\,\text{shown}} \bigl((Ax)_i - y_i\bigr)^2 + \epsilon \|\nabla x\|^2

make a crude image for the network to improve: regularised by stopping early (Hanke 1995, ISBN
978-0-582-27370-2), and blind, because no step looks at a hidden value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from selfinv.learning.normalisation import Normalisation
from selfinv.operators import Gradient, LinearOperator, norm
from selfinv.solvers.conjugate_gradient import constant_object
from selfinv.types import Shape

STEPS = 8
DAMPING = 1e-3  # of the largest squared singular value
APART = 1e6  # voxels: channels are no neighbours of each other


@dataclass(frozen=True)
class CrudeInverse:
    r"""Some conjugate-gradient steps on the shown values, from the best constant, in the network's units.

    Parameters
    ----------
    operator
        From ``batch channel *in_shape`` to ``batch channel *out_shape``.
    damping
        :math:`\epsilon`.
    normalisation
        Of the measurement: without an offset, of which an operator need not make a constant.
    object_normalisation
        Of the object.
    """

    operator: LinearOperator
    slopes: Gradient
    damping: float
    normalisation: Normalisation
    object_normalisation: Normalisation

    @classmethod
    def of(cls, operator: LinearOperator, y: Tensor) -> CrudeInverse:
        """With the damping that fits the operator's norm and the units that fit the data (NaN is missing)."""
        missing = ~torch.isfinite(y)
        scale = Normalisation(0.0, max(float(y[~missing].double().std(correction=0)), 1e-30))
        apart = (APART, *(1.0,) * (len(operator.in_shape) - 1)) if operator.object_channels else None
        slopes = Gradient(operator.in_shape, apart)
        crude = cls(operator, slopes, DAMPING * norm(operator) ** 2, scale, Normalisation(0.0, 1.0))
        with torch.no_grad():
            x = crude(scale.apply(y).to(torch.float32), missing)
        return replace(crude, object_normalisation=Normalisation.of(x))

    @property
    def shape(self) -> Shape:
        """Spatial shape of the object."""
        return self.operator.in_shape[1 if self.operator.object_channels else 0 :]

    def __call__(self, y: Tensor, hidden: Tensor) -> Tensor:
        """From what is not hidden of ``y``, ``batch channel *out_shape``, to ``batch channel *space``."""
        y, shown = self.normalisation.undo(y.masked_fill(hidden, 0.0)), (~hidden).to(y.dtype)
        axes = tuple(range(2, 2 + len(self.operator.in_shape)))
        x, predicted, _ = constant_object(self.operator, y, shown)
        residual = self.operator.adjoint(y - predicted)
        direction, energy = residual, residual.square().sum(axes, keepdim=True)
        for _ in range(STEPS):
            curved = self.operator.adjoint(shown * self.operator(direction))
            curved = curved + self.damping * self.slopes.adjoint(self.slopes(direction))
            curvature = (direction * curved).sum(axes, keepdim=True)
            t = energy / curvature.clamp_min(1e-30)
            x = x + t * direction
            residual = residual - t * curved
            previous, energy = energy, residual.square().sum(axes, keepdim=True)
            direction = residual + energy / previous.clamp_min(1e-30) * direction
        x = x[:, 0] if self.operator.object_channels else x
        return self.object_normalisation.apply(x)
