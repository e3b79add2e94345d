"""The settings of a training: what a step hides."""

import torch

from selfinv.learning.masks import RandomPixels
from selfinv.learning.settings import Hiding


def test_a_longer_run_hides_fewer_values_at_a_time():
    hiding = Hiding(RandomPixels(0.25), most=100)
    for looks, density in ((300, 0.25), (1000, 0.1)):
        drawn = hiding.spread(looks).drawn((1, 1, 200, 200), step=0, seed=0)
        assert torch.isclose(drawn.double().mean(), torch.tensor(density, dtype=torch.float64), atol=0.01)
