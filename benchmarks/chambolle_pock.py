"""Time to the same objective: our preconditioned Chambolle-Pock against the textbook's fixed steps.

python benchmarks/chambolle_pock.py [--size 512] [--weight 0.02] [--above 0.01 0.001]

Both minimise 1/2 |Ax - y|^2 + weight TV(x) over x >= 0 for the same blurred, noisy photograph, from the
same constant start, in the same run, in torch, float32. The textbook
(Chambolle & Pock 2011, doi:10.1007/s10851-010-0251-1, Algorithm 1) takes
tau = sigma = 0.99 / |K| for K = (A, gradient) and no relaxation.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from collections.abc import Iterator

import torch
from skimage import data, transform

import selfinv
from selfinv import noise, psf
from selfinv.functionals import Box, SquaredL2, TotalVariation
from selfinv.operators import Convolution, Gradient, norm
from selfinv.solvers import ChambollePock, Status


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--weight", type=float, default=0.02)
    parser.add_argument(
        "--above", type=float, nargs="+", default=[1e-2, 1e-3], help="of the optimum, relative"
    )
    arguments = parser.parse_args()
    truth = transform.resize(data.camera(), (arguments.size, arguments.size), anti_aliasing=True)
    kernel = psf.gaussian(2.0, (17, 17))
    _, noisy = noise.benchmark_degradation(noise.normalise_minmax(truth), kernel)
    y = torch.from_numpy(noisy)[None, None]
    A = Convolution(torch.from_numpy(kernel).float(), y.shape[2:], "zero")
    solver = ChambollePock(arguments.weight, box=Box(0.0), max_steps=3000, rtol=0.0)
    reference = None
    for reference in ours(solver, y, A):  # noqa: B007 (the last one is the optimum)
        pass
    optimum = float(solver.objective(reference, y, A))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    print(
        f"selfinv {selfinv.__version__} at {commit}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, "
    )
    print(f"{platform.machine()}; {arguments.size}x{arguments.size}, weight {arguments.weight}\n")
    print(
        "| above the optimum | ours: iterations | seconds | textbook: iterations | seconds | ratio of times |"
    )
    print("|---|---|---|---|---|---|")
    targets = [optimum * (1 + above) for above in arguments.above]
    mine = reached(ours(solver, y, A), targets, solver, y, A)
    theirs = reached(textbook(solver, y, A), targets, solver, y, A)
    for above, (n, seconds), (m, other) in zip(arguments.above, mine, theirs, strict=True):
        print(f"| {above:g} | {n} | {seconds:.2f} | {m} | {other:.2f} | {other / seconds:.1f} |")


def ours(solver: ChambollePock, y: torch.Tensor, A: Convolution) -> Iterator[torch.Tensor]:
    state = solver.init(y, A)
    while solver.status(state) == Status.RUNNING:
        state = solver.step(state)
        yield solver.estimate(state)


def textbook(solver: ChambollePock, y: torch.Tensor, A: Convolution) -> Iterator[torch.Tensor]:
    gradient, ndim = Gradient(A.in_shape), len(A.in_shape)
    step = 0.99 / (norm(A) ** 2 + norm(gradient) ** 2) ** 0.5
    fidelity, variation = SquaredL2(), TotalVariation(solver.weight)
    x = ahead = y.mean().expand_as(y).clone()
    u, p = torch.zeros_like(y), torch.zeros_like(gradient(x))
    while True:
        u = fidelity.dual_prox(u + step * A(ahead), step, y)
        p = variation.dual_prox_(p + step * gradient(ahead), ndim)
        new = solver.box.prox(x - step * (A.adjoint(u) + gradient.adjoint(p)))
        ahead, x = 2 * new - x, new
        yield x


def reached(
    estimates: Iterator[torch.Tensor],
    targets: list[float],
    solver: ChambollePock,
    y: torch.Tensor,
    A: Convolution,
) -> list[tuple[int, float]]:
    """Iterations and seconds to each target, without the time that measuring takes."""
    found: list[tuple[int, float]] = []
    seconds, start = 0.0, time.perf_counter()
    for n, x in enumerate(estimates, start=1):
        seconds += time.perf_counter() - start
        while len(found) < len(targets) and float(solver.objective(x, y, A)) <= targets[len(found)]:
            found.append((n, seconds))
        if len(found) == len(targets):
            break
        start = time.perf_counter()
    return found


if __name__ == "__main__":
    with torch.no_grad():
        main()
