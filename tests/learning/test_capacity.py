"""Networks are as wide as there is to learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

import selfinv
from selfinv.learning.capacity import information, suited_widths
from selfinv.learning.preparation import prepare
from selfinv.learning.settings import Hiding
from selfinv.operators import Convolution
from selfinv.psf import gaussian


def bits(image, missing=None):
    y = torch.as_tensor(np.asarray(image, np.float64))[None, None]
    return information(y, torch.zeros(y.shape, dtype=torch.bool) if missing is None else missing)


def cells(size=160):
    image = gaussian_filter(data.cell().astype(float), 1.0)[
        180 : 180 + 2 * size : 2, 100 : 100 + 2 * size : 2
    ]
    image = np.clip(image - np.percentile(image, 0.1), 0, None)
    return image / image.max()


def test_light_tells_more_and_units_tell_nothing():
    rng = np.random.default_rng(0)
    dim, bright = (rng.poisson(cells() * photons).astype(float) for photons in (1, 30))
    assert 2 * bits(dim) < bits(bright)
    assert bits(1e-6 * bright - 3.0) == pytest.approx(bits(bright), rel=1e-6)


def test_missing_values_tell_nothing():
    y = torch.as_tensor(np.random.default_rng(0).poisson(cells() * 3).astype(float))[None, None]
    missing = torch.zeros(y.shape, dtype=torch.bool)
    missing[..., 70:75, 70:75] = True
    wild = y.masked_fill(missing, 1e9)
    assert information(wild, missing) == pytest.approx(bits(y[0, 0]), rel=0.05)


def test_widths_follow_the_bits_and_never_exceed_the_recipes():
    widths = (32, 64, 64, 64)
    assert suited_widths(widths, math.inf, 1.0) == suited_widths(widths, 1e6, 1.0) == widths
    assert suited_widths(widths, 4096, 1.0) == (16, 32, 32, 32)
    assert suited_widths(widths, 0.0, 1.0) == (4, 8, 8, 8)
    assert suited_widths(widths, 4096, 0.01) == widths  # of a blur


def test_a_blur_passes_less_noise_than_a_function_without_one():
    y = torch.rand(1, 1, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def passed(operator):
        prepared = prepare(
            y, operator, Hiding(), 2, augment=False, filters=False, wild=False, robust=False, seed=0
        )
        return prepared.forward_model.passed(prepared.y)

    blur = Convolution(gaussian((2.0, 2.0)), (48, 48), "reflect")
    assert passed(lambda x: x) == pytest.approx(1.0, rel=0.05)
    assert passed(blur) == pytest.approx(1 / (16 * math.pi), rel=0.2)  # 1 / (4 pi sigma^2)
    assert passed(lambda x: 1000.0 * blur(x)) == pytest.approx(passed(blur), rel=0.1)  # its own units


def test_where_a_photon_falls_on_a_pixel_noise_is_not_learned_by_heart():
    truth = cells()
    counts = np.random.default_rng(0).poisson(truth).astype(np.float32)
    errors = {
        method: float(np.mean((selfinv.restore(counts, method=method).image - truth) ** 2))
        for method in ("ssi-network", "wiener")
    }
    assert errors["ssi-network"] < errors["wiener"]
