"""Whether a forward operator, of whatever make, can serve as the model of a measurement: tried at once."""

from __future__ import annotations

import torch
from torch import Tensor

from selfinv.operators import LinearOperator
from selfinv.operators.base import check_linear
from selfinv.solvers.base import Forward
from selfinv.types import InputError, warn

ROUNDING = 1e-3  # relative; single precision leaves 1e-5, and sums over a million values more
GAINS = (1e-10, 1e8)  # between which every method works in single precision
UNUSABLE = 0.1  # relative error of an adjoint; gradients with one are still of use below


def check_built(operator: object) -> None:
    """Raise `InputError` if what is passed as an operator is none, or has not been told its shapes."""
    if isinstance(operator, LinearOperator | type):
        check_linear(operator)
    if hasattr(operator, "matvec"):
        raise InputError(
            f"operator is a {type(operator).__name__} of another package; selfinv.operators.from_scipy (or "
            f"from_pylops) makes one of ours of it"
        )
    if operator is not None and not callable(operator):
        raise InputError(
            f"operator is a {type(operator).__name__}; pass a function, or a LinearOperator "
            f"(selfinv.operators.from_scipy makes one of a matrix)"
        )


def probe(forward: Forward, y: Tensor) -> Forward:
    """Try an operator on an object of random values like those measured.

    Parameters
    ----------
    y
        The measurement, ``batch channel *space``, NaN where missing.

    Returns
    -------
    Forward
        The same; one of another precision is made to keep that of what it is applied to.

    Raises
    ------
    InputError
        If the operator fails, gives another shape than the measurement's, complex values or NaN, is random,
        or cannot be differentiated; or if it is a `LinearOperator` but not linear, lets one frame or channel
        tell of another, measures nothing or in extreme units, or has another operator's adjoint.
    """
    shape = (*y.shape[:2], *forward.in_shape) if isinstance(forward, LinearOperator) else y.shape
    measured = y[torch.isfinite(y)]
    low, high = float(measured.min()), float(measured.max())
    # Values like those measured: where there is nothing at all, a function may well have no slope.
    x = low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    x = x.to(y.device).requires_grad_()
    try:
        predicted = forward(x)
        again = forward(x.detach())
    except Exception as error:  # whatever a caller's code may raise
        if isinstance(error, RuntimeError) and "call numpy()" in str(error):  # torch's words
            raise InputError(
                "the operator calls NumPy, which tells no gradient; write it in torch functions (torch.fft, "
                "torch.nn.functional, ...), or, if it is linear, pass it with its adjoint "
                "(selfinv.operators.from_scipy)"
            ) from None
        raise InputError(f"the operator failed on an object of the shape {tuple(x.shape)}: {error}") from None
    if not isinstance(predicted, Tensor) or predicted.shape != y.shape:
        found = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
        raise InputError(f"the operator gives {found} for the measurement's shape {tuple(y.shape)}")
    if predicted.is_complex():
        raise InputError(
            "the operator gives complex values; give the real and the imaginary part, or the magnitude"
        )
    if not bool(torch.isfinite(predicted).all()):
        raise InputError(
            "the operator gives NaN or infinite values for an object of values like those measured"
        )
    both = again.detach(), predicted.detach()
    apart, size = _norm(both[0] - both[1]), max(map(_norm, both))
    if not apart <= ROUNDING * size:
        raise InputError(
            f"the operator is random: the same object is measured twice with a difference of "
            f"{apart / size:.2g} of its size; leave noise out of it, and set a network in it to eval()"
        )
    if not predicted.requires_grad:
        raise InputError(
            "the operator is not differentiable: its output does not depend on its input in torch"
        )
    if isinstance(forward, LinearOperator):
        forward = forward if predicted.dtype == x.dtype else 1.0 * forward
        with torch.no_grad():
            x, predicted = x.detach(), predicted.detach()
            _check_linear(forward, x, predicted)
            _check_apart(forward, x, predicted)
        return forward
    if predicted.dtype != x.dtype:  # by an array of another precision in it
        function = forward
        forward = lambda x: function(x).to(x.dtype)  # noqa: E731
    (slope,) = torch.autograd.grad(predicted.sum(), x, allow_unused=True)
    if slope is None or not bool(slope.any()):
        raise InputError(
            "the operator is not differentiable: its gradient is zero at every pixel, as that of rounding or "
            "of a sign is; give a smooth version of it"
        )
    if not bool(torch.isfinite(slope).all()):
        raise InputError("the operator's gradient is NaN or infinite at values like those measured")
    return forward


def _check_linear(operator: LinearOperator, x: Tensor, ax: Tensor) -> None:
    """Compare ``A(x - m)`` with ``A(x) - A(m)`` for a constant m, and what it sends back with its square."""
    name = type(operator).__name__
    level = torch.full_like(x, float(x.mean()))
    of_level, measured = operator(level), operator(x - level)
    missed = _norm(measured - (ax - of_level))
    size = _norm(ax) + _norm(of_level)
    if size == 0.0:
        raise InputError(f"{name} measures nothing: it gives 0 for every object tried")
    if not missed <= ROUNDING * size:
        raise InputError(
            f"{name} is not linear: A(x - z) and A(x) - A(z) differ by {missed / size:.2g} of their size; "
            f"pass a function instead of a LinearOperator"
        )
    gain = _norm(ax) / _norm(x)
    if not GAINS[0] <= gain <= GAINS[1]:
        raise InputError(
            f"{name} makes values about {gain:.1g} times as large as the object's; expected {GAINS[0]:g} to "
            f"{GAINS[1]:g} times, where single precision suffices: divide the operator by {gain:.1g}, and "
            f"what is restored, too"
        )
    try:
        returned = operator.adjoint(measured)
    except Exception as error:
        raise InputError(f"{name}.adjoint failed on a measurement: {error}") from None
    if not isinstance(returned, Tensor) or returned.is_complex():
        found = f"a complex {returned.dtype}" if isinstance(returned, Tensor) else type(returned).__name__
        raise InputError(f"{name}.adjoint gives {found}; expected a real tensor")
    if returned.shape != x.shape:
        raise InputError(
            f"{name}.adjoint gives {tuple(returned.shape)} for the object's shape {tuple(x.shape)}"
        )
    # <Ax, Ax> and <x, A^T A x>: with two unrelated vectors both would be near 0, whatever the adjoint.
    forth, back = _norm(measured) ** 2, float(((x - level).cpu().double() * returned.cpu().double()).sum())
    mismatch = abs(forth - back) / max(forth, abs(back), (ROUNDING * size) ** 2)
    if not mismatch <= UNUSABLE:
        raise InputError(
            f"{name}.adjoint is not the adjoint of its forward: <Ax, Ax> and <x, adjoint(Ax)> differ by "
            f"{mismatch:.0%}; correct it (selfinv.operators.dot_test checks it), or leave it out if "
            f"forward is written in torch"
        )
    if mismatch > ROUNDING:
        warn(
            f"{name}.adjoint is only nearly the adjoint of its forward (to {mismatch:.1%}); methods that "
            f"search for a minimum may end beside it"
        )


def _check_apart(operator: LinearOperator, x: Tensor, ax: Tensor) -> None:
    """Whether another first frame, or channel, changes what is measured of the others."""
    for axis, noun in enumerate(("frame", "channel")):
        if x.shape[axis] > 1:
            other = x.clone()
            other.narrow(axis, 0, 1).zero_()
            rest = x.shape[axis] - 1
            changed = (operator(other) - ax).narrow(axis, 1, rest)
            if not _norm(changed) <= ROUNDING * _norm(ax):
                raise InputError(
                    f"what {type(operator).__name__} measures of one {noun} depends on another {noun}; "
                    f"leading axes must go through it one by one"
                )


def _norm(x: Tensor) -> float:
    """In double precision, in which squares of values in any unit have a place."""
    return float(x.cpu().double().norm())
