"""The work itself: tiles go to Dask's workers, results to the target, facts to the journal."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from selfinv.io.casting import cast, count_outside
from selfinv.io.lazy import LazyImage
from selfinv.io.ome_zarr import ZarrTarget
from selfinv.io.regions import Region
from selfinv.large.journal import Journal
from selfinv.large.restorers import Restorer, restore_core
from selfinv.large.tiles import Plan, Tile
from selfinv.resources import cores, own_memory
from selfinv.types import Array, AxisLayout, InputError, SelfinvWarning

if TYPE_CHECKING:
    from distributed import Client

COMPUTING = threading.Lock()  # one tile at a time computes in a process, while another is read or written
AHEAD = 2  # tiles under way for each worker: one computes, one is read or written
NOTHING_MEASURED = "there is no finite value"  # in a tile, which no other try will change
DEATHS = 3  # workers that a tile may take with it before it is given up


@dataclass(frozen=True)
class Work:
    """What a worker must know to restore any tile.

    Parameters
    ----------
    source, target
        Where values come from and go to.
    axes
        Of the source, one letter each.
    restorer
        What is done.
    mask_nan
        NaN and infinite values are missing, and not a mistake.
    clip
        Cut values that do not fit the target's type, instead of refusing them.
    threads
        That computing may use in each worker.
    """

    source: LazyImage
    target: ZarrTarget
    axes: str
    restorer: Restorer
    mask_nan: bool = False
    clip: bool = False
    threads: int = 1

    def __call__(self, tile: Tile) -> dict[str, Any]:
        """Restore a tile and write its core; what it took, and how well it fitted."""
        layout = AxisLayout(self.axes)
        space = layout.spatial_shape(self.source.shape)
        reading = [0.0]

        def read(seen: Region) -> Array:
            start = time.perf_counter()
            try:
                return self._read(tile, layout, seen)
            finally:
                reading[0] += time.perf_counter() - start

        core = tuple(tile.core[self.axes.index(a)] for a in layout.spatial)
        reaches = self.restorer.reaches(space)
        first = tuple(r.around(part, n) for r, part, n in zip(reaches, core, space, strict=True))
        held: list[Array | None] = [read(first)]  # outside the lock, so that reading overlaps with computing

        def give(seen: Region) -> Array:
            if seen == first and held[0] is not None:
                return held[0]
            held[0] = None
            return read(seen)

        waited = time.perf_counter()
        # Warnings are caught for the whole process, so while one tile computes: they would show once a tile.
        with COMPUTING, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.perf_counter()
            found = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                x = restore_core(self.restorer, give, core, space, reaches)
                score = None if held[0] is None else self.restorer.score(held[0])
            finally:
                torch.set_num_threads(found)  # without workers the process is the caller's
            held[0] = None
            computing = time.perf_counter() - start
        start = time.perf_counter()
        # An OME-Zarr has its axes in one order, whatever that of the source.
        places = dict(zip(self.axes, tile.core, strict=True))
        values, clipped = self._arranged(x)
        self.target.write([places[a] for a in self.target.axes], values)
        return {
            "score": score,
            "clipped": clipped,
            "warnings": sorted({str(w.message) for w in caught if issubclass(w.category, SelfinvWarning)}),
            "read": round(reading[0], 4),
            "wait": round(time.perf_counter() - waited - computing - (time.perf_counter() - start), 4),
            "compute": round(computing, 4),
            "write": round(time.perf_counter() - start, 4),
            "values": math.prod(part.stop - part.start for part in tile.core),
            "process": os.getpid(),
            "peak": own_memory("VmHWM"),
        }

    def _read(self, tile: Tile, layout: AxisLayout, seen: Region) -> Array:
        """What lies under ``seen`` in the tile's frame, ``channel *space``."""
        places = dict(zip(layout.spatial, seen, strict=True))
        region = [places.get(a, part) for a, part in zip(self.axes, tile.core, strict=True)]
        block = layout.to_batch(self.source.read(region))[0]
        if block.dtype.kind == "f" and not self.mask_nan and not np.isfinite(block).all():
            bad = int((~np.isfinite(block)).sum())
            raise InputError(f"{bad} values are NaN or infinite; --mask-nan takes them as missing")
        if block.dtype.kind == "f" and not np.isfinite(block).any():
            raise InputError(NOTHING_MEASURED)
        return block

    def _arranged(self, x: Array) -> tuple[Array, int]:
        """``channel *space`` in the order of the target's axes and in its type; how many were cut for it."""
        values = AxisLayout(self.target.axes).from_batch(x[None])
        outside = count_outside(values, self.target.dtype) if self.clip else 0
        try:
            return cast(values, self.target.dtype, clip=self.clip), outside
        except InputError as error:
            raise InputError(f"{error} (--clip, or --dtype float32)") from None


@dataclass
class Outcome:
    """How a run went.

    Parameters
    ----------
    tiles, done, skipped
        In all, restored in this run, and restored in an earlier one.
    failed
        What went wrong with a tile, by its number.
    seconds
        Of this run.
    cancelled
        It was ended before it was through.
    facts
        What each restored tile reported, by its number.
    """

    tiles: int
    done: int = 0
    skipped: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    cancelled: bool = False
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)

    def clipped(self) -> int:
        """How many values were cut to fit the result's type."""
        return sum(facts.get("clipped", 0) for facts in self.facts.values())

    def warnings(self) -> list[str]:
        """What tiles warned of, alike words (but for numbers) once, with the number of tiles."""
        kinds: dict[str, list[str]] = {}
        for facts in self.facts.values():
            for words in facts.get("warnings", ()):
                kinds.setdefault(re.sub(r"\d+", "#", words), []).append(words)
        return [
            words[0] if len(words) == 1 else f"in {len(words)} tiles, such as: {words[0]}"
            for words in kinds.values()
        ]


OnTile = Callable[[Outcome, Tile], None]


def carry_out(
    work: Work, plan: Plan, journal: Journal, client: Client, *, on_tile: OnTile | None = None
) -> Outcome:
    """Restore all tiles that the journal does not have, a few at a time.

    An error in a tile is noted and the rest goes on; a worker that dies is replaced and its tiles are done
    again. Ctrl-C ends the run when the tiles under way have ended; the journal tells what is done.
    """
    from distributed import as_completed

    start = time.monotonic()
    outcome = Outcome(len(plan), skipped=len(journal.done), facts=dict(journal.done))
    waiting = (tile for tile in plan if tile.number not in journal.done)
    key = _install(client, work)
    workers = max(1, _count(client))
    under_way: dict[Any, Tile] = {}

    def submit() -> Any:
        tile = next(waiting, None)
        if tile is None:
            return None
        future = client.submit(_run, key, tile, pure=False, retries=0)
        under_way[future] = tile
        return future

    first = [future for future in (submit() for _ in range(AHEAD * workers)) if future is not None]
    results = as_completed(first)
    try:
        for future in results:
            tile = under_way.pop(future)
            facts = _facts(future)
            if "failed" not in facts:
                journal.finished(tile.number, **facts)
                outcome.facts[tile.number] = facts
                outcome.done += 1
            else:
                journal.gave_up(tile.number, facts["failed"])
                outcome.failed[tile.number] = facts["failed"]
            if on_tile is not None:
                on_tile(outcome, tile)
            following = submit()
            if following is not None:
                results.add(following)
    except KeyboardInterrupt:
        outcome.cancelled = True
        client.cancel(list(under_way))
    finally:
        client.unregister_worker_plugin(key)
    outcome.seconds = time.monotonic() - start
    return outcome


def _install(client: Client, work: Work) -> str:
    """Give the work once to every worker, also to those that come later; its name there."""
    from distributed import WorkerPlugin

    class Installed(WorkerPlugin):
        def __init__(self, name: str, work: Work) -> None:
            self.name, self.work = name, work

        def setup(self, worker: Any) -> None:
            worker.__dict__.setdefault("selfinv_work", {})[self.name] = self.work

        def teardown(self, worker: Any) -> None:
            worker.__dict__.get("selfinv_work", {}).pop(self.name, None)

    key = f"selfinv-{secrets.token_hex(8)}"
    client.register_plugin(Installed(key, work))
    return key


def _run(key: str, tile: Tile) -> dict[str, Any]:
    from distributed import get_worker

    worker: Any = get_worker()
    try:
        facts: dict[str, Any] = worker.selfinv_work[key](tile)
    except Exception as error:  # Dask would print where, and the rest is to go on
        return {"failed": _in_words(error)}
    return facts


def _facts(future: Any) -> dict[str, Any]:
    """What a tile's task has given, or why it has failed."""
    from distributed import CancelledError

    try:
        error = future.exception()
    except CancelledError as cancelled:
        error = cancelled
    if error is not None:
        return {"failed": _in_words(error)}
    facts: dict[str, Any] = future.result()
    return facts


def _in_words(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    if type(error).__name__ == "KilledWorker":
        return f"{DEATHS} workers died of it; is there enough memory? Use smaller tiles (--memory)"
    return words if isinstance(error, InputError) else f"{type(error).__name__}: {words}"


def check_libraries() -> None:
    """Raise `InputError` unless what large images need is installed."""
    if any(importlib.util.find_spec(name) is None for name in ("dask", "distributed", "zarr")):
        raise InputError("images larger than memory need Dask and Zarr: pip install 'selfinv[large]'")


@contextlib.contextmanager
def workers(
    count: int, *, scheduler: str | None = None, timeout: float = 10.0
) -> Iterator[tuple[Client, int]]:
    """A client of some workers, and how many there are: processes here, or those of a scheduler elsewhere.

    Parameters
    ----------
    count
        Processes of this machine, which share its cores. 0: threads of this process.
    scheduler
        Address of a running Dask scheduler, instead of processes of our own.

    Raises
    ------
    InputError
        If Dask is not installed, or the scheduler is not to be reached or runs other versions.
    """
    check_libraries()
    import dask
    from distributed import Client, LocalCluster

    quiet = {
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
        "distributed.scheduler.allowed-failures": DEATHS - 1,
        "distributed.logging.distributed": "error",
        "distributed.admin.log-format": "%(name)s: %(message)s",
    }
    with dask.config.set(quiet):
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout=timeout)
            except (OSError, ValueError, TimeoutError) as error:
                raise InputError(
                    f"no Dask scheduler answers at {scheduler} ({' '.join(str(error).split())}); start one "
                    f"('dask scheduler'), or leave out --scheduler"
                ) from None
            with client:
                yield client, _check(client, scheduler)
            return
        with (
            LocalCluster(
                n_workers=max(1, count),
                threads_per_worker=AHEAD,
                processes=count > 0,
                dashboard_address=":0",
                memory_limit=None,
                silence_logs=40,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client, max(1, count)


def check_scheduler(scheduler: str) -> None:
    """Make sure, before any work, that a scheduler answers and has workers like us (see `workers`)."""
    with workers(1, scheduler=scheduler):
        pass


def _check(client: Client, scheduler: str) -> int:
    """The number of workers, once it is sure that they have what we have."""
    count = _count(client)
    if not count:
        raise InputError(
            f"the scheduler at {scheduler} has no workers; start some ('dask worker {scheduler}')"
        )
    for where, found in client.run(_versions).items():
        ours = _versions()
        differ = [
            f"{name} {found[name]} there, {ours[name]} here" for name in ours if found[name] != ours[name]
        ]
        if differ:
            raise InputError(
                f"the worker {where} has other versions: {'; '.join(differ)}; install the same on all"
            )
    return count


def _count(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _versions() -> dict[str, str]:
    from selfinv import __version__

    return {"selfinv": __version__, "torch": torch.__version__.split("+")[0]}


def cores_of(count: int) -> int:
    """The cores each of so many processes may use."""
    return max(1, cores() // max(1, count))


def scores_by_frame(outcome: Outcome, plan: Plan) -> dict[int, float]:
    """The mean held-out score of each frame's tiles."""
    frames: dict[int, list[float]] = {}
    tiles: Sequence[Tile] = list(plan)
    for number, facts in outcome.facts.items():
        if facts.get("score") is not None:
            place = tiles[number].core[plan.axes.index("t")].start if "t" in plan.axes else 0
            frames.setdefault(place, []).append(facts["score"])
    return {frame: float(np.mean(values)) for frame, values in sorted(frames.items())}
