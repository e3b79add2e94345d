"""Patterns of a recipe: which files are meant, and what is made of each one's name."""

from __future__ import annotations

import glob
import os
import re
import string
from collections.abc import Iterable
from pathlib import Path, PurePath

from selfinv.recipe import SUFFIX, kept_file, stem
from selfinv.types import InputError

PLACEHOLDERS = "use {stem}, {name} or {parent}, and {{ for a brace"


def matching(patterns: Iterable[str], folder: Path) -> list[str]:
    """The files that are meant, as seen from ``folder``, each once; those of one pattern sorted.

    Raises
    ------
    InputError
        If a pattern matches nothing: a mistake is better found before a long run than after it.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        path = folder / pattern
        if path.is_dir() and kept_file(path) is None:
            raise InputError(f"inputs: {path} is a folder; expected files, e.g. {pattern.rstrip('/')}/*.tif")
        names = [pattern]
        if kept_file(path) is None:  # a file whose name looks like a pattern is meant itself
            names = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
            names = [n for n in names if kept_file(folder / n) is not None and not n.endswith(SUFFIX)]
        if not names:
            kind = "matches no file" if glob.has_magic(pattern) else "does not exist"
            raise InputError(f"inputs: {path} {kind}; paths are relative to the recipe's folder")
        for name in names:
            found.setdefault(os.path.realpath(folder / name), name)
    return list(found.values())


def filled(pattern: str, input: str) -> str:
    """A pattern with the parts of an input's path (as seen from the recipe's folder) put in.

    Examples
    --------
    >>> filled("restored/{parent}/{stem}.tif", "day1/cells.ome.tif")
    'restored/day1/cells.tif'
    """
    path = PurePath(input)
    inner = [part for part in path.parent.parts if part not in (path.anchor, "..")]
    parts = {"stem": stem(Path(input)), "name": path.name, "parent": "/".join(inner) or "."}
    try:
        for _, name, form, conversion in string.Formatter().parse(pattern):
            if name is not None and (name not in parts or form or conversion):
                raise InputError(f"{pattern!r} has the unknown placeholder {{{name}}}; {PLACEHOLDERS}")
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{pattern!r} has a brace on its own; {PLACEHOLDERS}") from None
    return pattern.format(**parts)


def varies(pattern: str) -> bool:
    """Whether a pattern has a placeholder."""
    return "{" in pattern.replace("{{", "")


def moved(pattern: str, folder: Path) -> str:
    """The same pattern in another folder, instead of those before its first placeholder.

    Examples
    --------
    >>> moved("../restored/{parent}/{stem}.tif", Path("elsewhere"))
    'elsewhere/{parent}/{stem}.tif'
    """
    fixed = re.match(r"(?:[^{]|\{\{)*", pattern)
    assert fixed is not None
    rest = fixed[0].rpartition("/")[2] + pattern[fixed.end() :]
    outer = str(folder).replace("{", "{{").replace("}", "}}")
    return f"{outer}/{rest}"
