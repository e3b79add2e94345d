"""A function is kept to where it is defined."""

from __future__ import annotations

import math

import pytest
import torch

from selfinv.learning.domain import WithinDomain, within_domain
from selfinv.learning.normalisation import Normalisation

UNITS, LIKE = Normalisation(0.0, 100.0), torch.zeros(1, 1, 8, 8)


def test_a_function_that_is_defined_all_around_stays_itself():
    assert within_domain(torch.tanh, UNITS, LIKE) is torch.tanh


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (torch.log1p, -1.0, math.inf),
        (lambda x: torch.sqrt(150.0 - x), -math.inf, 150.0),
        (lambda x: torch.sqrt(x + 10.0) + torch.log(200.0 - x), -10.0, 200.0),
    ],
    ids=["logarithm", "above", "both"],
)
def test_its_limits_are_found_and_nothing_beyond_them_is_measured(function, low, high):
    limited = within_domain(function, UNITS, LIKE)
    assert isinstance(limited, WithinDomain)
    assert limited.low == pytest.approx(low, abs=0.2)
    assert limited.high == pytest.approx(high, abs=0.2)
    x = torch.linspace(-1000.0, 1000.0, 64).reshape(1, 1, 8, 8).requires_grad_()
    measured = limited(x)
    assert bool(torch.isfinite(measured).all())
    (slope,) = torch.autograd.grad(measured.sum(), x)
    assert bool(torch.isfinite(slope).all())
    assert bool((slope != 0).all())  # what strays can come back
    inside = torch.full_like(LIKE, 50.0)
    assert torch.equal(limited(inside), function(inside))
