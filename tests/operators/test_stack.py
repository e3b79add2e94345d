"""Several measurements of one object, against their matrices."""

from __future__ import annotations

import pytest
import torch
from registry import OPERATORS, dense, random_mask

from selfinv.operators import Composition, Downsample, Identity, Mask, MaskedFourier, Shift, Stack
from selfinv.types import InputError


@pytest.mark.parametrize("name", ["stack", "stack-flat", "dithered-frames"])
def test_matrices_are_one_above_the_other(name):
    operator = OPERATORS[name]()
    assert torch.allclose(dense(operator), torch.cat([dense(view) for view in operator.views]))


def test_measured_is_stacked_too():
    mask = random_mask((4, 5))
    assert Stack([Identity((4, 5))]).measured is None
    both = Stack([Identity((4, 5)), Mask(mask)])
    assert torch.equal(both.measured, torch.stack([torch.ones_like(mask), mask]))
    flat = Stack([Downsample((4, 5), 2), Mask(mask)])
    assert torch.equal(flat.measured, torch.cat([torch.ones(4, dtype=torch.bool), mask.flatten()]))


def test_what_is_always_shown_and_doubted_is_that_of_each_view():
    mask = torch.ones(16, 16, dtype=torch.bool)
    fourier = MaskedFourier((16, 16), mask)
    both = Stack([fourier, fourier])
    assert torch.equal(both.always_shown, torch.stack([fourier.always_shown] * 2))
    other = Composition(Shift((16, 16, 2), (0.5, 0.0, 0.0)), fourier)  # of the same shape, hiding anything
    assert torch.equal(
        Stack([fourier, other]).always_shown,
        torch.stack([fourier.always_shown, torch.zeros_like(fourier.always_shown)]),
    )
    assert Stack([Mask(mask), Mask(mask)]).always_shown is None
    corner = torch.fft.ifftshift(fourier(torch.rand(16, 16)), dim=(-3, -2))
    assert len(both.doubts(torch.stack([corner, corner]))) == 1
    assert (both @ Identity((16, 16))).doubts(both(torch.rand(16, 16))) == []


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match="no operators"):
        Stack([])
    with pytest.raises(InputError, match="Stack got Identity alone; give a list, one operator per view"):
        Stack(Identity((4, 5)))
    with pytest.raises(InputError, match=r"\(4, 5\), \(5, 4\)"):
        Stack([Identity((4, 5)), Identity((5, 4))])
