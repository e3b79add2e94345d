r"""A first guess at the object where measured values are not pixels: angles, frequencies, random sums.

There is no neighbour then to fill a hidden value from, and no image to show to a network. So the hidden
values are left out of the equations, and a few steps of conjugate gradients on

.. math:: \min_x \sum_{i\,\text{shown}} \bigl((Ax)_i - y_i\bigr)^2 + \epsilon \|\nabla x\|^2

make a crude image for the network to improve. It is blind, because no step looks at a hidden value; and
:math:`\epsilon` is the one with which such an image predicts hidden values best.

The network is asked by parts of the values, and of what it has not learned the values themselves still tell:
what its answer leaves over of them is measured from the rest of the object, for which Wiener's filter is the
best linear guess, and adds next to nothing where only noise is left. Noise with outliers it would take for
detail, and nothing is asked; nor where each value can be asked by itself (`selfinv.learning.asking`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from selfinv.arrangement import for_network, for_operator, space_of, spacing_of
from selfinv.learning.normalisation import Normalisation
from selfinv.operators import Gradient, LinearOperator, random_like
from selfinv.solvers.base import Status, run
from selfinv.solvers.channelwise import constant_object, linear_conjugate_gradients
from selfinv.solvers.wiener import Wiener
from selfinv.types import InputError, Shape

STEPS = 10
DAMPINGS = [10.0 ** (1 - k / 2) for k in range(12)]  # of the mean squared response to a random object


@dataclass(frozen=True)
class CrudeInverse:
    r"""Some conjugate-gradient steps on the shown values, from the best constant, in the network's units.

    Parameters
    ----------
    operator
        From ``batch channel *in_shape`` to ``batch channel *out_shape``.
    slopes, damping
        :math:`\nabla` and :math:`\epsilon`.
    normalisation
        Of the measurement: without an offset, of which an operator need not make a constant.
    object_normalisation
        Of the object.
    asks_rest
        Whether answers are to take in what they leave over (`with_rest`).
    """

    operator: LinearOperator
    slopes: Gradient
    damping: float
    normalisation: Normalisation
    object_normalisation: Normalisation
    asks_rest: bool = False

    @classmethod
    @torch.no_grad()
    def of(cls, operator: LinearOperator, y: Tensor, hidden: Tensor) -> CrudeInverse:
        """With the units that fit the data, and the damping that predicts ``hidden`` values best.

        ``y`` is ``batch channel *out_shape``, NaN where missing.
        """
        missing = ~torch.isfinite(y)
        scale = Normalisation(0.0, float(y[~missing].double().std(correction=0)) or 1.0)
        slopes = Gradient(operator.in_shape, spacing_of(operator, None)).to(y.device)
        crude = cls(operator, slopes, 0.0, scale, Normalisation(0.0, 1.0))
        filled = scale.apply(y).masked_fill(missing, 0.0).float()
        unseen, scored = missing | hidden, hidden & ~missing
        best, worse = torch.inf, 0
        for damping in crude._dampings():
            trial = replace(crude, damping=damping)
            predicted = scale.apply(operator(trial.solve(filled, unseen)))
            score = float((predicted - filled)[scored].abs().mean())
            worse = 0 if score < best else worse + 1
            if score < best:
                best, crude = score, trial
            if worse == 2:
                break
        return replace(crude, object_normalisation=Normalisation.of(crude(filled, unseen)))

    def settings(self) -> dict[str, Any]:
        """What there is to know besides the operator, as plain JSON types."""
        return {
            "in_shape": self.operator.in_shape,
            "out_shape": self.operator.out_shape,
            "damping": self.damping,
            "normalisation": asdict(self.normalisation),
            "object_normalisation": asdict(self.object_normalisation),
            "asks_rest": self.asks_rest,
        }

    @classmethod
    def with_settings(cls, operator: LinearOperator, settings: dict[str, Any]) -> CrudeInverse:
        """Undo `settings` for the same operator."""
        kept = tuple(settings["in_shape"]), tuple(settings["out_shape"])
        if kept != (operator.in_shape, operator.out_shape):
            raise InputError(
                f"the model was trained for an operator from {kept[0]} to {kept[1]}, and the one given goes "
                f"from {operator.in_shape} to {operator.out_shape}"
            )
        return cls(
            operator,
            Gradient(operator.in_shape, spacing_of(operator, None)),
            settings["damping"],
            Normalisation(**settings["normalisation"]),
            Normalisation(**settings["object_normalisation"]),
            settings["asks_rest"],
        )

    @property
    def shape(self) -> Shape:
        """Spatial shape of the object."""
        return space_of(self.operator)

    def __call__(self, y: Tensor, hidden: Tensor) -> Tensor:
        """From what is not hidden of ``y``, ``batch channel *out_shape``, to ``batch channel *space``."""
        return self.object_normalisation.apply(for_network(self.operator, self.solve(y, hidden)))

    def solve(self, y: Tensor, hidden: Tensor) -> Tensor:
        """The same in the operator's axes and units."""
        y, shown = y.masked_fill(hidden, 0.0), (~hidden).to(y.dtype)
        x, predicted, _ = constant_object(self.operator, y, shown)

        def curve(d: Tensor) -> Tensor:
            seen = self.operator.adjoint(shown * self.operator(d))
            return seen + self.damping * self.slopes.adjoint(self.slopes(d))

        x = x + linear_conjugate_gradients(curve, self.operator.adjoint(y - predicted), STEPS)
        return self.normalisation.undo(x)  # the last: in any unit squares are within single precision

    @torch.no_grad()
    def with_rest(self, x: Tensor, y: Tensor, hidden: Tensor) -> Tensor:
        """An answer ``x``, ``batch channel *space``, and what is not hidden of ``y`` tells beyond it."""
        if not self.asks_rest:
            return x
        answered = for_operator(self.operator, self.object_normalisation.undo(x))
        left = (y - self.normalisation.apply(self.operator(answered))).masked_fill(hidden, torch.nan)
        rest = torch.cat([self._told_by(frame) for frame in left.split(1)])  # one by one: less memory
        rest = rest * self.normalisation.scale
        return self.object_normalisation.apply(for_network(self.operator, answered + rest))

    def _told_by(self, left: Tensor) -> Tensor:
        """The object that values tell of, NaN where missing; nothing if that has no answer."""
        solver = Wiener()
        end, status = run(solver, left, self.operator)
        if status == Status.CANCELLED:
            raise KeyboardInterrupt  # which ended this solve alone
        x = solver.estimate(end)
        return torch.zeros_like(x) if status.failed else x

    def _dampings(self) -> list[float]:
        x = random_like(self.operator, (1, 1, *self.operator.in_shape), torch.float32, seed=0)
        response = float(self.operator(x).square().sum() / x.square().sum())
        return [factor * response for factor in DAMPINGS]
