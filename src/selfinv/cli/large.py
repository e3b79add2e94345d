"""``train``, and what ``restore`` and ``apply`` do where OUTPUT is an OME-Zarr: tile by tile."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfinv.cli.console import FAILED, INTERRUPTED, progress, say, uninterrupted
from selfinv.cli.images import check_beside, read_psf
from selfinv.cli.options import Axes, Device, MaskNan, PiecesInput, Quiet, Seed, Steps
from selfinv.types import Array, InputError

if TYPE_CHECKING:
    from selfinv.io.lazy import LazyImage
    from selfinv.large import LargeResult, Outcome, Tile
    from selfinv.large.restorers import Restorer
    from selfinv.model import TrainedModel
    from selfinv.result import Result

SHOWN = 10  # lines about tiles that failed, or frames that no longer fit


@dataclass(frozen=True)
class Large:
    """What is said of a run that goes tile by tile; all of it as the options of that name."""

    memory: str | None = None
    workers: int | None = None
    scheduler: str | None = None
    symmetries: int = 8
    resume: bool = False
    overwrite: bool = False

    def bytes(self) -> int | None:
        """Of memory; None if nothing is said."""
        from selfinv.large.memory import parse_memory

        return None if self.memory is None else parse_memory(self.memory)

    def check_output(self, output: Path, others_too: tuple[str, ...] = ()) -> bool:
        """Whether the output is an OME-Zarr; if not, none of this may be asked for but ``others_too``."""
        if output.suffix == ".zarr":
            self.bytes()
            return True
        for name in ("memory", "workers", "scheduler", "resume", "overwrite", "symmetries"):
            if name not in others_too and getattr(self, name) != getattr(Large, name):
                raise InputError(f"--{name} is for an OUTPUT that ends in .zarr, and {output} does not")
        return False


def train(
    input: PiecesInput,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Where to write it: .safetensors.")],
    psf: Annotated[
        Path | None, typer.Option(help="The point spread function's file; without it, only noise is removed.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="ssi-network, ssi-fast, ssi-best, ssi-paper: a method that trains a network.")
    ] = "ssi-network",
    axes: Axes = None,
    pieces: Annotated[int | None, typer.Option(min=1, help="On how many parts of INPUT to train.")] = None,
    device: Device = "auto",
    seed: Seed = 0,
    steps: Steps = None,
    mask_nan: MaskNan = False,
    quiet: Quiet = False,
) -> None:
    """Train a network for 'selfinv apply' on informative parts of INPUT, which may be larger than memory.

    Ctrl-C ends the training and, from the first step on, writes the best so far (exit status 130).
    """
    from selfinv.io.lazy import open_lazily
    from selfinv.methods import METHODS

    check_beside(model, ".safetensors", [input, psf], None)
    if method in METHODS and not method.startswith("ssi"):
        raise InputError(f"--method {method} trains no network; use ssi-network, ssi-fast or ssi-best")
    source = open_lazily(input, axes=axes)
    kernel = None if psf is None else read_psf(psf, source)
    result = learned(source, kernel, method, axes, pieces, device, seed, steps, mask_nan, quiet)
    stopped = result.status.name == "cancelled"
    if result.model is None:
        if stopped:
            raise KeyboardInterrupt  # there is nothing to write
        raise InputError(f"with --method {method} a classical method did better; use ssi-network")
    with uninterrupted():
        result.model.described(input=input.name).save(model)
    if stopped:
        say(str(result.status))
    say(f"wrote {model}")
    if stopped:
        sys.exit(INTERRUPTED)


def learned(
    source: LazyImage,
    kernel: Array | None,
    method: str,
    axes: str | None,
    pieces: int | None,
    device: str,
    seed: int,
    steps: int | None,
    mask_nan: bool,
    quiet: bool,
) -> Result:
    """What training, or tuning, on pieces has given; which pieces is said."""
    from selfinv import large

    with progress(quiet) as callback:
        result, _ = large.train(
            source,
            kernel,
            method=method,
            axes=axes,
            pieces=pieces,
            device=device,
            seed=seed,
            max_steps=steps,
            mask_nan=mask_nan,
            callback=callback,
        )
    if not quiet:
        for words in result.stats["pieces"]:
            say(f"learned from {words}")
        if "mixture" in result.stats:
            say(f"on these {result.stats['mixture']} would be best; the image is made by the first alone")
    if result.status.failed:
        raise typer.Exit(FAILED)
    return result


def restore_large(
    input: Path,
    output: Path,
    psf: Path | None,
    how: Large,
    *,
    method: str,
    axes: str | None,
    boundary: str,
    device: str,
    seed: int,
    steps: int | None,
    mask_nan: bool,
    dtype: str | None,
    clip: bool,
    quiet: bool,
) -> None:
    """Train or tune on pieces, keep the network beside, restore all tiles."""
    from selfinv import large
    from selfinv.io.lazy import open_lazily
    from selfinv.large.journal import Journal, array_digest
    from selfinv.model_file import origin_of
    from selfinv.restoration import load_model

    if boundary not in ("auto", "unknown"):
        raise InputError(
            f"--boundary {boundary} is not for a .zarr OUTPUT: what lies beyond a tile is unknown"
        )
    if boundary != "auto" and psf is None:
        raise InputError(f"--boundary {boundary} has no effect without --psf; leave it out")
    source = open_lazily(input, axes=axes)
    kept = output.with_name(f"{output.stem}.model.safetensors")
    places = large.Places(output)
    kernel = None if psf is None else read_psf(psf, source)
    learning = {
        "input": large.fingerprint(source.path),
        "psf": None if kernel is None else array_digest(kernel),
        "method": method,
        "axes": axes,
        "seed": seed,
        "steps": steps,
        "mask_nan": mask_nan,
    }
    model = None
    if kept.exists():
        if "learning" not in origin_of(kept):  # of any format: only what such a run has left is replaced
            raise InputError(
                f"{kept} is where a network for {output} is kept, and something else is there; move it, or "
                f"choose another OUTPUT"
            )
        if how.resume:
            try:
                earlier = load_model(kept)
                model = earlier if _is_of(earlier, learning, output, begun=places.has_begun) else None
            except InputError:  # of an older format, perhaps
                if places.has_begun:
                    raise
            if not places.has_begun:  # it ended before the first tile
                how = replace(how, resume=False)
    places.check(source.path, resume=how.resume, overwrite=how.overwrite)
    large.check_means(
        source,
        kernel,
        axes=axes,
        dtype=dtype or "float32",
        memory=how.bytes(),
        workers=None if how.scheduler else how.workers,
        classical=not method.startswith(("ssi", "auto")),
    )
    if how.scheduler is not None:
        large.check_scheduler(how.scheduler)
    restorer: TrainedModel | Restorer | None = model
    start = time.monotonic()
    if restorer is None:
        # What --resume tunes again must see the same pieces.
        gaps = Journal.job_in(places.journal).get("mask_nan", mask_nan) if how.resume else mask_nan
        result = learned(source, kernel, method, axes, None, device, seed, steps, gaps, quiet)
        if result.status.name == "cancelled":  # --resume must not go on with what is half trained
            raise KeyboardInterrupt
        if result.model is not None:
            restorer = result.model.described(input=input.name, learning=learning)
            with uninterrupted(last=False):
                restorer.save(kept)
            say(f"wrote {kept}, for --resume and 'selfinv apply'")
        else:
            restorer = large.classical(result, kernel)
            kept.unlink(missing_ok=True)  # of an earlier run: --resume would take it for this one's
    apply_large(
        restorer,
        source,
        output,
        how,
        axes=axes,
        check=False,  # it was trained on this image
        trained_in=0.0 if model is not None else time.monotonic() - start,
        device=device,
        mask_nan=mask_nan,
        dtype=dtype,
        clip=clip,
        quiet=quiet,
    )


def _is_of(model: TrainedModel, learning: dict[str, Any], output: Path, *, begun: bool) -> bool:
    """Whether a network that was kept is this run's; if tiles were ``begun`` with it, it has to be."""
    other = _other_learning(model, learning)
    if other and begun:
        raise InputError(
            f"the run of {output} was begun otherwise: {other}; leave out --resume and use --overwrite to "
            f"start anew"
        )
    return not other


def _other_learning(model: TrainedModel, learning: dict[str, Any]) -> str:
    """What a model that was kept for --resume was made of, if of something else; empty if not."""
    before = model.origin["learning"]
    differ = [name for name, value in learning.items() if before.get(name) != value]
    if learning["mask_nan"] and "mask_nan" in differ:  # of tiles that had failed; it has learned from others
        differ.remove("mask_nan")
    return ", ".join(
        f"{name} is another one or has changed"
        if name in ("input", "psf")
        else f"{name} was {before.get(name)!r} and is {learning[name]!r}"
        for name in differ
    )


def apply_large(
    restorer: TrainedModel | Restorer,
    source: LazyImage,
    output: Path,
    how: Large,
    *,
    axes: str | None,
    device: str,
    mask_nan: bool,
    dtype: str | None,
    clip: bool,
    quiet: bool,
    check: bool = True,
    trained_in: float = 0.0,
) -> None:
    """Restore all tiles, say how it went, end the program.

    ``trained_in`` are the seconds that it took to learn, or to tune, what is applied.
    """
    from selfinv import large
    from selfinv.instrument import choose_device

    start = time.monotonic()
    with tiles_shown(quiet) as on_tile:
        result = large.apply(
            restorer,
            source,
            output,
            axes=axes,
            mask_nan=mask_nan,
            dtype=dtype or "float32",
            clip=clip,
            memory=how.bytes(),
            workers=how.workers,
            scheduler=how.scheduler,
            device=str(choose_device(device)),
            symmetries=how.symmetries,
            resume=how.resume,
            overwrite=how.overwrite,
            check=check,
            on_tile=on_tile,
        )
    took = f"{time.monotonic() - start:.0f} s"
    told(result, f"{took}, after {trained_in:.0f} s of training" if trained_in else took, quiet)


def told(result: LargeResult, took: str, quiet: bool) -> None:
    """What became of all tiles, how long it ``took``, and the exit status that goes with it."""
    from selfinv.large.engine import NOTHING_MEASURED

    outcome = result.outcome
    failures = result.failures()
    for line in failures[:SHOWN]:
        say(f"not restored: {line}")
    if len(failures) > SHOWN:
        say(f"not restored: {len(failures) - SHOWN} more tiles")
    if outcome.clipped():
        say(f"warning: {outcome.clipped()} values lay outside the type of {result.path} and were clipped")
    for words in outcome.warnings():
        say(f"warning: {words}")
    for frame, ratio in list(result.drifted.items())[:SHOWN]:
        say(
            f"warning: the model no longer fits frame {frame}: hidden values are predicted {ratio:.2f} times "
            f"as badly as in training; train on frames like it"
        )
    if len(result.drifted) > SHOWN:
        say(f"warning: nor does it fit {len(result.drifted) - SHOWN} more frames")
    if outcome.cancelled:
        say(
            f"interrupted with {outcome.done + outcome.skipped} of {outcome.tiles} tiles done; they are kept "
            f"in {result.path}.part, and --resume goes on"
        )
        sys.exit(INTERRUPTED)
    if not outcome.done + outcome.skipped:
        say(f"no tile could be restored; {result.path} was not written")
        raise typer.Exit(FAILED)
    if not quiet:
        earlier = f", {outcome.skipped} of them earlier" if outcome.skipped else ""
        say(
            f"wrote {result.path}: {outcome.done + outcome.skipped} tiles of "
            f"{' × '.join(str(n) for n in result.plan.core)}{earlier}, in {took}"
        )
    if failures:
        some = "1 tile is" if len(failures) == 1 else f"{len(failures)} tiles are"
        helpful = [option for option in ("--mask-nan", "--clip") if any(option in line for line in failures)]
        again = f"; {' '.join(['--resume', *helpful])} tries again"
        if all(NOTHING_MEASURED in line for line in failures):
            again = ""
        say(f"{some} left empty (NaN, or 0){again}")
        raise typer.Exit(FAILED)


@contextmanager
def tiles_shown(quiet: bool) -> Iterator[Callable[[Outcome, Tile], None] | None]:
    """A bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console) as bar:
            task = bar.add_task("tiles", total=None)

            def advance(outcome: Outcome, tile: Tile) -> None:
                through = outcome.done + outcome.skipped + len(outcome.failed)
                bar.update(task, total=outcome.tiles, completed=through)

            yield advance
        return
    first: list[float] = []  # when the first tile was done: before that, workers were still starting
    last = [float("-inf")]

    def line(outcome: Outcome, tile: Tile) -> None:
        now, through = time.monotonic(), outcome.done + len(outcome.failed)
        first[:] = first or [now]
        left = outcome.tiles - outcome.skipped - through
        if now - last[0] < 10 and left:
            return
        last[0] = now
        seconds = (now - first[0]) / max(1, through - 1) * left
        rest = f", {seconds:.0f} s left" if through > 1 else ""
        say(f"tile {through + outcome.skipped}/{outcome.tiles}{rest}")

    yield line
