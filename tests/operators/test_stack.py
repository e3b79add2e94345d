"""Several measurements of one object, against their matrices."""

from __future__ import annotations

import pytest
import torch
from registry import OPERATORS, dense, random_mask

from selfinv.operators import Downsample, Identity, Mask, Stack
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


def test_mistakes_are_said_in_words():
    with pytest.raises(InputError, match="no operators"):
        Stack([])
    with pytest.raises(InputError, match="Stack got Identity alone; give a list, one operator per view"):
        Stack(Identity((4, 5)))
    with pytest.raises(InputError, match=r"\(4, 5\), \(5, 4\)"):
        Stack([Identity((4, 5)), Identity((5, 4))])
