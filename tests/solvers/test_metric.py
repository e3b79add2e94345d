import pytest
import torch

from selfinv.operators import Convolution, Downsample, Gradient, Identity, MaskedFourier, Radon
from selfinv.solvers.metric import Metric

N = 20
KERNEL = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGMAS = (0.7, 0.2, 0.05)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "operator",
    [
        Convolution(KERNEL, (N, N), "zero"),
        Convolution(KERNEL, (N, N), "unknown"),
        Identity((N, N)),
        Radon((N, N), range(0, 180, 10)),
        MaskedFourier((N, N), normal(N, N, seed=1) > 0.0),
        Downsample((N, N), 2),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_no_step_is_longer_than_the_method_converges_with(operator):
    """T <= M^-1, that is <d, Md> <= <d, s> for d = Ts, whatever s: then |Sigma^1/2 K T^1/2| <= 1."""
    gradient = Gradient(operator.in_shape)
    y = normal(1, 1, *operator.out_shape, seed=2)
    metric = Metric(operator, gradient, y).stepping(SIGMAS, torch.ones_like(y))
    for seed in range(3):
        u = normal(*y.shape, seed=3 + seed)
        p = gradient(normal(1, 1, *operator.in_shape, seed=10 + seed))
        q = normal(1, 1, *metric.domain, seed=20 + seed)
        d, seen = metric.solve(u, p, q)
        on_domain = Gradient(metric.domain)
        torch.testing.assert_close(seen, metric.predict(d), rtol=1e-5, atol=1e-6)
        s = q.clone()
        metric.inside(s).add_(operator.adjoint(u) + gradient.adjoint(p))
        terms = (seen, on_domain(d), d)
        curved = sum(sigma * float(t.square().sum()) for sigma, t in zip(SIGMAS, terms, strict=True))
        assert 0.0 < curved <= float((d * s).sum()) * (1 + 1e-6)
