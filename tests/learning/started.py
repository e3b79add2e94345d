"""Networks that have just begun to learn a small image, through operators of three kinds."""

import torch

from selfinv.learning.presets import ssi
from selfinv.operators import Convolution, Downsample, Identity
from selfinv.psf import gaussian

SHAPE = (32, 32)
PIXELS = Identity(SHAPE)
BLUR = Convolution(torch.as_tensor(gaussian((1.0, 1.5), (7, 7))).float(), SHAPE, "unknown")
COARSER = Downsample(SHAPE, 2)


def started(operator, seed=0):
    """The model after two steps, and what it learns from."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 1, *operator.in_shape, generator=generator, dtype=torch.float64).round()
    y = operator(x)
    y = y + 0.01 * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    solver = ssi(operator.in_shape, 1, steps=2, pixels=operator is not COARSER)
    state = solver.init(y, operator)
    for _ in range(2):
        state = solver.step(state)
    return solver.best_model(state), state.data
