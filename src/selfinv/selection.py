"""Tune methods by the blind score, choose between them, and solve once more on all values.

Hide some measured values, solve on the rest, and see how the hidden ones are predicted (`selfinv.held_out`):
that tunes any method and chooses between methods, for one image, without clean data or a noise model
(`selfinv.trials`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from selfinv.arrangement import always_shown_of, together_of
from selfinv.held_out import MAX_FOLDS, MOST, count_folds, hold_out
from selfinv.learning.capacity import white_variance
from selfinv.learning.losses import MaskedLoss, choose_loss
from selfinv.learning.lost_detail import lost_detail
from selfinv.operators import Identity
from selfinv.solvers.base import Forward, Solver, Status
from selfinv.trials import Mixture, Trial, difference, mix
from selfinv.tuning import ATTEMPTS, CONVINCING, MAX_TRIALS, Candidate, SelfTunedState, final, tune
from selfinv.types import InputError

__all__ = ["Candidate", "SelfTuned", "SelfTunedState"]

HINTED = 1.0  # standard errors, where the first has no advantage: a few large values hide any difference
FINISHED = replace(Status.CONVERGED, message="finished: method and settings chosen by held-out values")


@dataclass(frozen=True)
class SelfTuned:
    """Tunes every candidate by the blind score, chooses by it too, and solves once more on all values.

    The first candidate is kept unless another one is better by three standard errors (one, if not
    ``cautious``) and the first's margin.
    The others are mixed in where that predicts hidden values better, by ``mixed_beyond`` standard errors.
    On a small image a single set of hidden values is too few to tell settings apart; then each setting is
    tried several times, with other values hidden, unless a candidate has nothing to be tuned, as a network
    has that takes long to train.

    Parameters
    ----------
    candidates
        The methods, in the order of preference.
    fraction, loss, blind_spot
        See `hold_out`.
    mixed_beyond
        By how many standard errors a mean of several methods has to predict hidden values better, to be the
        result (`mix`); None: it is by one alone.
    cautious
        Whether the first is expected to make fewer errors of those that hidden values do not tell. Then
        others take its place, or are given weight (`mix`), more reluctantly.
    most
        The share of values that is hidden at most where ``fraction`` is None.
    keeps_detail
        Whether the result may not have lost any (`lost_detail`) if another method takes less away and has
        not. For images that are not blurred: of thin lines and small spots hidden values only say that none
        can predict them.

    Raises
    ------
    InputError
        If there is no candidate.
    """

    candidates: tuple[Candidate, ...]
    fraction: float | None = None
    loss: MaskedLoss | None = None
    blind_spot: tuple[int, ...] = ()
    mixed_beyond: float | None = None
    cautious: bool = True
    most: float = MOST
    keeps_detail: bool = False

    def __post_init__(self) -> None:
        if not self.candidates:
            raise InputError("there is no method to choose from; give at least one candidate")

    @property
    def _tunes_all(self) -> bool:
        return all(candidate.parameter is not None for candidate in self.candidates)

    def planned_steps(self) -> int:
        """An upper bound of the steps of all solves together."""
        solves = {None: ATTEMPTS, "steps": 1}
        searches, last = 0, 0
        folds = (MAX_FOLDS if self._tunes_all else 1) + 1  # and all values
        for c in self.candidates:
            once = c.solver(c.first).planned_steps() + 1  # preparing a solve is a step too
            reference = c.reference.planned_steps() + 1 if c.reference is not None else 0
            searches += folds * (solves.get(c.parameter, MAX_TRIALS) * once + reference)
            last = max(last, once + reference) if self.mixed_beyond is None else last + once + reference
        return searches + last

    def init(self, y: Tensor, operator: Forward, *, seed: int = 0) -> SelfTunedState:
        """Set values apart and prepare the first solve."""
        always, folds = always_shown_of(operator, y), 1
        if self._tunes_all:
            folds = count_folds(y, self.fraction, self.blind_spot, self.most, always)
        hold = partial(
            hold_out,
            y,
            fraction=self.fraction,
            most=self.most,
            blind_spot=self.blind_spot,
            together=together_of(operator),
            always=always,
            seed=seed + 11,
        )
        loss = self.loss or choose_loss(y)
        # What denoises a value that it is shown does something else than what predicts it from the others.
        asks_all = isinstance(operator, Identity) and loss.kind == "l2"
        state = SelfTunedState(
            tuple(hold(fold=fold, loss=loss) for fold in range(folds)),
            iter(()),
            lambda: torch.empty(0),
            convincing=CONVINCING if self.cautious else HINTED,
            noise=white_variance(y, ~torch.isfinite(y)) if asks_all else math.nan,
        )
        state.search = self._search(state, operator, seed)
        next(state.search)  # mistakes show here, before the first step
        return state

    def step(self, state: SelfTunedState) -> SelfTunedState:
        """One step of whichever solve is going on."""
        if next(state.search, state) is state:
            state.finished = True
        state.step += 1
        return state

    def status(self, state: SelfTunedState) -> Status:
        """Running until the last solve, on all values, has ended."""
        if not state.finished:
            return Status.RUNNING
        assert state.solver is not None
        status = state.solver.status(state.inner)
        return status if status.failed else FINISHED

    def end(self, state: SelfTunedState) -> tuple[Solver | None, Any]:
        """The solver, and its state, that `estimate` is of; of a mixture, the chosen one's."""
        if state.kept_end is None or state.finished:
            return state.solver, state.inner
        return state.kept_end

    def estimate(self, state: SelfTunedState) -> Tensor:
        """The best object so far: of the settings tried, before there is one, of the solve going on."""
        if state.mixture is not None:
            parts = ((w, *state.finals[name]) for name, w in state.mixture.weights.items())
            return sum((w * solver.estimate(inner) for w, solver, inner in parts), start=torch.zeros(()))
        return state.latest() if state.kept is None or state.finished else state.kept

    # ---- the search: every `yield` is the end of one step of a solver ----

    def _search(self, state: SelfTunedState, operator: Forward, seed: int) -> Iterator[None]:
        ends: dict[str, Any] = {}
        for candidate in self.candidates:
            try:
                ends[candidate.name] = yield from tune(candidate, state, operator, seed)
            except InputError as error:
                if candidate is self.candidates[0]:
                    raise
                state.skipped[candidate.name] = str(error)  # what the first can take, another need not
                state.best.pop(candidate.name, None)  # of settings tried before
        chosen = state.chosen = self._choose(
            list(state.best.values()), state.held_out.score_of_a_constant(), state.convincing
        )
        others = [trial for trial in state.best.values() if trial is not chosen]
        mixture = Mixture({chosen.name: 1.0}, chosen)
        if self.mixed_beyond is not None:
            loss = state.held_out.loss
            mixture = mix(chosen, others, loss, better=self.mixed_beyond, cautious=self.cautious)
        if chosen.name not in mixture.weights:  # another is better by itself
            chosen = state.chosen = state.best[max(mixture.weights, key=mixture.weights.__getitem__)]
        candidates = {candidate.name: candidate for candidate in self.candidates}

        def solved(name: str) -> Generator[None, None, None]:
            yield from final(candidates[name], state, operator, seed, ends.get(name))
            assert state.solver is not None
            state.finals[name] = state.solver, state.inner

        for name in [n for n in mixture.weights if n != chosen.name]:
            try:
                yield from solved(name)
                solver, inner = state.finals[name]
                if solver.status(inner).failed or not bool(torch.isfinite(solver.estimate(inner)).all()):
                    raise InputError("its last solve failed")
            except InputError as error:
                state.skipped[name] = str(error)
                mixture = mixture.without(name, list(state.best.values()), state.held_out.loss)
        yield from solved(chosen.name)  # the last: how it ended is how the run ended
        state.chosen = state.best[chosen.name]
        if len(mixture.weights) > 1:
            state.mixture = mixture
        if self.keeps_detail and state.held_out.loss.kind == "l2":
            yield from self._keep_detail(state, solved)

    def _keep_detail(
        self, state: SelfTunedState, solved: Callable[[str], Generator[None, None, None]]
    ) -> Generator[None, None, None]:
        """If the result takes away more than noise, the next best method that takes less, and noise alone."""
        chosen, y = state.chosen, state.held_out.y
        assert chosen is not None
        x = self.estimate(replace(state, finished=True))
        if not bool(torch.isfinite(x).all()) or not lost_detail(y, x):
            return
        most = (y - x).square().nanmean()
        stands_out = "what it takes away stands out of the noise, as fine detail does"
        passed_over = {chosen.name: stands_out}
        for trial in sorted(state.best.values(), key=lambda trial: trial.score):
            if trial.name == chosen.name or not math.isfinite(trial.score):
                continue
            if trial.name not in state.finals:
                try:
                    yield from solved(trial.name)
                except InputError as error:
                    state.skipped[trial.name] = str(error)
                    continue
            solver, inner = state.finals[trial.name]
            other = solver.estimate(inner)
            if solver.status(inner).failed:
                passed_over[trial.name] = "its last solve failed"
            elif not (y - other).square().nanmean() < most:
                passed_over[trial.name] = f"it takes away no less than {chosen.name}"
            elif lost_detail(y, other):
                passed_over[trial.name] = stands_out
            else:
                state.skipped |= passed_over
                state.chosen, state.mixture = state.best[trial.name], None
                break
        assert state.chosen is not None
        state.solver, state.inner = state.finals[state.chosen.name]
        state.latest = partial(state.solver.estimate, state.inner)

    def _choose(self, trials: Sequence[Trial], score_of_a_constant: float, convincing: float) -> Trial:
        trials = [t for t in trials if math.isfinite(t.score)] or trials
        lowest = min(trials, key=lambda trial: trial.score)
        margins = {candidate.name: candidate.margin for candidate in self.candidates}
        for trial in trials:
            worse = difference(trial, lowest)
            explained = score_of_a_constant - trial.score
            margin = margins[trial.name] * explained if explained else 0.0
            if trial is lowest or worse.mean <= max(convincing * worse.error, margin):
                return trial
        return lowest
