"""Classical methods tuned with the truth: what no user can have, and what self-tuning is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from selfinv.benchmark.problem import Problem, Restored
from selfinv.benchmark.scores import blur_and_noise, clipped_psnr
from selfinv.functionals import Huber, SquaredL2, noise_scale
from selfinv.operators import LinearOperator
from selfinv.solvers.base import Solver, Status
from selfinv.solvers.chambolle_pock import ChambollePock, box_of_light
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.solvers.wiener import Wiener
from selfinv.types import Array, InputError

STEP = math.sqrt(0.5)  # between weights: a finer search gains less than 0.02 dB
WORSE = 3  # so many in a row end a search
CURVE = 40  # iterations of Richardson-Lucy that are looked at in any case


def tv_chambolle_pock(problem: Problem) -> Restored:
    """Total variation, squared L2 or Huber fidelity, with the weight nearest to the truth."""
    y, A, to_image = problem.forward_model()
    noise = noise_scale(y, least=1e-6)
    box = box_of_light(A, y)
    best: Restored | None = None
    for name, fidelity in (("L2", SquaredL2()), ("Huber", Huber(noise))):

        def solver(weight: float, fidelity: Any = fidelity) -> Solver:
            return ChambollePock(weight, fidelity, box, problem.spacing, max_steps=100)

        found = _best(problem, _along_weights(solver, 0.5 * noise, y, A), to_image, f"{name}, weight")
        if best is None or _quality(problem, found) > _quality(problem, best):
            best = found
    assert best is not None
    return _finished(problem, best)


def tv_conjugate_gradient(problem: Problem) -> Restored:
    """Smoothed total variation with the weight nearest to the truth."""
    y, A, to_image = problem.forward_model()

    def solver(weight: float) -> Solver:
        return ConjugateGradient(weight, spacing=problem.spacing, max_steps=60)

    weights = _along_weights(solver, 0.5 * noise_scale(y, least=1e-6), y, A)
    return _finished(problem, _best(problem, weights, to_image, "weight"))


def wiener(problem: Problem) -> Restored:
    """The Wiener filter with the balance nearest to the truth."""
    y, A, to_image = problem.forward_model()
    balances = _along_weights(lambda balance: Wiener(balance=balance), 32.0, y, A)
    return _finished(problem, _best(problem, balances, to_image, "balance"))


def richardson_lucy(problem: Problem) -> Restored:
    """Richardson-Lucy at the iteration nearest to the truth, and its way from blurred to noisy."""
    y, A, to_image = problem.forward_model()
    truth = _truth(problem)
    best: tuple[float, int, Array] | None = None
    curve = []
    solver = RichardsonLucy(max_steps=400)
    state = solver.init(y, A)
    while solver.status(state) == Status.RUNNING:
        state = solver.step(state)
        now = problem.watch.seconds()
        with problem.watch.paused():
            image = to_image(solver.estimate(state))
            quality = clipped_psnr(truth, image)
            if state.step <= CURVE or state.step % 10 == 0:
                blur, noise = blur_and_noise(truth, image)
                curve.append(
                    {"steps": state.step, "psnr": quality, "blur": blur, "noise": noise, "seconds": now}
                )
        if best is None or quality > best[0]:
            best = (quality, state.step, image)
        elif state.step > max(CURVE, 2 * best[1]):
            break
    assert best is not None
    found = Restored(best[2], steps=best[1], setting=f"steps {best[1]}", device=str(y.device), curve=curve)
    return _finished(problem, found)


def _along_weights(
    solver_for: Callable[[float], Solver], first: float, y: Tensor, A: LinearOperator
) -> Iterator[tuple[float, Tensor]]:
    """Solutions from strong to weak regularisation, each started from the last where a solver can."""
    state, value = None, first
    for _ in range(24):
        solver = solver_for(value)
        if state is not None and isinstance(solver, ChambollePock | Wiener):
            state = solver.init(y, A, start=state)
        else:
            state = solver.init(y, A)
        while solver.status(state) == Status.RUNNING:
            state = solver.step(state)
        yield value, solver.estimate(state)
        value *= STEP


def _best(
    problem: Problem,
    solutions: Iterator[tuple[float, Tensor]],
    to_image: Callable[[Tensor], Array],
    word: str,
) -> Restored:
    truth, worse = _truth(problem), 0
    best: tuple[float, float, Array | None] = (-math.inf, math.nan, None)
    for value, x in solutions:
        image = to_image(x)
        quality = clipped_psnr(truth, image)
        best, worse = ((quality, value, image), 0) if quality > best[0] else (best, worse + 1)
        if worse == WORSE:
            break
    if best[2] is None:
        raise InputError("no setting gave an image")
    return Restored(best[2], setting=f"{word} {best[1]:.3g}")


def _finished(problem: Problem, restored: Restored) -> Restored:
    """With all its time as tuning's: no user can search with the truth."""
    restored.training_seconds = problem.watch.seconds()
    return restored


def _truth(problem: Problem) -> Array:
    if problem.truth is None:
        raise InputError("an oracle needs the truth, and here is none")
    return problem.truth


def _quality(problem: Problem, restored: Restored) -> float:
    return clipped_psnr(_truth(problem), restored.image)
