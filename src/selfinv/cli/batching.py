"""``batch``."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from selfinv.cli.console import FAILED, INTERRUPTED, about, as_options, say
from selfinv.cli.options import Quiet
from selfinv.types import InputError

if TYPE_CHECKING:
    from selfinv.cli.commands import Call


def batch(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="YAML: command, inputs, output, options; see the README.")
    ],
    output_folder: Annotated[
        Path | None, typer.Option(help="Write there, instead of the folder before the output's placeholders.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Keep what is there already from the same inputs and options, tiles of a large result, too.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a recipe for each of its inputs; or make a result again from the recipe beside it.

    An input that fails is reported, and the rest goes on (exit status 1). Ctrl-C ends after the present
    input, a second one at once, with the best so far (exit status 130).
    """
    from selfinv.cli.planning import Plan, differences, is_as_before, is_made, model_of

    if output_folder is not None and output_folder.exists() and not output_folder.is_dir():
        raise InputError(f"{output_folder} is a file; give a folder with --output-folder")
    plan = Plan.of(recipe, output_folder, quiet)
    for words in differences(plan):
        say(f"warning: {words}")
    start, model, rows = time.monotonic(), None, []
    with ending_after_this_one() as ending:
        for number, input in enumerate(plan.inputs, start=1):
            with about(f"{number}/{len(plan.inputs)} {Path(input).name}"):
                call = plan.call(input, model, resume=resume)
                row = (
                    Row(input, call.output, "kept") if resume and is_made(call) else _carried_out(call, input)
                )
                same = is_as_before(plan, call) if row.how == "made" else None
                if row.how == "kept" and not quiet:
                    say(f"kept {call.output}")
                if same is False or (same and not quiet):
                    say(
                        "the same file as before, byte for byte"
                        if same
                        else "warning: not the same as before"
                    )
            rows.append(row)
            if plan.trains_first and model is None and row.how in ("made", "kept"):
                model = model_of(call)
            if row.how == "interrupted" or (ending and number < len(plan.inputs)):
                break
    if not quiet:
        _print(rows)
    counts = {how: sum(row.how == how for row in rows) for how in ("made", "kept", "failed", "interrupted")}
    words = ", ".join(f"{count} {how}" for how, count in counts.items() if count or how == "made")
    words += f" of {len(plan.inputs)} in {time.monotonic() - start:.0f} s"
    if counts["interrupted"] or len(rows) < len(plan.inputs):
        say(f"interrupted: {words}; go on with --resume")
        raise SystemExit(INTERRUPTED)
    if counts["failed"] or not quiet:
        say(words)
    if counts["failed"]:
        raise typer.Exit(FAILED)


@dataclass(frozen=True)
class Row:
    """What became of an input: made, kept, failed or interrupted."""

    input: str
    output: Path
    how: str
    seconds: float = 0.0
    why: str = ""


def _carried_out(call: Call, input: str) -> Row:
    """Run a command; say what goes wrong in one line."""
    start = time.monotonic()
    how, why = "made", ""
    try:
        call.output.parent.mkdir(parents=True, exist_ok=True)
        call.run()
    except typer.Exit:
        how, why = "failed", "by its own checks"  # it has said which
    except (KeyboardInterrupt, SystemExit):
        how = "interrupted"
    except Exception as error:  # whatever it is, the other inputs need not suffer from it
        known = isinstance(error, InputError | OSError)
        words = as_options(str(error)) if known else f"{type(error).__name__}: {error}"
        how, why = "failed", " ".join(words.split())
        say(f"error: {why}")
    return Row(input, call.output, how, time.monotonic() - start, why)


@contextmanager
def ending_after_this_one() -> Iterator[list[bool]]:
    """Let the first Ctrl-C wait for the input in hand; the list is not empty once it has come."""
    asked: list[bool] = []
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        if not asked:
            asked.append(True)
            say("ending after this one; once more to end now, with the best so far")
        elif callable(before):
            before(number, frame)
        else:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _print(rows: list[Row]) -> None:
    """A line for each input, on standard output."""
    width = max(len(row.input) for row in rows)
    for row in rows:
        end = f"{row.how} {row.why}" if row.how == "failed" else f"{row.how:11} {row.output}"
        print(f"{row.input:<{width}}  {row.seconds:7.1f} s  {end}")
