"""Options that several commands share, and how their words become numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from selfinv.resources import available_memory
from selfinv.types import InputError

PIXEL = 12  # bytes of a PSF: in double precision, and in single to be written
SMALL = 2**32  # bytes: so much is tried, for of a container's free memory its file cache is not told

KINDS = "TIFF, OME-TIFF, PNG, NPY or FITS (of its extensions the first image, or as in a.fits\\[DQ])"
Input = Annotated[Path, typer.Argument(metavar="INPUT", help=f"{KINDS}.")]
Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="The extension says the format.")]
TiledInput = Annotated[
    Path,
    typer.Argument(metavar="INPUT", help=f"{KINDS}; OME-Zarr where OUTPUT is one."),
]
PiecesInput = Annotated[Path, typer.Argument(metavar="INPUT", help=f"{KINDS}; or OME-Zarr.")]
TiledOutput = Annotated[
    Path, typer.Argument(metavar="OUTPUT", help="The extension says the format; .zarr goes tile by tile.")
]
Axes = Annotated[
    str | None,
    typer.Option(help="Axes of INPUT, one letter each (t c z y x), if the file does not name them."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw.")]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        "--max-steps",
        min=1,
        help="Training steps or iterations, instead of the method's own number.",
    ),
]
MaskNan = Annotated[bool, typer.Option("--mask-nan", help="Treat NaN and infinite values as missing pixels.")]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="An image of INPUT's size, or of one frame of it, e.g. bad.tif or a.fits\\[DQ]: not 0 where a "
        "pixel is not to be used; it is filled in from around."
    ),
]
Saturation = Annotated[
    float | None,
    typer.Option(
        help="Values at or above this level are taken as missing, and the light there is filled in from "
        "around: there was at least as much, and often more than what comes back.",
    ),
]
DType = Annotated[
    str | None,
    typer.Option(help="Type of OUTPUT, e.g. uint16; by default float32, or INPUT's integers for PNG."),
]
Clip = Annotated[
    bool, typer.Option("--clip", help="Clip values that do not fit --dtype instead of refusing.")
]
Preview = Annotated[
    Path | None, typer.Option(help="Also write a before/after picture (png, pdf or svg) to this file.")
]
Residual = Annotated[
    Path | None,
    typer.Option(
        help="Also write what is left over to this file: INPUT less what the instrument would measure of "
        "OUTPUT, NaN where missing; noise without structure, if all is well."
    ),
]
SaveModel = Annotated[
    Path | None,
    typer.Option(help="Also write the trained model (.safetensors), for 'selfinv apply'."),
]
SaveOwnModel = Annotated[
    Path | None,
    typer.Option(
        "--save-model",
        help="Also write the trained model (.safetensors), for this command's --model; 'selfinv apply' takes "
        "none of these.",
    ),
]
UseModel = Annotated[
    Path | None,
    typer.Option("--model", help="Use this model, saved for the same kind of data, instead of training one."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table of methods, no summary.")]
NoRecipe = Annotated[
    bool,
    typer.Option("--no-recipe", help="Do not write OUTPUT's recipe, from which 'selfinv batch' remakes it."),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="For a .zarr OUTPUT: for all workers together, e.g. 4GiB; by default 60 % of what is free."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="For a .zarr OUTPUT: processes; by default one for each core, at most 8, and none for a small "
        "image.",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="For a .zarr OUTPUT: address of a running Dask scheduler, instead of processes here."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="For a .zarr OUTPUT: go on with a run that was ended.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="For a .zarr OUTPUT: replace one that is there.")
]
Symmetries = Annotated[
    int,
    typer.Option(
        min=1,
        max=8,
        help="For a .zarr OUTPUT: average over so many flips and turns; 1 is up to 8 times as fast.",
    ),
]
PSFOutput = Annotated[Path, typer.Option("--output", "-o", help="Where to write the PSF (TIFF or NPY).")]


def numbers(option: str, words: str, example: str = "17,17") -> list[float]:
    """The numbers of a list like ``17,17`` or ``17x17``."""
    try:
        return [float(w) for w in words.replace("x", ",").replace("×", ",").split(",")]
    except ValueError:
        raise InputError(f"{option} {words!r} is no list of numbers; expected e.g. {example}") from None


def per_axis(option: str, words: str, ndim: int, example: str = "17,17") -> list[float]:
    """One number for each axis, or one for all."""
    values = numbers(option, words, example)
    if len(values) not in (1, ndim):
        raise InputError(
            f"{option} {words!r} has {len(values)} numbers; expected 1{f' or {ndim}' if ndim > 1 else ''}"
        )
    return values * ndim if len(values) == 1 else values


def shape_of(words: str, ndim: int) -> tuple[int, ...]:
    """What ``--shape`` says."""
    return whole("--shape", per_axis("--shape", words, ndim))


def whole(option: str, values: list[float]) -> tuple[int, ...]:
    """Pixels from numbers; of an array that memory can hold."""
    words = ",".join(f"{n:.10g}" for n in values)
    if not all(n.is_integer() for n in values):
        raise InputError(f"{option} {words} is no whole number of pixels; expected e.g. 17,17")
    needed = PIXEL * math.prod(values)
    if needed > max(available_memory(), SMALL):
        raise InputError(
            f"{option} {words} takes {needed / 2**30:.3g} GiB of memory, more than is free; expected e.g. "
            f"17,17"
        )
    return tuple(int(n) for n in values)
