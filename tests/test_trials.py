"""Trials compared on the same hidden values, and a mean of several methods."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from selfinv.held_out import hold_out
from selfinv.learning.losses import MaskedLoss
from selfinv.trials import Mixture, Trial, difference, mix, squared_error_when_shown

L2 = MaskedLoss("l2")


def noise(*shape, seed=0, deviation=1.0):
    return deviation * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_score_is_the_true_error_and_a_constant():
    """Noise adds the same variance to the score of any blind prediction (Kobayashi et al. 2020, Eq. 5)."""
    truth, deviation = torch.from_numpy(np.random.default_rng(0).random((1, 1, 200, 200))).float(), 0.7
    held_out = hold_out(truth + noise(*truth.shape, seed=5, deviation=deviation), fraction=0.5, loss=L2)
    predictions = [truth + 0.3, 0.5 * truth, truth + noise(*truth.shape, seed=9, deviation=0.4)]
    trials = []
    for predicted in predictions:
        costs = held_out.costs(predicted)
        trial = Trial("some", None, math.nan, costs)
        error = float((predicted - truth)[held_out.hidden].square().mean())
        assert trial.score - deviation**2 == pytest.approx(
            error, abs=4 * float(costs.std()) / costs.numel() ** 0.5
        )
        trials.append((trial, error))
    for trial, error in trials[1:]:
        found = difference(trial, trials[0][0])
        assert abs(found.mean - (error - trials[0][1])) < 4 * found.error
        alone = math.hypot(*(float(t.costs.std()) / t.costs.numel() ** 0.5 for t in (trial, trials[0][0])))
        assert found.error < 0.8 * alone  # the noise is common to both


def test_a_trial_without_a_finite_score_is_the_worst():
    costs = torch.tensor([1.0, math.inf])
    assert Trial("a", None, 0.0, costs).score == math.inf
    assert Trial("a", None, 0.0, torch.tensor([1.0, math.nan])).score == math.inf
    assert Trial("a", None, 0.0, torch.tensor([1.0, 2.0])).score == 1.5


def test_equal_methods_differ_significantly_one_time_in_twenty_and_others_nearly_always():
    generator = torch.Generator().manual_seed(0)
    found = Counter()
    for _ in range(400):
        common = torch.randn(300, generator=generator).square() * 5  # noise hits both alike
        own = torch.randn(2, 300, generator=generator)
        for name, shift in (("equal", 0.0), ("worse", 0.5)):
            trials = [Trial(name, None, 0.0, common + own[0] + shift), Trial("b", None, 0.0, common + own[1])]
            d = difference(*trials)
            back = difference(*trials[::-1])
            assert (back.mean, back.error) == pytest.approx((-d.mean, d.error))
            found[name] += d.significant
    assert 0.02 < found["equal"] / 400 < 0.09
    assert found["worse"] > 396


def test_the_standard_error_is_that_of_the_paired_differences():
    a, b = noise(50, seed=1), noise(50, seed=2)
    d = difference(Trial("a", None, 0.0, a), Trial("b", None, 0.0, b))
    assert d.mean == pytest.approx(float((a - b).mean()), rel=1e-4)
    assert d.error == pytest.approx(np.std((a - b).numpy(), ddof=1) / math.sqrt(50), rel=1e-5)


def of_lines(seed, count=400, length=64, shift=0.0):
    """Two trials of a measurement whose lines, hidden together, share all noise but a tenth."""
    costs = [noise(count, 1, seed=2 * seed + k) + 0.1 * noise(count, length, seed=-seed - k) for k in (1, 2)]
    sets = torch.arange(count).repeat_interleave(length)
    both = zip("ab", (costs[0] + shift, costs[1]), strict=True)
    return [Trial(name, None, 0.0, cost.flatten(), sets=sets) for name, cost in both]


@pytest.mark.parametrize("count", [4, 8, 400])
def test_lines_that_share_noise_count_as_one_value_each(count):
    """By single values equal methods would differ significantly in most cases."""
    differences = [difference(*of_lines(seed, count)) for seed in range(300)]
    if count == 400:
        spread = np.std([d.mean for d in differences])
        assert np.mean([d.error for d in differences]) == pytest.approx(spread, rel=0.1)
    assert 0.02 < np.mean([d.significant for d in differences]) < 0.09
    assert difference(*of_lines(0, 400, shift=0.5)).significant


def test_of_too_few_lines_values_are_compared_by_themselves():
    """Or nothing would take the place of a method that is far worse, where few lines were sampled."""
    few = difference(*of_lines(0, 3, shift=50.0))
    alone = difference(*(replace(trial, sets=torch.empty(0)) for trial in of_lines(0, 3, shift=50.0)))
    assert few == alone
    assert few.significant


def test_sets_of_one_value_are_compared_as_single_values_are():
    a, b = noise(50, seed=1), noise(50, seed=2)
    alone, sets = (
        difference(*(Trial("some", None, 0.0, costs, sets=s) for costs in (a, b)))
        for s in (torch.empty(0), torch.arange(50))
    )
    assert sets.mean == alone.mean
    assert sets.error == pytest.approx(alone.error * math.sqrt(49 / 47))


def test_a_set_counts_by_its_values():
    """Three lines of one value weigh no more than one of three."""
    costs = torch.tensor([1.0, 1, 1, 2, 3, 4, 5, 5, 5])
    d = difference(
        Trial("a", None, 0.0, costs, sets=torch.tensor([0, 0, 0, 1, 2, 3, 4, 4, 4])),
        Trial("b", None, 0.0, torch.zeros(9)),
    )
    assert d.mean == pytest.approx(3.0)
    assert d.error == pytest.approx(math.sqrt(5 / 2) * math.sqrt(36 + 1 + 0 + 1 + 36) / 9)


def test_the_mean_of_methods_is_told_by_whole_lines_too():
    costs = [noise(40, 1, seed=k) + 0.01 * noise(40, 64, seed=9 + k) for k in (1, 2)]
    sets = torch.arange(40).repeat_interleave(64)
    one, other = (replace(predicted(str(k), c.flatten()), sets=sets) for k, c in enumerate(costs))
    assert torch.equal(mix(one, [other], L2, better=0.0).trial.sets, sets)


def test_one_value_tells_nothing_apart():
    one, other = (Trial("a", None, 0.0, torch.tensor([value])) for value in (1.0, 50.0))
    assert not difference(one, other).significant


# ---- a mean of several methods ----


def predicted(name, errors, loss=L2):
    return Trial(name, None, 0.0, loss.each(errors), 0, errors)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_methods_that_are_wrong_in_other_ways_are_mixed_by_half_of_the_best_weight(kind):
    loss, common = MaskedLoss(kind), noise(4000, deviation=0.3)
    one, other = (predicted(n, common + noise(4000, seed=s), loss) for n, s in (("one", 1), ("other", 2)))
    mixture = mix(one, [other], loss)
    assert mixture.weights == pytest.approx({"one": 0.75, "other": 0.25}, abs=0.03)
    errors = sum(mixture.weights[t.name] * t.errors for t in (one, other))
    assert mixture.trial.score == pytest.approx(float(loss.each(errors).mean()), rel=1e-5)
    assert mixture.trial.score < min(one.score, other.score)


def test_without_caution_a_better_method_gets_most_of_the_weight_and_another_little():
    common = noise(4000, deviation=0.3)
    one, better, worse = (
        predicted(n, common + noise(4000, seed=s, deviation=d))
        for n, s, d in (("one", 1, 1.0), ("better", 2, 0.2), ("worse", 3, 2.0))
    )
    shares = {}
    for other in (better, worse):
        for cautious in (True, False):
            shares[other.name, cautious] = mix(one, [other], L2, cautious=cautious).weights[other.name]
    assert shares["better", True] < 0.5 < 0.8 < shares["better", False] < 1.0
    assert shares["worse", True] < shares["worse", False] < 1.3 * shares["worse", True]


def test_without_caution_what_is_better_by_itself_gets_all_of_the_weight():
    good = noise(4000, seed=1, deviation=0.1)
    first, better = predicted("first", good + noise(4000, seed=2)), predicted("better", good)
    assert mix(first, [better], L2, cautious=False).weights == {"better": 1.0}
    assert mix(first, [better], L2).weights == {"first": 0.5, "better": 0.5}


def test_nothing_is_mixed_in_that_helps_by_chance_or_hardly_or_not():
    near, far = noise(2000, seed=1, deviation=0.1), noise(2000, seed=2)
    first = predicted("first", near)
    assert mix(first, [predicted("far", far)], L2).weights == {"first": 1.0}
    assert mix(first, [predicted("worse", 1.2 * near)], L2).weights == {"first": 1.0}
    helps = predicted("helps", -near)
    assert mix(first, [helps], L2).weights["helps"] > 0.2
    failed = replace(helps, costs=torch.full((2000,), math.inf))
    assert mix(first, [failed], L2).weights == {"first": 1.0}
    few = [predicted(str(seed), noise(6, seed=seed)) for seed in range(40)]
    assert sum(len(mix(a, [b], L2).weights) == 1 for a, b in itertools.pairwise(few)) > 30
    one, other = (predicted(name, torch.tensor([value])) for name, value in (("a", 1.0), ("b", -1.0)))
    for better in (2.0, 0.0):
        assert mix(one, [other], L2, better=better).weights == {"a": 1.0}  # one value tells nothing


def test_where_that_may_be_by_chance_half_of_the_weight_is_mixed_in_all_the_same():
    one = predicted("one", torch.tensor([1.0, 1.0, 1.0, 1.0]))
    other = predicted("other", torch.tensor([-1.0, -1.0, 1.0, 1.2]))
    assert mix(one, [other], L2).weights == {"one": 1.0}
    assert mix(one, [other], L2, better=0.0).weights["other"] == pytest.approx(0.23, abs=0.05)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_what_a_value_costs_when_it_is_shown_is_told_by_what_it_costs_hidden(share):
    """Of an estimate that takes a share of the value itself, and of more of those that stand out."""
    error, n = noise(200_000, seed=1, deviation=0.5), noise(200_000, seed=2, deviation=2.0)
    hidden = error - n
    for changes in (-share * hidden, -share * hidden * (hidden.abs() > 2.0)):
        true = float((error + changes).square().mean()) + 4.0
        assert squared_error_when_shown(hidden, changes, 4.0) == pytest.approx(true, rel=0.01)


def test_settings_are_ranked_by_what_they_were_tuned_by_if_anything():
    costs = torch.ones(10)
    assert Trial("some", None, math.nan, costs).rank == 1.0
    assert Trial("some", None, math.nan, costs, tuned_by=0.5).rank == 0.5


def with_errors(name, *errors):
    values = torch.tensor(errors)
    return Trial(name, None, math.nan, L2.each(values), errors=values)


def test_the_weights_of_a_mean_are_told_so_that_they_add_up():
    some = with_errors("a", 1.0)
    assert str(Mixture({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, some)) == "0.34 a + 0.33 b + 0.33 c"
    assert str(Mixture({"a": 0.586, "b": 0.414}, some)) == "0.59 a + 0.41 b"


def test_a_mean_without_one_of_them_is_scored_anew():
    trials = [with_errors("a", 1.0, 1.0), with_errors("b", 3.0, 1.0), with_errors("c", 9.0, 9.0)]
    left = Mixture({"a": 0.5, "b": 0.25, "c": 0.25}, trials[0]).without("c", trials, L2)
    assert left.weights == pytest.approx({"a": 2 / 3, "b": 1 / 3})
    assert left.trial.score == pytest.approx(((5 / 3) ** 2 + 1.0) / 2)
