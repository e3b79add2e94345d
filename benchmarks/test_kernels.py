"""The kernels' speed, each beside the obvious alternative, whose result is compared first.

    pip install ".[speed]"
    OMP_NUM_THREADS=1 python -m pytest benchmarks/test_kernels.py -p no:xdist \
        --benchmark-columns=median,iqr,rounds

In every group the numbers in brackets are ratios to the fastest. Absolute times say little: they depend on
the machine and on what else it does. Threads that wait for each other on a busy machine say even less: take
one. Not part of the test suite.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal
from skimage import metrics as skimage_metrics
from skimage.restoration import denoise_tv_chambolle, richardson_lucy

from selfinv import metrics
from selfinv.functionals import Box
from selfinv.learning.inverter import build_inverter
from selfinv.learning.presets import ssi
from selfinv.operators import Convolution, Identity
from selfinv.psf import gaussian
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.richardson_lucy import RichardsonLucy

pytest.importorskip("pytest_benchmark", reason='pip install ".[speed]"')

RNG = np.random.default_rng(0)
SIZE, KERNEL, STEPS = 512, 17, 10
IMAGE = RNG.random((SIZE, SIZE)).astype(np.float32)
PSF = gaussian(2.5, (KERNEL, KERNEL)).astype(np.float32)
VOLUME = RNG.random((64, 64, 64)).astype(np.float32)
PSF_3D = gaussian(2.0, (13, 13, 13)).astype(np.float32)


def convolutions(image, kernel):
    """Every way to convolve with zeros outside, same size, float32."""
    A = Convolution(torch.from_numpy(kernel), image.shape, "zero")
    x = torch.from_numpy(image)[None, None]
    layer = torch.nn.functional.conv2d if image.ndim == 2 else torch.nn.functional.conv3d
    weights = torch.from_numpy(kernel).flip(list(range(kernel.ndim)))[None, None]
    return {
        "selfinv": lambda: A(x)[0, 0].numpy(),
        "scipy.signal.fftconvolve": lambda: signal.fftconvolve(image, kernel, mode="same"),
        "scipy.signal.oaconvolve": lambda: signal.oaconvolve(image, kernel, mode="same"),
        "torch conv": lambda: layer(x, weights, padding=kernel.shape[0] // 2)[0, 0].numpy(),
    }


CONVOLUTION_NAMES = ["selfinv", "scipy.signal.fftconvolve", "scipy.signal.oaconvolve", "torch conv"]


@pytest.mark.benchmark(group=f"convolution, {SIZE}², kernel {KERNEL}²")
@pytest.mark.parametrize("name", CONVOLUTION_NAMES)
def test_convolution_2d(benchmark, name):
    ways = convolutions(IMAGE, PSF)
    assert np.allclose(ways[name](), ways["scipy.signal.fftconvolve"](), atol=1e-4)
    benchmark(ways[name])


@pytest.mark.benchmark(group="convolution, 64³, kernel 13³")
@pytest.mark.parametrize("name", CONVOLUTION_NAMES)
def test_convolution_3d(benchmark, name):
    ways = convolutions(VOLUME, PSF_3D)
    assert np.allclose(ways[name](), ways["scipy.signal.fftconvolve"](), atol=1e-4)
    benchmark(ways[name])


@pytest.mark.benchmark(group="training step of ssi, 256²")
@pytest.mark.parametrize("name", ["selfinv", "plain torch"])
def test_unet_step(benchmark, name):
    """What masking, filling, the operator and averaging cost beyond the network's own step."""
    image = torch.from_numpy(IMAGE[:256, :256])[None, None]
    A = Convolution(torch.from_numpy(PSF), (256, 256), "zero")
    recipe = ssi(A.in_shape, 1, steps=10_000)
    if name == "selfinv":
        state = recipe.init(image, A)
        benchmark.pedantic(lambda: recipe.step(state), rounds=10, warmup_rounds=2)
        return
    network = build_inverter(recipe.network, recipe.head).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    shown = torch.cat([image, torch.ones_like(image)], dim=1)

    def step():
        loss = (network(shown) - image).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    benchmark.pedantic(step, rounds=10, warmup_rounds=2)


@pytest.mark.benchmark(group=f"{STEPS} Richardson-Lucy iterations, {SIZE}²")
@pytest.mark.parametrize("name", ["selfinv", "skimage.restoration"])
def test_richardson_lucy(benchmark, name):
    blurred = signal.fftconvolve(IMAGE, PSF, mode="same").clip(0).astype(np.float32)

    def ours():
        A = Convolution(torch.from_numpy(PSF), blurred.shape, "zero")
        return solve(RichardsonLucy(max_steps=STEPS), torch.from_numpy(blurred), A)

    def theirs():
        return richardson_lucy(blurred, PSF, num_iter=STEPS, clip=False)

    # Away from the edges, where scikit-image divides by nothing that tells how much was seen.
    inside = (slice(3 * KERNEL, -3 * KERNEL),) * 2
    assert np.abs(ours() - theirs())[inside].max() < 0.02
    benchmark(ours if name == "selfinv" else theirs)


@pytest.mark.benchmark(group=f"{4 * STEPS} iterations of total-variation denoising, {SIZE}²")
@pytest.mark.parametrize("name", ["selfinv", "skimage.restoration"])
def test_chambolle_pock(benchmark, name):
    """Both minimise half the squared error plus 0.1 times the total variation, by different iterations.

    Ours takes any operator, and Fourier transforms in each iteration, to need fewer of them behind a blur.
    """
    y = torch.from_numpy(IMAGE)

    def ours():
        solver = ChambollePock(0.1, box=Box(), max_steps=4 * STEPS, rtol=0.0)
        return solve(solver, y, Identity(IMAGE.shape))

    def theirs():
        return denoise_tv_chambolle(IMAGE, weight=0.1, eps=0.0, max_num_iter=4 * STEPS)

    assert np.corrcoef(ours().ravel(), theirs().ravel())[0, 1] > 0.98
    benchmark(ours if name == "selfinv" else theirs)


@pytest.mark.benchmark(group=f"PSNR, {SIZE}²")
@pytest.mark.parametrize("name", ["selfinv", "skimage.metrics"])
def test_psnr(benchmark, name):
    other = IMAGE + np.float32(0.1)
    ways = {
        "selfinv": lambda: metrics.psnr(IMAGE, other),
        "skimage.metrics": lambda: skimage_metrics.peak_signal_noise_ratio(IMAGE, other, data_range=1.0),
    }
    assert ways["selfinv"]() == pytest.approx(ways["skimage.metrics"](), rel=1e-4)
    benchmark(ways[name])


@pytest.mark.benchmark(group=f"SSIM, {SIZE}²")
@pytest.mark.parametrize("name", ["selfinv", "skimage.metrics"])
def test_ssim(benchmark, name):
    other = np.clip(IMAGE + 0.1 * RNG.standard_normal(IMAGE.shape), 0, 1).astype(np.float32)
    ways = {
        "selfinv": lambda: metrics.ssim(IMAGE, other, 1.0),
        "skimage.metrics": lambda: skimage_metrics.structural_similarity(IMAGE, other, data_range=1.0),
    }
    assert ways["selfinv"]() == pytest.approx(ways["skimage.metrics"](), abs=1e-4)
    benchmark(ways[name])


@pytest.mark.benchmark(group=f"mutual information, {SIZE}², 256 bins")
@pytest.mark.parametrize("name", ["selfinv", "skimage.metrics"])
def test_mutual_information(benchmark, name):
    """Ours is I/H(a,b), theirs (H(a)+H(b))/H(a,b): one more than ours."""
    other = IMAGE**2
    ways = {
        "selfinv": lambda: metrics.mutual_information(IMAGE, other),
        "skimage.metrics": lambda: skimage_metrics.normalized_mutual_information(IMAGE, other, bins=256),
    }
    assert 1 + ways["selfinv"]() == pytest.approx(ways["skimage.metrics"](), abs=0.01)
    benchmark(ways[name])


def solve(solver, y, A):
    """The estimate after all steps, as an array."""
    state = solver.init(y[None, None], A)
    for _ in range(solver.planned_steps()):
        state = solver.step(state)
    return solver.estimate(state)[0, 0].numpy()
