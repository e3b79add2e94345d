r"""Smoothed total variation by non-linear conjugate gradients.

.. math:: F(x) = \tfrac12 \sum_{i\,\text{measured}} \bigl((Ax)_i - y_i\bigr)^2
                 + \lambda \sum_j \sqrt{|(\nabla x)_j|^2 + \epsilon}

Directions are those of Polak and Ribière, restarted where they do not descend. Along a direction :math:`d`
the first term is a parabola, told exactly by one transform :math:`Ad`; the second lies below a parabola
that touches it at the present point. Jumping to the lowest point of their sum a few times over never raises
:math:`F` and needs no further transform, so a step costs one :math:`A` and one :math:`A^\top`. With
:math:`\lambda = 0` the first jump is exact, and this is linear conjugate gradients on the normal equations
:math:`A^\top M A x = A^\top M y` (:math:`M`: what was measured).

Step lengths: Labat & Idier 2008, J. Optim. Theory Appl. 136, 43, and Chouzenoux, Idier & Moussaoui 2011,
doi:10.1109/TIP.2010.2103083; directions: Gilbert & Nocedal 1992, doi:10.1137/0802003; total variation: Rudin,
Osher & Fatemi 1992, doi:10.1016/0167-2789(92)90242-F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from selfinv.operators import Gradient, LinearOperator
from selfinv.solvers.base import Forward, Status, linear, observed
from selfinv.solvers.channelwise import constant_object, dot, ratio, spread
from selfinv.types import check_integer, check_number

JUMPS = 4  # within one line search
LOOK_BACK = 5  # steps over which the objective's fall is judged


@dataclass(frozen=True)
class Problem:
    """The data and operators of a run; ``smoothing`` is per batch and channel, ``count`` of all values."""

    y: Tensor
    measured: Tensor
    operator: LinearOperator
    gradient: Gradient
    smoothing: Tensor
    count: float


@dataclass(frozen=True)
class ConjugateGradientState:
    """A run in progress."""

    problem: Problem
    x: Tensor
    residual: Tensor
    differences: Tensor
    slope: Tensor
    direction: Tensor
    losses: tuple[float, ...]
    step: int = 0
    score: float = math.nan

    @property
    def loss(self) -> float:
        """The objective divided by the number of measured values."""
        return self.losses[-1]


@dataclass(frozen=True)
class ConjugateGradient:
    r"""Inversion with smoothed total variation.

    Parameters
    ----------
    weight
        :math:`\lambda`, in units of intensity; 0 for plain least squares, which fits the noise unless stopped
        early.
    smoothing
        :math:`\epsilon`, in units of (intensity per length)²: slopes well below its root are smoothed as by a
        quadratic penalty. Smaller is sharper and slower. None: the square of a thousandth of the range
        (1st to 99th percentile of the measured values, divided by the operator's gain) of each channel.
    spacing
        Voxel size along each axis, relative to each other. None: 1 everywhere.
    max_steps, rtol
        Iterations at most; the run has converged when the objective falls by less than this part of itself in
        five of them.

    Raises
    ------
    InputError
        If the weight is negative or not finite, the smoothing is not positive, or no iteration is allowed.

    Examples
    --------
    >>> import torch
    >>> from selfinv.operators import Identity
    >>> from selfinv.solvers import run
    >>> y = torch.tensor([[[0.0, 0, 0, 4, 4, 4]]], dtype=torch.float64)
    >>> solver = ConjugateGradient(weight=0.3)
    >>> state, status = run(solver, y, Identity((6,)))
    >>> solver.estimate(state).squeeze().round(decimals=2).tolist()  # the jump shrinks
    [0.1, 0.1, 0.1, 3.9, 3.9, 3.9]
    """

    weight: float
    smoothing: float | None = None
    spacing: tuple[float, ...] | None = None
    max_steps: int = 100
    rtol: float = 1e-5
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", least=0.0)
        if self.smoothing is not None:
            check_number(self.smoothing, "smoothing", above=0.0)
        check_integer(self.max_steps, "max_steps", least=1)

    def planned_steps(self) -> int:
        """The largest number of iterations."""
        return self.max_steps

    def init(self, y: Tensor, operator: Forward, *, seed: int = 0) -> ConjugateGradientState:
        """The state before the first iteration: the constant object that explains the measurement best.

        Nothing here is random; ``seed`` changes nothing.
        """
        A = linear(operator, y)
        values, measured = observed(y)
        x, predicted, gain = constant_object(A, values, measured)
        problem = Problem(
            y=values,
            measured=measured,
            operator=A,
            gradient=Gradient(A.in_shape, self.spacing),
            smoothing=self._smoothing(y, gain),
            count=max(1.0, float(measured.sum())),
        )
        residual = predicted - values
        differences = problem.gradient(x)
        slope = self._slope(problem, residual, differences)
        loss = self._objective(problem, residual, differences)
        return ConjugateGradientState(problem, x, residual, differences, slope, -slope, (loss,))

    def step(self, state: ConjugateGradientState) -> ConjugateGradientState:
        """One iteration: along the direction, then the next direction."""
        problem, d = state.problem, state.direction
        Ad = problem.operator(d) * problem.measured
        changes = problem.gradient(d)
        t = self._step_length(state, Ad, changes)
        residual = state.residual + spread(t, Ad) * Ad
        differences = state.differences + spread(t, changes) * changes
        slope = self._slope(problem, residual, differences)
        turn = ratio(dot(slope, slope - state.slope), dot(state.slope, state.slope)).clamp_min(0.0)
        turn = torch.where(turn * dot(d, slope) < dot(slope, slope), turn, 0.0)  # where the new one descends
        return replace(
            state,
            x=state.x + spread(t, d) * d,
            residual=residual,
            differences=differences,
            slope=slope,
            direction=spread(turn, d) * d - slope,
            losses=(*state.losses[-LOOK_BACK:], self._objective(problem, residual, differences)),
            step=state.step + 1,
        )

    def status(self, state: ConjugateGradientState) -> Status:
        """Running, converged, out of steps, or not finite."""
        first, last = state.losses[0], state.losses[-1]
        if not math.isfinite(last):
            return Status.NONFINITE
        if last == 0.0 or (len(state.losses) > LOOK_BACK and first - last <= self.rtol * abs(last)):
            return replace(Status.CONVERGED, message="converged: the objective stopped falling")
        return Status.MAX_STEPS if state.step >= self.max_steps else Status.RUNNING

    def estimate(self, state: ConjugateGradientState) -> Tensor:
        """The object, ``batch channel *in_shape``."""
        return state.x

    def _objective(self, problem: Problem, residual: Tensor, differences: Tensor) -> float:
        total = 0.5 * residual.detach().square().sum()
        if self.weight:
            total = total + self.weight * _lengths(problem, differences.detach()).sum()
        return float(total) / problem.count

    def _slope(self, problem: Problem, residual: Tensor, differences: Tensor) -> Tensor:
        slope = problem.operator.adjoint(residual)
        if self.weight:
            unit = differences / _lengths(problem, differences).unsqueeze(2)
            slope = slope + self.weight * problem.gradient.adjoint(unit)
        return slope

    def _step_length(self, state: ConjugateGradientState, Ad: Tensor, changes: Tensor) -> Tensor:
        r"""How far to go along the direction, for each batch and channel.

        With :math:`s_j(t) = \sqrt{|\nabla x + t \nabla d|_j^2 + \epsilon}`, the parabola that touches
        :math:`s_j` at :math:`t` and has the curvature :math:`|\nabla d|_j^2 / s_j(t)` is nowhere below it.
        """
        tilt, bend = dot(state.residual, Ad), dot(Ad, Ad)
        if not self.weight:
            return ratio(-tilt, bend)
        square = changes.square().sum(2)
        mixed = (changes * state.differences).sum(2)
        start = _lengths(state.problem, state.differences).square()
        floor = spread(state.problem.smoothing, square)
        t = torch.zeros_like(tilt)
        for _ in range(JUMPS):
            mixed_now = mixed + spread(t, square) * square
            length = start + spread(t, mixed) * (mixed + mixed_now)
            # Rounding can leave less than the smoothing where the true length is far below the summands.
            length = torch.maximum(length, floor).sqrt()
            slope = tilt + t * bend + self.weight * dot(mixed_now, 1.0 / length)
            t = t - ratio(slope, bend + self.weight * dot(square, 1.0 / length))
        return t

    def _smoothing(self, y: Tensor, gain: Tensor) -> Tensor:
        if self.smoothing is not None:
            return torch.full_like(gain, self.smoothing)
        spans = [_span(values[torch.isfinite(values)]) for values in y.detach().flatten(2).flatten(0, 1)]
        span = torch.stack(spans).reshape(gain.shape) / gain
        # A constant image has no range, but must not divide by 0.
        return torch.where(span > 0.0, 1e-3 * span, 1.0).square()


def paper_conjugate_gradient() -> ConjugateGradient:
    """The settings of Kobayashi et al. 2020 (arXiv:2006.06156) for images that span 0 to 1.

    Examples
    --------
    >>> paper_conjugate_gradient().max_steps
    100
    """
    return ConjugateGradient(weight=4.5e-3, smoothing=1e-10, max_steps=100, rtol=0.0)


def _lengths(problem: Problem, differences: Tensor) -> Tensor:
    squared = differences.square().sum(2)
    return (squared + spread(problem.smoothing, squared)).sqrt()


def _span(values: Tensor) -> Tensor:
    """The distance of the 1st and 99th percentiles (of at most about a million values)."""
    if values.numel() == 0:
        return values.new_zeros(())
    values = values[:: max(1, values.numel() // 1_000_000)].sort().values
    last = values.numel() - 1
    return values[math.ceil(0.99 * last)] - values[math.floor(0.01 * last)]
