"""Linear algebra of each channel, against NumPy's of one."""

import numpy as np
import torch

from selfinv.operators import Convolution
from selfinv.psf import gaussian
from selfinv.solvers.channelwise import constant_object, linear_conjugate_gradients


def test_each_channel_is_solved_as_if_alone():
    generator = np.random.default_rng(0)
    roots = generator.normal(size=(2, 3, 12, 12))
    matrices = torch.from_numpy(roots @ roots.swapaxes(-1, -2) + np.eye(12))
    slope = torch.from_numpy(generator.normal(size=(2, 3, 12)))
    x = linear_conjugate_gradients(lambda d: (matrices @ d[..., None])[..., 0], slope, 40, 1e-28)
    np.testing.assert_allclose(
        x, np.linalg.solve(matrices.numpy(), slope.numpy()[..., None])[..., 0], rtol=1e-8
    )


def test_the_constant_that_explains_most_is_that_of_least_squares():
    A = Convolution(torch.as_tensor(gaussian((1.0, 1.5), (5, 5))), (9, 8), "zero")
    generator = torch.Generator().manual_seed(0)
    y = 3.0 + torch.rand(2, 1, 9, 8, generator=generator, dtype=torch.float64)
    measured = (torch.rand(y.shape, generator=generator) < 0.7).to(y)
    x, predicted, gain = constant_object(A, y * measured, measured)
    of_one = (A(torch.ones(2, 1, *A.in_shape, dtype=y.dtype)) * measured).flatten(2).numpy()
    values = (y * measured).flatten(2).numpy()
    level = np.array([np.linalg.lstsq(a.T, v[0], rcond=None)[0] for a, v in zip(of_one, values, strict=True)])
    np.testing.assert_allclose(x[:, 0, 0, 0], level[:, 0], rtol=1e-12)
    np.testing.assert_allclose(predicted.flatten(2), level[:, None] * of_one, rtol=1e-12)
    power = (of_one**2).sum(-1) / measured.flatten(2).sum(-1).numpy()
    np.testing.assert_allclose(gain, np.sqrt(power), rtol=1e-12)
