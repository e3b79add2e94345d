"""What was tried, compared on the same hidden values, and the mean of methods that predicts them best.

Because all settings are scored on the same values, two of them differ by the mean of *paired* differences,
whose standard error is far smaller than that of either score: "no significant difference" is then an answer
too. Of values that are hidden together, as they share noise, each set counts as one.

What methods are wrong in differs, and a mean of them may be better than each (stacking: Wolpert 1992,
doi:10.1016/S0893-6080(05)80023-1; Breiman 1996, doi:10.1007/BF00117832). The weight is told by hidden values
too. Of errors that the operator hides they know nothing, and a method that comes first makes fewer of those:
so another one gets half of the weight that hidden values ask for, which has three quarters of the gain there
and does no harm as long as a quarter of that weight is right for the object. Where measured values are no
pixels, and in volumes, the first method has no such advantage, and the more weight another one is to have,
the more of that it gets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from selfinv.learning.losses import MaskedLoss

LEAST_WEIGHT = 0.1  # asked for: less is not worth another solve
SIGNIFICANT = 2.0  # standard errors
FEWEST_SETS = 4  # of values hidden together
WEIGHTS = [k / 100 for k in range(101)]


@dataclass(frozen=True)
class Trial:
    """One setting of one method, and how well it predicted the hidden values.

    Parameters
    ----------
    name, setting
        The method, and the value of its one tuned parameter.
    costs
        The cost of every hidden value.
    steps
        Iterations that were taken for it.
    errors
        How far every hidden value was predicted too high.
    tuned_by
        What settings of this method are compared by, lower is better; NaN: the score.
    sets
        The set of those hidden together that every hidden value belongs to; empty: each was hidden by itself.
    """

    name: str
    parameter: str | None
    setting: float
    costs: Tensor = field(repr=False)
    steps: int = 0
    errors: Tensor = field(repr=False, default_factory=lambda: torch.empty(0))
    tuned_by: float = math.nan
    sets: Tensor = field(repr=False, default_factory=lambda: torch.empty(0, dtype=torch.long))

    @property
    def score(self) -> float:
        """The mean cost; lower is better."""
        mean = float(self.costs.mean(dtype=torch.float64))
        return mean if math.isfinite(mean) else math.inf

    @property
    def rank(self) -> float:
        """What settings of this method are compared by; lower is better."""
        return self.tuned_by if math.isfinite(self.tuned_by) else self.score


def squared_error_when_shown(errors: Tensor, changes: Tensor, noise: float) -> float:
    r"""What a denoised value costs once it is shown itself, from what it costs hidden, both in mean squares.

    Hidden, a value is predicted with an error :math:`e = \hat x_h - x`, of which
    :math:`r = \hat x_h - y = e - n` is known. Shown, its estimate changes by :math:`d`, a response to
    :math:`r`. The noise :math:`n` is independent of :math:`e`, so that of :math:`r` the part
    :math:`\rho = \langle e^2\rangle / \langle r^2\rangle` is error on average, and

    .. math:: \langle (e + d)^2 \rangle
              = \langle e^2 \rangle + 2 \rho \langle r d \rangle + \langle d^2 \rangle .

    Parameters
    ----------
    errors
        :math:`r` of every hidden value.
    changes
        :math:`d`, of the same.
    noise
        The noise's variance.

    Returns
    -------
    float
        With the noise's variance, as in a score.
    """
    hidden = float(errors.double().square().mean())
    if not hidden > 0.0:
        return hidden
    part = max(0.0, 1.0 - noise / hidden)
    follows = float((errors * changes).mean(dtype=torch.float64))
    return hidden + 2.0 * part * follows + float(changes.double().square().mean())


@dataclass(frozen=True)
class Difference:
    """How much worse one trial is than another, with the standard error of the paired difference."""

    mean: float
    error: float

    @property
    def significant(self) -> bool:
        """Beyond two standard errors."""
        return abs(self.mean) > SIGNIFICANT * self.error


def difference(trial: Trial, other: Trial) -> Difference:
    """``trial`` minus ``other``, value by value on the same hidden values."""
    paired = (trial.costs - other.costs).double()
    mean, count = float(paired.mean()), paired.numel()
    sets, place = trial.sets.unique(return_inverse=True)
    n = sets.numel()
    if n < FEWEST_SETS:  # of fewer there is no telling, and values are taken as they are
        return Difference(mean, float(paired.std()) / math.sqrt(count) if count > 1 else math.inf)
    # Values hidden together share noise: only the sets are independent, and each counts as it has values.
    total = paired.new_zeros(n).index_add(0, place, paired - mean)
    # Of few sets the standard error is not sure itself: with n - 3 in the place of n - 1 it is larger by the
    # deviation of Student's t. Chance then exceeds two of it in some 5 % of cases.
    return Difference(mean, math.sqrt(n / (n - 3)) * float(total.norm()) / count)


@dataclass(frozen=True)
class Mixture:
    """A mean of several methods' results.

    Parameters
    ----------
    weights
        Of each method, of sum 1.
    trial
        How well it predicts the hidden values.
    """

    weights: dict[str, float]
    trial: Trial

    def without(self, name: str, trials: Sequence[Trial], loss: MaskedLoss) -> Mixture:
        """The same weights of the others, one to another; ``trials`` are those it is a mean of."""
        left = {n: w for n, w in self.weights.items() if n != name}
        weights = {n: w / sum(left.values()) for n, w in left.items()}
        errors = sum(weights[t.name] * t.errors for t in trials if t.name in weights)
        assert isinstance(errors, Tensor)
        return Mixture(weights, replace(self.trial, costs=loss.each(errors), errors=errors))

    def __str__(self) -> str:
        hundredths = {name: round(100 * weight) for name, weight in self.weights.items()}
        most = max(hundredths, key=hundredths.__getitem__)
        hundredths[most] += 100 - sum(hundredths.values())  # so that the sum is 1
        return " + ".join(f"{share / 100:.2f} {name}" for name, share in hundredths.items())


def mix(
    first: Trial,
    others: Sequence[Trial],
    loss: MaskedLoss,
    *,
    better: float = SIGNIFICANT,
    cautious: bool = True,
) -> Mixture:
    """The mean of methods that predicts hidden values best; of some there may be nothing in it.

    They are mixed in one after the other, where the best weight predicts ``better`` by so many standard
    errors, with half of that weight, or if not ``cautious``, from half of a small one to all of it.
    """
    mixture = Mixture({first.name: 1.0}, first)
    if not math.isfinite(first.score):
        return mixture
    for other in (trial for trial in others if math.isfinite(trial.score)):
        trials = [_between(mixture.trial, other, weight, loss) for weight in WEIGHTS]
        best = min(trials, key=lambda trial: trial.score)
        weight = best.setting
        gain = difference(mixture.trial, best)
        if weight < LEAST_WEIGHT or not gain.mean > better * gain.error:  # of one value that is no number
            continue
        weight *= 0.5 if cautious else 0.5 + 0.5 * weight
        weights = {name: (1.0 - weight) * w for name, w in mixture.weights.items() if weight < 1.0}
        mixture = Mixture(weights | {other.name: weight}, _between(mixture.trial, other, weight, loss))
    return mixture


def _between(trial: Trial, other: Trial, weight: float, loss: MaskedLoss) -> Trial:
    errors = torch.lerp(trial.errors, other.errors, weight)
    return Trial("mean", "weight", weight, loss.each(errors), errors=errors, sets=trial.sets)
