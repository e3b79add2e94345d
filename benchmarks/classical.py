"""Classical methods on the paper's benchmark: its settings, self-tuned, and tuned with the truth.

python benchmarks/classical.py --images DIR [--crop 512] [--output classical.csv] [--names usaf,newyork]
python benchmarks/classical.py --summary classical.csv more.csv --crop 512

Every image is degraded as in the paper (selfinv.noise.benchmark_degradation). "oracle" rows were tuned with
the truth and are there to compare with. Scores: PSNR, SSIM (range 2), mutual information; seconds here.
"""

from __future__ import annotations

import argparse
import csv
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import selfinv
from selfinv import metrics, noise, psf
from selfinv.benchmark.psfs import benchmark_psf
from selfinv.functionals import Box, Huber, SquaredL2
from selfinv.methods import Request, solver_for
from selfinv.operators import Convolution
from selfinv.solvers import run
from selfinv.solvers.base import Status
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.types import InputError

COLUMNS = ("image", "method", "setting", "psnr", "ssim2", "mi", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path)
    parser.add_argument("--summary", type=Path, nargs="+", help="only print the means of these tables")
    parser.add_argument("--psf", type=Path, help="default: psf.npy beside the images, else our model of it")
    parser.add_argument(
        "--only", choices=("paper", "tuned"), help="only the paper's settings, or all but these"
    )
    parser.add_argument("--names", default="", help="only images whose names start with one of these")
    parser.add_argument("--crop", type=int, default=0, help="central part of this size; 0: whole images")
    parser.add_argument("--output", type=Path, default=Path("classical.csv"))
    arguments = parser.parse_args()
    if arguments.summary:
        rows = [row for path in arguments.summary for row in csv.DictReader(path.open(newline=""))]
        return _summary(rows, arguments)
    paths = sorted(arguments.images.glob("*.png")) if arguments.images else []
    paths = [p for p in paths if p.name.startswith(tuple(arguments.names.split(",")))]
    if not paths:
        parser.error(f"--images {arguments.images}: no such PNG image there; give a folder with some")
    beside = arguments.images / "psf.npy"
    try:
        kernel = benchmark_psf(arguments.psf or (beside if beside.is_file() else None))
    except InputError as error:
        parser.error(str(error))
    rows = []
    list(_rows(np.random.default_rng(0).random((64, 64)), kernel, "paper"))  # imports and plans are not timed
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for path in paths:
            truth = noise.normalise_minmax(_crop(selfinv.io.read(path).data, arguments.crop))
            for row in _rows(truth, kernel, arguments.only):
                rows.append({"image": path.stem, **row})
                writer.writerow(rows[-1])
                file.flush()
    _summary(rows, arguments)


def _crop(image: np.ndarray, size: int) -> np.ndarray:
    if not size:
        return image
    return image[tuple(slice(max(0, (n - size) // 2), max(0, (n - size) // 2) + size) for n in image.shape)]


def _rows(truth: np.ndarray, kernel: np.ndarray, only: str | None) -> Iterator[dict[str, object]]:
    blurry, noisy = noise.benchmark_degradation(truth, kernel)
    y = torch.from_numpy(noisy)[None, None].float()
    A = Convolution(torch.from_numpy(psf.normalise(kernel)).float(), truth.shape, "zero")
    request = Request(y, A, truth.shape)

    def scored(name: str, image: np.ndarray, setting: object = "", seconds: float = 0.0) -> dict[str, object]:
        s = metrics.scores(truth, image, data_range=1.0, clip=(0.0, 1.0))
        return {
            "method": name,
            "setting": setting,
            "psnr": f"{s['psnr']:.3f}",
            "ssim2": f"{metrics.ssim(truth, image.clip(0, 1), 2.0):.4f}",
            "mi": f"{s['mi']:.4f}",
            "seconds": f"{seconds:.1f}",
        }

    yield scored("blurry", blurry)
    yield scored("noisy", noisy)
    paper = {f"richardson-lucy, {n}": RichardsonLucy(max_steps=n) for n in (5, 10, 20)}
    paper |= {m: solver_for(m, request) for m in ("tv-conjugate-gradient-paper", "tv-chambolle-pock-paper")}
    for name, solver in ({} if only == "tuned" else paper).items():
        image, _, seconds = _timed(solver, y, A)
        yield scored(name, image, "paper", seconds)
    if only == "paper":
        return
    noise_deviation = noise.noise_level(noisy)
    for name in ("tv-chambolle-pock", "richardson-lucy", "wiener"):
        image, state, seconds = _timed(solver_for(name, request), y, A)
        yield scored(f"{name}, self-tuned", image, f"{state.chosen.name} {state.chosen.setting:.4g}", seconds)
    for name, fidelity in (("L2", SquaredL2()), ("Huber", Huber(noise_deviation))):
        best = max(
            _weights(y, A, fidelity, noise_deviation),
            key=lambda pair: metrics.psnr(truth, pair[1].clip(0, 1)),
        )
        yield scored(f"tv-chambolle-pock {name}, oracle", best[1], f"{best[0]:.4g}")
    best = max(_iterations(y, A), key=lambda pair: metrics.psnr(truth, pair[1].clip(0, 1)))
    yield scored("richardson-lucy, oracle", best[1], best[0])


def _timed(solver, y, A) -> tuple[np.ndarray, object, float]:
    start = time.monotonic()
    state, _ = run(solver, y, A)
    image = solver.estimate(state)[0, 0].numpy()
    return image, state, time.monotonic() - start


def _weights(y, A, fidelity, noise_deviation) -> Iterator[tuple[float, np.ndarray]]:
    """Solutions from strong to weak regularisation, each well converged."""
    state, weight = None, 0.5 * noise_deviation
    while weight > 2e-3 * noise_deviation:
        solver = ChambollePock(weight, fidelity, Box(0.0), max_steps=100)
        state = solver.init(y, A, start=state)
        while solver.status(state) == Status.RUNNING:
            state = solver.step(state)
        yield weight, solver.estimate(state)[0, 0].numpy()
        weight *= 2**-0.5


def _iterations(y, A) -> Iterator[tuple[int, np.ndarray]]:
    solver = RichardsonLucy(max_steps=40)
    state = solver.init(y, A)
    while solver.status(state) == Status.RUNNING:
        state = solver.step(state)
        yield state.step, solver.estimate(state)[0, 0].numpy()


def _summary(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    """Means over the images as Markdown, and how far self-tuning falls behind tuning with the truth."""
    commit = _output("git", "rev-parse", "--short", "HEAD") or "unknown"
    print(
        f"selfinv {selfinv.__version__} at {commit}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads,"
    )
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}; noise seed 0, ")
    images = list(dict.fromkeys(row["image"] for row in rows))
    print(f"{len(images)} images, {f'central {arguments.crop}²' if arguments.crop else 'whole'}.\n")
    print("| method | PSNR | SSIM (range 2) | MI | seconds |\n|---|---|---|---|---|")
    for name in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == name]
        means = [np.mean([float(row[c]) for row in mine]) for c in COLUMNS[3:]]
        print(f"| {name} | {means[0]:.2f} | {means[1]:.3f} | {means[2]:.3f} | {means[3]:.1f} |")

    def psnr(image: object, pick: Callable[[str], bool]) -> float:
        return max(float(r["psnr"]) for r in rows if r["image"] == image and pick(str(r["method"])))

    if arguments.only == "paper":
        return
    print()
    for method in ("tv-chambolle-pock", "richardson-lucy"):
        losses = {
            i: psnr(i, lambda m, k=method: m.startswith(k) and m.endswith("oracle"))
            - psnr(i, lambda m, k=method: m == f"{k}, self-tuned")
            for i in images
        }
        worst = max(losses, key=losses.get)
        print(
            f"{method}: self-tuned behind the best with the truth by "
            f"{np.mean(list(losses.values())):.3f} dB, "
        )
        print(f"at worst {losses[worst]:.3f} dB ({worst}).")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


if __name__ == "__main__":
    main()
