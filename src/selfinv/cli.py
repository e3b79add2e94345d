"""The command line: ``selfinv restore | apply | psf | simulate | score | demo | info``.

Exit status: 0 when the output was written whole; 2 for a mistake in what was given (one line on standard
error); 1 when a run failed by its own checks; 130 when it was interrupted.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from selfinv import __version__
from selfinv.types import Array, InputError, SelfinvWarning, guess_axes, parse_axes, same_layout

if TYPE_CHECKING:
    from selfinv.io import Image
    from selfinv.solvers.base import Callback, Progress

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# typer brings its own click in new versions and uses the installed one in old ones.
ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

app = typer.Typer(
    name="selfinv",
    help="Restore one noisy, blurred image from the image itself and the point spread function.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
psf_app = typer.Typer(help="Make a point spread function: by formula, or from a bead.", no_args_is_help=True)
app.add_typer(psf_app, name="psf")

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="TIFF, OME-TIFF, PNG, NPY or FITS.")]
Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="The extension says the format.")]
Axes = Annotated[
    str | None,
    typer.Option(help="Axes of INPUT, one letter each (t c z y x), if the file does not name them."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Seed = Annotated[int, typer.Option(min=0, help="Of every random draw.")]
MaskNan = Annotated[bool, typer.Option("--mask-nan", help="Treat NaN and infinite values as missing pixels.")]
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
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
PSFOutput = Annotated[Path, typer.Option("--output", "-o", help="Where to write the PSF (TIFF or NPY).")]


def say(words: str) -> None:
    """One line on standard error."""
    print(f"selfinv: {' '.join(words.split())}", file=sys.stderr)


# ---- restore and apply ----


@app.command()
def restore(
    input: Input,
    output: Output,
    psf: Annotated[
        Path | None, typer.Option(help="The point spread function's file; without it, only noise is removed.")
    ] = None,
    method: Annotated[str, typer.Option(help="ssi, ssi-paper or ssi-unmasked.")] = "ssi",
    axes: Axes = None,
    boundary: Annotated[
        str,
        typer.Option(
            help="Outside the image: unknown (it goes on), zero (nothing), reflect, periodic, or auto: "
            "zero if the image fades at its edges as only that can make it, else unknown."
        ),
    ] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Training steps, instead of the method's own number.")
    ] = None,
    mask_nan: MaskNan = False,
    dtype: DType = None,
    clip: Clip = False,
    preview: Preview = None,
    save_model: Annotated[
        Path | None, typer.Option(help="Also write the trained model (.safetensors), for 'selfinv apply'.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Restore INPUT, which an instrument has blurred and made noisy, and write it to OUTPUT.

    Ctrl-C ends the training and writes the best so far (exit status 130).
    """
    from selfinv.restoration import restore as run

    image, dtype, clip = _open(input, output, axes, dtype, clip, others=[psf], preview=preview)
    kernel = None if psf is None else _read_psf(psf, image)
    if save_model is not None:
        _check_beside(save_model, ".safetensors", [input, psf], output)
    with _progress(quiet) as callback:
        result = run(
            image.data,
            kernel,
            method=method,
            axes=image.axes,
            boundary=boundary,  # type: ignore[arg-type]  # checked there
            mask_nan=mask_nan,
            device=device,
            seed=seed,
            max_steps=steps,
            callback=callback,
        )
    with _uninterrupted():
        if result.model is not None:
            image = replace(image, axes=result.model.axes)
        _save(output, result.image, image, dtype, clip)
        if save_model is not None and result.model is not None:
            result.model.described(input=input.name).save(save_model)
        if preview is not None:
            _picture(preview, image, result.image)
    if not result.status.failed and (result.status.failed_attempts or result.status.name == "cancelled"):
        say(str(result.status))  # of a failure, a warning has told
    stats = result.stats
    if not quiet:
        say(
            f"wrote {output}: {stats['method']}, {stats['steps']} steps in {stats['seconds']:.0f} s, "
            f"held-out {stats['loss']} score {stats['held_out_score']:.5g} "
            f"(a constant image: {stats['held_out_score_of_a_constant']:.5g})"
        )
    if result.status.name == "cancelled":
        sys.exit(INTERRUPTED)
    if result.status.failed:
        raise typer.Exit(FAILED)


@app.command()
def apply(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Written by 'restore --save-model'.")],
    input: Input,
    output: Output,
    axes: Axes = None,
    device: Device = "auto",
    mask_nan: MaskNan = False,
    dtype: DType = None,
    clip: Clip = False,
    preview: Preview = None,
) -> None:
    """Restore INPUT with a model trained on another image of the same instrument."""
    from selfinv.restoration import choose_device, load_model

    image, dtype, clip = _open(input, output, axes, dtype, clip, others=[model], preview=preview)
    trained = load_model(model)
    restored = trained.apply(
        image.data, axes=image.axes, mask_nan=mask_nan, device=str(choose_device(device))
    )
    with _uninterrupted():
        image = replace(image, axes=image.axes or same_layout(trained.axes, restored.ndim))
        _save(output, restored, image, dtype, clip)
        if preview is not None:
            _picture(preview, image, restored)
    say(f"wrote {output}")


def _open(
    input: Path,
    output: Path,
    axes: str | None,
    dtype: str | None,
    clip: bool,
    *,
    others: list[Path | None],
    preview: Path | None,
) -> tuple[Image, str | None, bool]:
    """Read the input and make sure, before any work, that the output can be written."""
    from selfinv import io

    image = io.read(input, axes=axes)
    inputs = [input, *(other for other in others if other is not None)]
    if dtype is None:
        if output.suffix.lower() == ".png" and image.data.dtype in (np.uint8, np.uint16):
            # The camera's own saturation: what leaves its range is clipped, and counted aloud.
            dtype, clip = image.data.dtype.name, True
        else:
            dtype = "float32"
    io.check_output(output, inputs=inputs, dtype=dtype, shape=image.data.shape, axes=image.axes)
    if preview is not None:
        _check_beside(preview, ".png .pdf .svg", inputs, output)
    return image, dtype, clip


def _check_beside(path: Path, suffixes: str, inputs: Sequence[Path | None], output: Path) -> None:
    """Refuse an additional output that cannot be written, or would replace an input or the output."""
    if path.suffix.lower() not in suffixes.split():
        raise InputError(f"{path} has the extension {path.suffix!r}; use {' or '.join(suffixes.split())}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be written: its folder does not exist, or it is a folder itself")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path} cannot be written: its folder is read-only")
    for other in inputs:
        if other is not None and path.exists() and other.exists() and path.samefile(other):
            raise InputError(f"{path} is an input; choose another name")
    _check_different(path, output)


def _check_different(path: Path, output: Path) -> None:
    if os.path.realpath(path) == os.path.realpath(output):
        raise InputError(f"{path} is the output's own name; choose another one")


def _read_psf(path: Path, image: Image) -> Array:
    """The PSF's values, once its voxel size is known not to contradict the image's."""
    from selfinv import io

    kernel = io.read(path)
    for axis in "zyx":
        ours, theirs = image.voxel_size.get(axis), kernel.voxel_size.get(axis)
        if ours and theirs and abs(ours / theirs - 1) > 0.01:
            raise InputError(
                f"{path} has {theirs:g} µm per sample along {axis} but the image has {ours:g}; resample it: "
                f"selfinv psf measured {path} --target-voxel-size ... -o resampled.tif"
            )
    return kernel.data


def _save(output: Path, restored: Array, source: Image, dtype: str | None, clip: bool) -> None:
    """Write the restored image with its source's axes, voxel sizes and metadata; lose it in no case."""
    from selfinv import io

    image = replace(source, data=restored)
    if clip and dtype and (outside := io.count_outside(restored, dtype)):
        say(
            f"warning: {outside} of {restored.size} values lay outside {dtype} and were clipped; "
            f"write float32 TIFF to keep them"
        )
    try:
        io.write(output, image, dtype=dtype, clip=clip)
    except InputError as error:
        rescue = output.with_name(output.name + ".rescued.npy")
        try:
            io.write(rescue, io.Image(restored))
        except InputError:
            raise error from None
        raise InputError(f"{error}; the result itself was kept, as float32, in {rescue}") from error


def _picture(path: Path, source: Image, restored: Array) -> None:
    from selfinv.report import preview

    preview(path, {"before": source.data, "after": restored}, source.axes or guess_axes(restored.shape))


# ---- PSFs ----


@psf_app.command("gaussian")
def psf_gaussian(
    sigma: Annotated[
        str, typer.Option(help="Standard deviation in pixels, or in µm with --pixel-size; z,y,x.")
    ],
    output: PSFOutput,
    shape: Annotated[
        str | None, typer.Option(help="Size in pixels, e.g. 17,17; by default ±4 sigma.")
    ] = None,
    pixel_size: Annotated[
        str | None, typer.Option(help="Micrometres per pixel, one number or z,y,x.")
    ] = None,
    ndim: Annotated[int, typer.Option(min=1, max=3, help="Axes, if --sigma is one number.")] = 2,
) -> None:
    """A Gaussian, averaged over the pixels."""
    from selfinv import psf

    widths = _numbers("--sigma", sigma)
    widths = widths * ndim if len(widths) == 1 else widths
    sizes = None if pixel_size is None else _per_axis("--pixel-size", pixel_size, len(widths))
    kernel = psf.gaussian(
        widths, None if shape is None else _shape(shape, len(widths)), pixel_size=sizes or 1.0
    )
    _write_psf(output, kernel, sizes)


@psf_app.command("gibson-lanni")
def psf_gibson_lanni(
    na: Annotated[float, typer.Option(help="Numerical aperture.")],
    wavelength: Annotated[float, typer.Option(help="Emission wavelength, µm.")],
    pixel_size: Annotated[str, typer.Option(help="Pixel size in the sample, µm; one number or y,x.")],
    shape: Annotated[str, typer.Option(help="Size in pixels: y,x for a plane, z,y,x for a stack.")],
    output: PSFOutput,
    z_step: Annotated[float | None, typer.Option(help="Distance of a stack's planes, µm.")] = None,
    defocus: Annotated[float, typer.Option(help="Distance from focus of the (middle) plane, µm.")] = 0.0,
    depth: Annotated[float, typer.Option(help="Of the object under the cover slip, µm.")] = 0.0,
    immersion: Annotated[float, typer.Option(help="Refractive index: air 1, water 1.33, oil 1.515.")] = 1.33,
    sample: Annotated[float | None, typer.Option(help="Its refractive index; as the immersion's.")] = None,
    cover_slip: Annotated[float, typer.Option(help="Its thickness, µm; 0 for none.")] = 170.0,
    working_distance: Annotated[float, typer.Option(help="Of the objective, µm.")] = 150.0,
    integrate_pixels: Annotated[bool, typer.Option(help="Average over the pixels' area.")] = False,
) -> None:
    """The Gibson-Lanni model of a widefield microscope."""
    from selfinv import psf

    optics = psf.Objective(
        na=na,
        wavelength=wavelength,
        ni=immersion,
        ns=sample,
        tg=cover_slip,
        working_distance=working_distance,
    )
    sides = _whole("--shape", _numbers("--shape", shape))
    lateral = _per_axis("--pixel-size", pixel_size, 2)
    kernel = psf.gibson_lanni(
        sides,
        optics,
        pixel_size=lateral,
        z_step=z_step,
        defocus=defocus,
        particle_depth=depth,
        integrate_pixels=integrate_pixels,
    )
    _write_psf(output, kernel, lateral if kernel.ndim == 2 else [z_step or 1.0, *lateral])


@psf_app.command("measured")
def psf_measured(
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="Image of one bead.")],
    output: PSFOutput,
    axes: Axes = None,
    voxel_size: Annotated[
        str | None, typer.Option(help="Of INPUT, µm, z,y,x; by default the file's.")
    ] = None,
    target_voxel_size: Annotated[
        str | None, typer.Option(help="Of the image to be restored, µm, z,y,x; by default INPUT's.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Size of the result, e.g. 33,65,65.")] = None,
    background: Annotated[str, typer.Option(help="'auto' or a number.")] = "auto",
    centre: Annotated[bool, typer.Option(help="Move the bead to the middle.")] = True,
) -> None:
    """Turn the image of a bead into a PSF: background off, centred, resampled, normalised."""
    from selfinv import io, psf

    io.check_output(output, inputs=[input])
    image = io.read(input, axes=axes)
    ndim = image.data.ndim
    letters = "zyx"[-ndim:]
    if image.axes not in (None, letters):
        raise InputError(f"{input} has the axes {image.axes!r}; a bead's image has 'yx' or 'zyx'")
    given = None if voxel_size is None else _per_axis("--voxel-size", voxel_size, ndim)
    if given is None and all(a in image.voxel_size for a in letters):
        given = [image.voxel_size[a] for a in letters]
    target = None if target_voxel_size is None else _per_axis("--target-voxel-size", target_voxel_size, ndim)
    level = background if background == "auto" else _numbers("--background", background)[0]
    measured = psf.from_bead(
        image.data,
        voxel_size=given,
        target_voxel_size=target,
        shape=None if shape is None else _shape(shape, ndim),
        background=level,  # type: ignore[arg-type]
        centre=centre,
    )
    for words in measured.warnings:
        say(f"warning: {words}")
    _write_psf(output, measured.psf, None if measured.voxel_size is None else list(measured.voxel_size))
    moved = ", ".join(f"{a} {s:+.3f}" for a, s in zip(letters, measured.shift, strict=True))
    done = "moved back" if centre else "left there"
    say(f"background {measured.background:.6g} removed; bead off centre by {moved} pixels, {done}")


def _write_psf(output: Path, kernel: Array, voxel_size: list[float] | None) -> None:
    from selfinv import io

    letters = "zyx"[-kernel.ndim :]
    sizes = dict(zip(letters, voxel_size, strict=True)) if voxel_size else {}
    io.check_output(output, dtype="float32", shape=kernel.shape, axes=letters)
    io.write(output, io.Image(kernel.astype(np.float32), letters, sizes))
    say(f"wrote {output}: {' × '.join(str(n) for n in kernel.shape)}, sum {kernel.sum():.4g}")


def _numbers(option: str, words: str) -> list[float]:
    try:
        return [float(w) for w in words.replace("x", ",").replace("×", ",").split(",")]
    except ValueError:
        raise InputError(f"{option} {words!r} is no list of numbers; expected e.g. 17,17") from None


def _per_axis(option: str, words: str, ndim: int) -> list[float]:
    numbers = _numbers(option, words)
    if len(numbers) not in (1, ndim):
        raise InputError(f"{option} {words!r} has {len(numbers)} numbers; expected 1 or {ndim}")
    return numbers * ndim if len(numbers) == 1 else numbers


def _shape(words: str, ndim: int) -> tuple[int, ...]:
    return _whole("--shape", _per_axis("--shape", words, ndim))


def _whole(option: str, numbers: list[float]) -> tuple[int, ...]:
    if not all(n.is_integer() for n in numbers):
        words = ",".join(f"{n:g}" for n in numbers)
        raise InputError(f"{option} {words} is no whole number of pixels; expected e.g. 17,17")
    return tuple(int(n) for n in numbers)


# ---- simulate and score ----


@app.command()
def simulate(
    input: Input,
    output: Output,
    psf: Annotated[Path | None, typer.Option(help="Blur by this point spread function first.")] = None,
    alpha: Annotated[float, typer.Option(help="Variance per intensity (Poisson part).")] = 0.001,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the Gaussian part.")] = 0.1,
    salt_pepper: Annotated[float, typer.Option(help="Fraction of pixels replaced at random.")] = 0.01,
    bits: Annotated[int, typer.Option(min=0, max=32, help="Of the converter; 0 for none.")] = 10,
    photons: Annotated[
        float | None, typer.Option(help="Count real photons, so many at intensity 1 (with --alpha 0).")
    ] = None,
    saturate: Annotated[bool, typer.Option(help="Cut to the range 0 to 1, as a camera does.")] = True,
    boundary: Annotated[str, typer.Option(help="Outside INPUT: zero, reflect or periodic.")] = "zero",
    axes: Axes = None,
    seed: Seed = 0,
    benchmark: Annotated[
        bool,
        typer.Option("--benchmark", help="Exactly the paper's generator; the noise options are ignored."),
    ] = False,
    clean: Annotated[
        Path | None, typer.Option(help="Also write INPUT as it was degraded (0 to 1), for 'selfinv score'.")
    ] = None,
) -> None:
    """Degrade a clean image (rescaled to 0 to 1) as an instrument would: blur, then noise (Eq. 7)."""
    import torch

    from selfinv import io, noise
    from selfinv.psf import check_psf, normalise
    from selfinv.restoration import psf_operator

    image = io.read(input, axes=axes)
    inputs = [input] + ([psf] if psf else [])
    for path in [output] + ([clean] if clean else []):
        io.check_output(path, inputs=inputs, dtype="float32", shape=image.data.shape, axes=image.axes)
    if clean is not None:
        _check_different(clean, output)
    kernel = None if psf is None else _read_psf(psf, image)
    letters = image.axes or guess_axes(image.data.shape, None if kernel is None else kernel.ndim)
    truth = noise.normalise_minmax(image.data)
    if benchmark:
        if kernel is None:
            raise InputError("--benchmark needs --psf")
        check_psf(kernel, 2)
        degraded = noise.benchmark_degradation(truth, normalise(kernel), seed)[1]
    else:
        layout = parse_axes(letters, truth.ndim)
        model = noise.NoiseModel(alpha, sigma, salt_pepper, bits or None, photons, saturate)
        if boundary not in ("zero", "reflect", "periodic"):
            raise InputError(f"--boundary {boundary!r} is unknown; use zero, reflect or periodic")
        forward = psf_operator(kernel, layout.spatial_shape(truth.shape), layout, boundary)  # type: ignore[arg-type]
        blurred = forward(torch.from_numpy(np.ascontiguousarray(layout.to_batch(truth)))).numpy()
        degraded = model.apply(layout.from_batch(blurred), seed).astype(np.float32)
    io.write(output, io.Image(degraded, letters, image.voxel_size))
    if clean is not None:
        io.write(clean, io.Image(truth, letters, image.voxel_size))
    say(f"wrote {output}")


@app.command()
def score(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The truth.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="What to compare with it.")],
    rescale: Annotated[
        bool, typer.Option("--rescale", help="Rescale REFERENCE to 0 to 1 first, as 'simulate' does.")
    ] = False,
    data_range: Annotated[float | None, typer.Option(help="By default REFERENCE's max less min.")] = None,
    clip: Annotated[
        bool, typer.Option(help="Cut each IMAGE to REFERENCE's range first, as the paper does.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare images with the truth: PSNR, SSIM, MI, SMI, spectral concordance, Fourier correlation."""
    from selfinv import io, metrics, noise

    truth = io.read(reference).data
    truth = noise.normalise_minmax(truth) if rescale else truth
    low, high = float(np.min(truth)), float(np.max(truth))
    rows: dict[str, dict[str, float]] = {}
    for path in images:
        values = io.read(path).data
        if not rescale and high - low > 2 and values.dtype.kind == "f" and np.nanmax(np.abs(values)) < 2:
            say(
                f"warning: {reference} spans {low:g} to {high:g} but {path} stays within "
                f"{float(values.min()):.3g} to {float(values.max()):.3g}; is --rescale meant?"
            )
        rows[str(path)] = metrics.scores(
            truth, values, data_range=data_range, clip=(low, high) if clip and low < high else None
        )
    if as_json:
        # JSON knows no infinity, which is the PSNR of an image with itself.
        finite = {p: {k: v if math.isfinite(v) else None for k, v in row.items()} for p, row in rows.items()}
        print(json.dumps(finite, indent=2))
        return
    names = list(next(iter(rows.values())))
    width = max(len(str(path)) for path in rows)
    print(" " * width, *(f"{name:>11}" for name in names))
    for path_name, row in rows.items():
        print(f"{path_name:<{width}}", *(f"{row[name]:11.4f}" for name in names))


# ---- demo and info ----


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the picture and images.")] = Path(
        "demo"
    ),
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Degrade a sample image as the paper does, restore it, print the scores, write a picture."""
    from selfinv.demo import STEPS, run_demo

    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; give a folder with --output")
    start = time.monotonic()
    with _progress(quiet) as callback:
        shown = run_demo(output, steps=steps or STEPS, seed=seed, device=device, callback=callback)
    print(f"{'':24}{'PSNR':>8}{'SSIM':>8}{'MI':>8}{'SMI':>8}")
    labels = {"noisy": "before (blurred, noisy)", "restored": "after", "blurry": "(blurred, no noise)"}
    for name, label in labels.items():
        row = shown.scores[name]
        print(f"{label:24}{row['psnr']:8.2f}{row['ssim_range2']:8.3f}{row['mi']:8.3f}{row['smi']:8.3f}")
    print(f"picture: {shown.picture}  ({time.monotonic() - start:.0f} s)")
    if shown.result.status.name == "cancelled":
        say(str(shown.result.status))
        sys.exit(INTERRUPTED)
    if shown.result.status.failed:
        say(str(shown.result.status))
        raise typer.Exit(FAILED)


@app.command()
def info() -> None:
    """Versions, devices and file formats."""
    import torch

    from selfinv.io.files import KNOWN
    from selfinv.learning import METHODS
    from selfinv.learning.model import versions

    for name, version in versions().items():
        print(f"{name:10} {version}")
    print(f"{'cpu':10} {torch.get_num_threads()} threads")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"{'cuda':10} {', '.join(gpus) or 'none'}")
    print(f"{'mps':10} {'yes' if torch.backends.mps.is_available() else 'none'}")
    print(f"{'methods':10} {', '.join(METHODS)}")
    print(f"{'formats':10} {KNOWN}")


# ---- progress, interruption, errors ----


@contextmanager
def _progress(quiet: bool) -> Iterator[Callback | None]:
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
        tasks: dict[int, Any] = {}

        def show(progress: Progress) -> None:
            loss, score = _number(progress.loss), _number(progress.score)
            if progress.attempt not in tasks:
                words = "training" if progress.attempt == 1 else f"training, attempt {progress.attempt}"
                tasks[progress.attempt] = bar.add_task(
                    words, total=progress.max_steps, loss=loss, score=score
                )
            bar.update(
                tasks[progress.attempt],
                completed=progress.step,
                loss=loss,
                score=score,
            )

        yield show


def _number(value: float) -> str:
    """Four digits, or a dash before there is a value."""
    return f"{value:.4f}" if math.isfinite(value) else "-"


def _lines() -> Callback:
    last = [0.0]

    def show(progress: Progress) -> None:
        now = time.monotonic()
        if now - last[0] < 10 and progress.step not in (1, progress.max_steps):
            return
        last[0] = now
        attempt = f" (attempt {progress.attempt})" if progress.attempt > 1 else ""
        say(
            f"step {progress.step}/{progress.max_steps}{attempt}, loss {_number(progress.loss)}, "
            f"held-out {_number(progress.score)}, {progress.seconds_left:.0f} s left"
        )

    return show


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and a batch system's request to end wait while files are written."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Interruption:
    """Ctrl-C, and a batch system's request to end: the first ends the run, only the third abandons it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 2:
            say("already ending, the best so far is being written; once more to abandon it")
        else:
            raise KeyboardInterrupt


def _show_warning(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
    if issubclass(category, SelfinvWarning):
        say(f"warning: {message}")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"selfinv {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    warnings.showwarning = _show_warning
    warnings.simplefilter("always", SelfinvWarning)
    interruption = _Interruption()
    signal.signal(signal.SIGINT, interruption)
    signal.signal(signal.SIGTERM, interruption)
    try:
        code = app(arguments, standalone_mode=False, prog_name="selfinv")
        if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            raise KeyboardInterrupt
    except InputError as error:
        say(f"error: {error}")
        code = USAGE
    except ClickException as error:
        words = error.format_message().rstrip(".")
        context = getattr(error, "ctx", None)
        if words:  # without arguments the help has been printed
            say(f"error: {words}. See '{context.command_path if context else 'selfinv'} --help'.")
        code = USAGE
    except OSError as error:
        say(f"error: {error}")
        code = USAGE
    except (MemoryError, RuntimeError) as error:  # torch's own lack of memory is a RuntimeError
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        say("error: not enough memory; crop the image or use a machine with more")
        code = USAGE
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted before there was a result; nothing was written")
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
