"""Every functional against brute force: its value, its proximal maps, its conjugate."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import special
from scipy.optimize import minimize_scalar

from selfinv.functionals import L1, Box, Huber, Poisson, SquaredL2, TotalVariation
from selfinv.types import InputError

FIDELITIES = {
    "squared-l2": SquaredL2(),
    "huber": Huber(0.7),
    "l1": L1(),
    "poisson": Poisson(),
    "poisson-background": Poisson(2.5),
}
# What the same costs are in SciPy's or NumPy's words.
VALUES = {
    "squared-l2": lambda v, y: 0.5 * (v - y) ** 2,
    "huber": lambda v, y: special.huber(0.7, v - y),
    "l1": lambda v, y: np.abs(v - y),
    "poisson": lambda v, y: special.kl_div(y, v),
    "poisson-background": lambda v, y: special.kl_div(y, v + 2.5),
}
MEASURED = (0.0, 0.3, 1.0, 4.5, 20.0)
STEPS = (0.05, 1.0, 7.0)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def domain(name):
    """The smallest object value that can be, and the slopes that a cost can have."""
    return {
        "squared-l2": (-60.0, (-9.0, -0.4, 0.0, 2.5)),
        "huber": (-60.0, (-0.7, -0.3, 0.0, 0.69)),
        "l1": (-60.0, (-1.0, -0.3, 0.0, 0.99)),
        "poisson": (0.0, (-9.0, -0.4, 0.0, 0.8)),
        "poisson-background": (-2.5, (-9.0, -0.4, 0.0, 0.8)),
    }[name]


def lowest(cost, low, high=200.0):
    """The argument and value of the minimum of a convex function, by golden section."""
    found = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-11})
    ends = [(cost(x), x) for x in (low, float(found.x))]  # the bounded search never tries the ends
    return min(ends)[::-1]


def prox(fidelity, v, tau, y):
    """From the conjugate's, by Moreau's identity."""
    return v - tau * fidelity.dual_prox(v / tau, 1.0 / tau, y)


@pytest.mark.parametrize("name", FIDELITIES)
def test_values_are_the_textbooks(name):
    low, _ = domain(name)
    v = np.linspace(low + 1e-3, 40, 97)
    for y in MEASURED:
        ours = FIDELITIES[name].value(torch.from_numpy(v), torch.full((97,), y, dtype=torch.float64))
        np.testing.assert_allclose(ours, VALUES[name](v, y), rtol=1e-12, atol=1e-12)
        exact = FIDELITIES[name].value(tensor(y - getattr(FIDELITIES[name], "background", 0.0)), tensor(y))
        assert float(exact) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", FIDELITIES)
@pytest.mark.parametrize("y", MEASURED)
@pytest.mark.parametrize("tau", STEPS)
def test_dual_prox_tells_the_minimiser(name, y, tau):
    low, _ = domain(name)
    for u in (-12.0, -0.8, 0.0, 0.4, 3.0, 25.0):
        ours = float(prox(FIDELITIES[name], tensor(u), tau, tensor(y)))
        assert ours > low - 1e-12
        ours = max(ours, low)  # below it is rounding of the difference

        def cost(v, u=u):
            return float(VALUES[name](v, y)) + (v - u) ** 2 / (2 * tau)

        x, least = lowest(cost, low, 60.0)
        assert cost(ours) <= least + 1e-9 * max(1.0, abs(least))
        assert ours == pytest.approx(x, abs=1e-4)


@pytest.mark.parametrize("name", FIDELITIES)
@pytest.mark.parametrize("sigma", STEPS)
def test_dual_prox_has_its_digits_in_single_precision(name, sigma):
    u = torch.linspace(-30, 30, 241, dtype=torch.float64)
    for measured in MEASURED:
        y = torch.full_like(u, measured)
        double = FIDELITIES[name].dual_prox(u, sigma, y)
        single = FIDELITIES[name].dual_prox(u.float(), sigma, y.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), double, rtol=0.0, atol=6e-5 * max(1.0, sigma))


@pytest.mark.parametrize("name", FIDELITIES)
@pytest.mark.parametrize("y", MEASURED)
def test_conjugate_is_the_supremum(name, y):
    low, slopes = domain(name)
    for u in slopes:
        _, least = lowest(lambda v, u=u: float(VALUES[name](v, y)) - u * v, low)
        assert float(FIDELITIES[name].conjugate(tensor(u), tensor(y))) == pytest.approx(-least, abs=1e-6)


@pytest.mark.parametrize("name", FIDELITIES)
@pytest.mark.parametrize("y", MEASURED)
def test_fenchel_and_young(name, y):
    """f(v) + f*(u) is at least u v, and equal to it where u is a slope of f at v."""
    fidelity = FIDELITIES[name]
    low, slopes = domain(name)
    v = torch.linspace(low + 1e-6, 50, 301, dtype=torch.float64)
    measured = torch.full_like(v, y)
    for slope in slopes:
        u = torch.full_like(v, slope)
        excess = fidelity.value(v, measured) + fidelity.conjugate(u, measured) - u * v
        assert float(excess.min()) >= -1e-9
    for tau in STEPS:
        at = prox(fidelity, v, tau, measured)
        u = (v - at) / tau  # the prox leaves a slope of f at the point it finds
        excess = fidelity.value(at, measured) + fidelity.conjugate(u, measured) - u * at
        torch.testing.assert_close(excess, torch.zeros_like(excess), atol=1e-9, rtol=0.0)


@pytest.mark.parametrize("name", FIDELITIES)
def test_dual_values_stay_where_the_conjugate_is_finite(name):
    u = torch.linspace(-1e4, 1e4, 2001)
    low, high = {"huber": (-0.7, 0.7), "l1": (-1, 1), "squared-l2": (-math.inf, math.inf)}.get(
        name, (-math.inf, 1)
    )
    for y, sigma in itertools.product(MEASURED, STEPS):
        dual = FIDELITIES[name].dual_prox(u, sigma, torch.full_like(u, y))
        assert torch.isfinite(dual).all()
        assert low <= float(dual.min())
        assert float(dual.max()) <= high


@pytest.mark.parametrize("name", FIDELITIES)
def test_what_is_passed_stays_as_it_was(name):
    fidelity, v, y = FIDELITIES[name], torch.linspace(0.1, 9, 40), torch.linspace(3, 0, 40)
    before = v.clone(), y.clone()
    fidelity.value(v, y), fidelity.conjugate(v, y), fidelity.dual_prox(v, 0.5, y)
    assert torch.equal(v, before[0])
    assert torch.equal(y, before[1])


def test_a_large_huber_delta_is_least_squares_and_a_small_one_absolute_deviation():
    v, y = torch.linspace(-5, 5, 101, dtype=torch.float64), tensor(0.3)
    torch.testing.assert_close(Huber(1e3).value(v, y), SquaredL2().value(v, y))
    torch.testing.assert_close(Huber(1e3).dual_prox(v, 0.4, y), SquaredL2().dual_prox(v, 0.4, y))
    torch.testing.assert_close(Huber(1e-6).value(v, y) / 1e-6, L1().value(v, y), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("fidelity", [SquaredL2(), Huber(0.7)], ids=str)
def test_curvature_of_a_parabola(fidelity):
    y = torch.randn(1, 1, 20, generator=torch.Generator().manual_seed(0))
    assert fidelity.curvature(y) == 1.0
    assert fidelity.curvature(7 * y) == 1.0


@pytest.mark.parametrize("fidelity", [L1(), Poisson()], ids=str)
def test_curvature_goes_with_the_noise_and_leaves_missing_values_out(fidelity):
    """In units of one over intensity, so that steps fit images in any unit."""
    y = torch.poisson(torch.full((1, 2, 30, 30), 50.0), generator=torch.Generator().manual_seed(0))
    curvature = fidelity.curvature(y)
    assert fidelity.curvature(8 * y) == pytest.approx(curvature / 8, rel=1e-5)
    holes = y.masked_fill(torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.05, torch.nan)
    assert fidelity.curvature(holes) == pytest.approx(curvature, rel=0.1)
    assert 0 < fidelity.curvature(torch.zeros(1, 1, 8)) < math.inf
    apart = y + torch.tensor([0.0, 1e6])[:, None, None]
    if isinstance(fidelity, L1):
        assert fidelity.curvature(apart) == pytest.approx(curvature, rel=0.1)  # levels are no signal
    second = {"L1": 1 / math.sqrt(50), "Poisson": 1 / 50}[type(fidelity).__name__]
    assert curvature == pytest.approx(second, rel=0.1)


# ---- total variation ----


def gradients(ndim, seed=0, batch=(2, 3)):
    """Vectors of all lengths from 0 to about 3, ``(*batch, ndim, *space)``."""
    generator = torch.Generator().manual_seed(seed)
    space = (5, 4, 3)[:ndim]
    vectors = torch.randn(*batch, ndim, *space, generator=generator, dtype=torch.float64)
    vectors[..., 0] = 0.0
    return vectors * torch.rand(*batch, 1, *space, generator=generator, dtype=torch.float64) * 3


def lengths(vectors, ndim):
    return np.linalg.norm(vectors.numpy(), axis=vectors.ndim - ndim - 1)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_total_variation_is_the_length_of_each_vector(ndim, batch):
    vectors = gradients(ndim, batch=batch)
    before = vectors.clone()
    np.testing.assert_allclose(TotalVariation(0.4).value(vectors, ndim), 0.4 * lengths(vectors, ndim))
    assert torch.equal(vectors, before)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize(("weight", "tau"), [(0.4, 1.0), (2.0, 0.3), (0.0, 1.0), (50.0, 1.0)])
def test_total_variations_dual_prox_tells_the_minimiser(ndim, weight, tau):
    term, u = TotalVariation(weight), gradients(ndim)
    found = u - tau * term.dual_prox_(u / tau, ndim)  # Moreau's identity

    def cost(v):
        return term.value(v, ndim) + (v - u).square().sum(-ndim - 1) / (2 * tau)

    least = cost(found)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-6, 1e-4, 1e-2, 0.3, 3.0):  # a convex function's local minimum is its minimum
        for _ in range(20):
            other = found + size * torch.randn(u.shape, generator=generator, dtype=torch.float64)
            assert bool((cost(other) >= least - 1e-14).all())
    for length in (0.0, 1.0):  # towards zero and towards where it came from
        assert bool((cost(length * u) >= least - 1e-12).all())


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("weight", [0.0, 0.4, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_total_variations_dual_prox_projects_onto_balls(ndim, weight, dtype):
    term, p = TotalVariation(weight), gradients(ndim).to(dtype)
    before = p.clone()
    projected = term.dual_prox_(p, ndim)
    assert projected is p  # in place
    long = np.expand_dims(lengths(before, ndim), -ndim - 1)
    expected = before.numpy() * np.where(long > weight, weight / np.where(long > 0, long, 1), 1.0)
    np.testing.assert_allclose(p, expected, rtol=3e-6 if dtype == torch.float32 else 1e-12)
    assert lengths(p, ndim).max() <= weight * (1 + 1e-6)
    torch.testing.assert_close(term.dual_prox_(p.clone(), ndim), p)


def test_vectors_of_no_length_make_no_nan():
    nothing = torch.zeros(1, 2, 3, 3)
    assert torch.equal(TotalVariation(0.5).dual_prox_(nothing.clone(), 2), nothing)
    assert torch.equal(TotalVariation(0.0).dual_prox_(torch.ones(1, 2, 3, 3), 2), nothing)


# ---- bounds ----


@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (None, 1.5), (-1.0, 1.5)])
def test_a_box_clips(bounds):
    x = torch.linspace(-4, 4, 33)
    before = x.clone()
    box = Box(*bounds)
    assert box.open == (bounds == (None, None))
    low, high = (edge if b is None else b for b, edge in zip(bounds, (-np.inf, np.inf), strict=True))
    np.testing.assert_array_equal(box.prox(x), np.clip(x.numpy(), low, high))
    assert torch.equal(x, before)


# ---- mistakes ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Huber(0.0), "delta must be a positive number, got 0"),
        (lambda: Huber(-1.0), "delta must be a positive number, got -1"),
        (lambda: Huber(math.inf), "delta must be a positive number, got inf"),
        (lambda: Huber(math.nan), "delta must be a positive number, got nan"),
        (lambda: Box(1.0, 1.0), "lower bound 1.0 is not below the upper bound 1.0"),
        (lambda: Box(2.0, -1.0), "lower bound 2.0 is not below"),
        (lambda: Box(math.nan, 1.0), "lower bound nan"),
    ],
)
def test_mistakes_are_said_in_one_line(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
