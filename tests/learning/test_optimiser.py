"""The paper's noisy Adam, the orthogonalised momentum and the averaging of weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from selfinv.learning.optimiser import (
    Muon,
    NoisyAdam,
    WeightAverage,
    muon_groups,
    one_cycle,
    orthogonalised,
)
from selfinv.learning.unet import UNet, UNetSettings


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


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16), (1, 9)])
def test_an_orthogonalised_matrix_keeps_its_singular_vectors_and_loses_its_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    other = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    result = orthogonalised(torch.stack([other, matrix]))[1]
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ result @ v.T
    strong = values > 0.05 * values[0]  # the polynomial lifts what is weaker only in part
    assert torch.linalg.svdvals(result)[strong].sub(0.95).abs().max() < 0.3
    assert (inside - torch.diag(inside.diag())).abs().max() < 1e-4
    assert orthogonalised(torch.zeros(1, *shape)).abs().max() == 0


def test_muon_moves_every_direction_of_a_weight_as_far_and_all_else_as_adamw():
    generator = torch.Generator().manual_seed(0)
    network = UNet(UNetSettings(widths=(4, 8)))
    hidden = network.hidden_weights()
    twin = UNet(network.settings)
    twin.load_state_dict(network.state_dict())
    optimiser = Muon(muon_groups(network, hidden, 0.01), weight_decay=1e-4)
    groups = muon_groups(twin, twin.hidden_weights(), 0.01)
    adamw = torch.optim.AdamW(groups[:1], weight_decay=1e-4)
    before = [p.detach().clone() for p in hidden]
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        p.grad = torch.randn(p.shape, generator=generator)
        q.grad = p.grad.clone()
    optimiser.step()
    adamw.step()
    for old, new in zip(before, hidden, strict=True):
        moved = (new - 0.99 * old).detach().flatten(1)
        scale = max(1.0, moved.shape[0] / moved.shape[1]) ** 0.5
        values = torch.linalg.svdvals(moved) / (0.02 * scale)
        assert values.max() < 1.3
        assert values.median() > 0.6
    ids = {id(p) for p in hidden}
    for p, q in zip(network.parameters(), twin.parameters(), strict=True):
        assert id(p) in ids or torch.equal(p, q)


def test_one_cycle_takes_every_group_up_to_its_rate_and_down():
    network = UNet(UNetSettings(widths=(4, 8)))
    optimiser = Muon(muon_groups(network, network.hidden_weights(), 0.01))
    schedule = one_cycle(optimiser, 20)
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimiser.param_groups])
        optimiser.step()
        schedule.step()
    assert max(r[0] for r in rates) == pytest.approx(0.01, rel=0.02)
    assert max(r[1] for r in rates) == pytest.approx(0.02, rel=0.02)
    assert rates[-1][1] < 0.001


def test_the_average_forgets_the_start_and_ends_as_an_exponential_mean():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.5)
    values = [4.0, 2.0, 6.0, 1.0]
    for value in values:
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
    expected = 4.0
    for value in values[1:]:
        expected = 0.5 * expected + 0.5 * value
    assert average.average["weight"].item() == pytest.approx(expected)
