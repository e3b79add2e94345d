"""Recorded passes give what the network gives."""

import pytest
import torch

from selfinv.learning.graphs import GraphedPasses
from selfinv.learning.unet import UNet, UNetSettings


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
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
