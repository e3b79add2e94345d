"""Mask schemes and fills: what is hidden is really hidden, evenly, reproducibly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from selfinv.learning.masks import (
    FILLS,
    ComplementaryPairs,
    Decaying,
    Grid,
    RandomPixels,
    neighbour_fill,
    widths_needed,
)
from selfinv.learning.random import generator_for
from selfinv.types import InputError

SCHEMES = {
    "random": RandomPixels(0.5),
    "decaying": RandomPixels(Decaying(0.5, 0.01, 0.005)),
    "pairs": ComplementaryPairs(),
    "grid": Grid(3),
}
SHAPES = [(1, 1, 64), (2, 3, 32, 31), (1, 2, 9, 12, 15)]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("shape", SHAPES, ids=["1d", "2d", "3d"])
def test_the_same_seed_and_step_hide_the_same_values_and_others_do_not(scheme, shape):
    first = scheme.hidden(shape, 4, seed=1)
    assert first.dtype == torch.bool
    assert first.shape == shape
    assert first.any()
    assert not first.all()
    assert torch.equal(first, scheme.hidden(shape, 4, seed=1))
    assert not torch.equal(first, scheme.hidden(shape, 5, seed=1))


def test_random_pixels_have_their_density_and_no_pattern():
    hidden = RandomPixels(0.3).hidden((1, 1, 400, 400), 0, seed=0).double()
    assert hidden.mean().item() == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 160_000))
    centred = hidden[0, 0] - hidden.mean()
    neighbours = (centred[1:] * centred[:-1]).mean() / centred.square().mean()
    assert abs(neighbours) < 0.02


def test_the_density_falls_from_start_to_end_by_a_fixed_fraction_of_the_rest():
    density = Decaying(0.5, 0.01, 0.005)
    assert density(0) == 0.5
    assert density(1) == pytest.approx(0.5 - 0.005 * 0.49)
    assert density(5000) == pytest.approx(0.01, abs=1e-9)
    hidden = RandomPixels(density).hidden((1, 1, 200, 200), 600, seed=0)
    assert hidden.double().mean().item() == pytest.approx(density(600), rel=0.1)


def test_pairs_are_complementary_and_new_for_every_pair():
    pairs = ComplementaryPairs()
    first, second, third = (pairs.hidden((1, 2, 20, 20), step, seed=3) for step in (6, 7, 8))
    assert torch.equal(first, ~second)
    assert not torch.equal(first, third)
    assert not torch.equal(first, ~third)


def test_a_grid_is_a_partition():
    grid = Grid(3)
    counts = sum(grid.hidden((1, 1, 10, 11), step, seed=5).int() for step in range(9, 18))
    assert torch.equal(counts, torch.ones_like(counts))


def test_impossible_masks_are_refused():
    with pytest.raises(InputError, match="hides everything or nothing"):
        RandomPixels(1.0).hidden((1, 1, 8, 8), 0, seed=0)
    with pytest.raises(InputError, match="period=1"):
        Grid(1).hidden((1, 1, 8, 8), 0, seed=0)


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
@pytest.mark.parametrize("shape", SHAPES, ids=["1d", "2d", "3d"])
def test_a_fill_keeps_what_is_visible_and_never_looks_at_what_is_hidden(fill, shape):
    y = torch.randn(shape, dtype=torch.float64)
    hidden = RandomPixels(0.6).hidden(shape, 0, seed=0)
    filled = fill(y, hidden, generator_for(0))
    assert torch.equal(filled[~hidden], y[~hidden])
    other = torch.where(hidden, y + 1e6 * torch.randn(shape, dtype=torch.float64), y)
    assert torch.equal(fill(other, hidden, generator_for(0)), filled)


def test_random_fill_draws_from_the_visible_values_of_the_same_channel():
    y = torch.stack([torch.arange(100.0), torch.arange(100.0) + 1000]).reshape(1, 2, 10, 10)
    hidden = RandomPixels(0.5).hidden(y.shape, 0, seed=2)
    filled = FILLS["random"](y, hidden, generator_for(1))
    for channel in range(2):
        visible = set(y[0, channel][~hidden[0, channel]].tolist())
        assert set(filled[0, channel].flatten().tolist()) <= visible


def test_neighbour_fill_interpolates_and_reaches_across_large_holes():
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64).expand(64, 64)[None, None]
    hidden = RandomPixels(0.5).hidden(ramp.shape, 0, seed=0)
    inner = (..., slice(8, -8), slice(8, -8))
    error = (neighbour_fill(ramp, hidden, generator_for(0)) - ramp)[inner].abs()
    assert error.max() < 3 / 63  # a few pixels of the ramp
    assert error.mean() < 0.5 / 63
    hidden = torch.zeros_like(ramp, dtype=torch.bool)
    hidden[..., 12:52, 12:52] = True
    filled = neighbour_fill(ramp + 5, hidden, generator_for(0))
    assert filled.min() >= 5 - 1e-9
    assert filled.max() <= 6 + 1e-9


@pytest.mark.parametrize("hole", [0, 1, 7, 40])
def test_neighbour_fill_told_how_often_to_widen_fills_the_same(hole):
    y = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    hidden = RandomPixels(0.25).hidden(y.shape, 0, seed=0)
    hidden[..., 12 : 12 + hole, 12 : 12 + hole] = True
    widths = widths_needed(hidden)
    filled = neighbour_fill(y, hidden, generator_for(0))
    assert torch.equal(neighbour_fill(y, hidden, generator_for(0), widths=widths), filled)
    fewer = neighbour_fill(y, hidden, generator_for(0), widths=widths - 1)
    assert widths == 1 or not torch.equal(fewer, filled)
    assert widths == {0: 1, 1: 1, 7: 2, 40: 4}[hole]
