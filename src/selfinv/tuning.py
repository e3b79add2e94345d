"""How the settings of one method are told by the blind score."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from selfinv.held_out import HeldOut
from selfinv.solvers.base import Forward, Phase, Solver, Status, attempts_of, seed_of_attempt
from selfinv.trials import Mixture, Trial, difference, squared_error_when_shown
from selfinv.types import InputError, SelfinvWarning

MAX_TRIALS = 14  # of one candidate
FINAL = "final"
ATTEMPTS = 3  # of a candidate that may fail
CONVINCING = 3.0  # standard errors: what is put in the first's place is the best of some ten settings


@dataclass(frozen=True)
class Candidate:
    """A method to be tuned.

    Parameters
    ----------
    name
        Of the method.
    solver
        Makes the solver for a value of the tuned parameter.
    alone
        The same for a solve that has nothing to start from; None: the same solver.
    parameter
        What is tuned: ``"steps"``, the number of iterations, by the distance to ``reference``; ``None``,
        nothing; any other name, by the blind score, in a search from strong to weak regularisation, each
        solve started where the last one ended.
    first, factor
        Where that search begins, and the ratio of its coarse steps; of ``"steps"``, the most.
    reference
        Estimates the mean of what the object may be.
    margin
        How much worse its blind score may be, as a part of how much better it is than a constant's: of errors
        that the operator hides the score knows nothing, and a method may make fewer of those.
    own
        The setting that the method tells itself by what it is shown, if any: taken where it predicts hidden
        values no better than a constant does, which says nothing of its settings.
    """

    name: str
    solver: Callable[[float], Solver]
    parameter: str | None = None
    first: float = 1.0
    factor: float = 0.5
    reference: Solver | None = None
    margin: float = 0.0
    own: float | None = None
    alone: Callable[[float], Solver] | None = None

    def fixed(self, setting: float) -> Solver:
        """The solver with this setting, for a solve that has nothing to start from."""
        return (self.alone or self.solver)(setting)


@dataclass
class SelfTunedState:
    """A search in progress (changed in place by `SelfTuned.step`)."""

    folds: tuple[HeldOut, ...]
    search: Iterator[None]
    latest: Callable[[], Tensor]
    convincing: float
    kept: Tensor | None = None
    kept_end: tuple[Solver, Any] | None = None
    trials: list[Trial] = field(default_factory=list)
    best: dict[str, Trial] = field(default_factory=dict)
    chosen: Trial | None = None
    mixture: Mixture | None = None
    finals: dict[str, tuple[Solver, Any]] = field(default_factory=dict)
    solver: Solver | None = None
    inner: Any = None
    failures: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    noise: float = math.nan
    phase: Phase | None = None
    step: int = 0
    loss: float = math.nan
    score: float = math.nan
    finished: bool = False

    @property
    def trial(self) -> Trial | None:
        """Of what `SelfTuned.estimate` gives: the chosen one; before the end the best; None before any."""
        lowest = min(self.trials, key=lambda trial: trial.score, default=None)
        return self.chosen if self.finished else lowest

    @property
    def held_out(self) -> HeldOut:
        """The first of the sets of values that are held out; the estimates shown on the way do without it."""
        return self.folds[0]


def final(
    candidate: Candidate, state: SelfTunedState, operator: Forward, seed: int, start: Any
) -> Generator[None, None, None]:
    """The solve on all values with the setting that was best; its solver does nearly the same alone."""
    trial = state.best[candidate.name]
    if candidate.parameter == "steps":  # what was hidden may change their best number a little
        best = yield from _nearest(candidate, state.held_out.y, operator, state, seed, FINAL)
        trial = state.best[candidate.name] = replace(trial, setting=best.step)
    else:
        yield from _solve(
            candidate.solver(trial.setting), state.held_out.y, operator, state, seed, start, FINAL
        )
    state.solver = candidate.fixed(trial.setting)


def _solve(
    solver: Solver,
    y: Tensor,
    operator: Forward,
    state: SelfTunedState,
    seed: int,
    start: Any,
    name: str,
    attempt: int = 1,
) -> Generator[None, None, Any]:
    """One solve, step by step; returns its last state."""
    with warnings.catch_warnings():
        # What is wrong with the data is said once, and of what the result is made of only.
        if not name.startswith(FINAL):
            warnings.simplefilter("ignore", SelfinvWarning)
        if start is not None and "start" in inspect.signature(solver.init).parameters:
            inner = solver.init(y, operator, seed=seed, start=start)  # type: ignore[call-arg]
        else:
            inner = solver.init(y, operator, seed=seed)
    state.solver, state.inner = solver, inner
    state.latest = lambda: solver.estimate(inner)
    state.loss = math.nan
    while True:
        state.phase = Phase(name, inner.step, solver.planned_steps(), attempt)
        yield
        if solver.status(inner) != Status.RUNNING:
            return inner
        state.inner = inner = solver.step(inner)
        state.loss = inner.loss
        state.score = getattr(inner, "image_score", state.score)


def _record(
    candidate: Candidate,
    setting: float,
    solver: Solver,
    inners: Sequence[Any],
    state: SelfTunedState,
    operator: Forward,
    shown: Any = None,
) -> Trial:
    """The trial that these last states make, one for each fold, and one of all values if that counts."""
    estimates = [solver.estimate(inner) for inner in inners]
    predicted = [_predict(operator, x, f.y) for f, x in zip(state.folds, estimates, strict=True)]
    errors = torch.cat([f.errors(p) for f, p in zip(state.folds, predicted, strict=True)])
    costs = state.held_out.loss.each(errors)
    if any(solver.status(inner).failed for inner in inners):
        costs = torch.full_like(costs, math.inf)
    steps = sum(inner.step for inner in inners)
    tuned_by = math.nan
    if shown is not None:
        steps += shown.step
        answer = _predict(operator, solver.estimate(shown), state.held_out.y)
        changes = [f.at_hidden(answer - p) for f, p in zip(state.folds, predicted, strict=True)]
        tuned_by = squared_error_when_shown(errors, torch.cat(changes), state.noise)
    sets = torch.cat([fold.sets for fold in state.folds])
    trial = Trial(candidate.name, candidate.parameter, setting, costs, steps, errors, tuned_by, sets)
    if all(trial.score < other.score for other in state.trials):
        state.kept, state.kept_end = estimates[0], (candidate.fixed(setting), inners[0])
    state.trials.append(trial)
    if candidate.name not in state.best or trial.rank < state.best[candidate.name].rank:
        state.best[candidate.name] = trial
    state.score = trial.score
    return trial


@torch.no_grad()
def _predict(operator: Forward, estimate: Tensor, y: Tensor) -> Tensor:
    return operator(estimate.to(y.dtype))


def tune(
    candidate: Candidate, state: SelfTunedState, operator: Forward, seed: int
) -> Generator[None, None, Any]:
    """Find the best setting; returns the state to start the last solve from."""
    if candidate.parameter is None:
        return (yield from _once(candidate, state, operator, seed))
    if candidate.parameter == "steps":
        return (yield from _by_step(candidate, state, operator, seed))
    return (yield from _by_value(candidate, state, operator, seed))


def _once(
    candidate: Candidate, state: SelfTunedState, operator: Forward, seed: int
) -> Generator[None, None, Any]:
    solver = candidate.solver(math.nan)
    shown = state.held_out.shown
    for attempt in range(1, attempts_of(solver, ATTEMPTS) + 1):
        used_seed = seed_of_attempt(seed, attempt)
        inner = yield from _solve(solver, shown, operator, state, used_seed, None, candidate.name, attempt)
        status = solver.status(inner)
        if not status.failed:
            break
        state.failures.append(f"{candidate.name}: {status.reason}")
    _record(candidate, math.nan, solver, [inner], state, operator)
    return inner


def _by_step(
    candidate: Candidate, state: SelfTunedState, operator: Forward, seed: int
) -> Generator[None, None, None]:
    best = []
    for fold in state.folds:
        best.append((yield from _nearest(candidate, fold.shown, operator, state, seed, candidate.name)))
    steps = best[0].step
    _record(candidate, steps, candidate.solver(steps), best, state, operator)


def _nearest(
    candidate: Candidate, y: Tensor, operator: Forward, state: SelfTunedState, seed: int, name: str
) -> Generator[None, None, Any]:
    r"""The iteration nearest to the candidate's reference.

    The held-out score is blind to noise that the operator suppresses and iterations amplify without end. If
    :math:`\bar x` is the mean of what the object may be, given the data, then any estimate's expected squared
    error is :math:`\|\hat x - \bar x\|^2` and a constant: the nearest iteration is the best one.
    """
    if candidate.reference is None:
        raise InputError(f"{candidate.name} has iterations to be counted; give a reference to count by")
    inner = yield from _solve(candidate.reference, y, operator, state, seed, None, f"{name}, reference")
    reference = candidate.reference.estimate(inner)
    solver = candidate.solver(candidate.first)
    nearest, best = math.inf, None
    for _ in _solve(solver, y, operator, state, seed, None, name):
        distance = float((solver.estimate(state.inner) - reference).square().mean())
        if state.inner.step > 0 and not distance >= nearest:
            nearest, best = distance, state.inner
        elif best is not None and state.inner.step > 1.5 * best.step + 5:
            break
        yield
    if best is None:
        raise InputError(f"{candidate.name} took no step")
    state.inner, state.latest = best, lambda: solver.estimate(best)
    return best


def _by_value(
    candidate: Candidate, state: SelfTunedState, operator: Forward, seed: int
) -> Generator[None, None, Any]:
    """From strong to weak until it got worse twice in a row, or back up; then on each side of the best.

    What is far behind another method even so is not looked at more closely.
    """
    ends: dict[float, list[Any]] = {}  # for each setting, the last state of each fold, and of all values
    given = [fold.shown for fold in state.folds]
    if math.isfinite(state.noise):
        given.append(state.held_out.y)

    def attempt(value: float, starts: Sequence[Any]) -> Generator[None, None, Trial]:
        solver = candidate.solver(value)
        name = f"{candidate.name}, {candidate.parameter} {value:.3g}"
        ends[value] = []
        for y, start in zip(given, starts, strict=True):
            ends[value].append((yield from _solve(solver, y, operator, state, seed, start, name)))
        count = len(state.folds)
        return _record(candidate, value, solver, ends[value][:count], state, operator, *ends[value][count:])

    value, starts, worse = candidate.first, [None] * len(given), 0
    for _ in range(MAX_TRIALS - 3):
        trial = yield from attempt(value, starts)
        best = state.best[candidate.name]
        worse = 0 if trial is best else worse + 1
        if worse == 2 or (worse and _far_behind(best, state)):
            break
        starts = ends[value]
        value *= candidate.factor
        ends = {v: e for v, e in ends.items() if v in (trial.setting, best.setting)}
    strongest = candidate.first
    while state.best[candidate.name].setting == strongest < 100 * candidate.first:
        starts = ends[strongest]
        strongest /= candidate.factor
        yield from attempt(strongest, starts)
    centre, root = state.best[candidate.name].setting, math.sqrt(candidate.factor)
    starts = ends[centre]
    if not _far_behind(state.best[candidate.name], state):
        for value in (centre * root, centre / root):
            yield from attempt(value, starts)
    if candidate.own is not None and not _foretells(state.best[candidate.name], state):
        state.best[candidate.name] = yield from attempt(candidate.own, starts)
    return starts[0]


def _foretells(trial: Trial, state: SelfTunedState) -> bool:
    """Whether hidden values are predicted better than by a constant, and not by chance."""
    costs = torch.cat([fold.costs_of_a_constant() for fold in state.folds])
    gain = difference(replace(trial, costs=costs), trial)
    return gain.mean > 0.0 and gain.significant


def _far_behind(trial: Trial, state: SelfTunedState) -> bool:
    """Whether another method is better by so much that this one, tuned more closely, is unlikely to win."""
    rivals = [other for other in state.best.values() if other.name != trial.name]
    differences = [difference(trial, rival) for rival in rivals if math.isfinite(rival.score)]
    return any(d.mean > CONVINCING * d.error for d in differences)
