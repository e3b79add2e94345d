"""Smoothed total variation against a dense solve, a quasi-Newton method, and itself."""

from __future__ import annotations

import itertools
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import torch

from selfinv.operators import Convolution, Gradient, Identity, LinearOperator
from selfinv.solvers import Status, iterate, run
from selfinv.solvers.conjugate_gradient import ConjugateGradient, paper_conjugate_gradient
from selfinv.types import InputError

REGISTRY = runpy.run_path(str(Path(__file__).parents[1] / "operators" / "registry.py"))
OPERATORS, asymmetric_kernel = REGISTRY["OPERATORS"], REGISTRY["asymmetric_kernel"]


def measurement(operator, seed=0, *, channels=3, missing=0.0, dtype=torch.float64):
    """A blocky object seen through the operator, with noise, and values missing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(2, channels, *operator.in_shape, dtype=dtype)
    x[(..., *(slice(n // 3, None) for n in operator.in_shape))] = 3.0
    y = operator.to(dtype)(x + 1.0)
    y = y + 0.1 * torch.randn(y.shape, generator=generator, dtype=dtype)
    hidden = torch.rand(y.shape, generator=generator, dtype=dtype) < missing
    return y.masked_fill(hidden, torch.nan)


def dense(operator):
    """The operator's matrix, column by column."""
    basis = torch.eye(int(np.prod(operator.in_shape)), dtype=torch.float64)
    return operator(basis.reshape(-1, *operator.in_shape)).flatten(1).T


def dense_objective(solver, operator, y, smoothing):
    """The objective of one image as a NumPy function of the flat object, with its gradient, term by term."""
    matrix = dense(operator).numpy()
    values = y.flatten().numpy()
    seen = np.isfinite(values)
    axes = dense(Gradient(operator.in_shape, solver.spacing)).numpy()
    axes = axes.reshape(len(operator.in_shape), -1, matrix.shape[1])

    def objective(x):
        residual = matrix[seen] @ x - values[seen]
        steps = axes @ x
        lengths = np.sqrt((steps**2).sum(0) + smoothing)
        slope = matrix[seen].T @ residual + solver.weight * np.einsum("aij,ai->j", axes, steps / lengths)
        return 0.5 * residual @ residual + solver.weight * lengths.sum(), slope

    return objective, int(seen.sum())


# ---- without total variation: linear conjugate gradients ----


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize(
    "name",
    [
        "convolution-1d-odd-zero-fft",
        "convolution-1d-even-unknown-fft",
        "convolution-2d-odd-reflect-direct",
        "convolution-2d-even-unknown-fft",
        "convolution-2d-margin-fft",
        "identity",
        "scaled",
        "adjoint",
        "composition",
    ],
)
def test_least_squares_agrees_with_a_dense_solve(name, missing):
    operator = OPERATORS[name]()
    y = measurement(operator, missing=missing, channels=1)
    solver = ConjugateGradient(weight=0.0, max_steps=3000, rtol=0.0)
    state = solver.init(y, operator)
    matrix, start = dense(operator), state.x
    while state.step < solver.max_steps and float(state.slope.abs().max()) > 1e-12:
        state = solver.step(state)
    for b in range(len(y)):
        values = y[b].flatten()
        seen = values.isfinite()
        # From its start, conjugate gradients go to the nearest of all least-squares solutions.
        rest = values[seen] - matrix[seen] @ start[b].flatten()
        expected = start[b].flatten() + torch.linalg.pinv(matrix[seen], rtol=1e-12) @ rest
        estimate = solver.estimate(state)[b].flatten()
        assert torch.allclose(matrix @ estimate, matrix @ expected, atol=1e-6)
        assert torch.allclose(estimate, expected, atol=1e-4 * float(expected.abs().max()))


def test_linear_conjugate_gradients_finish_in_as_many_steps_as_there_are_unknowns():
    operator = Convolution(torch.tensor([0.2, 1.0, 0.1], dtype=torch.float64), (8,), "zero")
    y = measurement(operator, channels=1)
    solver = ConjugateGradient(weight=0.0, max_steps=8, rtol=0.0)
    *_, state = iterate(solver, y, operator)
    matrix = dense(operator)
    for b in range(len(y)):
        expected = torch.linalg.solve(matrix.T @ matrix, matrix.T @ y[b].flatten())
        assert torch.allclose(solver.estimate(state)[b].flatten(), expected, atol=1e-8)


# ---- with total variation ----


@pytest.mark.parametrize(
    ("name", "spacing", "missing"),
    [
        ("identity", None, 0.0),
        ("convolution-2d-odd-zero-direct", None, 0.2),
        ("convolution-2d-even-unknown-fft", (2.0, 1.0), 0.2),
        ("convolution-1d-odd-unknown-fft", None, 0.0),
    ],
)
def test_total_variation_agrees_with_a_quasi_newton_method(name, spacing, missing):
    operator = OPERATORS[name]()
    y = measurement(operator, missing=missing, channels=1)[:1]
    solver = ConjugateGradient(weight=0.2, smoothing=1e-3, spacing=spacing, max_steps=1000, rtol=0.0)
    state, _ = run(solver, y, operator)
    objective, count = dense_objective(solver, operator, y, 1e-3)
    start = np.full(int(np.prod(operator.in_shape)), 2.0)
    expected = scipy.optimize.minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
    )
    estimate = solver.estimate(state).flatten().numpy()
    assert objective(estimate)[0] == pytest.approx(expected.fun, rel=1e-8)
    assert state.loss == pytest.approx(expected.fun / count, rel=1e-8)
    assert np.abs(estimate - expected.x).max() < 1e-2
    difference = operator(torch.from_numpy(estimate - expected.x).reshape(operator.in_shape))
    assert float(difference.abs().max()) < 1e-3


@pytest.mark.parametrize("smoothing", [1e-10, None])
def test_an_edge_survives_where_noise_does_not(smoothing):
    x = torch.ones(1, 1, 32, 32)
    x[..., 10:, 16:] = 5.0
    y = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    state, _ = run(ConjugateGradient(weight=0.6, smoothing=smoothing), y, Identity((32, 32)))
    inside = state.x[..., 14:28, 20:28]
    assert float(inside.std()) < 0.05
    assert float(inside.mean()) == pytest.approx(5.0, abs=0.2)
    jump = state.x[0, 0, 14:28, 16] - state.x[0, 0, 14:28, 15]
    assert float(jump.mean()) > 3.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [1e-10, 1e-3, None])
def test_the_objective_never_rises_with_any_smoothing(smoothing, dtype):
    operator = Convolution(asymmetric_kernel((5, 4)), (24, 20), "unknown")
    y = measurement(operator, missing=0.1, dtype=dtype)
    losses = [s.loss for s in iterate(ConjugateGradient(0.05, smoothing, rtol=0.0), y, operator)]
    assert len(losses) > 50
    slack = 1e-6 if dtype == torch.float32 else 1e-12  # of the sums
    assert all(b <= a * (1 + slack) for a, b in itertools.pairwise(losses))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("weight", [0.0, 0.05])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator(name, weight):
    operator = OPERATORS[name]()
    y = measurement(operator, missing=0.05, dtype=torch.float32)
    solver = ConjugateGradient(weight, max_steps=8)
    losses = [solver.init(y, operator).loss]
    state, status = run(solver, y, operator)
    losses.append(state.loss)
    assert status in (Status.MAX_STEPS, Status.CONVERGED)
    estimate = solver.estimate(state)
    assert estimate.shape == (*y.shape[:2], *operator.in_shape)
    assert estimate.dtype == torch.float32
    assert estimate.isfinite().all()
    assert losses[1] < losses[0]
    assert state.step <= 8


def test_the_measurement_may_have_other_axes_than_the_object():
    class Sums(LinearOperator):
        """All values, one after the other, then their sums along the last axis."""

        def __init__(self):
            super().__init__((6, 5), (36,))

        def forward(self, x):
            return torch.cat([x.flatten(-2), x.sum(-1)], -1)

    y = measurement(Sums(), missing=0.1)
    for weight in (0.0, 0.1):
        solver = ConjugateGradient(weight, smoothing=1e-3, max_steps=300, rtol=0.0)
        state, _ = run(solver, y, Sums())
        assert state.slope.abs().max() < 1e-3 * solver.init(y, Sums()).slope.abs().max()


# ---- contract ----


def test_a_step_costs_one_transform_forward_and_one_back():
    calls = {"forward": 0, "adjoint": 0}

    class Counted(Identity):
        def forward(self, x):
            calls["forward"] += 1
            return super().forward(x)

        def adjoint(self, y):
            calls["adjoint"] += 1
            return super().adjoint(y)

    solver = ConjugateGradient(0.1)
    state = solver.init(torch.rand(1, 1, 8, 8), Counted((8, 8)))
    calls.update(forward=0, adjoint=0)
    for _ in range(5):
        state = solver.step(state)
    assert calls == {"forward": 5, "adjoint": 5}


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_images_and_channels_do_not_touch_each_other(weight):
    operator = Convolution(asymmetric_kernel((3, 4)), (10, 9), "unknown")
    y = measurement(operator, missing=0.1)
    y[1, 2] *= 100.0
    y[0, 1] = torch.nan  # nothing measured at all
    solver = ConjugateGradient(weight, max_steps=20, rtol=0.0)
    together = run(solver, y, operator)[0].x
    for b, c in ((0, 0), (1, 2)):
        alone = run(solver, y[b : b + 1, c : c + 1], operator)[0].x
        assert torch.allclose(together[b, c], alone[0, 0], rtol=1e-6, atol=1e-8)
    assert together.isfinite().all()


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_missing_values_have_no_influence(weight):
    operator = Convolution(asymmetric_kernel((3, 4)), (10, 9), "unknown")
    y = measurement(operator, missing=0.3)
    solver = ConjugateGradient(weight, max_steps=10)
    expected = run(solver, y, operator)[0].x
    for other in (torch.inf, -torch.inf):
        assert torch.equal(run(solver, y.nan_to_num(nan=other), operator)[0].x, expected)
    shown = measurement(operator).requires_grad_()
    masked = shown.masked_fill(y.isnan(), torch.nan)
    run(solver, masked, operator)[0].x.square().sum().backward()
    assert (shown.grad[y.isnan()] == 0).all()
    assert (shown.grad[~y.isnan()] != 0).any()


def test_intensity_units_do_not_matter_when_the_weight_has_them_too():
    operator = Convolution(asymmetric_kernel((3, 4)), (10, 9), "unknown")
    y = measurement(operator)
    one = run(ConjugateGradient(0.1, max_steps=10), y, operator)[0].x
    thousand = run(ConjugateGradient(100.0, max_steps=10), 1000.0 * y, operator)[0].x
    assert torch.allclose(1000.0 * one, thousand, rtol=1e-6)


def test_it_stops_when_the_objective_stops_falling():
    y = measurement(Identity((16, 16)))
    state, status = run(ConjugateGradient(0.3, rtol=1e-3, max_steps=500), y, Identity((16, 16)))
    assert status == Status.CONVERGED
    assert "objective" in str(status)
    assert state.step < 500
    assert np.isnan(state.score)
    constant, status = run(ConjugateGradient(0.3), torch.full((1, 1, 4, 4), 7.0), Identity((4, 4)))
    assert status == Status.CONVERGED
    assert torch.allclose(constant.x, torch.full((1, 1, 4, 4), 7.0))


def test_numbers_that_overflow_are_a_status():
    y = torch.full((1, 1, 4, 4), 1e38)
    y[..., 0] = -1e38
    _, status = run(ConjugateGradient(1.0), y, Identity((4, 4)), restarts=0)
    assert status == Status.NONFINITE


def test_the_papers_settings():
    solver = paper_conjugate_gradient()
    assert (solver.weight, solver.smoothing, solver.max_steps) == (4.5e-3, 1e-10, 100)
    assert solver.planned_steps() == 100


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": -1.0},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"smoothing": 0.0},
        {"smoothing": -1.0},
        {"max_steps": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="must be"):
        replace(ConjugateGradient(1.0), **wrong)


def test_data_that_do_not_fit_are_refused():
    solver = ConjugateGradient(1.0)
    with pytest.raises(InputError, match="adjoint"):
        solver.init(torch.rand(1, 1, 4, 4), lambda x: x)
    with pytest.raises(InputError, match="shape"):
        solver.init(torch.rand(1, 1, 4, 5), Identity((4, 4)))
    with pytest.raises(InputError, match="spacing"):
        ConjugateGradient(1.0, spacing=(1.0,)).init(torch.rand(1, 1, 4, 4), Identity((4, 4)))
