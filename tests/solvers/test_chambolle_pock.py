"""Total variation by Chambolle and Pock: against the textbook's plain loop, scikit-image and its own gap."""

from __future__ import annotations

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize, special
from skimage.restoration import denoise_tv_chambolle

from selfinv.functionals import L1, Box, Huber, Poisson, SquaredL2
from selfinv.operators import Composition, Convolution, Gradient, Hadamard, Identity, MaskedFourier, Radon
from selfinv.solvers import Status, iterate, run
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.types import InputError

REGISTRY = runpy.run_path(str(Path(__file__).parents[1] / "operators" / "registry.py"))
OPERATORS, asymmetric_kernel = REGISTRY["OPERATORS"], REGISTRY["asymmetric_kernel"]

# A kernel that takes little away, so that every method gets to the optimum in a few thousand steps.
SHARP = torch.tensor([[0.0, 0.1, 0.0], [0.15, 0.6, 0.05], [0.0, 0.1, 0.0]], dtype=torch.float64)
SMALL = {
    "identity": lambda: Identity((7, 6)),
    "fft-zero": lambda: Convolution(SHARP, (7, 6), "zero", "fft"),
    "fft-periodic": lambda: Convolution(SHARP, (7, 6), "periodic", "fft"),
    "fft-unknown": lambda: Convolution(SHARP, (6, 5), "unknown", "fft"),
    "direct-unknown-margin": lambda: Convolution(asymmetric_kernel((5, 4)), (7, 6), "unknown", "direct", 1),
    "reflect": lambda: Convolution(SHARP, (7, 6), "reflect"),
    "product": lambda: Composition(2.0 * Identity((7, 6)), Convolution(SHARP, (7, 6), "periodic")),
    "1-d": lambda: Convolution(SHARP[1], (24,), "zero", "fft"),
    "3-d": lambda: Convolution(SHARP[None], (3, 4, 4), "zero", "fft"),
}


def scene(operator, seed=0, *, leading=(1, 1), mean=8.0):
    """Counts of a bright block on a dim ground as the operator sees it."""
    x = torch.full((*leading, *operator.in_shape), 0.5 * mean, dtype=torch.float64)
    x[(..., *(slice(n // 3, 2 * n // 3 + 1) for n in operator.in_shape))] = 2 * mean
    return torch.poisson(operator(x).clamp_min(0.0), generator=torch.Generator().manual_seed(seed))


def holes(y, share=0.15, seed=9):
    return y.masked_fill(
        torch.rand(y.shape, generator=torch.Generator().manual_seed(seed)) < share, torch.nan
    )


def solve(y, operator, weight=0.3, steps=400, **settings):
    solver = ChambollePock(weight, max_steps=steps, **{"rtol": 1e-6, **settings})
    state, status = run(solver, y, operator, restarts=0)
    assert not status.failed
    return solver.estimate(state)


def dense(operator):
    """The operator's matrix, column by column."""
    n = math.prod(operator.in_shape)
    basis = torch.eye(n, dtype=torch.float64).reshape(n, *operator.in_shape)
    return operator(basis).reshape(n, -1).T.numpy()


COSTS = {
    SquaredL2: lambda f, v, y: 0.5 * (v - y) ** 2,
    Huber: lambda f, v, y: special.huber(f.delta, v - y),
    L1: lambda f, v, y: np.abs(v - y),
    Poisson: lambda f, v, y: special.kl_div(y, v + f.background),
}


class Textbook:
    """The same problem as matrices, and Algorithm 1 of Chambolle & Pock 2011 with numbers for steps."""

    def __init__(self, operator, y, weight, fidelity, box=None, spacing=None):
        values = y.flatten().numpy()
        seen = np.isfinite(values)
        self.shape, self.ndim = operator.in_shape, len(operator.in_shape)
        self.A, self.y = dense(operator)[seen], values[seen]
        steps = spacing or (1.0,) * self.ndim
        self.G = np.vstack([self._difference(axis, step) for axis, step in enumerate(steps)])
        self.weight, self.fidelity, self.box = weight, fidelity, box or Box()

    def _difference(self, axis, step):
        """Forward differences along one axis as a matrix, the last of them 0."""
        basis = np.eye(math.prod(self.shape)).reshape(-1, *self.shape)
        moved = np.concatenate([basis, basis.take([-1], axis=axis + 1)], axis=axis + 1)
        return np.diff(moved, axis=axis + 1).reshape(len(basis), -1).T / step

    def objective(self, x):
        """The objective per measured value."""
        cost = COSTS[type(self.fidelity)](self.fidelity, self.A @ x, self.y).sum()
        lengths = np.linalg.norm((self.G @ x).reshape(self.ndim, -1), axis=0)
        return (cost + self.weight * lengths.sum()) / len(self.y)

    def _dual(self, u, s):
        f, y = self.fidelity, self.y
        if isinstance(f, Poisson):
            return (1 + u + s * f.background - np.sqrt((u + s * f.background - 1) ** 2 + 4 * s * y)) / 2
        if isinstance(f, L1):
            return np.clip(u - s * y, -1, 1)
        u = (u - s * y) / (1 + s)
        return np.clip(u, -f.delta, f.delta) if isinstance(f, Huber) else u

    def solve(self, steps=1500, size=None):
        """The object after so many steps of a size (as large as may be, if not given)."""
        low = -np.inf if self.box.lower is None else self.box.lower
        high = np.inf if self.box.upper is None else self.box.upper
        K = np.vstack([self.A, self.G])
        tau = sigma = size or 0.99 / np.linalg.norm(K, 2)
        x = ahead = np.full(K.shape[1], self.y.mean())
        z = np.zeros(len(K))
        for _ in range(steps):
            z = z + sigma * (K @ ahead)
            u, p = z[: len(self.y)], z[len(self.y) :].reshape(self.ndim, -1)
            p = p / np.maximum(1.0, np.linalg.norm(p, axis=0) / self.weight) if self.weight else 0 * p
            z = np.concatenate([self._dual(u, sigma), p.ravel()])
            following = np.clip(x - tau * (K.T @ z), low, high)
            x, ahead = following, 2 * following - x
        return x


# ---- against others ----


@pytest.mark.parametrize(
    ("name", "fidelity", "box", "missing", "spacing"),
    [
        ("identity", SquaredL2(), Box(), False, None),
        ("identity", Poisson(1.0), Box(0.0), True, None),
        ("fft-zero", SquaredL2(), Box(5.0, 14.0), True, None),
        ("fft-zero", Huber(0.7), Box(), False, (1.0, 3.0)),
        ("fft-periodic", L1(), Box(), False, None),
        ("fft-unknown", Huber(0.7), Box(0.0), False, None),
        ("direct-unknown-margin", SquaredL2(), Box(), True, (2.0, 1.0)),
        ("reflect", Poisson(), Box(0.0), False, None),
        ("reflect", Huber(0.7), Box(5.0, 12.0), False, None),
        ("product", SquaredL2(), Box(), False, None),
        ("1-d", L1(), Box(0.0), True, None),
        ("3-d", SquaredL2(), Box(), False, (2.0, 1.0, 1.0)),
        ("3-d", Poisson(), Box(0.0), False, None),
    ],
)
def test_finds_the_textbooks_optimum_and_the_gap_bounds_the_way_to_it(name, fidelity, box, missing, spacing):
    operator = SMALL[name]()
    y = scene(operator)
    y = holes(y) if missing else y
    textbook = Textbook(operator, y, 0.3, fidelity, box, spacing)
    theirs = textbook.solve()
    least = textbook.objective(theirs)

    solver = ChambollePock(0.3, fidelity, box, spacing, max_steps=300, rtol=1e-5)
    gaps = []
    for state in iterate(solver, y, operator):
        if state.step % 10 or not state.step:
            continue
        x = solver.estimate(state).flatten().numpy()
        excess = textbook.objective(x) - least
        assert state.loss == pytest.approx(textbook.objective(x), rel=1e-9)
        assert excess > -1e-6 * least  # or the textbook's were not the optimum
        assert state.gap >= excess - 1e-9 * least
        gaps.append(state.gap)
    assert excess < 2e-4 * least
    assert gaps[-1] < 1e-2 * least
    assert gaps[-1] < 0.1 * gaps[0]
    np.testing.assert_allclose(x, theirs, atol=0.1)  # the objective is flat at its lowest point
    assert float(solver.objective(solver.estimate(state), y, operator)) == pytest.approx(state.loss, rel=1e-9)


@pytest.mark.parametrize("fidelity", [SquaredL2(), Huber(0.7), L1(), Poisson()], ids=str)
@pytest.mark.parametrize("name", ["identity", "reflect"])
def test_with_fixed_steps_it_is_the_textbook_step_by_step(name, fidelity):
    operator = SMALL[name]()
    y = holes(scene(operator))
    solver = ChambollePock(0.3, fidelity, steps="fixed", max_steps=40, rtol=0.0)
    *_, state = iterate(solver, y, operator)
    # Theirs takes the dual step first, from the same start: one primal step fewer gives the same.
    theirs = Textbook(operator, y, 0.3, fidelity).solve(39, size=state.sigmas[0])
    np.testing.assert_allclose(solver.estimate(state).flatten(), theirs, rtol=1e-9)


def test_preconditioning_pays():
    operator = OPERATORS["convolution-2d-odd-unknown-fft"]()
    y = scene(operator, mean=50.0)
    gaps = {}
    for steps in ("preconditioned", "fixed"):
        state, _ = run(ChambollePock(0.5, steps=steps, max_steps=100, rtol=0.0), y, operator)
        gaps[steps] = state.gap
    assert gaps["preconditioned"] < 0.2 * gaps["fixed"]


@pytest.mark.parametrize("boundary", ["zero", "reflect"])
@pytest.mark.parametrize("weight", [1e-4, 0.05])
def test_the_gap_bounds_the_way_under_a_wide_blur_too(boundary, weight):
    """Whatever object is better, it is better by no more than the gap."""
    operator = OPERATORS[f"convolution-2d-larger-{boundary}-fft"]()
    y = scene(operator)
    solver = ChambollePock(weight, max_steps=200, rtol=0.0)
    gaps = [(state.loss, state.gap) for state in iterate(solver, y, operator) if state.step in (10, 20, 200)]
    for loss, gap in gaps:
        assert loss - gaps[-1][0] <= gap


@pytest.mark.parametrize("weight", [0.5, 1.5])
@pytest.mark.parametrize("shape", [(20, 17), (5, 7, 8)])
def test_agrees_with_scikit_image_on_denoising(shape, weight):
    y = scene(Identity(shape))
    theirs = denoise_tv_chambolle(y[0, 0].numpy(), weight=weight, eps=1e-12, max_num_iter=1000)
    ours = solve(y, Identity(shape), weight, 200, rtol=1e-5)[0, 0]
    np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_agrees_with_a_quasi_newton_method_on_a_smoothed_objective():
    operator = SMALL["fft-zero"]()
    y = scene(operator)
    textbook = Textbook(operator, y, 0.5, SquaredL2())

    def smoothed(x):
        differences = (textbook.G @ x).reshape(2, -1)
        lengths = np.sqrt((differences**2).sum(0) + 1e-8)
        residual = textbook.A @ x - textbook.y
        slope = textbook.A.T @ residual + 0.5 * textbook.G.T @ (differences / lengths).ravel()
        return 0.5 * (residual**2).sum() + 0.5 * lengths.sum(), slope

    found = optimize.minimize(smoothed, np.full(42, 8.0), jac=True, options={"maxiter": 3000, "gtol": 1e-7})
    ours = solve(y, operator, 0.5).flatten().numpy()
    assert textbook.objective(ours) == pytest.approx(textbook.objective(found.x), rel=1e-4)
    np.testing.assert_allclose(ours, found.x, atol=0.05)


PROJECTED = {
    "projections": lambda: Radon((16, 16), np.arange(12) * 15.0),
    "limited-angles": lambda: Radon((16, 16), np.arange(12) * 10.0),
    "hadamard": lambda: Hadamard((16, 16), 100),
    "frequencies": lambda: MaskedFourier(
        (16, 16), torch.rand(16, 16, generator=torch.Generator().manual_seed(1)) < 0.5
    ),
}


@pytest.mark.parametrize("name", PROJECTED)
@pytest.mark.parametrize("weight", [0.3, 3.0])
def test_twenty_iterations_are_enough_where_values_are_no_pixels(name, weight):
    """Within 5 % of the optimum of the same problem as matrices; many reach it."""
    operator = PROJECTED[name]().double()
    y = operator(scene(Identity((16, 16))))
    textbook = Textbook(operator, y, weight, SquaredL2())
    least = textbook.objective(textbook.solve(6000))
    few = textbook.objective(solve(y, operator, weight, 20, rtol=0.0).flatten().numpy())
    many = textbook.objective(solve(y, operator, weight, 400, rtol=0.0).flatten().numpy())
    assert many < 1.001 * least
    assert few < 1.05 * least


def test_without_regularisation_poissons_optimum_is_richardson_and_lucys():
    operator = Convolution(SHARP, (9, 8), "zero", "fft")
    y = scene(operator, mean=30.0)
    x = solve(y, operator, 0.0, fidelity=Poisson(), box=Box(0.0))
    rl, _ = run(RichardsonLucy(max_steps=1500), y, operator)
    predicted, theirs = operator(x).numpy(), operator(rl.x).numpy()
    ours, best = special.kl_div(y.numpy(), predicted).mean(), special.kl_div(y.numpy(), theirs).mean()
    assert ours == pytest.approx(best, abs=1e-4)
    np.testing.assert_allclose(predicted, theirs, rtol=0.01, atol=0.1)


# ---- what it is made of ----


@pytest.mark.parametrize(
    "name",
    [
        "identity",
        "scaled",
        "adjoint",
        "composition",
        "kernel-per-channel",
        "convolution-2d-margin-fft",
        "convolution-2d-margin-direct",
        *(f"convolution-2d-even-{b}-fft" for b in ("zero", "reflect", "periodic", "unknown")),
        "convolution-1d-larger-unknown-fft",
        "convolution-2d-larger-reflect-direct",
        "convolution-3d-odd-zero-fft",
        "convolution-3d-larger-periodic-fft",
    ],
)
@pytest.mark.parametrize(
    ("fidelity", "spacing", "steps"),
    [(SquaredL2(), 1.0, "preconditioned"), (Poisson(), 0.3, "preconditioned"), (SquaredL2(), 1.0, "fixed")],
    ids=["l2", "poisson", "fixed"],
)
def test_the_steps_satisfy_the_condition_of_convergence(name, fidelity, spacing, steps):
    """The largest singular value of the preconditioned K, by power iteration, is below 1, but not far."""
    operator = OPERATORS[name]().double()
    channels, ndim = 3 if name == "kernel-per-channel" else 1, len(operator.in_shape)
    y = torch.ones(1, channels, *operator.out_shape, dtype=torch.float64)
    solver = ChambollePock(0.3, fidelity, spacing=(spacing,) * ndim, steps=steps)
    state = solver.init(y, operator)
    metric, roots = state.metric, [math.sqrt(sigma) for sigma in state.sigmas]
    generator = torch.Generator().manual_seed(0)
    z = [torch.randn(t.shape, generator=generator, dtype=torch.float64) for t in _duals(state)]
    largest = 0.0
    for _ in range(30):
        size = math.sqrt(sum(float(part.square().sum()) for part in z))
        z = [root * part / size for root, part in zip(roots, z, strict=True)]
        x, predicted = metric.solve(*z)
        # K T K^T, each part where the iteration would put it
        z = [predicted, metric.gradient(metric.inside(x)), x]
        z = [root * part for root, part in zip(roots, z, strict=True)]
        largest = math.sqrt(sum(float(part.square().sum()) for part in z))
    assert math.sqrt(largest) < 1.0
    assert math.sqrt(largest) > (0.8 if steps == "preconditioned" else 0.5)


def _duals(state):
    return state.fidelity_dual, state.gradient_dual, state.box_dual


@pytest.mark.parametrize(
    "name", ["fft-zero", "fft-periodic", "fft-unknown", "direct-unknown-margin", "reflect"]
)
def test_the_metric_predicts_and_projects_back_as_the_operator_does(name):
    operator = SMALL[name]()
    state = ChambollePock(0.3).init(scene(operator), operator)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 1, *operator.in_shape, generator=generator, dtype=torch.float64)
    u = torch.randn(1, 1, *operator.out_shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(state.metric.predict(state.metric.embed(x)), operator(x))
    torch.testing.assert_close(state.metric.adjoint(u), operator.adjoint(u))


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator(name):
    operator = OPERATORS[name]().float()
    generator = torch.Generator().manual_seed(0)
    y = scene(operator, leading=(1, 3)).float()
    y = holes(y + 0.5 * torch.randn(y.shape, generator=generator))
    solver = ChambollePock(0.05, max_steps=20, rtol=0.0)
    states = iterate(solver, y, operator)
    start = solver.objective(solver.estimate(next(states)), y, operator)
    *_, last = states
    x = solver.estimate(last)
    assert (x.dtype, x.shape) == (torch.float32, (1, 3, *operator.in_shape))
    assert torch.isfinite(x).all()
    end = solver.objective(x, y, operator)
    assert bool((end < start).all())
    assert 0 <= last.gap < math.inf
    share = torch.isfinite(y).flatten(2).sum(-1) / torch.isfinite(y).sum()
    assert last.loss == pytest.approx(float((share * end).sum()), rel=1e-4)


@pytest.mark.parametrize("n", range(8, 40))
def test_a_constant_that_is_not_measured_is_not_made_of_rounding(n):
    """Without the zero frequency single precision made a mean of 1e7 of it, from which nothing returns."""
    mask = torch.arange(n) != n // 2
    operator = MaskedFourier((n,), mask).float()
    y = operator(torch.randn(1, 2, n, generator=torch.Generator().manual_seed(0)))
    found = next(iterate(ChambollePock(0.05), y, operator))
    assert float(found.x.abs().max()) < 10.0


@pytest.mark.parametrize("name", ["identity", "fft-unknown", "reflect"])
def test_single_precision_gives_what_double_gives(name):
    operator = SMALL[name]()
    y = scene(operator)
    double = solve(y, operator, steps=60, rtol=0.0)
    single = solve(y.float(), operator.float(), steps=60, rtol=0.0)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, atol=1e-3, rtol=0.0)


# ---- what the theory promises ----


def test_no_weight_gives_the_data_and_a_huge_one_their_mean():
    y = scene(Identity((7, 6)))
    torch.testing.assert_close(solve(y, Identity((7, 6)), 0.0), y, atol=1e-2, rtol=0.0)
    flat = solve(y, Identity((7, 6)), 1e4)
    torch.testing.assert_close(flat, y.mean().expand_as(y), atol=1e-2, rtol=0.0)


@pytest.mark.parametrize("name", ["identity", "fft-zero", "reflect"])
@pytest.mark.parametrize("scale", [1e-4, 3.0, 1e5])
def test_another_unit_gives_the_same_image_in_that_unit(name, scale):
    operator = SMALL[name]()
    y = scene(operator)
    one = solve(y, operator, 0.4, 50, rtol=0.0, box=Box(3.0))
    other = solve(scale * y, operator, scale * 0.4, 50, rtol=0.0, box=Box(scale * 3.0))
    torch.testing.assert_close(other, scale * one, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("name", ["identity", "fft-unknown", "reflect"])
def test_images_and_channels_do_not_influence_each_other(name):
    """Not even if one is four times as bright. They share the sizes of their steps: only the end counts."""
    operator = SMALL[name]()
    y = holes(torch.cat([scene(operator, seed=i, leading=(2, 1), mean=8.0 * 4**i) for i in range(2)], dim=1))
    together = solve(y, operator, steps=200)
    for i, c in ((0, 0), (1, 1)):
        alone = solve(y[i : i + 1, c : c + 1], operator, steps=200)
        torch.testing.assert_close(together[i : i + 1, c : c + 1], alone, atol=0.15, rtol=0.0)


def test_a_kernel_for_each_channel_restores_its_own_channel():
    kernels = torch.stack([SHARP, SHARP.flip(0, 1)])
    operator = Convolution(kernels, (7, 6), "zero")
    y = torch.cat([scene(SMALL["fft-zero"](), seed=i) for i in range(2)], dim=1)
    together = solve(y, operator, rtol=1e-5)
    for c, kernel in enumerate(kernels):
        alone = solve(y[:, c : c + 1], Convolution(kernel, (7, 6), "zero", "fft"), rtol=1e-5)
        torch.testing.assert_close(together[:, c : c + 1], alone, atol=0.02, rtol=0.0)


@pytest.mark.parametrize("box", [Box(0.0), Box(None, 9.0), Box(5.0, 9.0)], ids=str)
def test_the_box_is_kept_from_the_first_step_on(box):
    operator = SMALL["fft-unknown"]()
    solver = ChambollePock(0.05, box=box, max_steps=60)
    low = -math.inf if box.lower is None else box.lower
    high = math.inf if box.upper is None else box.upper
    for state in iterate(solver, scene(operator) - 6.0, operator):
        x = solver.estimate(state)
        assert low <= float(x.min())
        assert float(x.max()) <= high


def test_spacing_counts_differences_per_length():
    """Twice the voxel size everywhere is half the weight; along one axis it smooths that axis less."""
    operator = SMALL["fft-zero"]()
    y = scene(operator)
    coarse = solve(y, operator, 0.8, spacing=(2.0, 2.0))
    torch.testing.assert_close(coarse, solve(y, operator, 0.4), atol=1e-2, rtol=0.0)
    noise = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    stretched = solve(noise, Identity((16, 16)), 0.5, 100, spacing=(4.0, 1.0))
    assert stretched.diff(dim=2).abs().mean() > 1.5 * stretched.diff(dim=3).abs().mean()


# ---- missing values ----


@pytest.mark.parametrize("fidelity", [SquaredL2(), Huber(0.7), L1(), Poisson()], ids=str)
@pytest.mark.parametrize("name", ["identity", "fft-unknown", "reflect"])
def test_what_lies_beneath_a_missing_value_is_never_looked_at(name, fidelity):
    """Whatever stands where nothing was measured leaves every bit of the result as it is."""
    operator = SMALL[name]()
    y = holes(scene(operator))
    assert torch.isnan(y).any()
    solver = ChambollePock(0.3, fidelity, Box(0.0), max_steps=20)
    results = []
    for beneath in (0.0, 777.0):
        state = solver.init(y, operator)
        state.y[torch.isnan(y)] = beneath
        while solver.status(state) == Status.RUNNING:
            state = solver.step(state)
        results.append((solver.estimate(state), state.loss, state.gap))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]


@pytest.mark.parametrize("fidelity", [SquaredL2(), L1(), Poisson()], ids=str)
def test_infinite_values_are_missing_too(fidelity):
    operator = SMALL["fft-zero"]()
    y = holes(scene(operator))
    ends = [
        solve(values, operator, steps=30, fidelity=fidelity, box=Box(0.0))
        for values in (y, y.nan_to_num(nan=math.inf))
    ]
    assert torch.equal(*ends)


def test_holes_are_filled_from_their_surroundings():
    x = torch.full((1, 1, 12, 12), 10.0)
    x[..., 6:] = 30.0
    y = x.clone()
    y[..., 3:9, 2:4] = torch.nan
    restored = solve(y, Identity((12, 12)), 0.1)
    torch.testing.assert_close(restored, x, atol=0.5, rtol=0.0)


# ---- starting from where another run ended ----


@pytest.mark.parametrize("name", ["identity", "fft-unknown", "reflect"])
def test_a_warm_start_is_nearer_to_the_optimum(name):
    operator = SMALL[name]()
    y = scene(operator)
    first, _ = run(ChambollePock(0.33, max_steps=100, rtol=1e-5), y, operator)
    kept = ChambollePock(0.33).estimate(first)
    solver = ChambollePock(0.3, max_steps=10, rtol=0.0)
    cold, _ = run(solver, y, operator)
    warm = solver.init(y, operator, start=first)
    assert (warm.step, warm.gap) == (0, math.inf)
    while solver.status(warm) == Status.RUNNING:
        warm = solver.step(warm)
    assert warm.step == 10
    assert warm.loss < cold.loss
    assert warm.gap < cold.gap
    assert torch.equal(ChambollePock(0.33).estimate(first), kept)  # the run it came from is left alone


@pytest.mark.parametrize("name", ["identity", "fft-unknown", "reflect"])
def test_the_same_run_in_two_parts_is_the_same_run(name):
    operator = SMALL[name]()
    y = holes(scene(operator))
    half = ChambollePock(0.3, box=Box(4.0), max_steps=15, rtol=0.0)
    first, _ = run(half, y, operator)
    second = half.init(y, operator, start=first)
    for _ in range(15):
        second = half.step(second)
    whole, _ = run(replace(half, max_steps=30), y, operator)
    torch.testing.assert_close(second.x, whole.x, rtol=1e-9, atol=1e-9)


def test_a_warm_start_takes_the_new_measurement_and_forgets_the_old():
    operator = SMALL["fft-zero"]()
    shown = holes(scene(operator))
    other = scene(operator, seed=5)
    solver = ChambollePock(0.4, max_steps=400, rtol=1e-5)
    first, _ = run(solver, shown, operator)
    state = solver.init(other, operator, start=first)
    while solver.status(state) == Status.RUNNING:
        state = solver.step(state)
    assert bool(state.measured.all())
    again = solve(other, operator, 0.4, rtol=1e-5)
    torch.testing.assert_close(solver.estimate(state), again, atol=0.03, rtol=0.0)


# ---- ending ----


def test_a_run_ends_when_the_gap_has_closed_or_the_steps_are_used_up():
    operator = SMALL["fft-zero"]()
    y = scene(operator)
    solver = ChambollePock(0.3, max_steps=500)
    state, status = run(solver, y, operator)
    assert status == Status.CONVERGED
    assert "gap" in str(status)
    assert state.gap <= 1e-3 * state.loss
    assert state.step < 500
    stricter, _ = run(replace(solver, rtol=1e-5), y, operator)
    assert stricter.step > state.step
    state, status = run(replace(solver, rtol=0.0, max_steps=37), y, operator)
    assert (state.step, status) == (37, Status.MAX_STEPS)
    assert math.isfinite(state.gap)  # measured at the last step, whichever it is


def test_the_seed_changes_nothing():
    operator = SMALL["reflect"]()
    y, solver = scene(operator), ChambollePock(0.3, max_steps=20)
    ends = [run(solver, y, operator, seed=seed)[0] for seed in (0, 1)]
    assert torch.equal(ends[0].x, ends[1].x)


def test_values_too_large_to_compute_with_are_a_failure():
    operator = SMALL["fft-zero"]().float()
    _, status = run(ChambollePock(0.3), 1e30 * scene(operator).float(), operator, restarts=0)
    assert status == Status.NONFINITE
    assert status.failed


@pytest.mark.parametrize("steps", ["preconditioned", "fixed"])
def test_counts_below_0_are_refused_and_missing_ones_are_not(steps):
    """The root of a negative number: the run failed, and nothing told why."""
    y = torch.full((1, 1, 8, 8), 3.0)
    y[0, 0, 2, 2] = torch.nan
    solver = ChambollePock(0.1, Poisson(), steps=steps, max_steps=5)
    assert not run(solver, y, Identity((8, 8)))[1].failed
    y[0, 0, 3, 3] = -0.5
    with pytest.raises(
        InputError, match=r"1 of 63 values are below 0, down to -0.5, .* for counts; leave in"
    ):
        run(solver, y, Identity((8, 8)))


@pytest.mark.parametrize("box", [Box(), Box(0.0)], ids=["open", "positive"])
def test_an_estimate_that_passes_through_zero_is_no_failure(box):
    """Counts where the estimate predicts none cost infinitely much, but only until the next step."""
    generator = torch.Generator().manual_seed(0)
    operator = Convolution(torch.ones(5, 5) / 25, (32, 32), "zero")
    stars = torch.full((1, 1, 32, 32), 5.0)
    stars.view(-1)[torch.randint(1024, (12,), generator=generator)] = 30_000.0
    y = torch.poisson(operator(stars).clamp_min(0.0), generator=generator)
    solver = ChambollePock(0.1, Poisson(), box, max_steps=60)
    state, status = run(solver, y, operator, restarts=0)
    assert not status.failed, str(status)
    assert torch.isfinite(solver.estimate(state)).all()
    assert state.step == 60


@pytest.mark.parametrize("along", [2, 3])
def test_absolute_deviations_of_an_image_without_noise(along):
    """A ramp is its own best explanation, whichever way it goes."""
    y = torch.linspace(0, 30, 16).reshape((1, 1, 16, 1) if along == 2 else (1, 1, 1, 16)).expand(1, 1, 16, 16)
    x = solve(y.clone(), Identity((16, 16)), 0.2, 500, fidelity=L1(), rtol=1e-4)
    torch.testing.assert_close(x, y.clone(), atol=0.5, rtol=0.0)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": -0.1}, "weight must be 0 or more, got -0.1"),
        ({"weight": "5"}, "weight must be 0 or more, got '5'"),
        ({"weight": 0.1, "rtol": -1.0}, "rtol must be 0 or more, got -1.0"),
        ({"weight": math.nan}, "must be 0 or more, got nan"),
        ({"weight": math.inf}, "must be 0 or more, got inf"),
        ({"weight": 0.1, "max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"weight": 0.1, "steps": "magic"}, "steps='magic' is unknown; use 'preconditioned' or 'fixed'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        ChambollePock(**settings)


@pytest.mark.parametrize(
    ("operator", "settings", "words"),
    [
        (torch.sin, {}, "needs the operator's adjoint, and sin has none; pass a LinearOperator"),
        (
            Identity((9, 9)),
            {},
            r"measurements of the shape \(9, 9\) but the image has the spatial shape \(7, 6\)",
        ),
        (Identity((7, 6)), {"spacing": (1.0,)}, r"spacing=\(1.0,\) does not fit"),
        (Identity((7, 6)), {"spacing": (1.0, 0.0)}, "one positive voxel size per axis"),
    ],
)
def test_an_operator_or_spacing_that_does_not_fit_is_refused(operator, settings, words):
    with pytest.raises(InputError, match=words):
        ChambollePock(0.3, **settings).init(scene(Identity((7, 6))), operator)


def test_gradients_are_those_the_total_variation_is_said_to_sum():
    """`objective` with no fidelity to speak of is the weight times the summed lengths."""
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = ChambollePock(2.0).objective(x, x, Identity((5, 4)))
    expected = 2.0 * torch.linalg.vector_norm(Gradient((5, 4))(x), dim=2).flatten(2).sum(-1) / 20
    torch.testing.assert_close(ours, expected)
