"""An operator in the network's units is still that operator, and has an adjoint."""

import numpy as np
import pytest
import torch

from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.normalisation import Normalisation
from selfinv.operators import (
    Convolution,
    Downsample,
    Identity,
    Mask,
    MaskedFourier,
    Radon,
    RandomProjections,
)

SHAPE = (16, 16)
BLUR = Convolution(torch.full((3, 3), 1 / 9, dtype=torch.float64), SHAPE, "unknown")
HOLE = Mask(torch.ones(32, 32, dtype=torch.bool).index_put((torch.tensor(16),), torch.tensor(False)))
UNITS = Normalisation(100.0, 40.0), Normalisation(90.0, 60.0)


def test_it_measures_in_normalised_units_what_the_operator_measures_in_the_callers():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, *BLUR.in_shape, generator=generator, dtype=torch.float64)
    change = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    forward = ForwardModel(BLUR, *UNITS)
    assert torch.allclose(forward(x), (BLUR(60 * x + 90) - 100) / 40)
    assert torch.allclose(forward.respond(change), forward(x + change) - forward(x))
    y = torch.rand(2, 1, *SHAPE, generator=generator, dtype=torch.float64)
    left, right = (forward.respond(change) * y).sum(), (change * forward.adjoint(y)).sum()
    assert float(left) == pytest.approx(float(right))


@pytest.mark.parametrize(
    ("operator", "adds_up"),
    [
        (BLUR, True),
        (Identity(SHAPE), True),
        (Downsample(SHAPE, 2), True),
        (Radon(SHAPE, np.arange(0, 180, 20)), True),
        (MaskedFourier(SHAPE, torch.ones(SHAPE, dtype=torch.bool)), False),
        (RandomProjections(SHAPE, 100), False),
        (-1.0 * BLUR, False),
        (torch.exp, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_operators_only_add_up_light(operator, adds_up):
    assert ForwardModel(operator, *UNITS).adds_up() is adds_up


@pytest.mark.parametrize(
    ("operator", "local"),
    [
        (BLUR, True),
        (Downsample((5, 32, 32), (1, 2, 2)), True),
        (HOLE @ Downsample((64, 64), 2), True),
        (Radon((64, 64), np.arange(0, 180, 5)), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_operators_look_at_a_place_at_a_time(operator, local):
    assert ForwardModel(operator, *UNITS).is_local() is local


def test_the_power_of_a_mean_of_n_values_is_one_part_in_n_where_anything_is_measured():
    one = Normalisation(0.0, 1.0)
    coarser = Downsample((128, 128), 2)
    assert ForwardModel(coarser, one, one).power(1) == pytest.approx((0.25,), rel=0.05)
    columns = torch.zeros(64, 64, dtype=torch.bool)
    columns[:, ::8] = True
    assert ForwardModel(Mask(columns) @ coarser, one, one).power(1) == pytest.approx((0.25,), rel=0.1)


def test_each_channel_has_its_own_power():
    one = Normalisation(0.0, 1.0)
    kernels = torch.stack([torch.full((3, 3), 1 / 9), torch.full((3, 3), 0.0)])
    kernels[1, 1, 1] = 1.0
    power = ForwardModel(Convolution(kernels, (128, 128), "unknown"), one, one).power(2)
    assert power == pytest.approx((1 / 9, 1.0), rel=0.05)


def test_a_function_is_asked_by_its_derivative():
    """Of a function that answers twice as much on the right, errors there count a quarter."""
    gain = torch.linspace(1.0, 2.0, SHAPE[1])
    forward = ForwardModel(lambda x: gain * x, Normalisation(0.0, 1.0), Normalisation(0.0, 1.0))
    for channels in (1, 2):
        x = torch.full((1, channels, *SHAPE), 0.5)
        near = forward.near(x)
        assert torch.allclose(near.sensitivity(x), gain.expand_as(x))
        assert sum(near.power(channels)) / channels == pytest.approx(1.0, rel=1e-3)
        assert near.has_its_adjoint(channels)
        assert near.adds_up(channels)
    assert not forward.adds_up()
    half = ForwardModel(lambda x: x + gain * x.detach(), Normalisation(0.0, 1.0), Normalisation(0.0, 1.0))
    assert half.near(x).has_its_adjoint(2)  # the cut part is no part of it, there or back


def test_a_gradient_that_is_cut_on_the_way_back_is_noticed():
    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2.0 * x

        @staticmethod
        def backward(ctx, gradient):
            return torch.from_numpy(2.0 * gradient.detach().numpy())

    one = Normalisation(0.0, 1.0)
    x = torch.full((1, 1, *SHAPE), 0.5)
    assert not ForwardModel(lambda x: x + Cut.apply(x), one, one).near(x).has_its_adjoint(1)
