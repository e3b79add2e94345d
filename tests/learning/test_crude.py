"""What the values that a network's answer leaves over still tell of the object."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.ndimage import gaussian_filter

from selfinv.learning.crude import CrudeInverse
from selfinv.operators import Hadamard, MaskedFourier, Radon
from selfinv.solvers.base import Status
from selfinv.solvers.wiener import Wiener

N = 32


def blocks():
    x = torch.full((1, 1, N, N), 20.0)
    x[..., 4:16, 5:21] = 100.0
    x[..., 18:29, 4:11] = 60.0
    x[..., 16:21, 16:30] = 140.0
    return x


def frequencies():
    kept = torch.rand(N, N, generator=torch.Generator().manual_seed(4)) < 0.4
    kept[N // 2 - 3 : N // 2 + 4, N // 2 - 3 : N // 2 + 4] = True
    return MaskedFourier((N, N), kept)


INSTRUMENTS = {
    "frequencies": frequencies,
    "projections": lambda: Radon((N, N), [10.0 * k for k in range(18)]),
    "mixtures": lambda: Hadamard((N, N), 600),
}


def measured(name, deviation=0.5):
    """A crude inverse, the object in its units, its noisy measurement, and which values are missing."""
    A = INSTRUMENTS[name]()
    y = A(blocks())
    y = y + deviation * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    missing = torch.zeros(y.shape, dtype=torch.bool) if A.measured is None else ~A.measured.expand(y.shape)
    some = ~missing & (torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.1)
    crude = replace(CrudeInverse.of(A, y.masked_fill(missing, torch.nan), some), asks_rest=True)
    return crude, crude.object_normalisation.apply(blocks()), crude.normalisation.apply(y), missing


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_detail_that_an_answer_lacks_is_taken_from_the_values_and_noise_is_not(name):
    crude, truth, y, missing = measured(name)
    smooth = torch.from_numpy(gaussian_filter(truth.numpy(), (0, 0, 1.5, 1.5)))
    better = crude.with_rest(smooth, y, missing)
    assert (better - truth).norm() < 0.8 * (smooth - truth).norm()
    kept = crude.with_rest(truth, y, missing)
    assert (kept - truth).norm() < 0.1 * (smooth - truth).norm()
    assert replace(crude, asks_rest=False).with_rest(smooth, y, missing) is smooth


def test_what_is_hidden_adds_nothing():
    crude, truth, y, missing = measured("frequencies")
    hidden = missing | (torch.rand(y.shape, generator=torch.Generator().manual_seed(3)) < 0.3)
    smooth = torch.from_numpy(gaussian_filter(truth.numpy(), (0, 0, 1.5, 1.5)))
    first, second = (crude.with_rest(smooth, values, hidden) for values in (y, y.masked_fill(hidden, 7.0)))
    assert torch.equal(first, second)
    assert not torch.equal(first, crude.with_rest(smooth, y, missing))


def test_an_answer_that_explains_all_values_stays_as_it_is():
    crude, truth, y, missing = measured("mixtures", deviation=0.0)
    assert (crude.with_rest(truth, y, missing) - truth).abs().max() < 1e-4


def test_an_interrupt_while_the_rest_is_sought_goes_on_to_the_caller(monkeypatch):
    crude, truth, y, missing = measured("mixtures")
    status, sent = Wiener.status, []

    def interrupted(self, state):
        if state.step == 1 and not sent:
            sent.append(True)
            raise KeyboardInterrupt
        return status(self, state)

    monkeypatch.setattr(Wiener, "status", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crude.with_rest(truth, y, missing)


def test_a_rest_that_has_no_answer_adds_nothing(monkeypatch):
    crude, truth, y, missing = measured("mixtures")
    monkeypatch.setattr(Wiener, "status", lambda self, state: Status.NONFINITE)
    assert torch.allclose(crude.with_rest(truth, y, missing), truth, atol=1e-6)
