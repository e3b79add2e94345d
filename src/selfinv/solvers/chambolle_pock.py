r"""Total variation by the primal-dual method of Chambolle and Pock, preconditioned in Fourier space.

.. math:: \min_x \sum_{i\,\text{measured}} F\bigl((Ax)_i, y_i\bigr) + \lambda \sum_j \|(\nabla x)_j\|_2
          \quad\text{subject to}\quad l \le x \le u

is the saddle point of :math:`\langle Kx, z\rangle - f^*(z)` with :math:`K = (A, \nabla, 1)`. An iteration is

.. math:: x^+ = x - T K^\top z, \qquad
          z^+ = \mathrm{prox}_{\Sigma f^*}\bigl(z + \Sigma K(2x^+ - x)\bigr)

and converges if :math:`\|\Sigma^{1/2} K T^{1/2}\| < 1`. The textbook takes numbers for :math:`T` and
:math:`\Sigma`, which the largest singular value of the gradient makes small. Here :math:`T` is nearly the
inverse of :math:`K^\top \Sigma K` (`selfinv.solvers.metric`).

Chambolle & Pock 2011, doi:10.1007/s10851-010-0251-1; preconditioning: Pock & Chambolle 2011,
doi:10.1109/ICCV.2011.6126441; over-relaxation: Condat 2013, doi:10.1007/s10957-012-0245-9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from selfinv.functionals import Box, Fidelity, SquaredL2, TotalVariation, noise_scale
from selfinv.operators import Gradient, LinearOperator, is_nonnegative, random_like
from selfinv.solvers.base import Forward, Status, linear, observed
from selfinv.solvers.channelwise import constant_object, spread
from selfinv.solvers.metric import Metric
from selfinv.types import InputError, check_integer, check_number

RELAXATION = 1.6
FAR = 10.0  # ranges of the present values; an object's values are supposed not to lie further out
SIGMA_BOX = 0.05  # dual step of the box against the fidelity's
SLOPE = 0.2  # of the object's deviation: gradients that matter, where the noise does not tell
USUAL_GAINS = (0.1, 10.0)  # squared, of operators; in other units only their ratio to these matters
STRONG = 10.0  # first weight of a search: strong weights fill in what is hidden, weaker ones go on from there


@dataclass
class ChambollePockState:
    """A run in progress (changed in place by `ChambollePock.step`)."""

    y: Tensor
    measured: Tensor
    metric: Metric
    sigmas: tuple[float, float, float]
    x: Tensor
    predicted: Tensor
    fidelity_dual: Tensor
    gradient_dual: Tensor
    box_dual: Tensor
    step: int = 0
    loss: float = math.nan
    score: float = math.nan
    gap: float = math.inf
    failure: Status | None = None


@dataclass(frozen=True)
class ChambollePock:
    r"""Total-variation regularised inversion.

    Parameters
    ----------
    weight
        :math:`\lambda`: of the total variation, in the units that make both terms alike (intensity units for
        the squared L2 and Huber fidelities, a number for L1 and Poisson).
    fidelity
        What a deviation from the measured values costs; `selfinv.functionals`.
    box
        Bounds of the object's values.
    spacing
        Voxel size along each axis, relative to each other.
    steps
        ``"preconditioned"``, or ``"fixed"``: the textbook's numbers, no over-relaxation, to compare with.
    max_steps, rtol
        Iterations at most; the run has converged when the primal-dual gap is so small against the objective.

    Raises
    ------
    InputError
        If the weight is negative or not finite, or no iteration is allowed.

    Examples
    --------
    >>> import torch
    >>> from selfinv.operators import Identity
    >>> from selfinv.solvers import run
    >>> y = torch.tensor([[[0.0, 0, 0, 4, 4, 4]]])
    >>> state, status = run(ChambollePock(weight=0.3, max_steps=200), y, Identity((6,)))
    >>> ChambollePock(weight=0.3).estimate(state).squeeze().mul(10).round().tolist()  # the jump shrinks
    [1.0, 1.0, 1.0, 39.0, 39.0, 39.0]
    """

    weight: float
    fidelity: Fidelity = field(default_factory=SquaredL2)
    box: Box = field(default_factory=Box)
    spacing: tuple[float, ...] | None = None
    steps: Literal["preconditioned", "fixed"] = "preconditioned"
    max_steps: int = 200
    rtol: float = 1e-3
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", least=0.0)
        check_number(self.rtol, "rtol", least=0.0)
        if self.steps not in ("preconditioned", "fixed"):
            raise InputError(f"steps={self.steps!r} is unknown; use 'preconditioned' or 'fixed'")
        check_integer(self.max_steps, "max_steps", least=1)

    def planned_steps(self) -> int:
        """The largest number of iterations."""
        return self.max_steps

    def init(
        self, y: Tensor, operator: Forward, *, seed: int = 0, start: ChambollePockState | None = None
    ) -> ChambollePockState:
        """The state before the first iteration.

        Parameters
        ----------
        start
            Begin where another run on the same operator stood (with another weight or other values missing).
        """
        A = linear(operator, y)
        filled, measured = observed(y)
        metric = start.metric if start else Metric(A, Gradient(A.in_shape, self.spacing), filled)
        curvature = self.fidelity.curvature(y)
        if self.steps == "preconditioned":
            sigmas = self._sigmas(y, metric, curvature)
            metric = metric.stepping(sigmas, measured)
        else:
            sigmas = (1 / metric.norm(),) * 3
            metric = metric.fixed(sigmas[0])
        if start is not None:
            return replace(
                start,
                y=filled,
                measured=measured,
                metric=metric,
                sigmas=sigmas,
                x=start.x.clone(),
                predicted=start.predicted.clone(),
                fidelity_dual=start.fidelity_dual * measured,
                gradient_dual=start.gradient_dual.clone(),
                box_dual=start.box_dual.clone(),
                step=0,
                gap=math.inf,
                failure=None,
            )
        x = _start(metric, filled, measured)
        return ChambollePockState(
            y=filled,
            measured=measured,
            metric=metric,
            sigmas=sigmas,
            x=x,
            predicted=metric.predict(x).clone(),  # the identity returns its argument
            fidelity_dual=torch.zeros_like(filled),
            gradient_dual=torch.zeros_like(metric.gradient(metric.inside(x))),
            box_dual=torch.zeros_like(x),
        )

    def _sigmas(self, y: Tensor, metric: Metric, sigma: float) -> tuple[float, float, float]:
        """Dual steps of fidelity, gradient and box: the size of each dual over that of what it multiplies.

        ``sigma``: the first at a gain of 1, the fidelity's curvature.
        A gradient's dual is at most as long as the weight, and gradients that matter are about as large as
        the noise, or where noise is not in pixels, a part of the object's deviation.
        """
        if metric.on_grid:
            gain = _beyond(float(metric.gain.max()))  # squared
            seen, gradient = sigma * gain, self.weight * math.sqrt(gain) / noise_scale(y)
            return sigma, min(max(gradient, 0.01 * seen), 10.0 * seen), SIGMA_BOX * seen
        gain = float(metric.gain.mean())
        gradient = self.weight / _typical_slope(metric.A, y)
        gradient = min(max(gradient, 0.01 * sigma * gain), 100.0 * sigma * gain)
        return sigma, gradient, SIGMA_BOX * sigma * min(1.0, _beyond(gain))

    @torch.no_grad()
    def step(self, state: ChambollePockState) -> ChambollePockState:
        """One iteration; every tenth also measures the gap."""
        s, metric = state, state.metric
        sigma_a, sigma_g, sigma_b = s.sigmas
        ndim = len(metric.domain)
        change, predicted_change = metric.solve(s.fidelity_dual, s.gradient_dual, s.box_dual)
        # What the duals see is 2 x+ - x = x - 2 T K^T z.
        ahead = torch.sub(s.x, change, alpha=2.0)
        u = torch.add(s.fidelity_dual, torch.sub(s.predicted, predicted_change, alpha=2.0), alpha=sigma_a)
        u = self.fidelity.dual_prox(u, sigma_a, s.y).mul_(s.measured)
        p = metric.gradient(metric.inside(ahead)).mul_(sigma_g).add_(s.gradient_dual)
        p = TotalVariation(self.weight).dual_prox_(p, ndim)
        q = ahead.mul_(sigma_b).add_(s.box_dual)
        inside = metric.inside(q)
        inside.sub_(self.box.prox(inside / sigma_b), alpha=sigma_b)
        relaxation = RELAXATION if self.steps == "preconditioned" else 1.0
        s.x.sub_(change, alpha=relaxation)
        s.predicted.sub_(predicted_change, alpha=relaxation)
        s.fidelity_dual.lerp_(u, relaxation)
        s.gradient_dual.lerp_(p, relaxation)
        s.box_dual.lerp_(q, relaxation)
        s.step += 1
        if s.step % 10 == 0 or s.step == self.max_steps:
            self._measure_gap(s, u, p)
        return s

    def status(self, state: ChambollePockState) -> Status:
        """Running, converged, out of steps, or not finite."""
        if state.failure is not None:
            return state.failure
        if math.isfinite(state.gap) and state.gap <= self.rtol * abs(state.loss):
            return replace(Status.CONVERGED, message="converged: the primal-dual gap closed")
        return Status.MAX_STEPS if state.step >= self.max_steps else Status.RUNNING

    def estimate(self, state: ChambollePockState) -> Tensor:
        """The object, within the box, ``batch channel *in_shape``."""
        return self.box.prox(state.metric.inside(state.x)).clone()

    def objective(self, x: Tensor, y: Tensor, operator: LinearOperator) -> Tensor:
        """The objective at an object, one number per batch and channel, per measured value."""
        filled, measured = observed(y)
        ndim = len(operator.in_shape)
        gradient = Gradient(operator.in_shape, self.spacing)(x)
        cost = (self.fidelity.value(operator(x), filled) * measured).flatten(2).sum(-1)
        variation = TotalVariation(self.weight).value(gradient, ndim).flatten(2).sum(-1)
        return (cost + variation) / measured.flatten(2).sum(-1).clamp_min(1.0)

    def _measure_gap(self, s: ChambollePockState, u: Tensor, p: Tensor) -> None:
        r"""Primal minus dual objective, both at feasible points.

        The dual is :math:`-F^*(u) + \min_x \langle x, A^\top u + \nabla^\top p\rangle` over the box, for any
        :math:`u, p` in their domains. An open side of the box is closed well beyond the present values,
        where the minimiser cannot lie (the restricted gap of Chambolle & Pock 2011, section 3.1).
        """
        x = self.estimate(s)
        metric, ndim = s.metric, len(s.metric.domain)
        predicted = metric.predict(metric.embed(x))
        slope = metric.adjoint(u) + metric.gradient.adjoint(p)
        low, high = float(x.min()), float(x.max())
        reach = high - low
        low = low - FAR * reach if self.box.lower is None else self.box.lower
        high = high + FAR * reach if self.box.upper is None else self.box.upper
        count = float(s.measured.sum().clamp_min(1.0))
        gradient = metric.gradient(x)
        primal = float((self.fidelity.value(predicted, s.y) * s.measured).sum(dtype=torch.float64))
        primal += float(TotalVariation(self.weight).value(gradient, ndim).sum(dtype=torch.float64))
        dual = -float((self.fidelity.conjugate(u, s.y) * s.measured).sum(dtype=torch.float64))
        dual += float(torch.minimum(slope * low, slope * high).sum(dtype=torch.float64))
        s.loss, s.gap = primal / count, (primal - dual) / count
        # An infinite objective is no failure: counts where none are predicted cost that, until the next step.
        if not math.isfinite(dual) or math.isnan(primal):
            s.failure = Status.NONFINITE


def _start(metric: Metric, y: Tensor, measured: Tensor) -> Tensor:
    """A constant object with the mean of what was measured, or that explains it best."""
    if metric.otf is None:
        return constant_object(metric.A, y, measured)[0]
    space = tuple(range(2, y.ndim))
    mean = y.sum(space, keepdim=True) / measured.sum(space, keepdim=True).clamp_min(1.0)
    return metric.embed(mean.expand(*y.shape[:2], *metric.A.in_shape))


def box_of_light(A: Forward, y: Tensor) -> Box:
    """No value of the object below 0, where none was measured and the operator makes none of light.

    Of a difference of channels, say, or seen through an operator times -1, an object has any sign.
    """
    lowest = float(torch.where(torch.isfinite(y), y, torch.inf).min())
    light = lowest >= 0.0 and isinstance(A, LinearOperator) and is_nonnegative(A)
    return Box(lower=0.0 if light else None)


def strong_weight(A: LinearOperator, y: Tensor) -> float:
    """A strong weight, told without the noise: several times what balances both terms at typical gradients.

    That of a squared deviation is taken from random objects.

    Parameters
    ----------
    A
        Its measured values need not be pixels.
    y
        Measurement, ``batch channel *out_shape``, NaN where missing.
    """
    probe = random_like(A, (1, 1, *A.in_shape), y.dtype, seed=0)
    with torch.no_grad():
        return STRONG * float(A(probe).square().sum() / probe.square().sum()) * _typical_slope(A, y)


def _beyond(gain: float) -> float:
    """By what a gain is out of the range in which the steps are right as they are."""
    low, high = USUAL_GAINS
    return gain / min(max(gain, low), high)


def _typical_slope(A: LinearOperator, y: Tensor) -> float:
    """A part of the object's deviation, were its values seen as well as a constant is."""
    filled, measured = observed(y)
    _, flat, gain = constant_object(A, filled, measured)
    deviation = (filled - flat) * measured / spread(gain, filled)
    variance = float(deviation.square().sum(dtype=torch.float64) / measured.sum().clamp_min(1.0))
    return max(SLOPE * math.sqrt(variance), torch.finfo(torch.float32).tiny)
