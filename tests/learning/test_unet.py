"""The network: the paper's architecture, any size and dimension, folding without loss."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from selfinv.learning.presets import ssi, ssi_paper
from selfinv.learning.unet import Average, InStep, Repeat, UNet, UNetSettings, fold, pooled_axes_for, unfold
from selfinv.types import InputError


def test_the_papers_network_has_the_layers_of_figure_2():
    model = UNet(ssi_paper((256, 256), 1).network)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    shapes = [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in convolutions]
    down = [(1, 8), (8, 16), (16, 32), (32, 64), (64, 64)]
    up = [(64 + 64, 64), (64 + 32, 32), (32 + 16, 16), (16 + 8, 8)]
    expected = [layer for a, b in down + up for layer in ((a, b, 5), (b, b, 3))]
    assert shapes == [*expected, (8, 1, 1)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == len(expected)
    slopes = [m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.0] * len(expected)
    assert ssi_paper((256, 256), 1).network.multiple() == (16, 16)


@pytest.mark.parametrize("recipe", [ssi, ssi_paper])
@pytest.mark.parametrize("shape", [(16, 16), (17, 45), (100, 31), (5, 24, 40), (64,)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_dimension_and_number_of_channels(recipe, shape, channels):
    settings = recipe(shape, channels).network
    y = UNet(settings)(torch.randn(2, channels + settings.marks, *shape))
    assert y.shape == (2, channels, *shape)
    assert torch.isfinite(y).all()


def test_the_output_depends_on_distant_input():
    model = UNet(ssi((128, 128), 1).network).eval()
    x = torch.randn(1, 2, 128, 128, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(x)[0, 0, 64, 64], x)
    reach = gradient[0, 0].abs().nonzero() - 64
    assert reach.abs().max() > 30


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 8, 12), (1, 2, 4, 6, 8)], ids=str)
def test_fold_is_undone_by_unfold_and_agrees_with_torch(shape):
    x = torch.randn(shape)
    folded = fold(x, 2)
    assert folded.shape[1] == shape[1] * 2 ** (len(shape) - 2)
    assert torch.equal(unfold(folded, 2), x)
    if len(shape) == 4:
        assert torch.equal(folded, torch.nn.functional.pixel_unshuffle(x, 2))


def test_thin_axes_are_not_halved_away():
    assert pooled_axes_for((8, 64, 64), 4) == ((True, True, True), (False, True, True), (False, True, True))
    assert pooled_axes_for((3, 64), 3) == ((False, True), (False, True))


def test_settings_survive_json():
    settings = ssi((5, 40, 64), 2).network
    assert UNetSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_four_dimensions_are_refused():
    with pytest.raises(InputError, match="1 to 3 spatial axes, got 4"):
        UNet(UNetSettings(ndim=4))


@pytest.mark.parametrize("factor", [(2,), (2, 2), (1, 2), (1, 2, 2)], ids=str)
def test_pooling_and_upsampling_are_torchs_own_with_their_gradients(factor):
    shape = (2, 3, *(4 * f for f in factor))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pool = (nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d)[len(factor) - 1]
    for ours, torchs in (
        (Average.apply, pool),
        (Repeat.apply, lambda x, f: nn.functional.interpolate(x, scale_factor=tuple(map(float, f)))),
    ):
        outcome = []
        for call in (ours, torchs):
            y = call(x, factor)
            weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
            outcome.append((y, *torch.autograd.grad((weights * y).sum(), x)))
        for a, b in zip(*outcome, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("period", [2, 3, 4])
def test_what_repeats_in_step_with_the_networks_grid_is_taken_out(period):
    pattern = torch.randn(1, 2, period, period, generator=torch.Generator().manual_seed(0)).double()
    inside = (..., slice(2 * period, -2 * period), slice(2 * period, -2 * period))
    x = InStep.apply(pattern.repeat(1, 1, 8, 8), period)[inside]
    torch.testing.assert_close(x, pattern.mean(dim=(2, 3), keepdim=True).expand_as(x))
    plane = torch.arange(8.0 * period)[:, None] + 2.0 * torch.arange(8.0 * period)
    torch.testing.assert_close(InStep.apply(plane[None, None], period)[inside], plane[None, None][inside])
    x = torch.randn(1, 1, 9, 11, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: InStep.apply(x, period), x)
