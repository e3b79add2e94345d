"""Noise that detector pixels share is made independent."""

from __future__ import annotations

import pytest
import torch

from selfinv.operators import RingFilter
from selfinv.types import InputError


def test_fine_offsets_count_as_much_less_as_they_are_uncertain_and_smooth_ones_stay():
    W = RingFilter((10, 64), excess=25.0)
    place = torch.arange(64, dtype=torch.float64)
    fine, smooth = ((-1.0) ** place).expand(10, 64), torch.cos(0.05 * place).expand(10, 64)
    middle = slice(10, -10)
    assert torch.allclose(W(fine)[:, middle], 0.2 * fine[:, middle], atol=0.01)
    assert torch.allclose(W(smooth)[:, middle], smooth[:, middle], atol=0.01)
    one_angle = torch.zeros(10, 64, dtype=torch.float64)
    one_angle[::2], one_angle[1::2] = 1.0, -1.0  # nothing that all have in common
    assert torch.allclose(W(one_angle), one_angle)
    assert torch.equal(RingFilter((10, 64), 1.0)(fine), fine)


@pytest.mark.parametrize(("shape", "excess"), [((4, 4), 0.5), ((4,), 2.0), ((2, 4, 4), 2.0), ((4, 4), "a")])
def test_what_it_is_not_for(shape, excess):
    with pytest.raises(InputError):
        RingFilter(shape, excess)
