"""The paper's noisy Adam and the averaging of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selfinv.learning.optimiser import NoisyAdam, WeightAverage


def test_without_noise_it_is_adam():
    start = torch.randn(50, generator=torch.Generator().manual_seed(0))
    results = []
    for make in (
        lambda p: torch.optim.Adam([p], lr=0.1),
        lambda p: NoisyAdam([p], lr=0.1, noise=0.0, generator=torch.Generator()),
    ):
        p = nn.Parameter(start.clone())
        optimiser = make(p)
        for _ in range(5):
            optimiser.zero_grad()
            (p**2).sum().backward()
            optimiser.step()
        results.append(p.detach())
    assert torch.equal(*results)


def test_the_jolts_have_the_stated_size_fade_and_follow_the_seed():
    def jolts(seed):
        p = nn.Parameter(torch.zeros(20_000))
        optimiser = NoisyAdam([p], lr=0.5, noise=0.1, generator=torch.Generator().manual_seed(seed))
        sizes = []
        for _ in range(4):
            p.grad = torch.zeros_like(p)
            before = p.detach().clone()
            optimiser.step()
            sizes.append(float((p.detach() - before).std()))
        return sizes, p.detach()

    sizes, end = jolts(0)
    assert sizes == pytest.approx([0.05 / (1 + k) for k in range(4)], rel=0.03)
    assert torch.equal(end, jolts(0)[1])
    assert not torch.equal(end, jolts(1)[1])


def test_the_average_forgets_the_start_and_ends_as_an_exponential_mean():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.5)
    values = [4.0, 2.0, 6.0, 1.0]
    for value in values:
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(model)
    expected = 4.0
    for value in values[1:]:
        expected = 0.5 * expected + 0.5 * value
    assert average.average["weight"].item() == pytest.approx(expected)
