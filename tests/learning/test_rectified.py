"""Normalisation after the rectifier is the textbook's, whoever carries it out, with all its gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfinv.learning import rectified
from selfinv.learning.rectified import SIZE, Features, RectifiedConvolution
from selfinv.learning.unet import UNet, UNetSettings, frozen_statistics
from selfinv.types import InputError

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def layers(ndim, dtype=torch.float64):
    torch.manual_seed(ndim)
    convolutions = [CONVOLUTIONS[ndim](*c, 3, padding=1) for c in ((2, 4), (4, 3))]
    return [RectifiedConvolution(c, 0.1).to(dtype) for c in convolutions]


def textbooks(x, first, second, every=1):
    """Convolve, rectify, normalise; convolve that, with what it is padded with normalised too, rectify."""
    convolve = CONVOLVE[x.ndim - 2]
    z = F.leaky_relu(convolve(x, first.convolution.weight, first.convolution.bias, padding=1), 0.1)
    seen = z[:, :, ::every].transpose(0, 1).flatten(1)
    each = (1, -1, *[1] * (x.ndim - 2))
    mean, variance = seen.mean(1).view(each), seen.var(1, correction=0).view(each)
    padded = (F.pad(z, [1] * 2 * (x.ndim - 2)) - mean) / torch.sqrt(variance + first.eps) * SIZE
    return F.leaky_relu(convolve(padded, second.convolution.weight, second.convolution.bias), 0.1)


@pytest.mark.parametrize("samples", [10**6, 1], ids=["all rows", "some rows"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_layer_sees_what_the_one_before_made_normalised(ndim, samples, monkeypatch):
    monkeypatch.setattr(rectified, "SAMPLES", samples)
    first, second = layers(ndim)
    x = torch.randn(2, 2, *(16, 5, 6)[:ndim], dtype=torch.float64, requires_grad=True)
    every = 1 if samples > 1 else 4  # a quarter of the rows at least
    ours, theirs = second(first(Features(x))).values, textbooks(x, first, second, every)
    torch.testing.assert_close(ours, theirs)
    parameters = [x, *first.parameters(), *second.parameters()]
    weights = torch.randn(ours.shape, dtype=torch.float64)
    of_ours, of_theirs = (torch.autograd.grad((weights * y).sum(), parameters) for y in (ours, theirs))
    for a, b in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_fused_convolution_is_the_two_one_after_the_other(ndim, dtype, close):
    if not rectified._fuses():
        pytest.skip("this torch has none")
    first, _ = layers(ndim, torch.float32)
    x = torch.randn(1, 2, *(8, 9, 10)[:ndim]).to(dtype)
    weights = first.convolution.weight.to(dtype), first.convolution.bias.to(dtype)
    fused, one_by_one = rectified._fused(x, *weights, 0.1), rectified._one_by_one(x, *weights, 0.1)
    torch.testing.assert_close(fused, one_by_one, rtol=close, atol=close)


def test_whether_they_can_be_fused_does_not_depend_on_who_asks():
    answers = []
    for enabled in (False, True):
        rectified._fuses.cache_clear()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            answers.append(rectified._fuses())
    assert answers[0] == answers[1]


def test_gradients_in_half_precision_are_those_of_single_precision_but_for_rounding(monkeypatch):
    monkeypatch.setattr(rectified, "SAMPLES", 100)
    first, second = layers(2, torch.float32)
    x = torch.randn(1, 2, 40, 30)
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            z = second(first(Features(x)))
        assert z.values.dtype == (torch.bfloat16 if enabled else torch.float32)
        loss = (z.values.float().square() * torch.linspace(0, 1, 30)).mean() + z.mean.sum() + z.scale.sum()
        found.append(torch.autograd.grad(loss, [*first.parameters(), *second.parameters()]))
    for a, b in zip(*found, strict=True):
        assert (a - b).norm() < 0.1 * a.norm()


def test_a_torch_that_cannot_fuse_them_does_the_two_one_after_the_other(monkeypatch):
    first, second = layers(2, torch.float32)
    x = Features(torch.randn(1, 2, 16, 17))
    before = second(first(x)).values
    monkeypatch.setattr(rectified, "_fused", lambda *arguments: torch.ops.mkldnn.no_such_operator(*arguments))
    rectified._fuses.cache_clear()
    try:
        assert not rectified._fuses()
        torch.testing.assert_close(second(first(x)).values, before)
    finally:
        rectified._fuses.cache_clear()


def test_out_of_training_the_running_statistics_are_used_and_moved_only_in_training():
    first, second = layers(2)
    x = torch.randn(1, 2, 32, 32, dtype=torch.float64)
    with frozen_statistics(nn.ModuleList([first, second])):
        first(Features(x))
    assert torch.equal(first.mean, torch.zeros(4, dtype=torch.float64))
    for _ in range(300):
        second(first(Features(x)))
    trained = second(first(Features(x))).values
    for layer in (first, second):
        layer.eval()
    torch.testing.assert_close(second(first(Features(x))).values, trained)
    with torch.no_grad():
        first(Features(100.0 * x))
    torch.testing.assert_close(second(first(Features(x))).values, trained)


def test_the_network_ignores_the_scale_of_hidden_weights():
    torch.manual_seed(0)
    network = UNet(UNetSettings(widths=(4, 6), kernels=(3,), slope=0.1, normalised="after", skip="add"))
    x = torch.randn(1, 1, 24, 20)
    with torch.no_grad():
        before = network(x)
        for convolution in (network.down[0][0].convolution, network.up[0][0].convolution):
            convolution.weight *= 3.0
            convolution.bias *= 3.0
        torch.testing.assert_close(network(x), before, rtol=1e-3, atol=1e-3)


def test_what_is_not_normalised_yet_cannot_be_concatenated():
    with pytest.raises(InputError, match='can only be added: use skip="add"'):
        UNet(UNetSettings(normalised="after"))
