"""Values are asked where that is right, and where hidden ones are then predicted better."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from started import BLUR, SHAPE, started

import selfinv
from selfinv.learning.asking import Evidence, answer_to_own
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.noise_line import NoiseLine
from selfinv.operators import Convolution, from_scipy
from selfinv.psf import gaussian


def test_there_is_no_update_behind_what_does_more_than_add_up_light():
    matrix = np.random.default_rng(0).normal(size=(32 * 32, 32 * 32)) / 32
    A = from_scipy(matrix, SHAPE, SHAPE)
    truth = np.kron(np.random.default_rng(1).random((4, 4)), np.ones((8, 8)))
    result = selfinv.restore(
        A(torch.from_numpy(truth)).numpy(), operator=A, method="ssi-network", max_steps=3
    )
    assert result.model.own_values is None


def test_one_psf_for_each_frame_is_no_trouble():
    kernels = torch.stack([torch.as_tensor(gaussian((s, s), (7, 7))).float()[None] for s in (0.8, 1.2)])
    A = Convolution(kernels, SHAPE, "unknown")
    y = A(torch.rand(2, 1, *A.in_shape, generator=torch.Generator().manual_seed(0)))
    result = selfinv.restore(y[:, 0].numpy(), operator=A, axes="tyx", method="ssi-network", max_steps=3)
    assert np.isfinite(result.image).all()


@pytest.mark.parametrize("axes", ["tyx", "cyx", "zyx"])
@pytest.mark.filterwarnings("ignore:the model does not suit this image")  # it has hardly learned
def test_series_colour_and_volumes_are_updated(axes):
    generator, ndim = np.random.default_rng(0), 3 if axes == "zyx" else 2
    truth = np.kron(
        generator.random((4 if axes == "zyx" else 3, 8, 8)), np.ones((4 if axes == "zyx" else 1, 4, 4))
    )
    psf = gaussian((1.0,) * ndim, (9,) * ndim)
    blurred = gaussian_filter(truth, [0.0 if a in "tc" else 1.0 for a in axes])
    noisy = blurred + 0.01 * np.random.default_rng(1).normal(size=truth.shape)
    result = selfinv.restore(noisy, psf, axes=axes, method="ssi-network", max_steps=10)
    assert result.model.own_values is not None
    without = replace(result.model, own_values=None).apply(noisy)
    assert np.square(result.image - truth).mean() < 0.9 * np.square(without - truth).mean()
    assert np.array_equal(result.model.apply(noisy), result.image)


def test_there_is_no_update_where_hidden_values_are_then_predicted_worse(monkeypatch):
    model, data = started(BLUR)
    _, kept = answer_to_own(model, data, MaskedLoss("l2"), asked=True)
    assert kept is not None  # after two steps nearly everything is still to be told
    worse = lambda self, x, *given: x + 10.0  # noqa: E731
    monkeypatch.setattr("selfinv.learning.own_values.OwnValues.update", worse)
    assert answer_to_own(model, data, MaskedLoss("l2"), asked=True)[1] is None


@pytest.mark.parametrize(
    ("brought", "noise", "quarters", "confirmed"),
    [(0.6, 0.05, 1, True), (0.6, 0.7, 3, True), (0.6, 3.0, 4, False), (-0.6, 0.05, 1, False)],
    ids=["clearly better", "not so clearly", "too little to tell", "worse"],
)
def test_what_a_quarter_of_the_values_leaves_open_the_next_is_asked(brought, noise, quarters, confirmed):
    """``brought``: so much of the way from the network's answer to the truth."""
    _, data = started(BLUR)
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(1, 1, *BLUR.in_shape, generator=generator)
    error = torch.randn(truth.shape, generator=generator)
    measured = data.forward_model(truth)
    data = replace(data, y=measured + noise * torch.randn(measured.shape, generator=generator))
    asked = []

    def inverse(y, hidden, **options):
        asked.append(hidden)
        return truth + 0.1 * error

    class Update:
        def update(self, x, *given):
            return torch.lerp(x, truth, brought)

    evidence = Evidence(inverse, data, MaskedLoss("l2"), data.forward_model, truth, measured)
    found = evidence.confirmed([Update()], data.forward_model, [NoiseLine(noise**2, 0.0)])
    assert (found is not None) is confirmed
    assert len(asked) == quarters
    own = torch.stack(asked).sum(dim=0)[~data.validation]
    assert float((own > 1).float().mean()) == 0.0  # each time others


def test_of_two_updates_the_first_is_kept_unless_hidden_values_are_predicted_better_by_the_other():
    _, data = started(BLUR)
    generator = torch.Generator().manual_seed(1)
    truth = torch.rand(1, 1, *BLUR.in_shape, generator=generator)
    error = torch.randn(truth.shape, generator=generator)
    measured = data.forward_model(truth)
    data = replace(data, y=measured + 0.05 * torch.randn(measured.shape, generator=generator))

    def inverse(*given, **options):
        return truth + 0.3 * error

    class Update:
        def __init__(self, brought):
            self.brought = brought

        def update(self, x, *given):
            return torch.lerp(x, truth, self.brought)

    little, alike, more, much = Update(0.5), Update(0.5), Update(0.53), Update(0.9)
    evidence = Evidence(inverse, data, MaskedLoss("l2"), data.forward_model, truth, measured)
    given = (data.forward_model, [NoiseLine(0.0025, 0.0)])
    assert evidence.confirmed([little, alike], *given) is little
    assert evidence.confirmed([little, more], *given) is little  # by less than a quarter of what is no noise
    assert evidence.confirmed([little, much], *given) is much
    assert evidence.confirmed([much, little], *given) is much
