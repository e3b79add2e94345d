"""An operator in the network's units is still that operator, and has an adjoint."""

import numpy as np
import pytest
import torch

from selfinv.learning.instrument import Instrument
from selfinv.learning.normalisation import Normalisation
from selfinv.operators import (
    Convolution,
    Downsample,
    Identity,
    MaskedFourier,
    Radon,
    RandomProjections,
)

SHAPE = (16, 16)
BLUR = Convolution(torch.full((3, 3), 1 / 9, dtype=torch.float64), SHAPE, "unknown")
UNITS = Normalisation(100.0, 40.0), Normalisation(90.0, 60.0)


def test_it_measures_in_normalised_units_what_the_operator_measures_in_the_callers():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, *BLUR.in_shape, generator=generator, dtype=torch.float64)
    change = torch.rand(x.shape, generator=generator, dtype=torch.float64)
    instrument = Instrument(BLUR, *UNITS)
    assert torch.allclose(instrument(x), (BLUR(60 * x + 90) - 100) / 40)
    assert torch.allclose(instrument.respond(change), instrument(x + change) - instrument(x))
    y = torch.rand(2, 1, *SHAPE, generator=generator, dtype=torch.float64)
    left, right = (instrument.respond(change) * y).sum(), (change * instrument.adjoint(y)).sum()
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
    assert Instrument(operator, *UNITS).adds_up() is adds_up


def test_the_power_of_a_mean_of_n_values_is_one_part_in_n():
    coarser = Instrument(Downsample((128, 128), 2), Normalisation(0.0, 1.0), Normalisation(0.0, 1.0))
    assert coarser.power() == pytest.approx(0.25, rel=0.05)
