"""What is predicted blindly knows nothing of the value itself, whatever measured it."""

import numpy as np
import pytest
import torch
from started import BLUR, COARSER, PIXELS, started

import selfinv
from selfinv.learning.answer import one_of_two, predict_blind
from selfinv.operators import Downsample, Mask


@pytest.mark.parametrize("operator", [PIXELS, BLUR, COARSER], ids=["pixels", "blur", "coarser"])
def test_a_blind_prediction_does_not_depend_on_the_value_itself(operator):
    model, data = started(operator)
    _, before = predict_blind(data.inverse(model), data.y, data.missing, data.forward_model)
    y = data.y.clone()
    y[..., 5, 8] += 3.0
    _, after = predict_blind(data.inverse(model), y, data.missing, data.forward_model)
    assert float((after - before)[..., 5, 8].abs().max()) < 1e-6
    assert float((after - before).abs().max()) > 1e-4  # of others it tells


@pytest.mark.parametrize("which", range(4))
def test_a_part_of_an_image_hides_the_same_places_as_the_whole(which):
    """Whatever of the object lies before its first pixel; else tiles disagree."""
    whole = one_of_two(torch.zeros(1, 2, 21, 24), ((3, 2), (2, 3)), which)
    # Where parts begin, and how much of their objects is before that; these begin at even places.
    for (rows, before), (columns, beside) in (((2, 1), (3, 1)), ((6, 5), (4, 2))):
        part = torch.zeros(1, 2, 12, 12)
        hidden = one_of_two(part, ((before, 2), (beside, 2)), which)
        assert torch.equal(hidden, whole[..., rows : rows + 12, columns : columns + 12])


def test_a_model_of_an_operator_that_does_not_measure_everywhere_makes_the_same_image():
    columns = torch.zeros(32, 32, dtype=torch.bool)
    columns[:, ::3] = True
    A = Mask(columns) @ Downsample((64, 64), 2)
    x = torch.kron(torch.rand(16, 16, generator=torch.Generator().manual_seed(0)), torch.ones(4, 4))
    y = A(x).numpy()
    result = selfinv.restore(y, operator=A, method="ssi-network", max_steps=20)
    assert np.array_equal(result.model.apply(y), result.image)
