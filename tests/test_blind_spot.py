"""What is hidden around what is scored."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from selfinv.blind_spot import widen
from selfinv.types import InputError


@pytest.mark.parametrize(
    ("shape", "spot"),
    [((200,), (3,)), ((40, 31), (0, 0)), ((40, 31), (2, 1)), ((40, 31), (0, 30)), ((12, 15, 17), (1, 0, 4))],
)
def test_widen_is_binary_dilation_by_a_box(shape, spot):
    hidden = np.random.default_rng(0).random((2, 3, *shape)) < 0.01
    expected = [[binary_dilation(c, np.ones([2 * w + 1 for w in spot])) for c in b] for b in hidden]
    before = torch.from_numpy(hidden.copy())
    assert torch.equal(widen(before, spot), torch.from_numpy(np.array(expected)))
    assert torch.equal(before, torch.from_numpy(hidden))


def test_widen_rejects_what_does_not_fit():
    hidden = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    for spot in [(1,), (1, 1, 1), (-1, 0)]:
        with pytest.raises(InputError, match="blind_spot"):
            widen(hidden, spot)
    with pytest.raises(InputError, match="bool"):
        widen(hidden.float(), (1, 1))
