"""Large images: memory, throughput, scaling, and what that means for a hundred workers. Markdown tables.

python benchmarks/large.py memory      peak memory of the workers for 1 to 64 tiles, the limit being the same
python benchmarks/large.py throughput  a network tile by tile beside the bare network, one and two processes
python benchmarks/large.py volumes     a series of volumes, larger than the memory that is allowed
python benchmarks/large.py seams       tile by tile less all at once, for every kind of method
python benchmarks/large.py hundred     ten terabytes on a hundred workers, on paper, from measured costs

Each makes its data in a temporary folder (--folder), some GB at most. Idle cores, please.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

import selfinv
from selfinv.benchmark.machine import commit, describe
from selfinv.io.ome_zarr import ZarrTarget
from selfinv.large import ClassicalRestorer, LargeResult, NetworkRestorer, Plan, apply
from selfinv.large.restorers import restore_core
from selfinv.solvers.chambolle_pock import ChambollePock
from selfinv.solvers.conjugate_gradient import ConjugateGradient
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.solvers.wiener import Wiener

PSF = selfinv.psf.gaussian(1.5, (11, 11))
PSF3 = selfinv.psf.gaussian((1.5, 1.2, 1.2), (9, 9, 9))
MIB = 2**20


def scene(shape: Sequence[int], seed: int) -> np.ndarray[Any, Any]:
    """Waves, dots and noise."""
    rng = np.random.default_rng(seed)
    x = np.full(shape, 100.0, np.float32)
    for axis, n in enumerate(shape):
        wave = 30 * np.sin(np.arange(n, dtype=np.float32) / (5 + 3 * axis))
        x += wave.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    x += 200 * (rng.random(shape, np.float32) < 1e-3)
    return x + 8 * rng.standard_normal(shape, np.float32)


def source(folder: Path, frames: int, shape: Sequence[int]) -> Path:
    """A time series as an OME-Zarr."""
    axes = "tzyx" if len(shape) == 3 else "tyx"
    path = folder / f"in{frames}x{'x'.join(map(str, shape))}.zarr"
    chunks = (1, *(min(n, 64 if len(shape) == 3 else 512) for n in shape))
    target = ZarrTarget.create(path, shape=(frames, *shape), axes=axes, chunks=chunks, overwrite=True)
    for t in range(frames):
        target.write((slice(t, t + 1), *(slice(0, n) for n in shape)), scene(shape, t)[None])
    return path


def network(side: int = 256) -> selfinv.model.TrainedModel:
    """The default network; two steps, for weights have no influence on speed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = scene((side, side), 0)
        result = selfinv.restore(image, PSF, method="ssi-network", boundary="unknown", max_steps=2)
    assert result.model is not None
    return result.model


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, and those it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def peaks(result: LargeResult) -> list[float]:
    """The peak of each worker, in MiB."""
    found: dict[int, int] = {}
    for facts in result.outcome.facts.values():
        found[facts["process"]] = max(found.get(facts["process"], 0), facts["peak"])
    return [value / MIB for value in found.values()]


def memory(folder: Path) -> None:
    limit = 2048 * MIB
    model = network()
    print(f"{limit // MIB} MiB allowed, two workers, frames of 1024 × 1024\n")
    print("| frames (tiles) | input, MiB | network: peaks of the workers, MiB | Richardson-Lucy |")
    print("|---|---|---|---|")
    for frames in (1, 4, 16, 64):
        path = source(folder, frames, (1024, 1024))
        cells = []
        for restorer in (model, ClassicalRestorer(RichardsonLucy(max_steps=10), _tensor(PSF))):
            result = apply(
                restorer, path, folder / "out.zarr", memory=limit, workers=2, symmetries=1, overwrite=True
            )
            cells.append(f"{' + '.join(f'{p:.0f}' for p in peaks(result))} = {sum(peaks(result)):.0f}")
        print(f"| {frames} | {4 * frames} | {cells[0]} | {cells[1]} |", flush=True)


def throughput(folder: Path) -> None:
    model, side, frames = network(), 2048, 4
    path = source(folder, frames, (side, side))
    pixels = frames * side * side / 1e6
    restorer = NetworkRestorer(model)
    block = scene((side, side), 0)[None]
    whole = (slice(0, side),) * 2

    def bare() -> float:
        start = time.perf_counter()
        restorer.restore(block, whole, (side, side))
        return side * side / 1e6 / (time.perf_counter() - start)

    rows = []
    with one_core():
        torch.set_num_threads(1)
        bare()
        alone = bare()
        rows.append(("bare network, one thread", alone, ""))
        result = apply(model, path, folder / "out.zarr", memory=6 * 2**30, workers=1, overwrite=True)
        single = pixels / result.outcome.seconds
        rows.append(
            ("tile by tile, one process on one core", single, f"{single / alone:.2f} of the bare network")
        )
    torch.set_num_threads(2)
    bare()
    both = bare()
    rows.append(("bare network, two threads", both, ""))
    result = apply(model, path, folder / "out.zarr", memory=6 * 2**30, workers=2, overwrite=True)
    double = pixels / result.outcome.seconds
    words = f"{double / both:.2f} of the bare network; {double / single:.2f} times one process"
    rows.append(("tile by tile, two processes", double, words))
    facts = result.outcome.facts.values()
    total = {name: sum(f[name] for f in facts) for name in ("read", "compute", "write")}
    print("| | Mpx/s | |\n|---|---|---|")
    for name, speed, note in rows:
        print(f"| {name} | {speed:.3f} | {note} |")
    print(
        f"\n{len(result.plan)} tiles of {result.plan.core}; over all tiles {total['read']:.1f} s reading, "
        f"{total['compute']:.1f} s computing, {total['write']:.1f} s writing, in "
        f"{result.outcome.seconds:.1f} s of two processes: reading and writing overlap with computing"
    )


def volumes(folder: Path) -> None:
    shape, frames, limit = (32, 1024, 1024), 12, 1400 * MIB
    path = source(folder, frames, shape)
    restorer = ClassicalRestorer(RichardsonLucy(max_steps=10), _tensor(PSF3))
    result = apply(restorer, path, folder / "out.zarr", memory=limit, workers=2, overwrite=True)
    size = frames * np.prod(shape) * 4 / MIB
    print(
        f"{frames} volumes of {shape}, {size:.0f} MiB; {limit // MIB} MiB allowed, two workers, "
        f"Richardson-Lucy, 10 iterations"
    )
    print(
        f"{len(result.plan)} tiles of {result.plan.core} in {result.outcome.seconds:.0f} s "
        f"({frames * np.prod(shape) / 1e6 / result.outcome.seconds:.1f} Mvoxel/s), peaks "
        f"{' + '.join(f'{p:.0f}' for p in peaks(result))} = {sum(peaks(result)):.0f} MiB, failed "
        f"{len(result.failures())}"
    )
    levels = sorted(zarr.open_group(folder / "out.zarr", mode="r").array_keys())
    print(f"levels {', '.join(levels)}")


def seams(folder: Path) -> None:
    image = scene((420, 500), 0)[None]
    methods: list[tuple[str, Any]] = [
        ("network", NetworkRestorer(network())),
        *(
            (name, ClassicalRestorer(solver, _tensor(PSF)))
            for name, solver in (
                ("Richardson-Lucy, 10 iterations", RichardsonLucy(max_steps=10)),
                ("total variation (Chambolle-Pock), 200", ChambollePock(4.0, max_steps=200)),
                ("the same, 2000 iterations", ChambollePock(4.0, max_steps=2000, rtol=0.0)),
                ("total variation (conjugate gradients), 60", ConjugateGradient(4.0, max_steps=60)),
                ("Wiener", Wiener(balance=8.0)),
            )
        ),
    ]
    print("| cores of 128 × 128 less all at once, of the range | rms | largest |\n|---|---|---|")
    for name, restorer in methods:
        space = image.shape[1:]
        reaches = restorer.reaches(space)
        whole = restorer.restore(image, tuple(slice(0, n) for n in space), space)
        tiled = np.empty_like(whole)
        for tile in Plan(space, "yx", (128, 128)):
            tiled[(slice(None), *tile.core)] = restore_core(
                restorer, lambda seen: image[(slice(None), *seen)], tile.core, space, reaches
            )
        error = (tiled - whole) / np.ptp(whole)
        print(f"| {name} | {np.sqrt(np.mean(error**2)):.1e} | {np.abs(error).max():.1e} |", flush=True)


def hundred(folder: Path) -> None:
    side, workers, bandwidth = 2048, 100, 5e9
    path = source(folder, 4, (side, side))
    result = apply(network(), path, folder / "out.zarr", memory=6 * 2**30, workers=2, overwrite=True)
    facts = list(result.outcome.facts.values())
    mean = {name: float(np.mean([f[name] for f in facts])) for name in ("read", "compute", "write", "values")}
    tiles = 10e12 / 4 / mean["values"]
    hours = tiles * mean["compute"] / workers / 3600
    traffic = 2 * 10e12 / (hours * 3600)
    for line in (
        f"measured per tile of {mean['values'] / 1e6:.2f} Mpx: read {mean['read']:.3f} s, compute "
        f"{mean['compute']:.2f} s, write {mean['write']:.3f} s (one thread)",
        "",
        f"10 TB of float32 are {tiles:.0f} such tiles: {hours:.0f} hours on {workers} such cores.",
        f"The scheduler handles {tiles / hours / 3600:.1f} tasks/s (Dask: some thousand), with {2 * workers} "
        f"under way.",
        f"The storage gives and takes {traffic / 1e6:.0f} MB/s, {traffic / bandwidth:.1%} of 5 GB/s.",
        f"The journal grows to {tiles * 250 / 1e6:.0f} MB.",
        f"In chunks of 1 MiB the result is {10e12 / MIB / 1e6:.0f} million files.",
    ):
        print(line)


def _tensor(psf: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.tensor(psf, dtype=torch.float32)


PARTS = {"memory": memory, "throughput": throughput, "volumes": volumes, "seams": seams, "hundred": hundred}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--folder", type=Path, default=None)
    arguments = parser.parse_args()
    print(", ".join(f"{key} {value}" for key, value in describe("cpu").items()), "commit", commit(), "\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        PARTS[arguments.part](Path(folder))
