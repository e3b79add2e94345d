"""Spectra against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from registry import random_mask

from selfinv.operators import Identity, MaskedFourier, Stack, as_real
from selfinv.types import InputError


@pytest.mark.parametrize("shape", [(9,), (8, 9), (4, 5, 6)])
@pytest.mark.parametrize("centred", [False, True])
def test_samples_are_those_of_numpys_transform(shape, centred):
    x, mask = np.random.default_rng(0).normal(size=shape), random_mask(shape)
    if centred:
        spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x), norm="ortho"))
    else:
        spectrum = np.fft.fftn(x, norm="ortho")
    expected = np.where(mask, spectrum, 0)
    operator = MaskedFourier(shape, mask, centred=centred)
    ours = operator(torch.from_numpy(x))
    assert torch.allclose(ours, as_real(expected), atol=1e-12)
    assert torch.equal(operator.measured, torch.stack([mask, mask], dim=-1))
    assert operator.field_of_view is None


def test_a_point_at_the_centre_has_a_flat_real_spectrum():
    x = torch.zeros(8, 9)
    x[4, 4] = 1
    y = MaskedFourier((8, 9), torch.ones(8, 9, dtype=torch.bool))(x)
    assert torch.allclose(y[..., 0], torch.full((8, 9), 72**-0.5))
    assert torch.allclose(y[..., 1], torch.zeros(8, 9), atol=1e-6)


def test_all_samples_give_the_object_back():
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    operator = MaskedFourier((5, 6), torch.ones(5, 6, dtype=torch.bool))
    assert torch.allclose(operator.adjoint(operator(x)), x)


def test_the_parts_of_a_sample_and_lines_are_hidden_together():
    mask = torch.ones(4, 5, 6, dtype=torch.bool)
    assert MaskedFourier((4, 5, 6), mask).together == (-1,)
    assert MaskedFourier((4, 5, 6), mask, lines=-1).together == (-2, -1)
    assert MaskedFourier((4, 5, 6), mask, lines=1).together == (-3, -1)
    pair = Stack([MaskedFourier((4, 5, 6), mask, lines=-1), MaskedFourier((4, 5, 6), mask)])
    assert (2 * pair).together == (-2, -1)


def test_a_missing_sample_is_not_taken_for_the_strongest():
    operator = MaskedFourier((16, 16), torch.ones(16, 16, dtype=torch.bool))
    y = operator(torch.rand(16, 16))
    y[1, 2] = float("nan")
    assert operator.doubts(y) == []


def test_samples_may_be_in_any_order_in_memory():
    operator = MaskedFourier((5, 6), torch.ones(5, 6, dtype=torch.bool))
    y = torch.randn(2, 5, 6)
    assert torch.equal(operator.adjoint(y.movedim(0, -1)), operator.adjoint(y.movedim(0, -1).contiguous()))


def test_what_was_not_sampled_does_not_reach_the_adjoint():
    operator = MaskedFourier((4,), [True, True, False, True])
    y = operator(torch.randn(4))
    hole = y.clone()
    hole[2] = float("nan")
    assert torch.equal(operator.adjoint(hole), operator.adjoint(y))


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match=r"mask has the shape \(4, 4\) but the object \(4, 5\)"):
        MaskedFourier((4, 5), torch.ones(4, 4, dtype=torch.bool))
    for lines in (2, 1.5, "y"):
        with pytest.raises(
            InputError, match=f"lines={lines!r} is no axis .*; expected an integer from -2 to 1"
        ):
            MaskedFourier((4, 4), torch.ones(4, 4, dtype=torch.bool), lines=lines)
    with pytest.raises(InputError, match="centred must be True or False, got 'no'"):
        MaskedFourier((4, 4), torch.ones(4, 4, dtype=torch.bool), centred="no")
    with pytest.raises(InputError, match="expected complex"):
        as_real(np.ones(3))
    with pytest.raises(InputError, match="need the same out_shape"):
        Stack([MaskedFourier((4,), [True] * 4), Identity((4,))])


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("shape", [(32, 32), (31, 24), (33,)])
def test_an_object_with_a_phase_is_doubted_and_a_real_noisy_one_is_not(shape, centred):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(shape, generator=generator) < 0.7
    mask[tuple(n // 2 if centred else 0 for n in shape)] = True
    operator = MaskedFourier(shape, mask, centred=centred)
    x = 1.0 + torch.rand((2, 1, *shape), generator=generator)
    y = operator(x)
    noise = 0.3 * y[..., 0].std() * torch.randn(y.shape, generator=generator)
    assert operator.doubts(y + noise) == []
    turned = torch.view_as_real(torch.view_as_complex(y) * np.exp(0.8j))
    (words,) = operator.doubts(turned)
    assert "phase" in words
