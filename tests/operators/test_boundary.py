"""Mirrored edges, as far as one likes."""

import numpy as np
import pytest
import torch

from selfinv.operators.boundary import reflect


@pytest.mark.parametrize("pads", [((0, 3), (2, 0)), ((5, 7), (7, 7)), ((6, 0), (0, 30))], ids=str)
def test_an_image_is_mirrored_as_numpy_does(pads):
    image = np.arange(5 * 7, dtype=np.float32).reshape(5, 7)
    expected = np.pad(image, pads, mode="symmetric")
    batch = torch.from_numpy(image).expand(2, 3, 5, 7)
    np.testing.assert_array_equal(reflect(batch, pads), np.broadcast_to(expected, (2, 3, *expected.shape)))
