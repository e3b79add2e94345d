import math

import pytest
import torch

from selfinv.operators.projections import axis_of, shared_by_angles, surely_shared


def test_independent_noise_shares_what_chance_makes_it_share():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 30, 64, generator=generator)
    noise[0, 3, 5] = torch.nan
    smooth = torch.linspace(-1, 1, 64).square()  # as a reconstruction misses it
    for residual in (noise, noise + smooth, 1e-9 * noise):
        assert shared_by_angles(residual) == pytest.approx(1.0, abs=0.4)


def test_what_offsets_add_to_the_share_is_what_least_squares_ask_for():
    generator = torch.Generator().manual_seed(1)
    shares = [
        shared_by_angles(
            torch.randn(40, 256, generator=generator) + 0.5 * torch.randn(256, generator=generator)
        )
        for _ in range(10)
    ]
    expected = (1 + 40 * 0.25) / (1 + 0.25)  # of one measured value's own variance, offsets and noise
    assert sum(shares) / len(shares) == pytest.approx(expected, rel=0.15)
    assert min(shares) > surely_shared(256)


def test_chance_alone_is_never_sure():
    generator = torch.Generator().manual_seed(2)
    for detector in (16, 64, 256):
        for _ in range(100):
            assert shared_by_angles(torch.randn(20, detector, generator=generator)) < surely_shared(detector)


def test_nothing_left_over_and_few_angles_share_nothing():
    assert shared_by_angles(torch.zeros(30, 64)) is None
    assert shared_by_angles(torch.randn(7, 64)) is None


def test_the_error_of_the_axis_is_what_repetitions_show():
    generator = torch.Generator().manual_seed(3)
    angles = torch.linspace(0, math.pi, 31, dtype=torch.float64)[:-1]
    place = torch.arange(64, dtype=torch.float64)
    seen = 30.4 + 9.0 * angles.cos() - 5.0 * angles.sin()
    profiles = torch.exp(-(place - seen[:, None]).square() / 32.0)
    found = [
        axis_of(profiles + 0.02 * torch.randn(30, 64, generator=generator, dtype=torch.float64), angles)
        for _ in range(50)
    ]
    axes, errors = torch.tensor(found).T
    assert float(axes.mean()) == pytest.approx(30.4, abs=4.0 * float(errors.mean()) / math.sqrt(50))
    assert float(errors.mean()) == pytest.approx(float(axes.std()), rel=0.3)
