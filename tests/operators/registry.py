"""One entry per operator and setting; every property test of the suite runs on all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from selfinv.operators import Composition, Convolution, Identity, LinearOperator, Surround

SHAPES = {1: (13,), 2: (12, 9), 3: (6, 7, 8)}
KERNELS = {
    "odd": {1: (5,), 2: (3, 5), 3: (3, 1, 5)},
    "even": {1: (4,), 2: (4, 2), 3: (2, 4, 2)},
    "larger": {1: (31,), 2: (27, 20), 3: (14, 15, 4)},
}


def asymmetric_kernel(shape: tuple[int, ...], seed: int = 3) -> torch.Tensor:
    kernel = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return kernel / kernel.sum()


def _convolution(ndim: int, size: str, boundary: str, method: str) -> Callable[[], LinearOperator]:
    return lambda: Convolution(asymmetric_kernel(KERNELS[size][ndim]), SHAPES[ndim], boundary, method)


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    f"convolution-{ndim}d-{size}-{boundary}-{method}": _convolution(ndim, size, boundary, method)
    for ndim, size, boundary, method in itertools.product(
        (1, 2, 3), KERNELS, ("zero", "reflect", "periodic", "unknown"), ("fft", "direct")
    )
}
OPERATORS |= {
    "convolution-2d-margin-fft": lambda: Convolution(asymmetric_kernel((9, 6)), (12, 9), "unknown", "fft", 2),
    "convolution-2d-margin-direct": lambda: Convolution(
        asymmetric_kernel((9, 6)), (12, 9), "unknown", "direct", (1, 4)
    ),
    "identity": lambda: Identity((5, 6)),
    "surround": lambda: Composition(
        Convolution(asymmetric_kernel((4, 3)), (6, 8), "unknown"), Surround((8, 9), [(1, 0), (0, 1)])
    ),
    "scaled": lambda: -2.5 * Convolution(asymmetric_kernel((3, 4)), (9, 8), "reflect"),
    "adjoint": lambda: Convolution(asymmetric_kernel((3, 4)), (9, 8), "unknown").H,
    "composition": lambda: Composition(
        Convolution(asymmetric_kernel((4, 3)), (9, 8), "unknown"),
        Convolution(asymmetric_kernel((2, 5)), (12, 10), "zero"),
    ),
    "kernel-per-channel": lambda: Convolution(asymmetric_kernel((3, 4, 3)), (9, 8), "zero"),
}
