"""The loop: progress, cancelling, restarts, statuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch

from selfinv.operators import Convolution, Identity
from selfinv.solvers import (
    ChambollePock,
    ConjugateGradient,
    RichardsonLucy,
    Status,
    Wiener,
    base,
    iterate,
    run,
)
from selfinv.solvers.base import Phase, linear, observed
from selfinv.types import InputError


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


@pytest.mark.parametrize("solver", [ConjugateGradient(0.1), ChambollePock(0.1), Wiener(), RichardsonLucy()])
def test_where_no_seed_changes_anything_a_failed_run_is_not_repeated(solver):
    attempts = []
    y = 1e38 * torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    operator = 1e10 * Convolution(torch.ones(3, 3) / 9, (20, 20), "zero")
    _, status = run(solver, y, operator, callback=lambda p: attempts.append(p.attempt))
    assert status.failed
    assert set(attempts) <= {1}
    assert "after" not in str(status)


def test_statuses_are_equal_by_name_and_carry_advice():
    assert Status.NONFINITE.after("seed 1: NaN") == Status.NONFINITE
    assert Status.NONFINITE != Status.CONVERGED
    for status in (Status.NONFINITE, Status.CHECKERBOARD, Status.WORSE_THAN_START):
        assert status.failed
        assert status.advice
    assert "learning rate" not in Status.NONFINITE.advice  # which most methods have not


# ---- parts of a run ----


@dataclass(frozen=True)
class InParts(Counting):
    """Two parts of three steps, each begun by a step of its own."""

    def planned_steps(self):
        return 100

    def step(self, state):
        state = replace(state, step=state.step + 1)
        part, step = divmod(state.step - 1, 4)
        state.phase = Phase("ab"[part], step, 3)
        return state

    def status(self, state):
        return Status.MAX_STEPS if state.step >= 8 else Status.RUNNING


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(base.time, "monotonic", lambda: now[0])
    return now


def test_a_part_of_a_run_has_its_own_steps():
    seen = []
    state, status = run(
        InParts(), Y, lambda x: x, callback=lambda p: seen.append((p.phase, p.step, p.max_steps))
    )
    assert seen == [(name, step, 3) for name in "ab" for step in range(4)]
    assert (state.step, status) == (8, Status.MAX_STEPS)


def test_a_run_of_one_part_has_no_name_for_it():
    seen = []
    run(Counting(), Y, lambda x: x, callback=lambda p: seen.append(p.phase))
    assert set(seen) == {""}


def test_time_left_is_told_by_the_pace_of_the_steps_after_the_first(clock):
    seen = []

    @dataclass(frozen=True)
    class Slow(Counting):
        def step(self, state):
            clock[0] += 10.0 if state.step == 0 else 2.0  # the first step sets everything up
            return super().step(state)

    run(Slow(), Y, lambda x: x, callback=lambda p: seen.append((p.seconds, p.seconds_left)))
    assert [seconds for seconds, _ in seen] == [10, 12, 14, 16, 18]
    assert [left for _, left in seen[1:]] == [6, 4, 2, 0]
    assert seen[0][1] >= 6


def test_a_part_of_a_run_has_its_own_time(clock):
    """What came before is not counted, what it takes to begin the part is."""
    seen = []

    @dataclass(frozen=True)
    class Slow(InParts):
        def step(self, state):
            clock[0] += 5.0 if state.step in (0, 4) else 2.0
            return super().step(state)

    run(Slow(), Y, lambda x: x, callback=lambda p: seen.append((p.phase, p.step, p.seconds, p.seconds_left)))
    assert [seconds for name, _, seconds, _ in seen if name == "a"] == [5, 7, 9, 11]
    assert [seconds for name, _, seconds, _ in seen if name == "b"] == [5, 7, 9, 11]
    assert [left for _, step, _, left in seen if step >= 2] == [2, 0, 2, 0]


# ---- what classical solvers ask of an operator and a measurement ----


def test_a_linear_operator_of_the_right_shape_is_passed_on():
    operator = Convolution(torch.ones(3, 3) / 9, (6, 5), "unknown")
    assert linear(operator, torch.zeros(2, 3, 6, 5)) is operator


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        (
            torch.sin,
            "needs the operator's adjoint, and sin has none; pass a LinearOperator, or use method='ssi'",
        ),
        (torch.nn.ReLU(), "needs the operator's adjoint, and ReLU has none"),
        (
            Identity((5, 6)),
            r"measurements of the shape \(5, 6\) but the image has the spatial shape \(6, 5\)",
        ),
        (Identity((6,)), r"measurements of the shape \(6,\) but the image has the spatial shape \(6, 5\)"),
    ],
)
def test_anything_else_is_refused_in_one_line(operator, words):
    with pytest.raises(InputError, match=words) as caught:
        linear(operator, torch.zeros(1, 1, 6, 5))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_observed_values_and_their_weights(dtype):
    y = torch.tensor([[[1.0, math.nan, -3.0, math.inf, -math.inf, 0.0]]], dtype=dtype)
    before = y.clone()
    values, weights = observed(y)
    assert values.dtype == weights.dtype == dtype
    assert values.tolist() == [[[1.0, 0.0, -3.0, 0.0, 0.0, 0.0]]]
    assert weights.tolist() == [[[1.0, 0.0, 1.0, 0.0, 0.0, 1.0]]]
    torch.testing.assert_close(y, before, equal_nan=True)


def test_missing_values_have_no_gradient():
    y = torch.tensor([[[1.0, math.nan, 2.0]]], requires_grad=True)
    values, _ = observed(y)
    (gradient,) = torch.autograd.grad(values.square().sum(), y)
    assert gradient.tolist() == [[[2.0, 0.0, 4.0]]]
