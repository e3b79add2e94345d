r"""Richardson–Lucy: the maximum-likelihood object under Poisson noise, by expectation maximisation.

For counts :math:`y \sim \mathrm{Poisson}(Ax + b)` the negative log-likelihood is, up to a constant, the
generalised Kullback–Leibler divergence over the measured values (:math:`m_i = 1`, else 0)

.. math:: D(x) = \sum_i m_i \Bigl( y_i \log \frac{y_i}{(Ax + b)_i} - y_i + (Ax + b)_i \Bigr)

and expectation maximisation gives the multiplicative update

.. math:: x^+ = \frac{x}{A^\top m} \, A^\top \frac{m\, y}{A x + b}

which keeps :math:`x \ge 0` and never increases :math:`D` if :math:`A`, :math:`y` and :math:`b` have no
negative entries. Stopping early is what keeps the noise down: more iterations fit the noise too.

Richardson 1972, doi:10.1364/JOSA.62.000055; Lucy 1974, doi:10.1086/111605; as expectation maximisation, with
the division by :math:`A^\top m`: Shepp & Vardi 1982, doi:10.1109/TMI.1982.4307558; with a background: Snyder,
Hammoud & White 1993, doi:10.1364/JOSAA.10.001014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from selfinv.operators import Gradient, LinearOperator
from selfinv.solvers.base import Forward, Status, linear, observed
from selfinv.solvers.channelwise import spread
from selfinv.types import InputError, check_integer, check_number, spatial_index, warn


@dataclass(frozen=True)
class Problem:
    r"""What stays the same in all iterations.

    Parameters
    ----------
    y, weights
        The data, and 1 where measured; 0 elsewhere. ``weights`` is None if everything was measured.
    inverse_sensitivity, unseen
        :math:`1 / A^\top m`, and where no measured value sees the object, so that there is none (None:
        nowhere).
    floor
        The smallest prediction told from 0, for each image: rounding takes FFT convolutions below it.
    """

    operator: LinearOperator
    y: Tensor
    weights: Tensor | None
    measured: int
    background: float
    inverse_sensitivity: Tensor
    unseen: Tensor | None
    floor: Tensor


@dataclass(frozen=True)
class RichardsonLucyState:
    r"""A run in progress.

    Parameters
    ----------
    x
        The estimate.
    point
        Where the next iteration starts: the estimate, or an extrapolation of it.
    change
        What the last iteration changed, if that is needed to extrapolate.
    score
        NaN: there is no held-out score.
    """

    problem: Problem
    x: Tensor
    point: Tensor
    change: Tensor | None = None
    step: int = 0
    score: float = math.nan

    @cached_property
    def predicted(self) -> Tensor:
        r""":math:`A\,\mathrm{point} + b`, nowhere below the floor; nobody needs that of the last state."""
        with torch.no_grad():
            return _predict(self.problem, self.point)

    def take_prediction(self) -> Tensor:
        """The prediction, to be overwritten; it is worked out again if anybody asks for it later."""
        predicted = self.predicted
        del self.__dict__["predicted"]
        return predicted

    @cached_property
    def finite(self) -> bool:
        """Whether the estimate is."""
        return math.isfinite(float(self.x.sum()))

    @property
    def loss(self) -> float:
        r""":math:`D(\mathrm{point})` per measured value, worked out when asked for."""
        return _divergence(self.problem, self.predicted)


@dataclass(frozen=True)
class RichardsonLucy:
    r"""Richardson–Lucy deconvolution, for any linear operator without negative entries.

    The paper's rows (Kobayashi et al. 2020, arXiv:2006.06156) are ``RichardsonLucy(max_steps=5)``, ``10`` and
    ``20``. The start is constant, for each batch and channel the constant whose image has the mean of ``y``;
    where no measured value sees the object it stays, and a warning says so. Images and channels do not
    influence each other.

    Parameters
    ----------
    max_steps
        Iterations, each of one forward and one adjoint operation. They are the regularisation.
    background
        :math:`b`, a known offset, in the units of ``y``, that no object causes (dark counts, a camera's
        offset). A negative one is subtracted from ``y`` instead, which is the same model.
    acceleration
        Extrapolate along the last change, as far as successive changes agree (Biggs & Andrews 1997,
        doi:10.1364/AO.36.001766): the same likelihood in several times fewer iterations, but no proof that
        each one gains. ``loss`` is then that of the extrapolated point.
    tv_weight
        :math:`\lambda` of a total-variation term, a pure number, about 0.002 (Dey et al. 2006,
        doi:10.1002/jemt.20294), isotropic over space: the update is divided by
        :math:`1 - \lambda\,\mathrm{div}(\nabla x / |\nabla x|)`. Gradients below :math:`4 n \lambda x` (with
        :math:`n` axes) count as slopes, not edges; flat regions would flicker otherwise. ``loss`` does not
        contain the term.

    Raises
    ------
    InputError
        If a parameter is out of range; from `init` if no value is positive, if the operator has no adjoint,
        the wrong shape or negative entries, or if ``tv_weight`` is large enough to change the update's sign.

    Examples
    --------
    >>> import torch
    >>> from selfinv.operators import Convolution
    >>> from selfinv.solvers import run
    >>> y = torch.tensor([[[0.0, 0, 1, 2, 1, 0, 0]]])  # batch channel x
    >>> A = Convolution(torch.tensor([0.25, 0.5, 0.25]), (7,), "zero")
    >>> solver = RichardsonLucy(max_steps=200)
    >>> state, status = run(solver, y, A)
    >>> solver.estimate(state).squeeze().round(decimals=1).tolist()
    [0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]
    """

    max_steps: int = 50
    background: float = 0.0
    acceleration: bool = False
    tv_weight: float = 0.0
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer(self.max_steps, "max_steps", least=1)
        check_number(self.background, "background")
        check_number(self.tv_weight, "tv_weight", least=0.0)

    def planned_steps(self) -> int:
        """The number of iterations."""
        return self.max_steps

    @torch.no_grad()
    def init(self, y: Tensor, operator: Forward, *, seed: int = 0) -> RichardsonLucyState:
        """The constant start. Nothing is random: the seed changes nothing."""
        A = linear(operator, y)
        _check_tv_weight(self.tv_weight, len(A.in_shape))
        finite, weights = observed(y)
        counts = _counts(finite, weights, self.background)
        sensitivity, unseen = _sensitivity(A, weights)
        _tell_unseen(unseen, A)

        background = max(self.background, 0.0)
        signal = (counts - background * weights).clamp_(min=0.0) if background else counts
        total = signal.flatten(2).sum(dim=2)
        seen = weights.flatten(2).sum(dim=2).clamp_(min=1.0)
        tiny = torch.finfo(y.dtype).tiny
        # A constant object c predicts measured values of the sum c * sensitivity.sum().
        start = spread(total / sensitivity.flatten(2).sum(dim=2).clamp_(min=tiny), sensitivity)
        mean = spread(total / seen, y)
        inverse = sensitivity.reciprocal_()
        measured = int(weights.sum(dtype=torch.float64))
        problem = Problem(
            operator=A,
            y=counts,
            weights=None if measured == y.numel() else weights,
            measured=measured,
            background=background,
            inverse_sensitivity=inverse if unseen is None else inverse.masked_fill_(unseen, 0.0),
            unseen=unseen,
            floor=(mean * torch.finfo(y.dtype).eps).clamp_(min=tiny),
        )
        x = start.repeat(1, 1, *A.in_shape)
        return RichardsonLucyState(problem, x=x, point=x)

    @torch.no_grad()
    def step(self, state: RichardsonLucyState) -> RichardsonLucyState:
        """One iteration."""
        problem, point = state.problem, state.point
        ratio = state.take_prediction()
        torch.div(problem.y, ratio, out=ratio)  # missing values are 0 in y
        factor = problem.operator.adjoint(ratio).mul_(problem.inverse_sensitivity)
        if self.tv_weight:
            factor.div_(_total_variation_factor(point, self.tv_weight))
        factor.clamp_(min=0.0)  # rounding in an FFT may go below
        if problem.unseen is not None:
            factor.masked_fill_(problem.unseen, 1.0)
        x = factor.mul_(point)
        start, change = x, None
        if self.acceleration:
            change = x - point
            start = _extrapolate(x, state.x, change, state.change)
        return RichardsonLucyState(problem, x, start, change, state.step + 1)

    def status(self, state: RichardsonLucyState) -> Status:
        """Running, out of steps, or failed."""
        if not state.finite:
            return Status.NONFINITE
        return Status.MAX_STEPS if state.step >= self.max_steps else Status.RUNNING

    def estimate(self, state: RichardsonLucyState) -> Tensor:
        """The object: nowhere negative, in the measurement's units, on the operator's object grid."""
        return state.x


def _counts(y: Tensor, weights: Tensor, background: float) -> Tensor:
    """The data as Poisson statistics take them: with an offset not below 0, and no value below 0."""
    if not bool(weights.any()):
        raise InputError("every value is NaN or infinite, that is missing; expected some measured values")
    if background < 0:
        y = y - background * weights
    lowest, highest = (float(bound) for bound in y.aminmax())
    if highest <= max(background, 0.0):  # missing values are 0 here
        lower = "give a lower background" if background > 0 else "leave in an offset that was subtracted"
        raise InputError(
            f"no measured value is above {background:g}, the background; Richardson–Lucy needs some that "
            f"are: {lower}, or use a TV method"
        )
    if lowest < 0:
        least = min(background, 0.0)
        warn(
            f"{int((y < 0).sum())} of {int(weights.count_nonzero())} values are below {least:g}, which "
            f"Richardson–Lucy cannot take, and were set to {least:g}, which makes dark regions too bright; "
            f"if an offset was subtracted from the image, leave it in, or use a TV method"
        )
        y = y.clamp(min=0.0)
    return y


def _check_tv_weight(weight: float, ndim: int) -> None:
    # Backward differences of vectors no longer than 1 sum to a divergence of at most n + sqrt(n).
    limit = 1.0 / (ndim + math.sqrt(ndim))
    if weight >= limit:
        raise InputError(
            f"tv_weight is {weight:g}, which may turn the update negative; with {ndim} spatial axes expected "
            f"less than {limit:.3f}: give for instance 0.002, or use a TV method"
        )


def _sensitivity(operator: LinearOperator, weights: Tensor) -> tuple[Tensor, Tensor | None]:
    r""":math:`A^\top m`, and where it is taken to be 0 (None: nowhere).

    An FFT convolution has errors of the order of the rounding unit times the largest value; what is seen by
    less than the root of that would be known to less than half of the digits.
    """
    sensitivity = _apart(operator.adjoint(weights), weights)
    flat = sensitivity.flatten(2)
    lowest, highest = flat.amin(dim=2), flat.amax(dim=2)
    least = math.sqrt(torch.finfo(weights.dtype).eps) * torch.maximum(-lowest, highest)
    if bool((lowest < -least).any()):
        raise InputError(
            f"the operator ({type(operator).__name__}) has negative entries; Richardson–Lucy needs all to be "
            f"0 or more: take negative values out of the psf, or use a TV method"
        )
    if not bool((highest > 0).any()):
        raise InputError(
            f"the operator ({type(operator).__name__}) makes 0 of every object; check that the psf is not 0"
        )
    if bool((lowest > least).all()):
        return sensitivity, None
    return sensitivity, sensitivity <= spread(least, sensitivity)


def _tell_unseen(unseen: Tensor | None, operator: LinearOperator) -> None:
    """Warn if the image, less what lies beyond its edges, has pixels that will keep their start value."""
    shown = None if unseen is None else unseen[spatial_index(operator.view)]
    if shown is not None and bool(shown.any()):
        warn(
            f"no measured value depends on {int(shown.sum())} of the object's {shown.numel()} pixels, and "
            f"Richardson–Lucy leaves them at the constant that it starts from; to have them filled in, use a "
            f"method with a prior: tv-chambolle-pock or ssi"
        )


def _apart(result: Tensor, source: Tensor) -> Tensor:
    """The result in memory of its own, to be changed in place: the identity and crops give the source's."""
    shared = result.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
    return result.clone() if shared else result


def _predict(problem: Problem, x: Tensor) -> Tensor:
    predicted = _apart(problem.operator(x), x)
    if problem.background:
        predicted.add_(problem.background)
    return torch.maximum(predicted, problem.floor, out=predicted)


def _divergence(problem: Problem, predicted: Tensor) -> float:
    """The divergence of the data from their prediction, per measured value."""
    excess = predicted - problem.y
    if problem.weights is not None:
        excess.mul_(problem.weights)
    divergence = excess.sum()
    # Where y is 0 any logarithm will do, as long as it is finite; torch.xlogy takes ten times as long.
    ratio = torch.div(problem.y, predicted, out=excess)
    logarithm = ratio.clamp_(min=torch.finfo(ratio.dtype).tiny).log_()
    divergence += torch.dot(problem.y.flatten(), logarithm.flatten())
    return float(divergence) / problem.measured


def _extrapolate(x: Tensor, previous: Tensor, change: Tensor, last_change: Tensor | None) -> Tensor:
    """Where Biggs & Andrews expect the iterations to lead, with one factor for each image."""
    if last_change is None:
        return x
    agreement = (change * last_change).flatten(2).sum(dim=2)
    length = last_change.square().flatten(2).sum(dim=2).clamp_(min=torch.finfo(x.dtype).tiny)
    factor = spread((agreement / length).clamp_(0.0, 1.0), x)
    point = torch.addcmul(x, x - previous, factor)
    return torch.where(point > 0, point, x)  # a value once 0 would remain so


def _total_variation_factor(x: Tensor, weight: float) -> Tensor:
    r"""Dey et al.'s :math:`1 - \lambda\,\mathrm{div}(\nabla x / |\nabla x|)`; div is minus the adjoint.

    In a flat region of the level x an explicit step leaves :math:`1 - 4 n \lambda x / \epsilon` of the finest
    pattern, where :math:`\epsilon` is the smallest length of a gradient: below half of this one it flickers.
    """
    gradient = Gradient(x.shape[2:])
    slope = gradient(x)
    length = (4 * (x.ndim - 2) * weight * x).square_()  # torch.linalg.vector_norm takes forty times as long
    for component in slope.unbind(dim=2):
        length.addcmul_(component, component)
    length.sqrt_().clamp_(min=torch.finfo(x.dtype).tiny)
    return gradient.adjoint(slope.div_(length.unsqueeze(2))).mul_(weight).add_(1.0)
