"""Richardson–Lucy against scikit-image's and a dense loop, and by what the theory promises."""

from __future__ import annotations

import math
import runpy
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.restoration import richardson_lucy

from selfinv.operators import Convolution, Gradient, Identity, LinearOperator
from selfinv.solvers import Status, iterate, run
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.types import InputError, SelfinvWarning

# Of a few values some are missing here, and where no other tells of a pixel that is said.
pytestmark = pytest.mark.filterwarnings("ignore:no measured value depends:selfinv.types.SelfinvWarning")

REGISTRY = runpy.run_path(str(Path(__file__).parents[1] / "operators" / "registry.py"))
OPERATORS, asymmetric_kernel = REGISTRY["OPERATORS"], REGISTRY["asymmetric_kernel"]
BOUNDARIES = ("zero", "reflect", "periodic", "unknown")


def counts(shape, seed=0, *, mean=20.0, dtype=torch.float64):
    """Poisson counts of a bright block on a dim ground."""
    rate = torch.full(tuple(shape), 0.2 * mean, dtype=torch.float64)
    rate[(..., *(slice(n // 3, 2 * n // 3 + 1) for n in shape[2:]))] = 3 * mean
    return torch.poisson(rate, generator=torch.Generator().manual_seed(seed)).to(dtype)


def measurement(operator, seed=0, *, channels=3, missing=0.0):
    y = counts((2, channels, *operator.out_shape), seed)
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(seed + 1)) < missing
    return y.masked_fill(hidden, torch.nan)


def solve(y, operator, steps=10, **settings):
    solver = RichardsonLucy(max_steps=steps, **settings)
    state, status = run(solver, y, operator)
    assert status == Status.MAX_STEPS
    return solver.estimate(state)


def divergence(y, predicted):
    """Generalised Kullback–Leibler divergence per measured value, as NumPy has it."""
    seen = torch.isfinite(y)
    y, predicted = y[seen].numpy(), predicted[seen].numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.mean(np.where(y > 0, y * np.log(y / predicted), 0.0) - y + predicted)


def total_variation(x):
    return float(torch.linalg.vector_norm(Gradient(x.shape[2:])(x), dim=2).sum())


def dense(operator):
    """The operator's matrix, column by column."""
    basis = torch.eye(math.prod(operator.in_shape), dtype=torch.float64)
    return operator(basis.reshape(-1, *operator.in_shape)).flatten(1).T


# ---- against others ----


@pytest.mark.parametrize(
    ("shape", "kernel", "steps"), [((48,), (7,), 3), ((40, 37), (5, 4), 3), ((16, 18, 20), (3, 3, 5), 2)]
)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_agrees_with_scikit_image_inside(shape, kernel, steps, dtype, rtol):
    psf = asymmetric_kernel(kernel)
    y = counts((1, 1, *shape), dtype=dtype)
    operator = Convolution(psf, shape, "zero")
    start = float(RichardsonLucy().init(y, operator).x.mean())
    ours = solve(y, operator, steps)[0, 0].numpy()
    # Theirs starts from 0.5. SciPy's "same" puts the centre of even kernels elsewhere: made odd, they agree.
    odd = np.pad(psf.numpy(), [(0, 1 - k % 2) for k in kernel]).astype(ours.dtype)
    theirs = richardson_lucy(y[0, 0].numpy() * np.float32(0.5 / start), odd, num_iter=steps, clip=False)
    # Theirs does not divide by the sensitivity, which every step carries further inside.
    inside = tuple(slice(steps * k, -steps * k) for k in kernel)
    assert theirs.dtype == ours.dtype
    np.testing.assert_allclose(ours[inside], theirs[inside] / np.float32(0.5 / start), rtol=rtol)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize("kernel", [(3, 5), (4, 2)])
def test_equals_a_dense_loop(boundary, method, kernel):
    operator = Convolution(asymmetric_kernel(kernel), (9, 8), boundary, method)
    y = measurement(operator, missing=0.1)[:1, :1]
    matrix, data, background = dense(operator), y.flatten(), 1.5
    seen = torch.isfinite(data)
    rows, data = matrix[seen], data[seen]
    x = torch.full((matrix.shape[1],), float((data - background).clamp(min=0).sum() / rows.sum()))
    x = x.double()
    sensitivity = rows.sum(dim=0)
    for _ in range(7):
        factor = (rows.T @ (data / (rows @ x + background))) / sensitivity
        x = torch.where(sensitivity > 1e-7, x * factor, x)
    ours = solve(y, operator, 7, background=background)
    torch.testing.assert_close(ours.flatten(), x, rtol=1e-8, atol=1e-10)


# ---- what the theory promises, for every operator ----


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_operator(name, dtype):
    operator = OPERATORS[name]().to(dtype)
    y = measurement(operator, missing=0.1).to(dtype)
    solver = RichardsonLucy(max_steps=6)
    seen = operator(torch.ones(1, 3, *operator.in_shape, dtype=dtype))
    y = y.masked_fill(seen.abs() < 1e-6, torch.nan)  # no object accounts for a value that sees none
    negative = -1e-3 * float(operator.adjoint(y.isfinite().to(dtype)).abs().max())
    if float(operator.adjoint(y.isfinite().to(dtype)).min()) < negative:
        with pytest.raises(InputError, match="negative entries"):
            solver.init(y, operator)
        return
    if name != "kernel-per-channel" and float(dense(operator.double()).min()) < -1e-6:
        return  # it has, but no sum shows it: nothing is promised then
    operator = operator.to(dtype)
    states = list(iterate(solver, y, operator))
    losses = [s.loss for s in states]
    x = solver.estimate(states[-1])
    assert [s.step for s in states] == list(range(7))
    rounding = 1e-5 if dtype == torch.float32 else 1e-12
    assert all(after <= before + rounding for before, after in pairwise(losses))
    assert losses[-1] < losses[0]
    assert losses[-1] == pytest.approx(divergence(y, operator(x)), rel=100 * rounding, abs=rounding)
    assert x.dtype == dtype
    assert x.shape == (2, 3, *operator.in_shape)
    assert float(x.min()) >= 0
    assert math.isnan(states[-1].score)


class Matrix(LinearOperator):
    """Any matrix, without a shape in common between object and measurement."""

    def __init__(self, matrix):
        super().__init__((matrix.shape[1] // 2, 2), (matrix.shape[0],))
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return x.flatten(-2) @ self.matrix.T


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    missing=st.sampled_from([0.0, 0.3]),
    background=st.sampled_from([0.0, 3.0]),
    sparsity=st.sampled_from([0.0, 0.8]),
)
def test_the_likelihood_never_falls(seed, missing, background, sparsity):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.rand(11, 8, generator=generator, dtype=torch.float64)
    matrix = matrix * (torch.rand(11, 8, generator=generator) >= sparsity)
    matrix[0] = 0.1
    y = torch.poisson(torch.rand(2, 2, 11, generator=generator, dtype=torch.float64) * 9, generator=generator)
    y = y * (matrix.sum(dim=1) > 0)  # where no object can be seen nothing is
    y[..., 0] = 5.0
    y[..., 1:] = y[..., 1:].masked_fill(torch.rand(2, 2, 10, generator=generator) < missing, torch.nan)
    operator = Matrix(matrix)
    solver = RichardsonLucy(max_steps=15, background=background)
    states = list(iterate(solver, y, operator))
    losses = [s.loss for s in states]
    assert all(after <= before + 1e-12 for before, after in pairwise(losses))
    assert losses[-1] == pytest.approx(divergence(y, operator(states[-1].x) + background), abs=1e-9)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_the_flux_is_kept(boundary):
    operator = 3.0 * Convolution(asymmetric_kernel((3, 4)), (9, 8), boundary)
    y = measurement(operator)
    x = solve(y, operator, 5)
    torch.testing.assert_close(operator(x).sum(dim=(2, 3)), y.sum(dim=(2, 3)), rtol=1e-6, atol=0.0)
    if boundary == "periodic":
        torch.testing.assert_close(3.0 * x.sum(dim=(2, 3)), y.sum(dim=(2, 3)))


def test_units_carry_over():
    operator = Convolution(asymmetric_kernel((3, 4)), (9, 8))
    y = measurement(operator, missing=0.1)
    torch.testing.assert_close(solve(1e-6 * y, operator), 1e-6 * solve(y, operator))
    torch.testing.assert_close(solve(y, 4.0 * operator), solve(y, operator) / 4.0)


def test_points_come_out_of_their_blur():
    operator = Convolution(asymmetric_kernel((5, 4)), (20, 20), "zero")
    truth = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    truth[0, 0, 6, 7], truth[0, 0, 13, 12] = 100.0, 40.0
    x = solve(operator(truth), operator, 300)
    torch.testing.assert_close(x, truth, rtol=0.05, atol=0.5)


# ---- missing values, background, batches ----


def test_what_is_beneath_a_missing_value_does_not_matter():
    operator = Convolution(asymmetric_kernel((3, 4)), (9, 8))
    y = measurement(operator, missing=0.2)
    other = torch.where(torch.isnan(y), torch.inf, y)
    assert torch.equal(solve(y, operator), solve(other, operator))


def test_only_measured_values_matter_and_each_does():
    operator = Convolution(asymmetric_kernel((3, 3)), (7, 6), "zero")
    y = measurement(operator, missing=0.2)[:1, :1]
    x = solve(y, operator, 3)
    for place in np.ndindex(7, 6):
        changed = y.clone()
        changed[(0, 0, *place)] *= 2.0  # NaN stays NaN
        same = torch.equal(solve(changed, operator, 3), x)
        assert same == bool(torch.isnan(y[(0, 0, *place)]) or y[(0, 0, *place)] == 0)


def test_a_missing_value_is_filled_from_its_surroundings():
    operator = Convolution(torch.full((5, 5), 1 / 25, dtype=torch.float64), (12, 12), "periodic")
    y = torch.full((1, 1, 12, 12), 7.0, dtype=torch.float64)
    y[0, 0, 4:6, 4:6] = torch.nan
    torch.testing.assert_close(solve(y, operator), torch.full_like(y, 7.0))


def test_where_nothing_is_seen_the_start_stays_and_that_is_said():
    y = torch.tensor([[[1.0, 2.0, torch.nan, 3.0]]])
    with pytest.warns(
        SelfinvWarning, match=r"depends on 1 of the object's 4 pixels.*tv-chambolle-pock or ssi"
    ):
        x = solve(y, Identity((4,)), 3, tv_weight=0.01)
    assert x[0, 0, 2] == 2.0
    y = torch.stack([y[0], torch.full((1, 4), torch.nan)])  # an image without any value
    assert torch.isfinite(solve(y, Identity((4,)), 3)).all()


def test_what_is_not_seen_beyond_the_edges_is_not_told():
    kernel = torch.zeros(5, 5)
    kernel[1:4, 1:4] = 1 / 9  # the outermost of the object's pixels are seen by nothing
    operator = Convolution(kernel, (12, 12), "unknown")
    y = torch.full((1, 1, 12, 12), 7.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SelfinvWarning)
        state = RichardsonLucy().init(y, operator)
    assert state.problem.unseen is not None


def test_a_known_background_is_not_deconvolved():
    operator = Convolution(asymmetric_kernel((5, 4)), (20, 20), "zero")
    truth = torch.zeros(1, 1, 20, 20, dtype=torch.float64)
    truth[0, 0, 10, 10] = 500.0
    y = operator(truth) + 30.0
    told, untold = solve(y, operator, 100, background=30.0), solve(y, operator, 100)
    assert (told - truth).norm() < 0.1 * (untold - truth).norm()
    assert abs(float(told.sum()) - 500.0) < 0.02 * abs(float(untold.sum()) - 500.0)


def test_a_negative_background_is_an_offset_of_the_data():
    operator = Convolution(asymmetric_kernel((3, 4)), (9, 8))
    y = measurement(operator, missing=0.1)
    torch.testing.assert_close(solve(y - 50.0, operator, background=-50.0), solve(y, operator))


def test_noise_below_the_background_is_no_cause_for_warning():
    y = torch.tensor([[[9.0, 11.0, 10.0, 30.0, 8.0, 9.0]]])
    x = solve(y, Identity((6,)), 200, background=10.0)
    torch.testing.assert_close(x[0, 0, 3], torch.tensor(20.0))


@pytest.mark.parametrize("settings", [{}, {"acceleration": True}, {"tv_weight": 0.02}])
def test_images_and_channels_do_not_influence_each_other(settings):
    operator = Convolution(asymmetric_kernel((3, 4)), (9, 8))
    y = measurement(operator, missing=0.1) * torch.tensor([1.0, 1e-3, 1e4]).reshape(3, 1, 1)
    y[1, 2] = 0.0  # a dark channel
    together = solve(y, operator, 12, **settings)
    for b, c in np.ndindex(2, 3):
        if (b, c) != (1, 2):
            alone = solve(y[b : b + 1, c : c + 1], operator, 12, **settings)
            torch.testing.assert_close(together[b : b + 1, c : c + 1], alone, rtol=1e-7, atol=1e-12)
    assert float(together[1, 2].abs().max()) == 0.0


# ---- acceleration and total variation ----


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_acceleration_gets_further_in_the_same_number_of_steps(boundary):
    operator = Convolution(asymmetric_kernel((5, 5)), (24, 24), boundary)
    y = counts((2, 2, 24, 24), mean=200.0)
    plain, faster, much_later = (
        divergence(y, operator(solve(y, operator, steps, acceleration=acceleration)))
        for steps, acceleration in ((20, False), (20, True), (40, False))
    )
    assert faster < much_later < plain


def test_acceleration_keeps_the_object_positive():
    operator = Convolution(asymmetric_kernel((5, 5)), (24, 24), "unknown")
    x = solve(counts((1, 1, 24, 24), mean=2.0), operator, 100, acceleration=True)
    assert torch.isfinite(x).all()
    assert float(x.min()) >= 0.0


@pytest.mark.parametrize("shape", [(64,), (24, 20), (10, 12, 11)])
def test_total_variation_is_lowered(shape):
    kernel = asymmetric_kernel((3,) * len(shape))
    operator = Convolution(kernel, shape, "reflect")
    y = counts((1, 2, *shape))
    roughness = [total_variation(solve(y, operator, 40, tv_weight=w)) for w in (0.0, 0.002, 0.02, 0.1)]
    assert roughness == sorted(roughness, reverse=True)
    assert roughness[2] < 0.85 * roughness[0]


def test_total_variation_settles_instead_of_flickering():
    operator = Convolution(asymmetric_kernel((5, 5)), (24, 24), "reflect")
    y = counts((1, 1, 24, 24))
    states = list(iterate(RichardsonLucy(max_steps=300, tv_weight=0.1), y, operator))
    last = states[-1].x
    assert float((last - states[-2].x).abs().max()) < 1e-4 * float(last.max())


def test_total_variation_prefers_no_axis():
    kernel = asymmetric_kernel((3, 3))
    y = counts((1, 1, 14, 14))
    x = solve(y, Convolution(kernel, (14, 14), "reflect"), 20, tv_weight=0.05)
    turned = solve(y.mT, Convolution(kernel.T, (14, 14), "reflect"), 20, tv_weight=0.05)
    torch.testing.assert_close(turned.mT, x)


# ---- the contract ----


def test_it_can_be_cancelled_and_keeps_what_there_is():
    operator = Convolution(asymmetric_kernel((3, 4)), (9, 8))
    y = measurement(operator)
    solver = RichardsonLucy(max_steps=30)
    seen = []

    def callback(progress):
        seen.append(progress)
        return progress.step < 4

    state, status = run(solver, y, operator, callback=callback)
    assert (state.step, status, solver.planned_steps()) == (4, Status.CANCELLED, 30)
    assert [p.step for p in seen] == [1, 2, 3, 4]
    assert torch.equal(seen[1].estimate(), solve(y, operator, 2))  # later steps leave it alone
    assert torch.equal(solver.estimate(state), solve(y, operator, 4))


def test_the_measurement_is_left_alone_and_the_seed_changes_nothing():
    operator = Identity((9, 8))  # forward and adjoint return what they are given
    y = measurement(operator, missing=0.1)
    before = y.clone()
    solver = RichardsonLucy(max_steps=3, acceleration=True, tv_weight=0.01)
    one, other = (run(solver, y, operator, seed=seed)[0] for seed in (0, 1))
    assert torch.equal(one.x, other.x)
    torch.testing.assert_close(y, before, rtol=0, atol=0, equal_nan=True)


def test_numbers_that_are_no_longer_finite_are_a_status():
    operator = Identity((4,))
    solver = RichardsonLucy()
    state = solver.init(torch.ones(1, 1, 4), operator)
    assert solver.status(state) == Status.RUNNING
    broken = solver.step(replace(state, point=torch.full((1, 1, 4), torch.nan)))
    assert solver.status(broken) == Status.NONFINITE


def test_negative_values_are_set_to_zero_and_that_is_said():
    operator = Convolution(asymmetric_kernel((3, 4)), (9, 8))
    y = measurement(operator, missing=0.1)
    y[0, 0, 2, 3], y[1, 2, 0, 0] = -4.0, -0.5
    measured = int(torch.isfinite(y).sum())
    with pytest.warns(SelfinvWarning, match=rf"2 of {measured} values .*leave it in"):
        x = solve(y, operator)
    assert torch.equal(x, solve(torch.where(y < 0, 0.0, y), operator))


# ---- mistakes ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"max_steps": 2.5}, "max_steps must be an integer, got 2.5"),
        ({"tv_weight": -0.1}, "tv_weight must be 0 or more, got -0.1"),
        ({"tv_weight": math.nan}, "tv_weight must be 0 or more, got nan"),
        ({"background": math.inf}, "background must be a finite number, got inf"),
    ],
)
def test_bad_settings(settings, words):
    with pytest.raises(InputError, match=words):
        RichardsonLucy(**settings)


def test_bad_data_and_operators():
    y = torch.ones(1, 1, 5, 6)
    solver = RichardsonLucy()
    for bad in (-y, 0 * y):
        with pytest.raises(InputError, match="no measured value is above 0"):
            solver.init(bad, Identity((5, 6)))
    with pytest.raises(InputError, match="no measured value is above 2, the background"):
        RichardsonLucy(background=2.0).init(y, Identity((5, 6)))
    with pytest.raises(InputError, match="every value is NaN"):
        solver.init(y * torch.nan, Identity((5, 6)))
    with pytest.raises(InputError, match="makes 0 of every object"):
        solver.init(y, 0.0 * Identity((5, 6)))
    with pytest.raises(InputError, match="negative entries"):
        solver.init(y, -Identity((5, 6)))
    with pytest.raises(InputError, match="spatial shape"):
        solver.init(y, Identity((6, 5)))
    with pytest.raises(InputError, match="adjoint"):
        solver.init(y, lambda x: x)
    with pytest.raises(InputError, match=r"2 spatial axes expected less than 0\.293"):
        RichardsonLucy(tv_weight=0.3).init(y, Identity((5, 6)))
