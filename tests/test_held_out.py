"""Held-out values: which are set apart, that nobody sees them, and what they cost."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from selfinv import psf
from selfinv.held_out import HeldOut, count_folds, hold_out
from selfinv.learning.losses import MaskedLoss
from selfinv.operators import Convolution, Identity
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.types import InputError

L2 = MaskedLoss("l2")
BLUR = torch.from_numpy(psf.gaussian(1.5, (9, 9))).float()


def noise(*shape, seed=0, deviation=1.0):
    return deviation * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- setting values apart ----


def test_the_set_of_each_hidden_value_is_told_where_they_are_hidden_together():
    y = torch.randn(2, 1, 40, 30)
    y[0, 0, :, 3] = torch.nan
    lines = hold_out(y, together=(-1,), loss=L2)
    assert lines.sets.shape == lines.errors(y).shape
    rows = torch.arange(80).reshape(2, 1, 40, 1).expand(y.shape)
    assert torch.equal(lines.sets, lines.at_hidden(rows))
    assert not hold_out(y, loss=L2).sets.numel()


@pytest.mark.parametrize("sets", [2, 3, 5, 24])
def test_of_few_sets_whole_ones_are_set_apart_and_others_in_each_fold(sets):
    y = noise(1, 1, sets, 24, 2)  # lines of complex samples
    for seed in range(100):
        folds = [hold_out(y, together=(-2, -1), loss=L2, seed=seed, fold=fold).hidden for fold in range(3)]
        for hidden in folds:
            lines = hidden.flatten(3)
            assert 0 < lines.any(-1).sum() < sets
            assert torch.equal(lines.any(-1), lines.all(-1))
        if sets >= 3:
            assert not (folds[0] & folds[1] | folds[0] & folds[2] | folds[1] & folds[2]).any()


def test_what_is_never_hidden_is_not_set_apart_as_long_as_there_are_other_values():
    y = noise(1, 1, 40, 24, 2)
    always = torch.zeros(40, 24, 2, dtype=torch.bool)
    always[16:25] = True
    for fold in range(3):
        hidden = hold_out(y, together=(-2, -1), always=always, loss=L2, fold=fold).hidden
        assert int(hidden.flatten(3).all(-1).sum()) == 4  # an eighth of the other lines
        assert not (hidden & always).any()
    assert hold_out(y, together=(-2, -1), always=torch.ones_like(always), loss=L2).hidden.any()


def test_of_a_single_set_one_value_is_set_apart():
    y = noise(1, 1, 1, 24, 2)
    assert int(hold_out(y, together=(-2, -1), loss=L2).hidden.sum()) == 1


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ((1, 1, 64, 64), 0.1),  # small: as much as there may be
        ((1, 1, 400, 400), 5000 / 160_000),
        ((2, 3, 300, 300), 0.02),
        ((1, 1, 40, 50, 60), 5000 / 120_000),
    ],
)
def test_some_values_are_set_apart_more_of_a_small_image(shape, share):
    y = noise(*shape)
    held_out = hold_out(y)
    expected, n = share, y.numel()
    assert float(held_out.hidden.float().mean()) == pytest.approx(
        expected, abs=5 * math.sqrt(expected * (1 - expected) / n)
    )
    asked = hold_out(y, fraction=0.3)
    assert float(asked.hidden.float().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / n))


def test_they_are_spread_over_the_whole_image_and_come_from_the_seed_alone():
    y = noise(1, 2, 100, 100)
    torch.manual_seed(1)
    hidden = hold_out(y, seed=3).hidden
    torch.manual_seed(2)
    assert torch.equal(hidden, hold_out(2 * y, seed=3).hidden)
    assert not torch.equal(hidden, hold_out(y, seed=4).hidden)
    quarters = hidden.reshape(1, 2, 2, 50, 2, 50).float().mean(dim=(0, 3, 5))
    torch.testing.assert_close(quarters, torch.full_like(quarters, 0.1), atol=0.03, rtol=0.0)


def test_missing_values_are_never_set_apart():
    y = noise(1, 1, 50, 50)
    y[..., ::2, :] = torch.nan
    y[..., 1::4, :10] = torch.inf
    held_out = hold_out(y)
    assert not (held_out.hidden & ~torch.isfinite(y)).any()
    share = float(held_out.hidden.sum() / torch.isfinite(y).sum())
    assert share == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize("measured", [2, 3, 16, 64])
def test_tiny_images_have_something_to_score(measured):
    y = torch.full((1, 1, 8, 8), torch.nan)
    y.view(-1)[:measured] = torch.arange(measured).float()
    for seed in range(20):
        held_out = hold_out(y, seed=seed)
        assert held_out.hidden.any()
        assert not (held_out.hidden & ~torch.isfinite(y)).any()
        assert held_out.costs(torch.zeros_like(y)).numel() == int(held_out.hidden.sum())


@pytest.mark.parametrize("measured", [0, 1])
def test_too_little_to_set_anything_apart_is_said(measured):
    y = torch.full((1, 1, 8, 8), torch.nan)
    y.view(-1)[:measured] = 3.0
    with pytest.raises(InputError, match="fewer than 2 measured values; nothing can be set apart"):
        hold_out(y)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_fraction_that_cannot_be_is_refused(fraction):
    with pytest.raises(InputError, match=r"fraction must lie in \(0, 1\)"):
        hold_out(noise(1, 1, 8, 8), fraction=fraction)


# ---- nobody sees them ----


def test_what_is_shown_is_all_but_the_hidden_values():
    y = noise(1, 2, 30, 30)
    y[..., 3, 3] = torch.nan
    before = y.clone()
    held_out = hold_out(y)
    assert torch.equal(torch.isnan(held_out.shown), held_out.hidden | torch.isnan(y))
    seen = ~torch.isnan(held_out.shown)
    assert torch.equal(held_out.shown[seen], y[seen])
    torch.testing.assert_close(y, before, equal_nan=True, rtol=0.0, atol=0.0)


def test_a_blind_spot_hides_the_neighbours_too_but_does_not_score_them():
    y = noise(1, 1, 60, 60)
    held_out = hold_out(y, fraction=0.1, blind_spot=(0, 2))
    hidden, concealed = held_out.hidden[0, 0], torch.isnan(held_out.shown)[0, 0]
    around = torch.stack([hidden.roll(shift, 1) for shift in range(-2, 3)])
    inner = (slice(None), slice(2, -2))  # rolling wraps around
    assert torch.equal(concealed[inner], around.any(dim=0)[inner])
    assert held_out.costs(torch.zeros_like(y)).numel() == int(hidden.sum())
    assert float(concealed.float().mean()) == pytest.approx(0.1, abs=0.03)  # as much as was asked for


@pytest.mark.parametrize(
    "operator",
    [Identity((12, 10)), Convolution(BLUR.double()[2:7, 2:7], (12, 10), "unknown")],
    ids=["identity", "blur"],
)
def test_the_estimate_has_no_gradient_with_respect_to_hidden_values(operator):
    y = (5 + noise(1, 1, 12, 10).double()).requires_grad_()
    held_out = HeldOut(y, hold_out(y.detach()).hidden, L2)
    (direct,) = torch.autograd.grad(held_out.shown.nan_to_num().square().sum(), y)
    assert bool((direct[held_out.hidden] == 0).all())

    solver = ConjugateGradient(0.2, smoothing=0.1, max_steps=3)
    state = solver.init(held_out.shown, operator)
    for _ in range(3):
        state = solver.step(state)
    (gradient,) = torch.autograd.grad(solver.estimate(state).square().sum(), y)
    assert bool((gradient[held_out.hidden] == 0).all())
    assert bool((gradient[~held_out.hidden] != 0).all())


# ---- what they cost ----


@pytest.mark.parametrize("kind", ["l1", "l2", "huber"])
def test_costs_are_of_the_hidden_values_alone(kind):
    y, predicted = noise(1, 2, 20, 20), noise(1, 2, 20, 20, seed=1)
    y[..., 0, 0] = torch.nan
    hidden = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.2
    hidden[..., 0, 0] = True  # even if someone should ask for it
    held_out = HeldOut(y, hidden, MaskedLoss(kind, 0.5))
    costs = held_out.costs(predicted)
    residual = (predicted - y)[hidden & torch.isfinite(y)].numpy()
    size = np.abs(residual)
    expected = {
        "l1": size,
        "l2": residual**2,
        "huber": np.where(size < 0.5, residual**2 / 2 / 0.5, size - 0.25),
    }[kind]
    np.testing.assert_allclose(costs, expected, rtol=1e-5)
    elsewhere = torch.where(hidden, predicted, predicted + 100)
    assert torch.equal(held_out.costs(elsewhere), costs)


def test_the_constant_is_the_median_of_what_is_shown():
    y = noise(1, 1, 30, 30) ** 2
    held_out = hold_out(y, loss=L2)
    typical = np.nanmedian(held_out.shown.numpy())
    expected = np.mean((y[held_out.hidden].numpy() - typical) ** 2)
    assert held_out.score_of_a_constant() == pytest.approx(expected, rel=0.01)
    spoilt = replace(held_out, y=torch.where(held_out.hidden, y + 1e3, y))
    assert spoilt.score_of_a_constant() == pytest.approx(
        np.mean((y[held_out.hidden].numpy() + 1e3 - typical) ** 2), rel=0.01
    )


def test_the_fewer_values_a_set_may_have_the_more_sets_there_are():
    """Sets of a tenth were counted, where each was of a twentieth."""
    y = torch.zeros(1, 1, 200, 200)
    assert (count_folds(y), count_folds(y, most=0.05)) == (1, 2)


def test_what_is_never_set_apart_does_not_count_for_how_many_sets_there_are():
    y = torch.zeros(1, 1, 200, 200)
    always = torch.zeros(200, 200, dtype=torch.bool)
    always[:, 50:] = True
    assert count_folds(y, always=always) == count_folds(y[..., :50]) > count_folds(y)
