"""What is predicted blindly knows nothing of the value itself, whatever measured it."""

import numpy as np
import pytest
import torch

import selfinv
from selfinv.learning.answer import find_own_values, predict_blind
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.presets import ssi
from selfinv.operators import Convolution, Downsample, Identity, MaskedFourier
from selfinv.psf import gaussian

SHAPE = (32, 32)
BLUR = Convolution(torch.as_tensor(gaussian((1.0, 1.5), (7, 7))).float(), SHAPE, "unknown")
COARSER = Downsample(SHAPE, 2)


def started(operator, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 1, *operator.in_shape, generator=generator, dtype=torch.float64).round()
    y = operator(x)
    y = y + 0.01 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    solver = ssi(operator.in_shape, 1, steps=2, pixels=operator is not COARSER)
    state = solver.init(y, operator)
    for _ in range(2):
        state = solver.step(state)
    return solver.best_model(state), state.data


@pytest.mark.parametrize("operator", [Identity(SHAPE), BLUR, COARSER], ids=["pixels", "blur", "coarser"])
def test_a_blind_prediction_does_not_depend_on_the_value_itself(operator):
    model, data = started(operator)
    given = (data.missing, data.pads, data.symmetries, data.entrance, data.instrument)
    before = predict_blind(model, data.y, *given)
    y = data.y.clone()
    y[..., 5, 8] += 3.0
    after = predict_blind(model, y, *given)
    assert float((after - before)[..., 5, 8].abs().max()) < 1e-6
    assert float((after - before).abs().max()) > 1e-4  # of others it tells


def test_values_are_not_asked_of_what_does_more_than_add_up_light():
    A = MaskedFourier(SHAPE, torch.ones(SHAPE, dtype=torch.bool))
    truth = np.random.default_rng(0).random(SHAPE)
    k_space = A(torch.from_numpy(truth)).numpy()
    result = selfinv.restore(k_space, operator=A, method="ssi-network", max_steps=3)
    assert result.model.own_values is None


def test_values_are_not_asked_where_hidden_ones_are_then_predicted_worse(monkeypatch):
    model, data = started(BLUR)
    kept = find_own_values(model, data, MaskedLoss("l2"))
    assert kept is not None  # after two steps nearly everything is still to be told
    worse = lambda self, x, *given: x + 10.0  # noqa: E731
    monkeypatch.setattr("selfinv.learning.own_values.OwnValues.update", worse)
    assert find_own_values(model, data, MaskedLoss("l2")) is None
