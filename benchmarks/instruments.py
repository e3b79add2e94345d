"""Denoising, tomography, colour and finer pixels beside what others do: rows of a Markdown table.

python benchmarks/instruments.py denoising --seeds 3      (camera, sigma 25 / 255; BM3D if `pip install bm3d`)
python benchmarks/instruments.py tomography --seeds 3     (Shepp-Logan phantom, 64 noisy projections)
python benchmarks/instruments.py colour --seeds 3         (astronaut, the paper's blur and noise)
python benchmarks/instruments.py superres --seeds 3       (means of 2 x 2 pixels, sigma 5 / 255, no blur)

PSNR in dB (range 1), the mean over seeds, and seconds. Every method but BM3D, which is told the noise's
deviation, knows the noisy data alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage import data
from skimage.restoration import calibrate_denoiser, denoise_nl_means, denoise_tv_chambolle
from skimage.transform import iradon_sart, resize

import selfinv
from selfinv import metrics, noise
from selfinv.benchmark.machine import commit, describe
from selfinv.benchmark.psfs import benchmark_psf
from selfinv.operators import Downsample, Radon

Array = np.ndarray[Any, Any]
Case = tuple[str, Array, Callable[[], Array]]  # method, truth, how to restore
SIGMA = 25 / 255


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=CASES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", default="tv-chambolle-pock,ssi", help="of ours, comma-separated")
    arguments = parser.parse_args()
    print(", ".join(f"{key} {value}" for key, value in describe("cpu").items()), "commit", commit())
    print("\n| method | PSNR | seconds |\n|---|---|---|")
    rows: dict[str, list[tuple[float, float]]] = {}
    for seed in range(arguments.seeds):
        for name, truth, restore in CASES[arguments.what](seed, arguments.methods.split(",")):
            start = time.perf_counter()
            image = restore()
            rows.setdefault(name, []).append((metrics.psnr(truth, image), time.perf_counter() - start))
    for name, scores in rows.items():
        psnr, seconds = np.mean(scores, axis=0)
        print(f"| {name} | {psnr:.2f} | {seconds:.1f} |", flush=True)


def denoising(seed: int, methods: list[str]) -> Iterator[Case]:
    """White noise on a photograph, not cut off."""
    truth = data.camera() / 255.0
    noisy = truth + np.random.default_rng(seed).normal(0, SIGMA, truth.shape)
    yield "noisy", truth, lambda: noisy
    for name, denoise, grid in (
        ("scikit-image TV", denoise_tv_chambolle, {"weight": np.geomspace(0.02, 0.4, 14)}),
        (
            "scikit-image non-local means",
            partial(denoise_nl_means, fast_mode=True, patch_size=5, patch_distance=6),
            {"h": np.geomspace(0.03, 0.3, 14)},
        ),
    ):
        yield f"{name}, calibrated", truth, partial(_calibrated, noisy, denoise, grid)
    try:
        import bm3d

        yield "BM3D, told the deviation", truth, lambda: bm3d.bm3d(noisy, SIGMA)
    except ImportError:
        pass
    for method in methods:
        yield method, truth, lambda m=method: selfinv.restore(noisy, method=m, seed=seed).image  # type: ignore[misc]


def _calibrated(noisy: Array, denoise: Callable[..., Array], grid: dict[str, Any]) -> Array:
    return np.asarray(calibrate_denoiser(noisy, denoise, grid)(noisy))


def tomography(seed: int, methods: list[str]) -> Iterator[Case]:
    """64 projections with noise of 5 % of their deviation."""
    n, angles = 256, np.arange(64) * 180.0 / 64
    truth = resize(data.shepp_logan_phantom(), (n, n), anti_aliasing=True)
    A = Radon((n, n), angles, circle=True)
    clean = A(torch.from_numpy(truth.astype(np.float32))).numpy()
    noisy = clean + np.random.default_rng(seed).normal(0, 0.05 * clean.std(), clean.shape).astype(np.float32)
    yield (
        "filtered back-projection",
        truth,
        lambda: A.filtered_backprojection(torch.from_numpy(noisy)).numpy(),
    )
    yield "scikit-image SART, one step", truth, lambda: iradon_sart(noisy.T.astype(np.float64), angles)
    for method in methods:
        yield (
            method,
            truth,
            lambda m=method: selfinv.restore(noisy, operator=A, method=m, seed=seed).image,  # type: ignore[misc]
        )


def colour(seed: int, methods: list[str]) -> Iterator[Case]:
    """All channels at once, and each by itself."""
    truth = data.astronaut()[:384, 64:448] / 255.0
    psf = benchmark_psf(None)
    degraded = [noise.benchmark_degradation(truth[..., c], psf, seed=3 * seed + c) for c in range(3)]
    blurred, noisy = (np.stack(images, axis=-1) for images in zip(*degraded, strict=True))
    yield "blurred, without noise", truth, lambda: blurred
    for method in methods:
        yield (
            f"{method}, all channels",
            truth,
            lambda m=method: selfinv.restore(noisy, psf, method=m, axes="yxc", seed=seed).image,  # type: ignore[misc]
        )
        yield (
            f"{method}, each by itself",
            truth,
            lambda m=method: np.stack(  # type: ignore[misc]
                [selfinv.restore(y, psf, method=m, seed=seed).image for _, y in degraded], -1
            ),
        )


def superres(seed: int, methods: list[str]) -> Iterator[Case]:
    """Finer pixels from coarse ones under little noise."""
    A = Downsample((256, 256), 2)
    camera = resize(data.camera() / 255.0, (256, 256), anti_aliasing=True)
    whole = {"camera": camera, "coins": data.coins() / 255.0, "brick": data.brick() / 255.0}
    for name, image in (whole | {"moon": data.moon() / 255.0}).items():
        y, x = ((n - 256) // 2 for n in image.shape)
        truth = image[y : y + 256, x : x + 256]
        coarse = truth.reshape(128, 2, 128, 2).mean((1, 3))
        coarse = coarse + np.random.default_rng(seed).normal(0, 5 / 255, coarse.shape)
        # Mirrored half a sample beyond the edge, as the pixels of an image are.
        yield (
            f"{name}, cubic interpolation",
            truth,
            lambda c=coarse: ndimage.zoom(c, 2, order=3, mode="reflect", grid_mode=True),  # type: ignore[misc]
        )
        for method in methods:
            yield (
                f"{name}, {method}",
                truth,
                lambda c=coarse, m=method: selfinv.restore(c, operator=A, method=m, seed=seed).image,  # type: ignore[misc]
            )


CASES: dict[str, Callable[[int, list[str]], Iterator[Case]]] = {
    "denoising": denoising,
    "tomography": tomography,
    "colour": colour,
    "superres": superres,
}


if __name__ == "__main__":
    main()
