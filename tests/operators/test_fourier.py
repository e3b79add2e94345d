"""Spectra against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from registry import random_mask

from selfinv.operators import EachChannel, Identity, Mask, MaskedFourier, Stack, as_real
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


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(
    ("shape", "lines"), [((8, 8), None), ((7, 8), -1), ((7, 8), -2), ((5, 6, 4), -2), ((9,), None)]
)
def test_of_opposite_frequencies_with_the_same_noise_one_is_left_out_and_nothing_is_lost(
    shape, lines, centred
):
    operator = MaskedFourier(shape, torch.ones(shape, dtype=torch.bool), lines, centred)
    image = torch.randn(2, 1, *shape)  # a noisy real image; in single precision
    y = operator(image)
    once = operator.without_repeats(y)
    kept = once.isfinite().all(-1)
    own = sum(n % 2 == 0 for n in shape)  # frequencies that are their own opposites: 0, and of even sides
    assert int(kept[0].sum()) == (kept[0].numel() + 2**own) // 2
    share = operator(operator.adjoint(kept[..., None] * torch.tensor([1.0, 0.0])))[..., :1]
    assert float(share.min()) > 0.49  # of each pair one; 1 where a frequency is its own opposite
    whole = torch.where(kept[..., None], once, 0.0) / share
    torch.testing.assert_close(operator.adjoint(whole), image, atol=1e-5, rtol=1e-4)
    if lines is not None:  # all lines but those that are their own opposites are kept, or left out, whole
        cut = kept[0, 0].any(lines) & ~kept[0, 0].all(lines)
        assert int(cut.sum()) <= 2 ** (len(shape) - 1)

    noisy = y + 0.1 * torch.randn(y.shape)
    assert torch.equal(operator.without_repeats(noisy), noisy)


def test_frequencies_that_were_filled_in_from_their_opposites_are_left_out():
    mask = torch.ones(8, 8, dtype=torch.bool)
    operator = MaskedFourier((8, 8), mask, centred=False)
    y = torch.randn(1, 1, 8, 8, 2)
    y[..., 5:, 0], y[..., 5:, 1] = (
        sign * y[..., k].flip(-2, -1).roll((1, 1), (-2, -1))[..., 5:] for k, sign in ((0, 1.0), (1, -1.0))
    )
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:, 5:] = True
    pair = operator.without_repeats(y).isnan().any(-1)[0, 0]
    assert int(pair.sum()) == 24
    assert not (pair & pair.flip(-2, -1).roll((1, 1), (-2, -1))).any()
    both = torch.cat([y, y])
    for several, values in (
        (Stack([operator, operator]), both.unflatten(0, (1, 2))[:, :, 0]),
        (EachChannel(operator, 2), both.unflatten(0, (1, 2))[:, :, 0]),
        (-2.0 * operator, y),
        (Mask(torch.ones(8, 8, 2, dtype=torch.bool)) @ operator, y),
    ):
        assert torch.equal(
            several.without_repeats(values).isnan().any(-1).flatten()[-64:].reshape(8, 8), pair
        )


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
