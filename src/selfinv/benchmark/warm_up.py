"""A small run before the first that is timed, so that no method is charged what a process does once."""

from __future__ import annotations

import contextlib
import warnings
from functools import cache

import numpy as np

from selfinv.benchmark import methods
from selfinv.benchmark.problem import Problem
from selfinv.demo import microscope_psf
from selfinv.noise import benchmark_degradation

SIZE, DEPTH = 64, 8  # pixels
STEPS = 2


def warm_up(method: methods.Method, ndim: int, device: str) -> None:
    """Run a method, or a quick one of its kind, on a small image; nothing the second time.

    Imports, plans of Fourier transforms and a GPU's start cost seconds and tens of MiB, once in a process. A
    user's function is not called behind their back.
    """
    if method.name.startswith(("ssi", "auto")):
        name = "ssi-network"
    elif method.group == "other" and method.name in methods.known():  # it may bring modules of its own
        name = method.name
    else:
        name = "richardson-lucy-5"
    _run(name, ndim, device)


@cache
def _run(name: str, ndim: int, device: str) -> None:
    random = np.random.default_rng(0)
    truth = random.random((SIZE, SIZE)).astype(np.float32)
    kernel = microscope_psf()
    _, image = benchmark_degradation(truth, kernel)
    if ndim == 3:
        image, kernel = np.stack([image] * DEPTH), np.stack([kernel] * 5)
    problem = Problem(image, kernel, device=device, steps=STEPS)
    # What fails here will fail, and be reported, when it counts.
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        methods.named(name).run(problem)
