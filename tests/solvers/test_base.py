"""The loop: progress, cancelling, restarts, statuses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from selfinv.solvers import Status, iterate, run


@dataclass
class Counter:
    step: int = 0
    loss: float = 1.0
    score: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class Counting:
    """A solver that only counts, and fails with the seeds it is told to."""

    steps: int = 5
    bad_seeds: tuple[int, ...] = ()

    def planned_steps(self):
        return self.steps

    def init(self, y, operator, *, seed=0):
        return Counter(seed=seed)

    def step(self, state):
        return replace(state, step=state.step + 1, loss=1.0 / (state.step + 1))

    def status(self, state):
        if state.seed in self.bad_seeds and state.step >= 2:
            return Status.NONFINITE
        return Status.MAX_STEPS if state.step >= self.steps else Status.RUNNING

    def estimate(self, state):
        return torch.full((1,), float(state.step))


Y = torch.zeros(1, 1, 4, 4)


def test_every_state_is_seen_from_the_first_to_the_last():
    states = list(iterate(Counting(), Y, lambda x: x))
    assert [s.step for s in states] == [0, 1, 2, 3, 4, 5]


def test_a_one_off_limit_stops_earlier_and_leaves_the_solver_alone():
    solver = Counting()
    state, status = run(solver, Y, lambda x: x, max_steps=2)
    assert (state.step, status) == (2, Status.MAX_STEPS)
    assert solver == Counting()


def test_a_callback_is_told_everything_and_can_stop():
    seen = []

    def callback(progress):
        seen.append(progress)
        return progress.step < 3

    state, status = run(Counting(), Y, lambda x: x, callback=callback)
    assert (state.step, status) == (3, Status.CANCELLED)
    assert [(p.step, p.max_steps, p.attempt) for p in seen] == [(1, 5, 1), (2, 5, 1), (3, 5, 1)]
    assert [p.loss for p in seen] == [1.0, 0.5, pytest.approx(1 / 3)]
    assert [p.estimate().item() for p in seen] == [1.0, 2.0, 3.0]  # each its own state's
    assert all(p.seconds >= 0 and p.seconds_left >= 0 for p in seen)


def test_ctrl_c_keeps_what_there_is():
    def callback(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    state, status = run(Counting(), Y, lambda x: x, callback=callback)
    assert status == Status.CANCELLED
    assert state.step == 3  # the last whole step that the loop handed out
    assert not status.failed


def test_failed_runs_start_again_with_another_seed_and_are_counted():
    state, status = run(Counting(bad_seeds=(0,)), Y, lambda x: x)
    assert status == Status.MAX_STEPS
    assert state.seed != 0
    assert len(status.failed_attempts) == 1
    assert "seed 0" in str(status)
    attempts = []
    _, status = run(
        Counting(bad_seeds=(0, 7919, 15838)), Y, lambda x: x, callback=lambda p: attempts.append(p.attempt)
    )
    assert status == Status.NONFINITE
    assert status.failed
    assert len(status.failed_attempts) == 2
    assert set(attempts) == {1, 2, 3}


def test_statuses_are_equal_by_name_and_carry_advice():
    assert Status.NONFINITE.after("seed 1: NaN") == Status.NONFINITE
    assert Status.NONFINITE != Status.CONVERGED
    for status in (Status.NONFINITE, Status.CHECKERBOARD, Status.WORSE_THAN_START):
        assert status.failed
        assert status.advice
