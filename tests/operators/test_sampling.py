"""Which values are measured, and where: against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from registry import asymmetric_kernel, random_mask

from selfinv.operators import Convolution, Mask, Surround
from selfinv.types import InputError


def test_a_mask_multiplies_and_says_where_there_is_a_measurement():
    mask = random_mask((4, 5, 6))
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    operator = Mask(mask.numpy())
    np.testing.assert_array_equal(operator(x).numpy(), x.numpy() * mask.numpy())
    assert torch.equal(operator.measured, mask)
    assert operator.field_of_view == (slice(0, 4), slice(0, 5), slice(0, 6))
    blurred = 2 * (Mask(mask) @ Convolution(asymmetric_kernel((3, 3, 2)), (4, 5, 6), "unknown"))
    assert torch.equal(blurred.measured, mask)
    assert [s.stop - s.start for s in blurred.field_of_view] == [4, 5, 6]


def test_a_missing_value_does_not_reach_the_adjoint():
    operator = Mask([True, False])
    y = torch.tensor([1.0, float("nan")])
    assert operator.adjoint(y).tolist() == [1.0, 0.0]


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match=r"type torch.float32; expected booleans"):
        Mask(torch.ones(3))
    with pytest.raises(InputError, match="nothing is measured"):
        Mask([False, False])
    for mask in ("m", None, np.array([True, None]), [[True], [True, False]]):
        with pytest.raises(InputError, match=r"mask=.* is no array; expected booleans, True where there is"):
            Mask(mask)
    for pads in ([(1, 1)], [(-1, 1), (1, 1)], [(0.5, 1), (1, 1)], 5):
        with pytest.raises(InputError, match=r"pads=.* does not fit the shape \(4, 4\); expected two whole"):
            Surround((4, 4), pads)
