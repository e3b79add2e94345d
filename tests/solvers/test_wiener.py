"""Wiener's filter against its formula, a dense solve, scikit-image, and simulated spectra."""

from __future__ import annotations

import itertools
import math
import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from skimage import data, restoration

from selfinv import psf
from selfinv.metrics import psnr
from selfinv.operators import Convolution, Downsample, Identity, LinearOperator, RandomProjections
from selfinv.solvers import Status, iterate, run
from selfinv.solvers.wiener import Wiener
from selfinv.types import InputError

REGISTRY = runpy.run_path(str(Path(__file__).parents[1] / "operators" / "registry.py"))
OPERATORS, asymmetric_kernel = REGISTRY["OPERATORS"], REGISTRY["asymmetric_kernel"]


class EveryOther(LinearOperator):
    """Measures every second value along the last axis, which no filter undoes."""

    def __init__(self, shape):
        super().__init__(shape, (*shape[:-1], (shape[-1] + 1) // 2))

    def forward(self, x):
        return x[..., ::2]


class Mixing(LinearOperator):
    """A random matrix: its measurement looks nothing like an image."""

    def __init__(self, shape, count):
        super().__init__(shape, (count,))
        generator = torch.Generator().manual_seed(0)
        self.register_buffer(
            "matrix", torch.randn(count, int(np.prod(shape)), generator=generator) / count**0.5
        )

    def forward(self, x):
        return x.flatten(-len(self.in_shape)) @ self.matrix.T.to(x)


def natural(shape, seed=0, exponent=2.5, periodic=False):
    """A random object with a power-law spectrum, mean 10 and standard deviation 1, ``1 1 *shape``."""
    grown = shape if periodic else tuple(2 * n for n in shape)
    white = np.random.default_rng(seed).standard_normal(grown)
    squares = np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in grown), indexing="ij")
    frequency = np.sqrt(sum(squares))
    frequency[(0,) * len(shape)] = np.inf
    x = np.fft.ifftn(np.fft.fftn(white) * frequency ** (-exponent / 2)).real
    x = x[tuple(slice(0, n) for n in shape)]
    return torch.from_numpy(10.0 + (x - x.mean()) / x.std())[None, None]


def noisy(y, sigma, seed=1):
    return y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)


def measurement(operator, *, missing=0.0, dtype=torch.float64):
    """Two images of three channels seen through the operator, with noise, and values missing."""
    objects = [natural(operator.in_shape, seed) * (1 + seed) for seed in range(6)]
    x = torch.cat(objects).reshape(2, 3, *operator.in_shape).to(dtype)
    y = noisy(operator.to(dtype)(x), 0.1)
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < missing
    return y.masked_fill(hidden, torch.nan)


def dense(linear_map, shape):
    """The matrix of a linear map of objects, column by column."""
    basis = torch.eye(int(np.prod(shape)), dtype=torch.float64)
    return linear_map(basis.reshape(-1, *shape)).flatten(1).T


# ---- the estimate itself ----


@pytest.mark.parametrize("shape", [(63,), (32, 25), (8, 9, 10)])
def test_a_periodic_image_is_filtered_by_wieners_formula_in_one_step(shape):
    kernel = asymmetric_kernel((3, 4, 2)[: len(shape)])
    operator = Convolution(kernel, shape, "periodic")
    y = noisy(operator(natural(shape, periodic=True)), 0.2)
    state, status = run(Wiener(balance=0.7), y, operator)
    assert (state.step, status) == (1, Status.CONVERGED)

    axes = tuple(range(len(shape)))
    placed = np.zeros(shape)
    placed[tuple(slice(0, k) for k in kernel.shape)] = kernel
    transfer = np.fft.fftn(np.roll(placed, [-(k // 2) for k in kernel.shape], axes))
    frequency = np.sqrt(sum(np.meshgrid(*(np.fft.fftfreq(n) ** 2 for n in shape), indexing="ij")))
    # Two modes tell the two numbers of the power law that the solver settled on.
    penalty = state.penalty[0, 0].numpy()
    first, second = (0,) * (len(shape) - 1) + (1,), (0,) * (len(shape) - 1) + (2,)
    exponent = np.log(penalty[second] / penalty[first]) / np.log(frequency[second] / frequency[first])
    noise_ratio = penalty[first] / frequency[first] ** exponent
    spectrum = np.fft.fftn(y[0, 0].numpy())
    filtered = transfer.conj() * spectrum / (abs(transfer) ** 2 + noise_ratio * frequency**exponent)
    expected = np.fft.ifftn(filtered).real
    assert np.allclose(Wiener().estimate(state)[0, 0], expected, atol=1e-9)
    assert float(Wiener().estimate(state).mean()) == pytest.approx(float(y.mean()), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("convolution-1d-odd-unknown-fft", 0.3),
        ("convolution-2d-even-zero-fft", 0.0),
        ("convolution-2d-odd-reflect-direct", 0.3),
        ("convolution-2d-even-periodic-fft", 0.3),
        ("convolution-2d-margin-fft", 0.0),
        ("adjoint", 0.3),
        ("composition", 0.0),
    ],
)
def test_edges_and_holes_are_solved_for_as_a_dense_solve_does(name, missing):
    operator = OPERATORS[name]()
    y = measurement(operator, missing=missing)[:, :1]
    solver = Wiener(rtol=1e-9, max_steps=2000)
    state, status = run(solver, y, operator)
    assert status == Status.CONVERGED
    matrix = dense(operator, operator.in_shape)
    for b in range(len(y)):
        penalty = state.penalty.expand(2, 1, *state.penalty.shape[2:])[b, 0]
        roughness = dense(
            lambda x, r=penalty: state.modes.synthesise(r * state.modes.analyse(x)), operator.in_shape
        )
        seen = y[b].flatten().isfinite()
        normal = matrix[seen].T @ matrix[seen] + roughness
        expected = torch.linalg.solve(normal, matrix[seen].T @ y[b].flatten()[seen])
        assert torch.allclose(solver.estimate(state)[b].flatten(), expected, rtol=1e-5, atol=1e-5)
        residual = matrix[seen] @ expected - y[b].flatten()[seen]
        state_loss = 0.5 * float(residual @ residual + expected @ roughness @ expected)
        if b == 0:
            total = state_loss
    count = int(y.isfinite().sum())
    assert state.loss == pytest.approx((total + state_loss) / count, rel=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator(name):
    operator = OPERATORS[name]()
    missing = 0.0 if name.endswith("direct") else 0.05  # the same operators as by fft, but slow
    y = measurement(operator, missing=missing, dtype=torch.float32)[:1]
    solver = Wiener(max_steps=4)
    states = list(iterate(solver, y, operator))
    losses = [s.loss for s in states]
    assert solver.status(states[-1]) in (Status.MAX_STEPS, Status.CONVERGED)
    estimate = solver.estimate(states[-1])
    assert estimate.shape == (1, 3, *operator.in_shape)
    assert estimate.dtype == torch.float32
    assert estimate.isfinite().all()
    assert losses[-1] < losses[0]
    assert all(b <= a * (1 + 1e-4) for a, b in itertools.pairwise(losses))
    misfit = (operator(estimate) - y)[y.isfinite()].square().mean()
    flat = y[y.isfinite()].var()
    assert misfit < flat


@pytest.mark.parametrize(
    ("operator", "sigma"),
    [(EveryOther((24, 20)), 0.1), (Mixing((24, 20), 240), 0.5)],
    ids=["every-other", "mixing"],
)
def test_operators_that_no_filter_describes(operator, sigma):
    x = natural((24, 20))
    y = noisy(operator(x), sigma)
    y[..., 3] = torch.nan
    errors = {}
    for balance in (0.1, 1.0, 10.0):
        state, status = run(Wiener(balance, rtol=1e-3), y, operator)
        assert status == Status.CONVERGED
        errors[balance] = float((Wiener().estimate(state) - x).square().mean())
    assert errors[1.0] < 0.5  # the object's own variance is 1
    assert errors[1.0] < 1.15 * min(errors.values())


# ---- the spectra ----


@pytest.mark.parametrize(
    ("exponent", "sigma", "missing"), [(1.5, 0.3, 0.0), (2.5, 0.1, 0.5), (3.5, 0.03, 0.1)]
)
def test_the_spectra_are_those_that_were_simulated(exponent, sigma, missing):
    operator = Convolution(psf.gaussian(1.0, (7, 7)), (128, 128), "zero")
    x = natural((128, 128), exponent=exponent)
    y = noisy(operator(x - 10.0) + 10.0 * operator(torch.ones_like(x)), sigma)
    y[torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < missing] = torch.nan
    state = Wiener().init(y, operator)
    coefficients = scipy.fft.dctn(x[0, 0].numpy() - 10.0, norm="ortho")
    frequency = state.modes.frequency.numpy()
    band = (frequency > 0.05) & (frequency < 0.25)
    true = sigma**2 / np.mean(coefficients[band] ** 2)
    estimated = 1 / np.mean(1 / state.penalty[0, 0].numpy()[band])
    assert estimated == pytest.approx(true, rel=0.5)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_noise_of_coarser_pixels_is_not_taken_for_the_object(seed):
    """With a quarter as many values as the object has, it was: 9 dB less than the pixels as they are."""
    truth = torch.from_numpy(data.camera()[72:120, 72:120] / 255.0)[None, None]
    A = Downsample((48, 48), 2) @ Convolution(asymmetric_kernel((5, 5)), (48, 48), "zero")
    noise = torch.randn(1, 1, 24, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = A(truth) + 0.1 * noise
    state, _ = run(Wiener(), y, A)
    as_they_are = torch.kron(y, torch.ones(2, 2, dtype=y.dtype))
    found = Wiener().estimate(state)
    assert (found - truth).square().mean() < 0.7 * (as_they_are - truth).square().mean()


def test_the_noise_of_an_object_without_structure_is_removed():
    y = noisy(torch.full((1, 1, 64, 64), 100.0), 5.0)
    state, _ = run(Wiener(), y, Identity((64, 64)))
    assert float((Wiener().estimate(state) - 100.0).square().mean().sqrt()) < 1.5


# ---- quality ----


@pytest.mark.parametrize(
    ("corner", "blur", "sigma"),
    [((64, 160), 1.5, 0.05), ((64, 160), 2.5, 0.02), ((300, 300), 1.5, 0.02), ((300, 300), 1.5, 0.005)],
)
def test_at_least_as_good_as_scikit_image(corner, blur, sigma):
    kernel = np.asarray(psf.gaussian(blur, (13, 13)), dtype=np.float64)
    row, column = corner
    scene = data.camera()[row : row + 140, column : column + 140] / 255.0
    truth = scene[6:-6, 6:-6]
    operator = Convolution(kernel, truth.shape, "unknown")
    y = operator(torch.from_numpy(scene)).numpy()
    y = y + sigma * np.random.default_rng(0).standard_normal(y.shape)
    state, status = run(Wiener(), torch.from_numpy(y)[None, None], operator)
    assert not status.failed
    estimate = Wiener().estimate(state)[0, 0].numpy()[operator.field_of_view]
    theirs = [
        restoration.wiener(y, kernel, balance=1.0, clip=False),
        restoration.unsupervised_wiener(y, kernel, clip=False, rng=0)[0],
        y,
    ]
    assert psnr(truth, estimate) > max(psnr(truth, image) for image in theirs) + 0.5
    inner = (slice(16, -16),) * 2  # where their periodic edges do not reach
    assert psnr(truth[inner], estimate[inner]) > max(psnr(truth[inner], image[inner]) for image in theirs)


def test_the_estimated_balance_is_near_the_best():
    operator = Convolution(psf.gaussian(1.5, (9, 9)), (96, 96), "unknown")
    x = natural(operator.in_shape)
    y = noisy(operator(x), 0.1)
    errors = {
        balance: float((Wiener().estimate(run(Wiener(balance), y, operator)[0]) - x).square().mean())
        for balance in (0.1, 1.0, 10.0)
    }
    assert errors[1.0] < 1.05 * min(errors.values())
    assert errors[0.1] > 1.1 * errors[1.0]
    assert errors[10.0] > 1.1 * errors[1.0]


def test_half_of_the_values_are_nearly_as_good_as_all():
    operator = Convolution(psf.gaussian(1.5, (9, 9)), (64, 64), "zero")
    x = natural((64, 64)) - 10.0
    y = noisy(operator(x), 0.1)
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    hidden[..., 20:30, 20:30] = True
    errors = []
    for image in (y, y.masked_fill(hidden, torch.nan)):
        state, status = run(Wiener(), image, operator)
        assert status == Status.CONVERGED
        errors.append(float((Wiener().estimate(state) - x).square().mean().sqrt()))
    assert errors[1] < 1.3 * errors[0] < 0.6


@pytest.mark.parametrize("shape", [(2,), (1, 16), (1, 1, 20), (2, 2, 2)])
def test_grids_of_a_few_samples(shape):
    y = noisy(natural(shape), 0.1) if max(shape) > 2 else torch.rand(1, 1, *shape)
    y[0, 0].view(-1)[1] = torch.nan
    state, status = run(Wiener(), y, Identity(shape))
    assert status == Status.CONVERGED
    assert Wiener().estimate(state).isfinite().all()


# ---- contract ----


def test_missing_values_have_no_influence():
    operator = Convolution(asymmetric_kernel((3, 4)), (16, 15), "unknown")
    y = measurement(operator, missing=0.3)
    solver = Wiener(max_steps=5)
    expected = solver.estimate(run(solver, y, operator)[0])
    for other in (torch.inf, -torch.inf):
        state, _ = run(solver, y.nan_to_num(nan=other), operator)
        assert torch.equal(solver.estimate(state), expected)
    shown = measurement(operator).requires_grad_()
    masked = shown.masked_fill(y.isnan(), torch.nan)
    solver.estimate(run(solver, masked, operator)[0]).square().sum().backward()
    assert (shown.grad[y.isnan()] == 0).all()
    assert (shown.grad[~y.isnan()] != 0).any()


def test_images_and_channels_do_not_touch_each_other():
    operator = Convolution(asymmetric_kernel((3, 4)), (16, 15), "unknown")
    y = measurement(operator, missing=0.1)
    y[1, 2] *= 100.0
    y[0, 1] = torch.nan  # nothing measured at all
    solver = Wiener(rtol=0.0, max_steps=5)
    together = solver.estimate(run(solver, y, operator)[0])
    for b, c in ((0, 0), (1, 2)):
        alone = solver.estimate(run(solver, y[b : b + 1, c : c + 1], operator)[0])
        assert torch.allclose(together[b, c], alone[0, 0], rtol=1e-9)
    assert (together[0, 1] == 0).all()


def test_a_kernel_per_channel_is_each_channels_own():
    kernels = asymmetric_kernel((3, 4, 3))
    for boundary in ("zero", "periodic"):
        solver = Wiener(rtol=1e-6, max_steps=500)
        operator = Convolution(kernels, (16, 15), boundary)
        y = measurement(operator)
        together = solver.estimate(run(solver, y, operator)[0])
        for c in range(3):
            operator = Convolution(kernels[c], (16, 15), boundary)
            alone = solver.estimate(run(solver, y[:, c : c + 1], operator)[0])
            assert torch.allclose(together[:, c], alone[:, 0], rtol=1e-4)


@pytest.mark.parametrize("boundary", ["unknown", "reflect", "periodic"])
def test_flux_is_preserved(boundary):
    operator = Convolution(asymmetric_kernel((5, 4)), (24, 20), boundary)
    y = noisy(operator(natural(operator.in_shape)), 0.3)
    state, _ = run(Wiener(balance=3.0, rtol=1e-7, max_steps=200), y, operator)
    assert float(operator(Wiener().estimate(state)).mean()) == pytest.approx(float(y.mean()), rel=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_intensity_units_do_not_matter(scale):
    operator = Convolution(asymmetric_kernel((3, 4)), (16, 15), "unknown")
    y = measurement(operator, missing=0.1, dtype=torch.float32)
    one = Wiener().estimate(run(Wiener(), y, operator)[0])
    scaled = Wiener().estimate(run(Wiener(), scale * y, operator)[0])
    assert torch.allclose(scaled, scale * one, rtol=1e-3)


# ---- starting from where another run ended ----


def counted(operator):
    """The same operator, and a list that gets longer by one each time it is applied."""
    calls, forward = [], operator.forward
    operator.forward = lambda x: (calls.append(1), forward(x))[1]
    return operator, calls


STARTED = {
    "blur, some missing": (lambda: Convolution(asymmetric_kernel((5, 4)), (24, 20), "unknown"), 0.2),
    "no filter": (lambda: EveryOther((24, 20)), 0.2),
    "not pixels": (lambda: Mixing((12, 10), 90), 0.0),
}


@pytest.mark.parametrize("name", STARTED)
def test_another_balance_from_where_one_ended_is_the_same_answer_with_less_work(name):
    made, missing = STARTED[name]
    y = noisy(measurement(made(), missing=missing), 0.5, seed=3)
    solver, near = Wiener(), Wiener(balance=1.5)
    operator, calls = counted(made())
    again, status = run(solver, y, operator)
    assert status == Status.CONVERGED
    work = len(calls)
    first, _ = run(near, y, operator)
    kept = near.estimate(first)
    calls.clear()
    state = solver.init(y, operator, start=first)
    while solver.status(state) == Status.RUNNING:
        state = solver.step(state)
    torch.testing.assert_close(solver.estimate(state), solver.estimate(again), rtol=5e-3, atol=0.1)
    assert len(calls) < 0.7 * work
    assert torch.equal(near.estimate(first), kept)  # the run it came from is left alone


def test_with_other_values_missing_spectra_are_told_anew():
    operator = Convolution(asymmetric_kernel((5, 4)), (24, 20), "unknown")
    y = measurement(operator, dtype=torch.float64)
    shown = y.clone()
    shown[..., 3::7, 1::4] = math.nan
    solver = Wiener(rtol=1e-7, max_steps=500)
    first, _ = run(solver, shown, operator)
    state = solver.init(y, operator, start=first)
    while solver.status(state) == Status.RUNNING:
        state = solver.step(state)
    again, _ = run(solver, y, operator)
    assert torch.equal(state.penalty, again.penalty)
    torch.testing.assert_close(solver.estimate(state), solver.estimate(again), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_stays_so(value):
    for operator in (Identity((8, 8)), Convolution(asymmetric_kernel((3, 3)), (8, 8), "unknown")):
        state, status = run(Wiener(), torch.full((1, 1, 8, 8), value), operator)
        assert status == Status.CONVERGED
        assert torch.allclose(Wiener().estimate(state), torch.tensor(value), atol=1e-5)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1)])
@pytest.mark.parametrize("make", [Identity, partial(RandomProjections, count=4)])
def test_an_object_of_one_sample_is_what_was_measured_of_it(shape, make):
    A = make(shape)
    state, status = run(Wiener(), A(torch.full((1, 1, *shape), 3.0)), A)
    assert status == Status.CONVERGED
    assert Wiener().estimate(state).item() == pytest.approx(3.0, rel=1e-5)


def test_numbers_that_overflow_are_a_status():
    y = torch.full((1, 1, 4, 4), 1e38)
    y[..., 0] = -1e38
    _, status = run(Wiener(), y, Identity((4, 4)), restarts=0)
    assert status == Status.NONFINITE


@pytest.mark.parametrize(
    "wrong", [{"balance": 0.0}, {"balance": -1.0}, {"balance": float("nan")}, {"max_steps": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InputError, match="must be"):
        replace(Wiener(), **wrong)


def test_data_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="adjoint"):
        Wiener().init(torch.rand(1, 1, 4, 4), lambda x: x)
    with pytest.raises(InputError, match="shape"):
        Wiener().init(torch.rand(1, 1, 4, 5), Identity((4, 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("boundary", ["zero", "reflect", "unknown"])
def test_without_noise_rounding_errors_are_not_enlarged(boundary, dtype):
    """With no noise to be found the filter is nearly an inverse; it was off by ten times the range."""
    ramp = torch.linspace(0, 100, 64, dtype=dtype).expand(64, 64)
    kernel = torch.from_numpy(psf.gaussian(2.0, (9, 9)))
    operator = Convolution(kernel, ramp.shape, boundary)
    y = ramp if boundary == "unknown" else operator(ramp)  # a ramp that goes on is blurred to itself
    solver = Wiener()
    state, status = run(solver, y[None, None], operator)
    found = solver.estimate(state)[0, 0][operator.field_of_view]
    assert status == Status.CONVERGED
    assert float((found - ramp)[12:-12, 12:-12].abs().max()) < 4.0
    assert float((found - ramp).abs().max()) < 40.0  # where nothing is known of what lies beyond
