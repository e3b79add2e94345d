"""Beside every result, the recipe that makes it again."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from selfinv.cli.console import say, uninterrupted
from selfinv.recipe import Option, Recipe, beside, kept_file, relative, sha256
from selfinv.types import InputError

READ = ("input", "psf", "mask", "angles", "model")
WRITTEN = ("output", "preview", "residual", "save_model")
UNTOLD = ("input", "output", "quiet", "no_recipe")  # told elsewhere, or without any effect on the result
PASSING = ("resume", "overwrite")  # of what was there already: no part of what a result is made from
ALWAYS = ("method", "seed")  # told also where they are the defaults


def recorded(function: Callable[..., None]) -> Callable[..., None]:
    """A command that also writes its recipe, once its output is there."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> None:
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        values = bound.arguments
        if values["no_recipe"]:
            return function(**values)
        place = beside(values["output"])
        check_place(place, values)
        draft = drafted(function, values)  # what is read may be another file by the time that all is done
        older = {name: _state(values.get(name)) for name in WRITTEN}

        def keep(ended: str = "") -> None:
            written = [values[n] for n, state in older.items() if _state(values.get(n)) not in (None, state)]
            _keep(place, draft, written, values["device"], ended)

        try:
            function(**values)
        except typer.Exit:  # failed by its own checks, but it was written
            keep("failed")
            raise
        except SystemExit:
            keep("interrupted")
            raise
        return keep()

    return command


def drafted(function: Callable[..., None], values: Mapping[str, Any]) -> Recipe:
    """What can be said of a run before it is begun, in a recipe beside its output."""
    folder = beside(values["output"]).parent
    read = [values[name] for name in READ if values.get(name) is not None]
    return Recipe(
        command=function.__name__,
        inputs=(relative(values["input"], folder),),
        output=_literally(values["output"].name),
        options=_options(function, values, folder),
        read={relative(path, folder): sha256(path) for path in read if _is_readable(path)},
    )


def check_place(place: Path, values: Mapping[str, Any]) -> None:
    """Refuse to write a recipe in the place of anything but an earlier run's."""
    if not place.exists():
        return
    try:
        record = Recipe.load(place)
        own = bool(record.wrote or record.ended)
    except InputError:
        own = False
    read = [values[name] for name in READ if values.get(name) is not None]
    if not own or any(path.exists() and path.samefile(place) for path in read):
        raise InputError(
            f"{place} is where the recipe of {values['output'].name} belongs, but no run has written it; "
            f"rename it, or give the output another name"
        )


def told(function: Callable[..., None]) -> list[str]:
    """The options that a recipe for this command may have, as they are on the command line."""
    return [_dashed(name) for name in inspect.signature(function).parameters if name not in UNTOLD]


def surroundings(device: str) -> dict[str, str]:
    """The versions, and what else a result's last digits depend on."""
    import torch

    from selfinv.instrument import choose_device
    from selfinv.versions import versions

    known = {name: str(version) for name, version in versions().items()}  # torch's is more than a string
    return known | {"device": str(choose_device(device)), "threads": str(torch.get_num_threads())}


def _options(function: Callable[..., None], values: Mapping[str, Any], folder: Path) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        value = values[name]
        if name in UNTOLD + PASSING or value is None or (value == parameter.default and name not in ALWAYS):
            continue
        options[_dashed(name)] = _literally(relative(value, folder)) if isinstance(value, Path) else value
    return options


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _literally(path: str) -> str:
    """A path in which braces are braces."""
    return path.replace("{", "{{").replace("}", "}}")


def _is_readable(path: Path) -> bool:
    """Of what is not, the command itself says why."""
    file = kept_file(path)
    return file is not None and os.access(file, os.R_OK)


def _state(path: Path | None) -> tuple[int, int] | None:
    """What is different once the file has been written anew."""
    file = None if path is None else kept_file(path)
    if file is None:
        return None
    told = file.stat()
    return told.st_ino, told.st_mtime_ns


def _keep(place: Path, draft: Recipe, written: list[Path], device: str, ended: str) -> None:
    with uninterrupted():
        try:
            wrote = {relative(path, place.parent): sha256(path) for path in written}
            replace(draft, wrote=wrote, ended=ended, versions=surroundings(device)).save(place)
        except (InputError, OSError) as error:  # the image itself is whole
            say(f"warning: there is no recipe of it: {error}")
