"""One entry per operator and setting; every property test of the suite runs on all of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import scipy.sparse
import torch

from selfinv.operators import (
    ChannelMixing,
    Composition,
    Convolution,
    Downsample,
    EachChannel,
    Hadamard,
    Identity,
    LinearOperator,
    Mask,
    MaskedFourier,
    MixedConvolution,
    Radon,
    RandomProjections,
    RingFilter,
    Shift,
    Stack,
    Surround,
    from_scipy,
)

SHAPES = {1: (13,), 2: (12, 9), 3: (6, 7, 8)}
KERNELS = {
    "odd": {1: (5,), 2: (3, 5), 3: (3, 1, 5)},
    "even": {1: (4,), 2: (4, 2), 3: (2, 4, 2)},
    "larger": {1: (31,), 2: (27, 20), 3: (14, 15, 4)},
}


def asymmetric_kernel(shape: tuple[int, ...], seed: int = 3) -> torch.Tensor:
    kernel = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return kernel / kernel.sum()


def dense(operator: LinearOperator) -> torch.Tensor:
    """The operator's matrix, column by column."""
    n = math.prod(operator.in_shape)
    basis = torch.eye(n, dtype=torch.float64).reshape(n, *operator.in_shape)
    return torch.stack([operator(b).reshape(-1) for b in basis], dim=1)


def random_mask(shape: tuple[int, ...], seed: int = 5) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.4


MIXING = ((1.0, 0.2, -0.1), (0.3, 0.8, 0.5))


def mixed(boundary: str, margin: int | None = None) -> MixedConvolution:
    kernels = torch.stack([asymmetric_kernel((3, 4), seed) for seed in range(4)])
    positions = [(1, 2), (1, 7.5), (6, 2), (6, 7.5)]
    return MixedConvolution(kernels, (9, 8), positions=positions, boundary=boundary, margin=margin)


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
OPERATORS |= {
    "mask-1d": lambda: Mask(random_mask((13,))),
    "mask-3d": lambda: Mask(random_mask((4, 5, 6))),
    "mask-composition": lambda: Mask(random_mask((9, 8))) @ Convolution(asymmetric_kernel((3, 4)), (9, 8)),
    "downsample-1d": lambda: Downsample((13,), 2.6),
    "downsample-2d-whole": lambda: Downsample((12, 9), (3, 2)),
    "downsample-2d": lambda: Downsample((12, 9), (1.25, 2.4)),
    "downsample-3d-anisotropic": lambda: Downsample((6, 7, 8), (3, 1, 1.5)),
    "super-resolution": lambda: Downsample((12, 15), 2.5) @ Convolution(asymmetric_kernel((5, 4)), (12, 15)),
    "shift-1d": lambda: Shift((13,), 0.3),
    "shift-2d-zero": lambda: Shift((12, 9), (-1.7, 2), "zero"),
    "shift-3d": lambda: Shift((6, 7, 8), (0, 15.2, -9.5)),
    "stack": lambda: Stack([Identity((9, 8)), Shift((9, 8), 0.5), Mask(random_mask((9, 8)))]),
    "stack-flat": lambda: Stack([Identity((9, 8)), Downsample((9, 8), 1.5), Downsample((9, 8), (1, 3))]),
    "dithered-frames": lambda: Stack([Downsample((9, 8), 2) @ Shift((9, 8), d) for d in (0, 0.5, 1)]),
    "radon": lambda: Radon((9, 9), torch.linspace(0, 180, 6)),
    "radon-circle": lambda: Radon((8, 8), [0, 30, 90, 200, -45], circle=True),
    "radon-oblong": lambda: Radon((7, 12), [10.5, 80]),
    "radon-without-rings": lambda: (
        RingFilter((5, 8), 20.0) @ Radon((8, 8), [0, 30, 90, 200, -45], circle=True)
    ),
    "radon-blurred": lambda: Radon((8, 9), [0, 30, 90]) @ Convolution(asymmetric_kernel((3, 4)), (8, 9)),
    "masked-fourier-1d": lambda: MaskedFourier((13,), random_mask((13,))),
    "masked-fourier-2d-lines": lambda: MaskedFourier((8, 9), random_mask((8, 1)).expand(8, 9), lines=-1),
    "masked-fourier-3d": lambda: MaskedFourier((4, 5, 6), random_mask((4, 5, 6)), centred=False),
    "masked-fourier-twice": lambda: Stack(
        [MaskedFourier((8, 9), random_mask((8, 9), seed)) for seed in (1, 2)]
    ),
    "random-projections": lambda: RandomProjections((6, 7), 30, seed=1),
    "hadamard-1d": lambda: Hadamard((16,), 16),
    "hadamard-2d-padded": lambda: Hadamard((5, 7), 40, seed=1),
    "hadamard-blurred": lambda: Hadamard((8, 8), 20) @ Convolution(asymmetric_kernel((3, 3)), (8, 8)),
    "mixed-convolution-unknown": lambda: mixed("unknown"),
    "mixed-convolution-margin": lambda: mixed("unknown", 1),
    "mixed-convolution-zero": lambda: mixed("zero"),
    "mixed-convolution-reflect": lambda: mixed("reflect"),
    "mixed-convolution-periodic": lambda: mixed("periodic"),
    "mixed-convolution-3d": lambda: MixedConvolution(
        asymmetric_kernel((2, 3, 2, 3)), (5, 6, 7), weights=torch.full((2, 5, 6, 7), 0.5)
    ),
    "channel-mixing": lambda: ChannelMixing(MIXING, (5, 6)),
    "each-channel": lambda: EachChannel(Convolution(asymmetric_kernel((3, 4)), (9, 8)), 3),
    "each-channel-masked": lambda: EachChannel([Mask(random_mask((6, 5), seed)) for seed in range(3)]),
    "mixed-blurred-channels": lambda: (
        2.0
        * ChannelMixing(MIXING, (9, 8))
        @ EachChannel([Convolution(asymmetric_kernel((3, 4), s), (9, 8), "reflect") for s in range(3)])
    ),
    "scipy-sparse": lambda: from_scipy(
        scipy.sparse.random_array((12, 20), density=0.3, rng=np.random.default_rng(0)), (4, 5), (3, 4)
    ),
    "scipy-complex": lambda: from_scipy(np.exp(1j * np.arange(24.0).reshape(4, 6) ** 2), (2, 3)),
    "scipy-dense": lambda: from_scipy(np.random.default_rng(0).normal(size=(6, 8))),
}
