"""Richardson–Lucy against scikit-image's: time and closeness to the truth, in one run, as a Markdown table.

    OMP_NUM_THREADS=2 python benchmarks/richardson_lucy.py

Both restore the same simulated images, taken in turns so that a busy machine slows both; times are medians
and include everything from the image and the PSF to the estimate. Two threads that wait for each other suffer
far more from a busy machine than one: there, compare one thread's processor time instead.

    OMP_NUM_THREADS=1 python benchmarks/richardson_lucy.py --clock processor
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt
import scipy
import skimage
import torch
from skimage.data import binary_blobs, camera
from skimage.restoration import richardson_lucy
from skimage.transform import resize

import selfinv
from selfinv.metrics import psnr
from selfinv.operators import Boundary, Convolution
from selfinv.psf import gaussian
from selfinv.solvers import run
from selfinv.solvers.richardson_lucy import RichardsonLucy

Array = npt.NDArray[np.float32]
KERNEL = 17
SIGMA = 2.5
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def scene(name: str, size: int) -> Array:
    """An object in [0, 1] that goes on beyond the measured field by the reach of the PSF."""
    wide = size + KERNEL - 1
    if name == "camera":
        image = resize(camera() / 255.0, (wide, wide), anti_aliasing=True)
    else:
        image = 0.05 + 0.95 * binary_blobs(wide, blob_size_fraction=0.15, n_dim=3, volume_fraction=0.2, rng=0)
    return image.astype(np.float32)


def measure(truth: Array, psf: Array, photons: float, seed: int) -> Array:
    """The field blurred and with Poisson noise, ``photons`` where the blurred object is 1."""
    A = Convolution(torch.from_numpy(psf), [n - KERNEL + 1 for n in truth.shape], "unknown")
    clean = A(torch.from_numpy(truth)).clamp(min=0.0).numpy()
    return (np.random.default_rng(seed).poisson(clean * photons) / photons).astype(np.float32)


def restore(y: Array, psf: Array, boundary: Boundary, steps: int) -> Array:
    """Our estimate on the measured field."""
    A = Convolution(torch.from_numpy(psf), y.shape, boundary)
    solver = RichardsonLucy(max_steps=steps)
    state, _ = run(solver, torch.from_numpy(y)[None, None], A)
    return solver.estimate(state)[0, 0][A.field_of_view].numpy()


def time_in_turns(
    methods: dict[str, Callable[[], Array]], repeats: int, clock: Callable[[], float]
) -> tuple[dict[str, float], dict[str, Array]]:
    """Median seconds and result of each method; one more turn in front warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    results: dict[str, Array] = {}
    for turn in range(repeats + 1):
        for name, method in methods.items():
            start = clock()
            results[name] = method()
            if turn:
                seconds[name].append(clock() - start)
    return {name: median(values) for name, values in seconds.items()}, results


def machine() -> str:
    """Processor, cores and present load."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return f"{model}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {load}"


def commit() -> str:
    """The source's commit, with a + if it was changed since."""
    here = Path(__file__).parent
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return (
        subprocess.run(words, cwd=here, capture_output=True, text=True, check=False).stdout.strip()
        or "unknown"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--photons", type=float, default=100.0, help="at the brightest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size-2d", type=int, default=1024)
    parser.add_argument("--size-3d", type=int, default=64)
    options = parser.parse_args()
    for option, size in (("--size-2d", options.size_2d), ("--size-3d", options.size_3d)):
        if size <= 2 * KERNEL:  # the edges are left out of the comparison
            parser.error(f"{option} {size}: give more than {2 * KERNEL}, the edges are not compared")

    print(f"selfinv {selfinv.__version__} ({commit()}), torch {torch.__version__}, ", end="")
    print(
        f"scikit-image {skimage.__version__}, scipy {scipy.__version__}, Python {platform.python_version()}"
    )
    print(
        f"{machine()}; {options.iterations} iterations, float32, "
        f"median {options.clock} time of {options.repeats} turns, seed {options.seed}\n"
    )
    print("| image | boundary | ours (s) | scikit-image (s) | ratio | ours (dB) | scikit-image (dB) |")
    print("|---|---|---|---|---|---|---|")
    for name, size, ndim in (("camera", options.size_2d, 2), ("blobs", options.size_3d, 3)):
        truth = scene(name, size)
        psf = gaussian(SIGMA, (KERNEL,) * ndim).astype(np.float32)
        y = measure(truth, psf, options.photons, options.seed)
        methods = {
            "zero": partial(restore, y, psf, "zero", options.iterations),
            "unknown": partial(restore, y, psf, "unknown", options.iterations),
            "skimage": partial(richardson_lucy, y, psf, num_iter=options.iterations, clip=False),
        }
        seconds, results = time_in_turns(methods, options.repeats, CLOCKS[options.clock])
        # Towards the edges the methods differ in what they take to be outside.
        inside = (slice(KERNEL, -KERNEL),) * ndim
        field = truth[(slice(KERNEL // 2, -(KERNEL // 2)),) * ndim][inside]
        decibels = {method: psnr(field, result[inside]) for method, result in results.items()}
        shape = "×".join([str(size)] * ndim)
        for boundary in ("zero", "unknown"):
            print(
                f"| {name} {shape} | {boundary} | {seconds[boundary]:.3f} | {seconds['skimage']:.3f} "
                f"| {seconds['skimage'] / seconds[boundary]:.1f} "
                f"| {decibels[boundary]:.2f} | {decibels['skimage']:.2f} |"
            )


if __name__ == "__main__":
    main()
