"""Units: there and back, unmoved by hot pixels."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from selfinv.learning.normalisation import ChannelUnits, NoiseUnits, Normalisation
from selfinv.types import InputError


def test_the_range_is_the_images_own_without_its_hot_pixels():
    rng = np.random.default_rng(0)
    image = (
        200 + 1000 * np.add.outer(np.linspace(0, 1, 64), np.linspace(0, 1, 64)) + rng.normal(size=(64, 64))
    )
    image[10, 10], image[30, 40] = 60_000, -5_000
    y = torch.from_numpy(image)[None, None]
    normalisation = Normalisation.of(y)
    assert normalisation.offset == pytest.approx(200, abs=40)
    assert normalisation.offset + normalisation.scale == pytest.approx(2200, abs=60)
    assert torch.allclose(normalisation.undo(normalisation.apply(y)), y)


def test_missing_values_do_not_matter():
    y = torch.linspace(0, 1, 400, dtype=torch.float64).reshape(1, 1, 20, 20)
    holes = y.clone()
    holes[..., 5:8, 5:8] = float("nan")
    assert Normalisation.of(holes).scale == pytest.approx(Normalisation.of(y).scale, rel=0.05)


def test_a_constant_image_is_refused_in_words():
    with pytest.raises(InputError, match=r"constant \(every value is 7\)"):
        Normalisation.of(torch.full((1, 1, 16, 16), 7.0))


def test_one_bright_pixel_alone_still_has_a_range():
    y = torch.zeros(1, 1, 16, 16)
    y[..., 8, 8] = 5
    assert Normalisation.of(y).scale == 5


def two_channels(dark=0.01, level=5.0):
    bright = torch.rand((1, 1, 24, 24), generator=torch.Generator().manual_seed(0))
    return torch.cat([bright, level + dark * bright.flip(-1)], dim=1)


def test_channels_of_very_different_ranges_are_brought_to_the_same_and_back():
    y = two_channels()
    units = ChannelUnits.of(y)
    common = units.apply(y)
    assert common[:, 0].std() == pytest.approx(float(common[:, 1].std()), rel=0.1)
    assert torch.allclose(units.undo(common), y, atol=1e-5)
    both = Normalisation(0.2, 0.5, units)
    assert torch.allclose(both.apply(y), (common - 0.2) / 0.5)
    assert torch.allclose(both.undo(both.apply(y)), y, atol=1e-5)
    assert Normalisation.from_dict(json.loads(json.dumps(asdict(both)))) == both


def test_channels_on_different_levels_are_brought_to_the_same():
    y = torch.rand((1, 2, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ChannelUnits.of(y) is None
    for levels in ([0.0, 300.0], [3e4, 3e4], [0.0, 1e7]):
        there = y + torch.tensor(levels, dtype=torch.float64)[:, None, None]
        units = ChannelUnits.of(there)
        assert float((units.apply(there) - y).abs().max()) < 0.4
        assert float((units.undo(units.apply(there)) - there).abs().max()) < 1e-6
        assert ChannelUnits.of(there, levels=False) is None


def test_levels_stay_where_an_operator_does_not_keep_them_and_channels_alike_are_left_alone():
    y = two_channels()
    assert ChannelUnits.of(y, levels=False).offsets == (0.0, 0.0)
    assert ChannelUnits.of(two_channels(dark=0.7, level=0.5)) is None
    assert ChannelUnits.of(y[:, :1]) is None
    for nothing in (0.0, torch.nan):
        assert ChannelUnits.of(torch.cat([y, torch.full_like(y[:, :1], nothing)], dim=1)) is not None


def test_a_bright_channel_of_one_value_leaves_the_others_their_range():
    """An opaque alpha channel: the others were next to nothing beside it."""
    y = 10.0 * torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for level in (65535.0, 1e8, -300.0):
        both = torch.cat([y, torch.full_like(y, level)], dim=1)
        units = ChannelUnits.of(both)
        common = units.apply(both)
        assert torch.equal(common[:, 1], torch.zeros_like(y[:, 0]))
        assert 0.8 < float(common[:, 0].max()) < 1.3
        assert Normalisation.of(common).scale == pytest.approx(1.0, rel=0.1)
        assert float((units.undo(common) - both).abs().max()) < 1e-6
        # Where an operator does not keep levels, it is of the others' size.
        there = ChannelUnits.of(both, levels=False)
        assert there.offsets == (0.0, 0.0)
        assert float(there.apply(both)[:, 1].abs().max()) == pytest.approx(1.0, rel=0.1)
        assert Normalisation.of(there.apply(both).abs()).scale == pytest.approx(1.0, rel=0.1)


def test_a_picture_without_noise_does_not_count_for_more_than_noisy_ones():
    """A mask as a fourth channel: total variation took no noise from the others, silently."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.rand(1, 3, 1, 1, generator=generator) + 0.1 * torch.randn(1, 3, 64, 64, generator=generator)
    ramp = torch.linspace(0.0, 1.0, 64).expand(1, 1, 64, 64)
    for picture in (ramp, ramp.round(), 255.0 * ramp):
        y = torch.cat([noisy, picture], dim=1)
        units = NoiseUnits.by_noise(y)
        alike = y if units is None else units.apply(y)
        spans = [float(c.max() - c.min()) for c in alike.unbind(1)]
        assert spans[3] < 2.0 * max(spans[:3])


def test_a_dark_channel_of_one_value_leaves_the_others_their_range():
    y = 1000.0 + torch.rand((1, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    units = ChannelUnits.of(torch.cat([y, torch.zeros_like(y)], dim=1))
    assert units.offsets == pytest.approx((1000.0, 0.0), abs=0.2)
    assert units.weight_unit == pytest.approx(1.0, rel=0.2)


def test_a_channel_of_one_value_within_the_others_range_changes_nothing():
    y = 255.0 * torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    for level in (0.0, 255.0, torch.nan):
        both = torch.cat([y, torch.full_like(y[:, :1], level)], dim=1)
        assert ChannelUnits.of(both) is None
        assert ChannelUnits.of(both, levels=False) is None
    flat = torch.tensor([1.0, 1e6]).reshape(1, 2, 1, 1).expand(1, 2, 16, 16)
    assert ChannelUnits.of(flat) is None


def test_a_channel_of_tiny_noise_is_a_channel():
    y = torch.rand((1, 2, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y[:, 1] = 300.0 + 1e-3 * y[:, 1]
    common = ChannelUnits.of(y).apply(y)
    assert float(common[:, 1].std()) == pytest.approx(float(common[:, 0].std()), rel=0.1)
