"""From a recipe to the commands that carry it out, all checked before the first is begun."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from selfinv.atomic import check_writable
from selfinv.cli.commands import COMMANDS, Call, parsed
from selfinv.cli.patterns import filled, matching, moved, varies
from selfinv.cli.recording import READ, WRITTEN, check_place, drafted, surroundings, told
from selfinv.io.fits import parted
from selfinv.large.places import Places
from selfinv.recipe import Option, Recipe, beside, kept_file, meant, sha256, stem
from selfinv.types import InputError

PATHS = [name.replace("_", "-") for name in READ + WRITTEN]
MADE = [name.replace("_", "-") for name in WRITTEN]
# With a model at hand, another command or another option takes the place of training.
WITH_MODEL = {"restore": "apply", "denoise": "apply", "superres": "superres", "tomography": "tomography"}
TRAINING = ("save-model", "method", "steps", "weight")  # options without any use then


@dataclass(frozen=True)
class Plan:
    """A recipe, its inputs as they are found, and where its paths begin.

    Parameters
    ----------
    recipe, folder
        What is to be done, and the folder that its paths are relative to.
    elsewhere
        Where results go instead of the folders that the recipe says.
    quiet
        Passed on to every command.
    """

    recipe: Recipe
    folder: Path
    elsewhere: Path | None = None
    quiet: bool = False
    inputs: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, elsewhere: Path | None = None, quiet: bool = False) -> Plan:
        """The plan for a recipe's file.

        Raises
        ------
        InputError
            If anything about it can be known to go wrong.
        """
        recipe = Recipe.load(path)
        try:
            recipe.check({name: told(function) for name, function in COMMANDS.items()})
            inputs = matching(recipe.inputs, path.parent)
            plan = cls(recipe, path.parent, elsewhere, quiet, inputs)
            plan._check_options()
            plan._check_places()
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        return plan

    @property
    def trains_first(self) -> bool:
        """Whether one network is for all inputs."""
        return self.recipe.train == "first"

    def call(self, input: str, model: Path | None = None, *, resume: bool = False) -> Call:
        """The command for one input; with a model that one has been trained before.

        ``resume``: it goes on with tiles that an earlier run has left.
        """
        output = self._path("output", self.recipe.output, input)
        options = {
            name: str(self._path(name, str(value), input)) if name in PATHS else value
            for name, value in self.recipe.options.items()
        }
        command = self.recipe.command
        if model is not None:
            command = WITH_MODEL[command]
            known = [name for name in told(COMMANDS[command]) if name not in TRAINING]
            options = {name: value for name, value in options.items() if name in known}
            options["model"] = str(model)
        elif self.trains_first:
            options.setdefault("save-model", str(output.with_name(stem(output) + ".safetensors")))
        call = parsed(command, self.folder / input, output, options, quiet=self.quiet)
        if "overwrite" not in told(COMMANDS[command]) or options.get("overwrite") or options.get("resume"):
            return call
        begun = resume and Places(output).has_begun
        if begun and _is_as_recorded(call):
            options["resume"] = True
        elif begun or output.is_dir():
            options["overwrite"] = True  # as any other file that is made again
        return parsed(command, self.folder / input, output, options, quiet=self.quiet)

    def _path(self, name: str, pattern: str, input: str) -> Path:
        if self.elsewhere is not None and name in MADE:
            return Path(filled(moved(pattern, self.elsewhere), input))
        return self.folder / filled(pattern, input)

    def _check_options(self) -> None:
        from selfinv import methods

        recipe, method = self.recipe, self.recipe.options.get("method", "ssi")
        if method not in methods.METHODS:
            raise InputError(f"method {method!r} is unknown; {methods.meant(str(method))}")
        if not self.trains_first:
            return
        if recipe.command not in WITH_MODEL:
            raise InputError(f"train: first is not for {recipe.command}; {meant('', WITH_MODEL)}")
        if not str(method).startswith(("ssi", "auto")) or "model" in recipe.options:
            raise InputError("train: first needs a method that trains; use 'method: ssi', and no model")
        if "residual" in recipe.options:
            raise InputError("train: first leaves no residual of the others; leave it out, or train each")
        for name in ("psf", "angles"):
            if varies(str(recipe.options.get(name, ""))):
                raise InputError(f"train: first needs one {name} for all inputs; give it, or use train: each")

    def _check_places(self) -> None:
        """Whatever is written must be written once, and must not be read."""
        read = {_file(self.folder / name) for name in self.inputs}
        owners: dict[str, str] = {}
        writable: set[Path] = set()
        for input in self.inputs:
            call = self.call(input)
            there = next(f for f in (call.output.parent, *call.output.parent.parents) if f.exists())
            if there not in writable:  # the rest of the way is made then
                check_writable(there / call.output.name)
                writable.add(there)
            for name in READ:
                path = call.values.get(name)
                if path is None:
                    continue
                if kept_file(path) is None:
                    raise InputError(f"{name} {path} {'is no file' if path.exists() else 'does not exist'}")
                read.add(_file(path))
            written = {name: call.values[name] for name in WRITTEN if call.values.get(name) is not None}
            self._check_different(written, input)
            if self.trains_first and "save-model" in self.recipe.options:
                del written["save_model"]
            for path in [*written.values(), beside(call.output)]:
                owner = owners.setdefault(os.path.realpath(path), input)
                if owner != input:
                    raise InputError(
                        f"{owner} and {input} would both be written to {path}; tell them apart with "
                        f"{{stem}}, {{name}} or {{parent}}"
                    )
            check_place(beside(call.output), call.values)
        for path, input in owners.items():
            if path in read:
                raise InputError(
                    f"what is made of {input} would be written to {path}, which is an input; write to a "
                    f"folder of its own, e.g. output: restored/{{stem}}.tif"
                )

    def _check_different(self, written: dict[str, Path], input: str) -> None:
        """What one input's run writes must not be one file."""
        first: dict[str, str] = {}
        for name, path in written.items():
            other = first.setdefault(os.path.realpath(path), name)
            if other != name:
                one, two = (word.replace("_", "-") for word in (other, name))
                why = " (--output-folder leaves the recipe's folders out)" if self.elsewhere else ""
                raise InputError(
                    f"{one} and {two} of {input} would both be written to {path}{why}; tell them apart by "
                    f"name, e.g. {two}: {{stem}}-{two}{path.suffix}"
                )


def _file(path: Path) -> str:
    """The file that is read for an input, by its one true name."""
    return os.path.realpath(parted(path)[0])


def _is_as_recorded(call: Call) -> bool:
    """Whether the recipe beside the output, if there is one, is of the same inputs and options."""
    try:
        old, new = Recipe.load(beside(call.output)), drafted(call.function, call.values)
    except (InputError, OSError):  # it was killed before it wrote one: its journal tells
        return True
    told = [(r.command, r.inputs, r.output, r.options, r.read) for r in (old, new)]
    return told[0] == told[1]


def is_made(call: Call) -> bool:
    """Whether the output and all beside it are there, from the same inputs and options."""
    place = beside(call.output)
    try:
        old = Recipe.load(place)
    except (InputError, OSError):  # running it will tell
        return False
    made = bool(old.wrote) and not old.ended and not changed(old.wrote, place.parent)
    return made and _is_as_recorded(call)


def model_of(call: Call) -> Path | None:
    """The model that a finished call has written, if it did."""
    path: Path | None = call.values.get("save_model")
    try:
        record = Recipe.load(beside(call.output))
    except InputError:
        return None
    made = {os.path.realpath(beside(call.output).parent / name) for name in record.wrote}
    return path if path is not None and os.path.realpath(path) in made and not record.ended else None


def changed(hashes: dict[str, str], folder: Path) -> list[str]:
    """The files that are not what they were."""
    paths = {name: folder / name for name in hashes}
    return [n for n, path in paths.items() if kept_file(path) is None or sha256(path) != hashes[n]]


def is_as_before(plan: Plan, call: Call) -> bool | None:
    """Whether a result that was made again is the same file; None if that cannot be known, as of a Zarr."""
    recipe = plan.recipe
    before = recipe.wrote.get(filled(recipe.output, plan.inputs[0]))
    if (
        before is None
        or recipe.ended == "interrupted"
        or len(plan.inputs) > 1
        or kept_file(call.output) is None
        or call.output.is_dir()
    ):
        return None
    return sha256(call.output) == before


def differences(plan: Plan) -> list[str]:
    """Why the result may not be that of the run that wrote the recipe, a line each."""
    recipe = plan.recipe
    lines = [
        f"{plan.folder / name} is not the file that it was for this recipe; the result may differ"
        for name in changed(recipe.read, plan.folder)
    ]
    if recipe.ended == "interrupted":
        lines.append(
            "this recipe's run was interrupted, and its output the best so far; this is the whole run"
        )
    device: Option = recipe.options.get("device", "auto")
    here = surroundings(str(device)) if recipe.versions else {}
    other = [f"{name} {old} (here {here.get(name, 'unknown')})" for name, old in recipe.versions.items()]
    other = [
        words for words, (n, old) in zip(other, recipe.versions.items(), strict=True) if here.get(n) != old
    ]
    if other:
        lines.append(f"this recipe was made with {', '.join(other)}; numbers may differ slightly")
    return lines
