"""No value reaches the prediction that is scored on it: the gradient is exactly zero.

Through fill, network, symmetry, window and operator; for training and validation values; every scheme.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from selfinv.learning.crude import CrudeInverse
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.inverter import Entrance, Head
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.masks import ComplementaryPairs, Decaying, Grid, RandomPixels
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.presets import ssi, ssi_paper, ssi_unmasked
from selfinv.learning.random import generator_for
from selfinv.learning.settings import Hiding
from selfinv.learning.windows import Windows, draw_window
from selfinv.operators import (
    ChannelMixing,
    Convolution,
    Downsample,
    Gradient,
    Hadamard,
    Identity,
    MaskedFourier,
    Radon,
    Shift,
    Stack,
)
from selfinv.psf import gaussian

SCHEMES = {
    "random": RandomPixels(0.5),
    "decaying": RandomPixels(Decaying()),
    "pairs": ComplementaryPairs(),
    "grid": Grid(4),
}


def small(recipe, channels=1, ndim=2):
    widths = (4, 4)
    network = replace(recipe.network, ndim=ndim, channels=channels, widths=widths, pooled_axes=None)
    return replace(recipe, network=network)


def leak(solver, state, y, hidden, window, symmetry, scored) -> float:
    """The largest gradient of a scored prediction with respect to the value it is scored against."""
    y = y.clone().requires_grad_()
    prediction, _ = solver.predict(state, y, hidden, window.pads, window.operator, symmetry)
    # Random signs, so that contributions cannot cancel by chance.
    signs = torch.randn(prediction.shape, generator=torch.Generator().manual_seed(1))
    places = window.score(scored)
    (gradient,) = torch.autograd.grad((prediction * signs * places).sum(), y)
    assert gradient.abs().max() > 0, "the prediction must depend on something"
    return float(gradient[scored].abs().max())


@pytest.mark.parametrize("fill", ["zero", "random", "neighbours"])
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("boundary", ["unknown", "zero", "reflect", "periodic", "denoise"])
def test_neither_training_nor_validation_values_reach_their_own_prediction(fill, scheme, boundary):
    shape = (40, 36)
    operator = (
        Identity(shape) if boundary == "denoise" else Convolution(gaussian((1.2, 1.2)), shape, boundary)
    )
    solver = small(ssi(operator.in_shape, 1))
    solver = replace(solver, hiding=Hiding(scheme, fill, validation=0.1), windows=Windows(24 * 24, 24 * 24))
    y = torch.rand(1, 1, *shape)
    state = solver.init(y, operator.float(), seed=0)
    data = state.data
    for step in (0, 5):
        window = draw_window(data, 24 * 24, solver.network.multiple(), 6, step)
        region, validation = window.see(data.y), window.see(data.validation)
        drawn = solver.hiding.drawn(region.shape, state.step, state.seed)
        symmetry = data.symmetries[-1]
        hidden = drawn | validation
        outside = torch.zeros_like(hidden)  # only the window's core is scored
        window.score(outside)[...] = True
        scored = hidden & outside
        assert scored.any()
        assert leak(solver, state, region, hidden, window, symmetry, scored) == 0.0


@pytest.mark.parametrize("recipe", [ssi, ssi_paper])
@pytest.mark.parametrize("channels", [1, 3])
def test_validation_values_are_hidden_in_training_and_in_checks(recipe, channels):
    """Whatever the validation values are, training and its held-out predictions come out the same."""
    shape = (32, 32)
    operator = Convolution(gaussian((1.2, 1.2)), shape, "unknown").float()
    solver = small(recipe(operator.in_shape, channels, steps=3), channels)
    if recipe is ssi:
        solver = replace(solver, loss=MaskedLoss("l1"))
    y = torch.rand(1, channels, *shape)
    y[..., :2, :2], y[..., -2:, -2:] = 2.0, -1.0  # fix the range that the normalisation reads off
    states = []
    for change in (0.0, 0.3):
        state = solver.init(y, operator, seed=0)
        state.data.y[state.data.validation] += change
        before = state.data.y.clone()
        for _ in range(3):
            state = solver.step(state)
        assert torch.equal(state.data.y, before)
        prediction, _ = solver.predict(
            state,
            state.data.y,
            state.data.validation,
            state.data.pads,
            operator,
            state.data.symmetries[0],
        )
        states.append((state, prediction))
    (one, predicted_one), (other, predicted_other) = states
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, other.model.state_dict()[name]), f"{name} saw a validation value"
    assert torch.equal(predicted_one, predicted_other)
    assert one.score != other.score  # but the score, of course, looks at them


def test_channels_hidden_together_leave_no_way_around():
    shape = (24, 24)
    operator = Identity(shape)
    solver = small(ssi(shape, 3), 3)
    solver = replace(solver, hiding=Hiding(joint_channels=True))
    state = solver.init(torch.rand(1, 3, *shape), operator, seed=0)
    hidden = solver.hiding.drawn((1, 3, *shape), state.step, state.seed)
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    assert torch.equal(hidden[:, 0], hidden[:, 2])
    assert torch.equal(state.data.validation[:, 0], state.data.validation[:, 2])


def test_the_control_is_not_blind():
    """The test must be able to fail: without masking, a value does reach its own prediction."""
    shape = (32, 32)
    operator = Convolution(gaussian((1.2, 1.2)), shape, "zero").float()
    solver = small(ssi_unmasked(shape, 1))
    state = solver.init(torch.rand(1, 1, *shape), operator, seed=0)
    data = state.data
    window = draw_window(data, None, solver.network.multiple(), 0, 0)
    everything = torch.ones_like(data.validation)
    assert leak(solver, state, data.y, everything, window, data.symmetries[0], everything) > 0


# ---- where measured values are not pixels ----

N = 24
HALF = torch.rand(N, N, generator=torch.Generator().manual_seed(2)) < 0.5
BLUR = torch.as_tensor(gaussian((1.0, 1.0), (5, 5))).float()
ELSEWHERE = {
    "coarser": lambda: Downsample((2 * N, 2 * N), 2) @ Convolution(BLUR, (2 * N, 2 * N), "unknown"),
    "views": lambda: Stack([Downsample((N, N), 2) @ Shift((N, N), d) for d in (0.0, 0.5)]),
    "projections": lambda: Radon((N, N), np.arange(20) * 9.0),
    "spectrum": lambda: MaskedFourier((N, N), HALF),
    "lines": lambda: MaskedFourier((N, N), HALF, lines=-1),
    "mixtures": lambda: Hadamard((N, N), 300),
    "channels": lambda: ChannelMixing([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]], (N, N)),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_no_hidden_value_reaches_its_own_prediction_whatever_is_measured(name):
    operator = ELSEWHERE[name]()
    channels = operator.object_channels or 1
    shape = operator.in_shape[1 if operator.object_channels else 0 :]
    solver = small(ssi(shape, channels, pixels=False), channels)
    solver = replace(solver, head=Head())  # a residual begins at the crude image, with no network in between
    state = solver.init(torch.rand(1, 1, *operator.out_shape), operator, seed=0)
    data = state.data
    drawn = solver.hiding.drawn(data.y.shape, 0, 0, operator.together)
    if operator.always_shown is not None:
        drawn = drawn & ~operator.always_shown
        assert operator.always_shown.any()
        assert not (data.validation & operator.always_shown).any()
    for axis in operator.together:  # those that are hidden together are
        if operator.always_shown is None:
            assert torch.equal(drawn.any(axis), drawn.all(axis))
    hidden = drawn | data.validation
    window = draw_window(data, None, solver.network.multiple(), 0, 0)
    assert leak(solver, state, data.y, hidden, window, data.symmetries[-1], hidden) == 0.0
    everything = torch.zeros_like(hidden)
    assert leak(solver, state, data.y, everything, window, data.symmetries[0], hidden) > 0.0


def test_the_crude_image_is_the_damped_least_squares_solution_and_blind():
    operator = Radon((12, 12), [0.0, 40, 90, 130])
    y = torch.rand(1, 1, *operator.out_shape)
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.2
    crude = CrudeInverse.of(operator, y, hidden)
    slopes, damping = Gradient((12, 12)), 300.0
    found = replace(crude, damping=damping).solve(crude.normalisation.apply(y), hidden)[0, 0]
    basis = torch.eye(144).reshape(144, 12, 12)
    A = operator(basis).flatten(1).T[~hidden.flatten()].double()
    D = slopes(basis).flatten(1).T.double()
    exact = torch.linalg.solve(A.T @ A + damping * D.T @ D, A.T @ y[~hidden].double())
    assert (found.flatten() - exact).norm() < 0.05 * exact.norm()
    other = y.masked_fill(hidden, 7.0)
    again = replace(crude, damping=damping).solve(crude.normalisation.apply(other), hidden)[0, 0]
    assert torch.equal(found, again)


@pytest.mark.parametrize("fill", ["zero", "random", "neighbours"])
def test_no_hidden_value_reaches_the_input_through_filters_or_the_test_for_outliers(fill):
    """Whatever stands there: comparisons have no gradient, so the values are changed."""
    A = Convolution(torch.from_numpy(gaussian(1.5, (9, 9))), (40, 44))
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, 2, 40, 44, generator=generator)
    y[torch.rand(y.shape, generator=generator) < 0.01] = 5.0
    hidden = torch.rand(y.shape, generator=generator) < 0.25
    none = torch.zeros_like(hidden)
    outliers = OutlierTest.of(A, y, none)
    assert outliers is not None
    entrance = Entrance(fill, filters=InverseFilters.of(A), outliers=outliers)
    shown, changed = (
        entrance(data, hidden, ((4, 4), (4, 4)), 1, generator_for(0))
        for data in (y, torch.where(hidden, 1e4, y))
    )
    assert torch.equal(shown, changed)
    assert not torch.equal(shown, entrance(2.0 * y, hidden, ((4, 4), (4, 4)), 1, generator_for(0)))
