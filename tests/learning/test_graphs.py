"""Recorded passes give what the network gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from selfinv.learning.graphs import GraphedPasses, Recorder, can_be_replayed, launched
from selfinv.learning.presets import ssi
from selfinv.learning.unet import UNet, UNetSettings
from selfinv.operators import Convolution, Identity, Mask, from_scipy
from selfinv.solvers.base import Status

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


class Refuses(torch.nn.Module):
    """Nothing that CUDA could record; on a CPU nothing can."""

    def forward(self, x):
        return 2 * x


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU records them")
def test_what_cannot_be_recorded_is_launched():
    x = torch.ones(1, 1, 8, 8)
    passes = GraphedPasses(Refuses())
    assert torch.equal(passes(x), 2 * x)
    assert torch.equal(passes(3 * x), 6 * x)


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["single", "auto"])
def test_recorded_passes_give_the_networks_output_and_gradients(precision):
    network = UNet(UNetSettings(widths=(8, 16), precision=precision)).cuda().train()
    passes = GraphedPasses(network)
    generator = torch.Generator("cuda").manual_seed(0)

    def outcome(call, x):
        network.zero_grad(set_to_none=True)
        y = call(x)
        y.square().mean().backward()
        return [y.detach().clone(), *(p.grad.clone() for p in network.parameters())]

    for shape in ((1, 1, 64, 64), (1, 1, 32, 64), (1, 1, 64, 64)):
        x = torch.randn(shape, generator=generator, device="cuda")
        recorded = outcome(passes, x)
        for a, b in zip(recorded, outcome(network, x), strict=True):
            assert (a - b).norm() <= 2e-2 * b.norm() + 1e-6


@pytest.mark.parametrize(
    ("operator", "known"),
    [
        (Identity((8, 8)), True),
        (2.0 * Convolution(torch.ones(3, 3), (8, 8)), True),
        (Mask(torch.ones(8, 8, dtype=torch.bool)) @ Convolution(torch.ones(3, 3), (8, 8), "reflect"), True),
        (from_scipy(np.eye(64), (8, 8), (8, 8), pixels=True), False),
        (
            Mask(torch.ones(8, 8, dtype=torch.bool)) @ from_scipy(np.eye(64), (8, 8), (8, 8), pixels=True),
            False,
        ),
        (torch.square, False),
    ],
)
def test_only_operators_that_stay_on_the_gpu_are_recorded(operator, known):
    assert can_be_replayed(operator) is known


def test_without_a_gpu_parts_are_launched():
    calls = []

    def part(x, generator):
        calls.append(generator)
        return 2 * x

    generator = torch.Generator().manual_seed(3)
    x = torch.ones(3)
    assert torch.equal(launched("part", part, x, generator=generator), 2 * x)
    assert calls == [generator]


@NEEDS_GPU
def test_a_replayed_part_sees_its_inputs_and_draws_as_a_launched_one_does():
    recorder = Recorder(torch.device("cuda", torch.cuda.current_device()))
    total = torch.zeros(100, device="cuda")
    expected = torch.zeros(100, device="cuda")

    def part(x, generator):
        total.add_(x + torch.rand(total.shape, generator=generator, device=x.device))
        return total.sum()

    for step in range(8):
        x = torch.full((100 if step % 2 else 1,), float(step), device="cuda")
        outcome = recorder("part", part, x, generator=torch.Generator("cuda").manual_seed(step))
        again = torch.Generator("cuda").manual_seed(step)
        expected += x + torch.rand(100, generator=again, device="cuda")
        assert torch.allclose(total, expected)
        assert float(outcome) == pytest.approx(float(expected.sum()), rel=1e-5)
    assert recorder.count == 2


@NEEDS_GPU
def test_a_part_that_asks_for_a_value_is_launched():
    recorder = Recorder(torch.device("cuda", torch.cuda.current_device()))
    for step in range(4):
        x = torch.full((3,), float(step), device="cuda")
        outcome = recorder("part", lambda x: x + 1 if float(x.sum()) > 3 else x - 1, x)
        assert outcome.tolist() == [step + 1 if 3 * step > 3 else step - 1] * 3
    assert recorder.count == 0


@NEEDS_GPU
@pytest.mark.parametrize("precision", ["single", "auto"])
def test_recorded_training_is_training(precision, monkeypatch):
    y = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0)).cuda()
    y[..., 40:52, 30:38] = torch.nan
    operator = Convolution(torch.ones(5, 5) / 25, (96, 96)).to(y.device)

    def outcome():
        solver = ssi((96, 96), 1, steps=60)
        solver = replace(solver, network=replace(solver.network, precision=precision))
        state = solver.init(y, operator, seed=0)
        recorder, counts = state.recorder, []
        while solver.status(state) == Status.RUNNING:
            state = solver.step(state)
            counts.append(recorder.count if recorder else 0)
        return state.score, max(counts)

    recorded, count = outcome()
    monkeypatch.setattr(Recorder, "__call__", staticmethod(launched))
    score, _ = outcome()
    assert count > 2  # what was measured, lessons of some sizes, the optimiser
    assert recorded == pytest.approx(score, rel=0.05)
