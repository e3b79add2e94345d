"""Recipes: small files made for people that say how an image was restored, or how many are to be.

A recipe is plain YAML. Those that are written beside results also hold the SHA-256 of what was read and
written and the versions, so that the same numbers can be made again, or it can be said why they cannot.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from selfinv.atomic import written_beside
from selfinv.io.fits import parted
from selfinv.io.zarr_regions import MARKS, zarr_digest
from selfinv.types import InputError

Option = str | int | float | bool
SUFFIX = ".recipe.yaml"
QUOTES = "what begins with * or { must be in quotes, e.g. '*.tif'"
LONGEST = 10_000_000  # bytes; nobody writes a longer one


@dataclass(frozen=True)
class Recipe:
    """What a recipe's file says. Its paths are relative to the folder that the file is in.

    Parameters
    ----------
    command
        ``restore``, ``denoise``, ...
    inputs
        Paths or patterns (``data/**/*.tif``) of the images.
    output
        Path of the result, with ``{stem}``, ``{name}`` and ``{parent}`` for those of the input.
    options
        The command's long options without their dashes.
    train
        ``each``: a network for every input; ``first``: one, for all of them.
    read, wrote
        SHA-256 of every file that a run read and wrote (of a Zarr's chunks, of their names, sizes and times);
        empty in a recipe that no run has written.
    ended
        ``failed`` or ``interrupted`` if the run did not end well.
    versions
        Of the program, the libraries and the machine.
    """

    command: str
    inputs: tuple[str, ...]
    output: str
    options: dict[str, Option] = field(default_factory=dict)
    train: str = "each"
    read: dict[str, str] = field(default_factory=dict)
    wrote: dict[str, str] = field(default_factory=dict)
    ended: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def check(self, commands: Mapping[str, Iterable[str]]) -> None:
        """Raise `InputError` unless its command and options are among these."""
        if self.command not in commands:
            raise InputError(f"command {self.command!r} is unknown; {meant(self.command, commands)}")
        known = list(commands[self.command])
        for name in self.options:
            if name not in known:
                raise InputError(f"{self.command} has no option {name!r}; {meant(name, known)}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file (beside, then renamed)."""
        path = Path(path)
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["inputs"] = list(self.inputs)
        if self.train == "each":
            del content["train"]
        content = {name: value for name, value in content.items() if value not in ("", {})}
        words = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        with written_beside(path) as beside:
            beside.write_text(_heading(path, self) + words, encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read such a file.

        Raises
        ------
        InputError
            If it is missing, is no YAML, or does not say what a recipe says.
        """
        path = Path(path)
        try:
            if path.stat().st_size > LONGEST:
                raise InputError(
                    f"{path} has {path.stat().st_size} bytes, which is no recipe; give a YAML file"
                )
            words = path.read_text(encoding="utf-8")
            content = yaml.load(words, _Loader)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path} is no text file; expected a recipe in YAML") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} is no YAML: {_where(error, words)}") from None
        try:
            return cls(**_checked(content))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def beside(output: Path) -> Path:
    """Where the recipe of an output is written.

    Examples
    --------
    >>> str(beside(Path("restored.ome.tif")))
    'restored.ome.tif.recipe.yaml'
    """
    return output.parent / (output.name + SUFFIX)


def stem(path: Path) -> str:
    """A file's name without its extension, or two where they belong together.

    Examples
    --------
    >>> stem(Path("data/cells.ome.tif")), stem(Path("m31.fits.gz")), stem(Path("a.b.png"))
    ('cells', 'm31', 'a.b')
    """
    name = parted(path)[0].name
    return re.sub(r"(?i)(\.ome\.tiff?|\.fits\.gz|\.[^.]*)$", "", name) or name


def kept_file(path: Path) -> Path | None:
    """What stands for an image: the file, or of a Zarr folder its description; None if there is none."""
    for file in (parted(path)[0], *(path / mark for mark in MARKS)):
        if file.is_file():
            return file
    return None


def sha256(path: Path) -> str:
    """The checksum of a file's content, or of a Zarr folder's description and its chunks' stamps."""
    if path.is_dir():
        return zarr_digest(path)
    with open(kept_file(path) or path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def was_sharpened(path: Path) -> bool:
    """Whether the recipe beside a file says that it is itself a result, restored with a PSF."""
    try:
        made = Recipe.load(beside(path))
    except InputError:
        return False
    return "psf" in made.options and kept_file(path) is not None and sha256(path) in made.wrote.values()


def relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder, also through symbolic links; absolute if they have nothing in common."""
    folder, path = Path(os.path.realpath(folder)), Path(os.path.realpath(path.parent)) / path.name
    try:
        common = Path(os.path.commonpath([folder, path]))
    except ValueError:  # another drive
        return str(path)
    return str(path) if common == Path(common.anchor) else Path(os.path.relpath(path, folder)).as_posix()


def meant(word: str, known: Iterable[str]) -> str:
    """What may have been meant by a word that is unknown."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return (f"did you mean {close[0]}? Known are " if close else "use one of ") + ", ".join(known)


def _heading(path: Path, recipe: Recipe) -> str:
    what = f"How {recipe.output} was made. To make it again" if recipe.wrote else "To carry it out"
    return (
        f"# {what}: selfinv batch {path.name}\n"
        "# Paths are relative to this file's folder. For more images, inputs may be a list and patterns\n"
        "# such as data/**/*.tif, and output say {stem}, {name} or {parent} for each input's own.\n"
    )


def _where(error: BaseException, words: str) -> str:
    """A YAML error in one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        number = error.problem_mark.line
        line = words.splitlines()[number] if number < len(words.splitlines()) else ""
        hint = f"; {QUOTES}" if re.search(r"[:-]\s+[*{]", line) else ""
        return f"line {number + 1}: {error.problem}{hint}"
    return " ".join(str(error).split()) or type(error).__name__


# ---- what the file must say ----


def _checked(content: Any) -> dict[str, Any]:
    """The fields of a `Recipe`."""
    if not isinstance(content, dict):
        raise InputError("is no recipe; expected lines such as 'command: restore'")
    known = [f.name for f in fields(Recipe)]
    for key in content:
        if key not in known:
            raise InputError(f"{key!r} is unknown; {meant(str(key), known)}")
    for key, example in (("command", "restore"), ("inputs", "data/*.tif"), ("output", "out/{stem}.tif")):
        if content.get(key) in (None, "", []):
            raise InputError(f"{key} is missing; add a line such as '{key}: {example}'")
    inputs = content["inputs"] if isinstance(content["inputs"], list) else [content["inputs"]]
    if not all(isinstance(words, str) and words for words in inputs):
        raise InputError(f"inputs is {content['inputs']!r}; expected a path, a pattern or a list of such")
    values = content | {"inputs": tuple(inputs)}
    for key in ("command", "output", "ended"):
        if not isinstance(values.get(key, ""), str):
            hint = f"; {QUOTES}" if isinstance(values[key], dict) else ""
            raise InputError(f"{key} is {values[key]!r}; expected words{hint}")
    if values.get("train", "each") not in ("each", "first"):
        raise InputError(f"train is {values['train']!r}; use each or first")
    for key, kinds, expected in (
        ("options", Option, "lines such as 'seed: 1' below it, one value each"),
        ("read", str, "lines 'path: sha256' below it"),
        ("wrote", str, "lines 'path: sha256' below it"),
        ("versions", str, "lines such as 'torch: 2.9' below it"),
    ):
        values[key] = _mapping(key, values.get(key), kinds, expected)
    return values


def _mapping(key: str, value: Any, kinds: Any, expected: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key} is {value!r}; expected {expected}")
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, kinds):
            raise InputError(f"{key} has {name!r}: {entry!r}; expected {expected}")
    return value
