"""Train on a few pieces of a large image, and restore all of it, tile by tile."""

from __future__ import annotations

import math
import os
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfinv.io.casting import as_dtype
from selfinv.io.lazy import LazyImage, open_lazily
from selfinv.io.ome_zarr import check_axes, commit_folder
from selfinv.large import engine
from selfinv.large.engine import Outcome, Work
from selfinv.large.journal import Journal, fingerprint
from selfinv.large.memory import default_memory
from selfinv.large.places import Places
from selfinv.large.restorers import ClassicalRestorer, NetworkRestorer, Restorer
from selfinv.large.sample import Piece, choose_pieces, read_pieces
from selfinv.large.tiles import Plan, Tile, chunks_for, cores_for
from selfinv.learning.normalisation import ChannelUnits
from selfinv.model import TrainedModel
from selfinv.psf import normalise, values_of
from selfinv.restoration import restore
from selfinv.result import Result
from selfinv.solvers.base import Callback
from selfinv.solvers.wiener import Wiener
from selfinv.types import AxisLayout, InputError, SelfinvWarning, guess_axes, parse_axes, same_layout, warn
from selfinv.versions import versions

BASE = 450 * 2**20  # bytes that a worker takes before it has any tile: mostly libraries
SMALL_CHUNK = 1024  # bytes: a file for each, which takes longer to open than to read
DRIFT = 4.0  # standard deviations of the training pieces' scores
LEAST_DRIFT = 0.25  # of their mean
FORGIVING = ("mask_nan", "clip")  # settings without which tiles fail, and which change nothing in the others
HALO = 48  # voxels around a core of a volume that a network sees; flat images have all that matters


@dataclass(frozen=True)
class LargeResult:
    """What became of a large image.

    Parameters
    ----------
    path
        Where the result is; an unfinished one is at ``path`` with ``.part`` behind it.
    outcome
        Tiles done and failed.
    plan
        How it was cut.
    drifted
        Frames that the model no longer fits, with their score as a multiple of the training pieces'.
    """

    path: Path
    outcome: Outcome
    plan: Plan
    drifted: dict[int, float] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """One line for each tile that could not be restored."""
        tiles = {tile.number: tile for tile in self.plan} if self.outcome.failed else {}
        return [
            f"{tiles[n].describe(self.plan.axes)}: {why}" for n, why in sorted(self.outcome.failed.items())
        ]


def train(
    image: LazyImage | str | os.PathLike[str],
    psf: Any = None,
    *,
    method: str = "ssi-network",
    axes: str | None = None,
    pieces: int | None = None,
    mask_nan: bool = False,
    device: str = "auto",
    seed: int = 0,
    max_steps: int | None = None,
    callback: Callback | None = None,
) -> tuple[Result, list[Piece]]:
    """Train a network, or tune a classical method, on a few informative pieces of a large image.

    Parameters
    ----------
    image
        OME-Zarr, TIFF or NPY; only the pieces are read.
    psf, method, device, seed, max_steps, callback
        As for `selfinv.restore`.
    axes
        Its axes, if the file does not name them.
    pieces
        How many; None: some that fit in one training step.

    Returns
    -------
    The result for the pieces (its ``model`` or ``solver`` is what `apply` takes, and ``stats["pieces"]`` says
    where they are), and the pieces.

    Raises
    ------
    InputError
        If something cannot be used; the message says what to do.
    """
    source = _opened(image, axes)
    kernel = values_of(psf)
    letters = _axes(source, axes, None if kernel is None else kernel.ndim)
    chosen = choose_pieces(source, letters, count=pieces, mask_nan=mask_nan, seed=seed)
    layout, blocks = AxisLayout(letters), read_pieces(source, letters, chosen)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the values of frame")  # pieces of one image may well be unlike
        result = restore(
            blocks,
            psf,
            method=method,
            axes="tc" + layout.spatial,
            boundary="auto" if psf is None else "unknown",
            mask_nan=mask_nan,
            device=device,
            seed=seed,
            max_steps=max_steps,
            callback=callback,
        )
    where = [piece.describe(letters, source.shape) for piece in chosen]
    result = replace(result, stats=result.stats | {"pieces": where})
    if result.model is not None:
        restorer = NetworkRestorer(result.model)
        scores = [restorer.score(piece) for piece in blocks]
        model = replace(result.model, axes=letters).described(
            pieces=where,
            scores=[score for score in scores if score is not None],
        )
        result = replace(result, model=model)
    return result, chosen


def apply(
    restorer: TrainedModel | Restorer,
    image: LazyImage | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    axes: str | None = None,
    mask_nan: bool = False,
    dtype: str = "float32",
    clip: bool = False,
    memory: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "cpu",
    symmetries: int = 8,
    resume: bool = False,
    overwrite: bool = False,
    check: bool = True,
    on_tile: Callable[[Outcome, Tile], None] | None = None,
) -> LargeResult:
    """Restore a large image tile by tile into an OME-Zarr.

    Parameters
    ----------
    restorer
        A trained model, or a `ClassicalRestorer`.
    image
        OME-Zarr, TIFF or NPY, of any size.
    output
        A folder to be, ``.zarr``: OME-Zarr 0.5 with a pyramid. It is made beside, as ``.zarr.part``, and
        renamed at the end.
    mask_nan
        NaN and infinite values are missing; otherwise a tile with any is reported and left NaN.
    dtype, clip
        Type of the result. With ``clip`` values beyond an integer's range are cut (`Outcome` tells how many),
        without it such a tile is a failed one.
    memory
        Bytes for all workers together; None: 60 % of what is free.
    workers
        Processes; None: one for each core, at most 8, but 0 for an image of a single chunk. 0: threads of
        this process.
    scheduler
        Address of a Dask scheduler to use instead.
    symmetries
        Over how many flips and turns a network's answer is averaged, at most.
    resume
        Go on with a run that was ended, or that left tiles empty; ``mask_nan`` and ``clip`` may be new then.
    overwrite
        Replace what is there.
    check
        Whether to look at pieces of the image first: to warn if they are unlike what the model was trained on
        (`TrainedModel.doubts`), to bring an image that is brighter into the units that it knows, and to
        refuse values that a classical method cannot compute with.
    on_tile
        Called after each tile.

    Raises
    ------
    InputError
        If something cannot be used; the message says what to do.
    """
    source = _opened(image, axes)
    dtype = str(as_dtype(dtype))
    if isinstance(restorer, TrainedModel):
        axes = axes or source.axes or same_layout(restorer.axes, len(source.shape))
        model, flat = restorer, restorer.inverter.network.settings.ndim < 3
        restorer = NetworkRestorer(restorer, symmetries, device, None if flat else HALO)
    else:
        model = None
    letters = _axes(source, axes, _psf_ndim(restorer))
    _check_channels(restorer, source, letters)
    if not source.path.is_absolute():  # workers may be in another folder
        source = open_lazily(source.path.absolute(), axes=letters)
    places = Places(Path(output))
    places.check(source.path, resume=resume, overwrite=overwrite)
    if check:
        restorer = _fitted(restorer, source, letters)
    # To start a process takes longer than a tile of one chunk.
    count = 0 if workers is None and _is_one_chunk(source, letters) else _workers(workers)
    outcome = None
    try:
        with engine.workers(count, scheduler=scheduler) as (client, there):
            plan = plan_for(restorer, source, letters, memory or default_memory(), there)
            if resume:  # as it was begun: how much memory is free may have changed
                begun = Journal.job_in(places.journal)
                plan = replace(plan, core=tuple(begun.get("core", plan.core)))
            job = _job(restorer, source, plan, dtype, mask_nan, clip)
            journal = Journal(places.journal, job)
            if resume:
                journal.resume([name for name in FORGIVING if job[name]])
                target = places.begun()
            else:
                target = places.new(source, plan, dtype)
                journal.begin()
            work = Work(source, target, letters, restorer, mask_nan, clip, engine.cores_of(there))
            outcome = engine.carry_out(work, plan, journal, client, on_tile=on_tile)
        if not outcome.cancelled and outcome.done + outcome.skipped:
            target.finish()
            # Whether it may be replaced was asked before.
            commit_folder(places.part, places.final, overwrite=True)
            if not outcome.failed:
                journal.path.unlink()
    except KeyboardInterrupt:
        if outcome is None or not places.part.exists():
            raise
        outcome.cancelled = True  # after the last tile: what is done is there
    return LargeResult(Path(output), outcome, plan, _drifted(model, outcome, plan))


def plan_for(restorer: Restorer, source: LazyImage, axes: str, memory: int, workers: int) -> Plan:
    """How an image is cut, so that all workers together stay within ``memory`` bytes."""
    layout = AxisLayout(axes)
    space = layout.spatial_shape(source.shape)
    channels = source.shape[axes.index("c")] if "c" in axes else 1
    each = _memory_of_each(memory, workers)
    _check_chunks(source, each)
    # Two tiles are under way in each worker, of which one only waits to be read or written.
    each /= restorer.bytes_for(1, channels) + 2 * channels * (source.dtype.itemsize + 4)
    chunks = AxisLayout(axes).spatial_shape(chunks_for(source.shape, axes))
    frames = source.shape[axes.index("t")] if "t" in axes else 1
    core = cores_for(space, chunks, restorer.reaches(space), each, -(-2 * workers // frames))
    return Plan(source.shape, axes, core)


def check_means(
    source: LazyImage,
    psf: Any,
    *,
    axes: str | None,
    dtype: str,
    memory: int | None,
    workers: int | None,
    classical: bool,
) -> None:
    """Raise `InputError` if no large run can be carried out with them, before one is trained for.

    With ``classical`` also if the least tile of a classical method takes more memory; how wide a network will
    be, and so what it takes, training tells.
    """
    engine.check_libraries()
    as_dtype(dtype)
    kernel = values_of(psf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelfinvWarning)  # the run itself will tell
        letters = _axes(source, axes, None if kernel is None else kernel.ndim)
        check_axes(letters)
        if memory is None:
            return
        there = max(1, workers or 1)
        each = _memory_of_each(memory, there)
        if classical and (kernel is None or kernel.ndim >= len(AxisLayout(letters).spatial)):
            shape = None if kernel is None else torch.empty(kernel.shape)
            plan_for(ClassicalRestorer(Wiener(), shape), source, letters, memory, there)
        else:
            _check_chunks(source, each)


def _memory_of_each(memory: int, workers: int) -> float:
    """What is left of it for a worker's tiles."""
    each = memory / max(1, workers) - BASE
    if each <= 0:
        raise InputError(
            f"{memory / 2**20:.0f} MiB for {workers} workers is less than the libraries take, "
            f"{BASE * workers / 2**20:.0f} MiB; allow more (--memory) or use fewer workers"
        )
    return each


def classical(result: Result, psf: Any) -> ClassicalRestorer:
    """What `train` tuned on pieces, for `apply`."""
    kernel = values_of(psf)
    tensor = None if kernel is None else torch.from_numpy(normalise(kernel)).to(torch.float32)
    assert result.solver is not None
    told = result.stats.get("channel_units")
    units = ChannelUnits(*zip(*told, strict=True)) if told else None
    return ClassicalRestorer(result.solver, tensor, units=units)


def _opened(image: LazyImage | str | os.PathLike[str], axes: str | None) -> LazyImage:
    if isinstance(image, LazyImage):
        return image
    if not isinstance(image, str | os.PathLike):
        raise InputError(
            f"image is a {type(image).__name__}; expected a path: arrays in memory are for selfinv.restore"
        )
    return open_lazily(image, axes=axes)


def _axes(source: LazyImage, axes: str | None, ndim: int | None) -> str:
    letters = axes or source.axes
    if letters is None:
        letters = guess_axes(source.shape, ndim)
        if len(letters) > 2:  # of fewer there is no doubt
            warn(f"{source.path} does not name its axes; taken as {letters} (--axes tells them)")
    return parse_axes(letters, len(source.shape)).axes


def _check_chunks(source: LazyImage, each: float) -> None:
    """To read one value of a Zarr is to read its chunk; of other files, only what is asked for is read."""
    if not source.path.is_dir():
        return
    size = math.prod(source.chunks) * source.dtype.itemsize
    if size > each:
        raise InputError(
            f"{source.path} is stored in chunks of {size / 2**20:.0f} MiB, more than a worker may use, "
            f"{each / 2**20:.0f} MiB; allow more (--memory), use fewer workers, or store it in smaller chunks"
        )
    if size < SMALL_CHUNK and math.prod(source.shape) > math.prod(source.chunks):
        warn(
            f"{source.path} is stored in chunks of {size} bytes, so that reading takes long; larger ones are "
            f"better"
        )


def _check_channels(restorer: Restorer, source: LazyImage, axes: str) -> None:
    channels = source.shape[axes.index("c")] if "c" in axes else 1
    if restorer.channels not in (None, channels):
        raise InputError(
            f"the model was trained on {restorer.channels} channel(s) and {source.path} has {channels} "
            f"({axes}); train one on an image like it"
        )
    there = len(AxisLayout(axes).spatial)
    if restorer.ndim not in (None, there):
        raise InputError(
            f"the model was trained on {restorer.ndim} spatial axes and {source.path} has {there} ({axes}); "
            f"name its axes (--axes), or train one on an image like it"
        )


def _job(
    restorer: Restorer, source: LazyImage, plan: Plan, dtype: str, mask_nan: bool, clip: bool
) -> dict[str, Any]:
    """What a run is, so that another one does not go on with its tiles."""
    return {
        "input": fingerprint(source.path),
        "shape": list(plan.shape),
        "axes": plan.axes,
        "core": list(plan.core),
        "dtype": str(np.dtype(dtype)),
        "mask_nan": mask_nan,
        "clip": clip,
        "restorer": restorer.digest(),
        "selfinv": versions()["selfinv"],
    }


def _is_one_chunk(source: LazyImage, axes: str) -> bool:
    """Whether there is but one tile, however little memory there is."""
    chunks = AxisLayout(axes).spatial_shape(chunks_for(source.shape, axes))
    return len(Plan(source.shape, axes, chunks)) == 1


def _psf_ndim(restorer: Restorer) -> int | None:
    """Axes of the PSF that a solver was tuned with; None where nothing tells."""
    psf = restorer.psf if isinstance(restorer, ClassicalRestorer) else None
    return None if psf is None else psf.ndim


def _fitted(restorer: Restorer, source: LazyImage, axes: str) -> Restorer:
    """As pieces of the image take it."""
    try:  # with gaps, so that it does not depend on whether they are allowed
        pieces = read_pieces(source, axes, choose_pieces(source, axes, mask_nan=True))
    except InputError:  # what cannot be read is told tile by tile
        return restorer
    return restorer.fitted(pieces)


def _workers(count: int | None) -> int:
    if count is not None:
        if count < 0:
            raise InputError(f"workers={count} is negative; give the number of processes")
        return count
    return max(1, min(8, engine.cores_of(1)))


def _drifted(model: TrainedModel | None, outcome: Outcome, plan: Plan) -> dict[int, float]:
    """Frames whose held-out score is far above those of the pieces that the model was trained on."""
    known = [] if model is None else model.origin.get("scores", [])
    if len(known) < 2:
        return {}
    mean, spread = statistics.fmean(known), statistics.stdev(known)
    limit = mean + max(DRIFT * spread, LEAST_DRIFT * mean)
    scores = engine.scores_by_frame(outcome, plan)
    return {frame: score / mean for frame, score in scores.items() if score > limit}
