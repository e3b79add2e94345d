"""Channels against NumPy, and against one operator per channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from registry import MIXING, OPERATORS, asymmetric_kernel, random_mask

from selfinv.operators import ChannelMixing, Convolution, EachChannel, Identity, Mask, MaskedFourier, Stack
from selfinv.types import InputError


def test_mixing_is_a_sum_over_channels():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6))
    ours = ChannelMixing(MIXING, (5, 6))(torch.from_numpy(x))
    np.testing.assert_allclose(ours, np.einsum("ij,bjyx->biyx", np.array(MIXING), x), atol=1e-12)


def test_blurred_channels_are_mixed():
    x = torch.randn(3, 9, 8, dtype=torch.float64)
    blurs = [Convolution(asymmetric_kernel((3, 4), s), (9, 8), "reflect") for s in range(3)]
    blurred = np.stack([blur(c).numpy() for blur, c in zip(blurs, x, strict=True)])
    expected = 2 * np.einsum("ij,jyx->iyx", np.array(MIXING), blurred)
    np.testing.assert_allclose(OPERATORS["mixed-blurred-channels"]()(x), expected, atol=1e-12)


def test_who_knows_about_channels():
    blur = Convolution(asymmetric_kernel((3, 4)), (9, 8))
    each = EachChannel(blur, 3)
    product = 2 * ChannelMixing(MIXING, (9, 8)) @ each
    assert blur.object_channels is None
    assert each.object_channels == product.object_channels == Stack([product, product]).object_channels == 3
    assert each.field_of_view == (slice(0, 3), *blur.field_of_view)
    assert product.field_of_view is None
    assert ChannelMixing(np.eye(3), (9, 8)).field_of_view is None


def test_hiding_passes_through():
    masks = [random_mask((4, 5), seed) for seed in (1, 2)]
    assert torch.equal(EachChannel([Mask(m) for m in masks]).measured, torch.stack(masks))
    assert torch.equal(EachChannel(Mask(masks[0]), 2).measured, torch.stack([masks[0]] * 2))
    assert EachChannel(Identity((4, 5)), 2).measured is None
    fourier = MaskedFourier((4, 5), masks[0], lines=-1)
    assert EachChannel(fourier, 2).together == (-2, -1)
    assert torch.equal(EachChannel(fourier, 2).always_shown, torch.stack([fourier.always_shown] * 2))
    assert EachChannel(Identity((4, 5)), 2).always_shown is None


def test_what_speaks_against_a_channels_operator_is_said_once():
    fourier = MaskedFourier((16, 16), torch.ones(16, 16, dtype=torch.bool))
    corner = torch.fft.ifftshift(fourier(torch.rand(3, 16, 16)), dim=(-3, -2))
    (words,) = EachChannel(fourier, 3).doubts(corner)
    assert "centred=False" in words
    assert EachChannel(fourier, 3).doubts(fourier(torch.rand(3, 16, 16))) == []
    assert (2.0 * EachChannel(fourier, 3)).hint == fourier.hint


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match="one row per measured channel"):
        ChannelMixing([1.0, 2.0], (4, 4))
    for matrix in ("a", None, [[1, 2], [3]], [[1j]]):
        with pytest.raises(InputError, match=r"matrix=.* is no array; expected one row per measured channel"):
            ChannelMixing(matrix, (4, 4))
    for matrix, words in (
        (np.ones((1, 1)) * 1j, "complex values"),
        (np.ones((0, 2)), r"shape \(0, 2\) does"),
    ):
        with pytest.raises(InputError, match=f"matrix .*{words}.*; expected"):
            ChannelMixing(matrix, (4, 4))
    with pytest.raises(InputError, match=r"channels must be an integer, got 2\.5"):
        EachChannel(Identity((4, 4)), 2.5)
    with pytest.raises(InputError, match="channels=None"):
        EachChannel(Identity((4, 4)))
    with pytest.raises(InputError, match="2 operators and channels=3"):
        EachChannel([Identity((4, 4))] * 2, 3)
    with pytest.raises(InputError, match="need the same shapes"):
        EachChannel([Identity((4, 4)), Identity((4, 5))])
    with pytest.raises(InputError, match="one of these has its own"):
        EachChannel(ChannelMixing(MIXING, (4, 4)), 2)
