"""What the user sees: lines, progress, interruption."""

from __future__ import annotations

import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer

from selfinv.types import SelfinvWarning

if TYPE_CHECKING:
    from selfinv.solvers.base import Callback, Progress

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# typer brings its own click in new versions and uses the installed one in old ones.
ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

_BOTH = re.compile(r"(?<![\w./-])[a-z_]+=\S* \((--[^)]+)\)")  # axes= (--axes)
_PARAMETER = re.compile(
    r"(?<![\w./-])(?P<name>axes|boundary|mask_nan|method|seed|symmetries|weight|max_steps)="
    r"(?P<value>'\S*'|-?\d+(?:\.\d+)?|[A-Za-z][\w-]*)?(?![\w/(]|\.\w)"
)

_subjects: list[str] = []


def say(words: str) -> None:
    """One line on standard error."""
    subject = f"{_subjects[-1]}: " if _subjects else ""
    show(f"selfinv: {subject}{' '.join(words.split())}")


def as_options(words: str) -> str:
    """A message with parameters as they are called here, for it may be meant for Python.

    Examples
    --------
    >>> as_options("name its axes (axes='cyx', for instance), or pass mask_nan=True (--mask-nan)")
    'name its axes (--axes cyx, for instance), or pass --mask-nan'
    """

    def option(found: re.Match[str]) -> str:
        name, value = found["name"].replace("_", "-"), (found["value"] or "").strip("'")
        return f"--{name} {value}".rstrip() if value != "True" else f"--{name}"

    return _PARAMETER.sub(option, _BOTH.sub(r"\1", words))


def show(text: str) -> None:
    """Text on standard error; where its reader has gone (``| head``) the work goes on without it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


@contextmanager
def about(subject: str) -> Iterator[None]:
    """Begin every line with what it is about, where there are many."""
    _subjects.append(subject)
    try:
        yield
    finally:
        _subjects.pop()


def one_of_many() -> bool:
    """Whether to be brief."""
    return bool(_subjects)


@contextmanager
def progress(quiet: bool) -> Iterator[Callback | None]:
    """A live bar on a terminal, a line now and then elsewhere."""
    if quiet:
        yield None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}  held-out {task.fields[score]}"),
        TimeRemainingColumn(),
    ]
    with Bar(*columns, console=console) as bar:
        tasks: dict[tuple[int, str], Any] = {}

        def show(progress: Progress) -> None:
            loss, score = _number(progress.loss), _number(progress.score)
            part = (progress.attempt, progress.phase)
            if part not in tasks:
                for task in tasks.values():
                    bar.stop_task(task)
                words = progress.phase or "solving"
                words += f", attempt {progress.attempt}" if progress.attempt > 1 else ""
                tasks[part] = bar.add_task(words, total=progress.max_steps, loss=loss, score=score)
            bar.update(tasks[part], completed=progress.step, loss=loss, score=score)

        yield show


def _number(value: float) -> str:
    """Four digits, or a dash before there is a value."""
    return f"{value:#.4g}" if math.isfinite(value) else "-"


def _lines() -> Callback:
    last = [time.monotonic() if one_of_many() else -math.inf]

    def show(progress: Progress) -> None:
        now = time.monotonic()
        ends = progress.step in (1, progress.max_steps)
        ends = ends and not progress.phase and not one_of_many()  # phases may be many and short
        if now - last[0] < 10 and not ends:
            return
        last[0] = now
        attempt = f" (attempt {progress.attempt})" if progress.attempt > 1 else ""
        phase = f"{progress.phase}: " if progress.phase else ""
        say(
            f"{phase}step {progress.step}/{progress.max_steps}{attempt}, loss {_number(progress.loss)}, "
            f"held-out {_number(progress.score)}"
            + (f", {progress.seconds_left:.0f} s left" if progress.step > 1 else "")
        )

    return show


@contextmanager
def uninterrupted(*, last: bool = True) -> Iterator[None]:
    """Let Ctrl-C and a batch system's request to end wait while files are written.

    Of the ``last`` ones there is nothing left to end then, but for the rest of a batch.
    """
    waiting: list[int] = []

    def wait(number: int, _: Any) -> None:
        waiting.append(number)

    before = {number: signal.signal(number, wait) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if waiting and (one_of_many() or not last):
            signal.raise_signal(waiting[0])


class Interruption:
    """Ctrl-C, and a batch system's request to end: the first ends the run, only the third abandons it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 2:
            say("already ending, what there is is being written; once more to abandon it")
        else:
            raise KeyboardInterrupt


def show_warning(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
    if issubclass(category, SelfinvWarning):
        say(f"warning: {as_options(str(message))}")
