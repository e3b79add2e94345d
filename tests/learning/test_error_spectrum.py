"""An update by errors of any spectrum, and how far these reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from selfinv.learning.error_spectrum import ErrorSpectrum
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.noise_line import NoiseLine, local_mean
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.own_values import OwnValues
from selfinv.operators import Convolution
from selfinv.psf import gaussian as gaussian_psf

ONE = Normalisation(0.0, 1.0)
RINGS = np.geomspace(0.01, 0.75, 24)


def falling(ratio, exponent):
    """A white error's power, limited by an object's."""
    return ErrorSpectrum(tuple(RINGS), (tuple(-np.log1p(ratio * RINGS**exponent)),))


STEEP = falling(40.0, 3.0)


def test_the_update_is_the_best_linear_estimate_for_errors_with_this_spectrum():
    shape = (12, 10)
    operator = Convolution(torch.as_tensor(gaussian_psf((1.0, 0.7), (5, 5))), shape, "unknown")
    forward = ForwardModel(operator, Normalisation(0.3, 2.0), Normalisation(0.1, 1.5))
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(1, 1, *operator.in_shape, generator=generator, dtype=torch.float64)
    y = forward(x) + 0.1 * torch.randn(1, 1, *shape, generator=generator).double()
    missing = torch.zeros_like(y, dtype=torch.bool)
    missing[..., :2, :2] = True
    own = OwnValues(
        (NoiseLine(0.01, 0.0),),
        excess=(2.0,),
        share=(0.0,),
        power=forward.power(1, STEEP.root),
        errors=STEEP,
    )
    updated = own.update(x, y.masked_fill(missing, 7.0), torch.zeros_like(y), missing, forward)

    n, seen = math.prod(operator.in_shape), ~missing.flatten()
    columns = torch.eye(n, dtype=torch.float64).reshape(n, 1, *operator.in_shape)
    A = forward.respond(columns).reshape(n, -1).T[seen]
    S = STEEP.covariance(columns)(columns).reshape(n, n)
    assert torch.allclose(S, S.T)
    assert float(torch.linalg.eigvalsh(S).min()) > 0.0
    response = A.sum(0)
    everywhere = forward.adjoint(torch.ones_like(y)).max()
    variance = 0.02 * response / response.clamp_min(0.05 * everywhere) / own.power[0]
    around = local_mean(x, torch.zeros_like(x, dtype=torch.bool))
    deviation = (variance * ((x + 0.25 * around + 0.01) / (1.25 * around + 0.01)).flatten()).sqrt()
    C = deviation[:, None] * S * deviation
    residual = (y - forward(x)).flatten()[seen]
    M = A @ C @ A.T + 0.01 * torch.eye(len(A), dtype=torch.float64)
    expected = x.flatten() + C @ A.T @ torch.linalg.solve(M, residual)
    change = float((expected - x.flatten()).abs().max())
    assert torch.allclose(updated.flatten(), expected, atol=2e-3 * change)


@pytest.mark.parametrize("errors", [STEEP, falling(8.0**4, 4.0)])
def test_errors_are_correlated_no_further_than_is_said(errors):
    point = torch.zeros(1, 1, 129, 129)
    point[..., 64, 64] = 1.0
    spread = errors.covariance(point)(point)[0, 0, 64]
    assert float(spread[: 64 - errors.reach].abs().max()) < 5e-3 * float(spread[64])
