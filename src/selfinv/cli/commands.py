"""The commands that make one image, by name, and words of a recipe as their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from selfinv.cli.console import ClickException
from selfinv.cli.recording import READ, WRITTEN
from selfinv.cli.restoring import apply, restore
from selfinv.cli.tasks import denoise, inpaint, superres, tomography
from selfinv.recipe import Option
from selfinv.types import InputError

COMMANDS = {f.__name__: f for f in (restore, denoise, inpaint, superres, tomography, apply)}


@dataclass(frozen=True)
class Call:
    """A command with its arguments, which have been parsed just as on the command line."""

    function: Callable[..., None]
    values: dict[str, Any]
    context: Any

    @property
    def output(self) -> Path:
        path: Path = self.values["output"]
        return path

    def run(self) -> None:
        """Carry it out."""
        with self.context:
            self.context.command.invoke(self.context)


def parsed(
    command: str, input: Path, output: Path, options: Mapping[str, Option], *, quiet: bool = False
) -> Call:
    """A call of a command with options by their long names, paths included, as they are in a recipe.

    Raises
    ------
    InputError
        If the command line would not take them.
    """
    parser = _parsers()[command]
    given: dict[str, Any] = {**options, "input": input, "output": output}
    words: list[str] = ["--quiet"] if quiet else []
    places: list[str] = []
    for parameter in parser.params:
        name = parameter.name.replace("_", "-")
        if parameter.param_type_name == "argument":
            if name not in given:
                raise InputError(f"{command} needs the option {name}; add it below options")
            places.append(str(given[name]))
        elif name in given and getattr(parameter, "is_flag", False):
            if not isinstance(given[name], bool):
                raise InputError(f"{name} is {given[name]!r}; expected true or false")
            words += [f"--{name}"] if given[name] else []
        elif name in given:
            words.append(f"--{name}={given[name]}")
    try:
        context = parser.make_context(command, [*words, "--", *places])
    except ClickException as error:
        raise InputError(error.format_message().rstrip(".")) from None
    paths = {n: Path(context.params[n]) for n in READ + WRITTEN if context.params.get(n) is not None}
    return Call(COMMANDS[command], context.params | paths, context)


@cache
def _parsers() -> dict[str, Any]:
    app = typer.Typer()
    for function in COMMANDS.values():
        app.command()(function)
    group: Any = typer.main.get_command(app)
    parsers: dict[str, Any] = group.commands
    return parsers
