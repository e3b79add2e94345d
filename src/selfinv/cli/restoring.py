"""``restore`` and ``apply``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from selfinv.cli.console import FAILED, INTERRUPTED, one_of_many, progress, say, show, uninterrupted
from selfinv.cli.images import (
    check_beside,
    check_range,
    check_residual,
    draw_preview,
    open_image,
    read_psf,
    save_image,
    save_residual,
)
from selfinv.cli.large import Large, apply_large, restore_large
from selfinv.cli.missing import without
from selfinv.cli.options import (
    Axes,
    Clip,
    Device,
    DType,
    Mask,
    MaskNan,
    Memory,
    NoRecipe,
    Overwrite,
    Preview,
    Quiet,
    Residual,
    Resume,
    Saturation,
    SaveModel,
    Scheduler,
    Seed,
    Steps,
    Symmetries,
    TiledInput,
    TiledOutput,
    Workers,
)
from selfinv.cli.recording import recorded
from selfinv.recipe import beside, was_sharpened
from selfinv.types import Array, InputError, same_layout

if TYPE_CHECKING:
    from selfinv.io import Image
    from selfinv.model import TrainedModel


@recorded
def restore(
    input: TiledInput,
    output: TiledOutput,
    psf: Annotated[
        Path | None,
        typer.Option(
            help="The point spread function's file (with one axis more in front, one for each channel); "
            "without it, only noise is removed."
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="ssi (a network trained on this image, with simple methods mixed in, or in its place, where "
            "that predicts hidden values better), ssi-fast, ssi-best (0.2 and 2.5 times the training), "
            "ssi-network (that network alone), auto (one of all, unmixed), tv-chambolle-pock, "
            "tv-conjugate-gradient, richardson-lucy, wiener (each tuned for this image), and as in "
            "the paper: ssi-paper, ssi-unmasked, tv-chambolle-pock-paper, tv-conjugate-gradient-paper."
        ),
    ] = "ssi",
    axes: Axes = None,
    boundary: Annotated[
        str,
        typer.Option(
            help="With --psf, what is outside the image: unknown (it goes on), zero (nothing), reflect, "
            "periodic, or auto: zero if the image fades at its edges as only that can make it, else unknown."
        ),
    ] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    steps: Steps = None,
    weight: Annotated[
        float | None,
        typer.Option(
            help="Regularisation weight of a TV method, in the image's units (for the noisiest channel, if "
            "noise differs), or Wiener balance, instead of tuning it by held-out values."
        ),
    ] = None,
    mask_nan: MaskNan = False,
    mask: Mask = None,
    saturation: Saturation = None,
    dtype: DType = None,
    clip: Clip = False,
    preview: Preview = None,
    residual: Residual = None,
    save_model: SaveModel = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    symmetries: Symmetries = 8,
    quiet: Quiet = False,
    no_recipe: NoRecipe = False,
) -> None:
    """Restore INPUT, which an instrument has blurred and made noisy, and write it to OUTPUT.

    Ctrl-C ends the training and, from the first step on, writes the best so far (exit status 130). With an
    OUTPUT that ends in .zarr, INPUT may be larger than memory: a network is trained (or a method tuned) on
    some informative parts, and all is restored tile by tile; Ctrl-C then keeps the tiles done, for --resume,
    but nothing of a training that it ends.
    """
    if psf is not None and was_sharpened(input):
        say(
            f"warning: {input} is a result itself, restored with a PSF as {beside(input).name} says: what is "
            f"undone twice comes out worse; give the image that was measured, or leave out --psf"
        )
    how = Large(memory, workers, scheduler, symmetries, resume, overwrite)
    if how.check_output(output):
        refuse_where_tiled(
            weight=weight,
            preview=preview,
            residual=residual,
            save_model=save_model,
            mask=mask,
            saturation=saturation,
        )
        return restore_large(
            input,
            output,
            psf,
            how,
            method=method,
            axes=axes,
            boundary=boundary,
            device=device,
            seed=seed,
            steps=steps,
            mask_nan=mask_nan,
            dtype=dtype,
            clip=clip,
            quiet=quiet,
        )
    image, dtype, clip = open_image(input, output, axes, dtype, clip, others=[psf, mask], preview=preview)
    data, mask_nan = without(image, mask, saturation, mask_nan)
    kernel = None if psf is None else read_psf(psf, image)
    check_model(save_model, method, [input, psf, mask], output)
    if residual is not None:
        check_residual(residual, image, [path for path in (input, psf, mask) if path is not None], output)
    job = Job(input, output, image, dtype, clip, preview, save_model, quiet, residual)
    carry_out(
        job,
        data,
        kernel,
        method=method,
        axes=image.axes,
        boundary=boundary,
        mask_nan=mask_nan,
        device=device,
        seed=seed,
        weight=weight,
        max_steps=steps,
        spacing=spacing_of(image),
    )


def refuse_where_tiled(**options: Any) -> None:
    """Refuse options that say nothing of an image that is restored tile by tile."""
    for name, value in options.items():
        if value is not None:
            raise InputError(
                f"--{name.replace('_', '-')} is not for an OUTPUT that ends in .zarr; leave it out"
            )


def check_model(
    save_model: Path | None,
    method: str,
    inputs: list[Path | None],
    output: Path,
    model: Path | None = None,
) -> None:
    """Refuse early to write a model that there will not be, or to a place where none can be.

    ``model`` is the one to restore with, if none is to be trained.
    """
    from selfinv.methods import METHODS

    if save_model is None:
        return
    if model is not None:
        raise InputError("--save-model: with --model none is trained; leave one of them out")
    if method in METHODS and not method.startswith(("ssi", "auto")):
        raise InputError(f"--save-model: {method} trains no model; leave it out, or use --method ssi-network")
    check_beside(save_model, ".safetensors", inputs, output)


@dataclass(frozen=True)
class Job:
    """What is read and written: the image as it was read, and how and where results go."""

    input: Path
    output: Path
    image: Image
    dtype: str | None
    clip: bool
    preview: Path | None
    save_model: Path | None = None
    quiet: bool = False
    residual: Path | None = None


def carry_out(
    job: Job, data: Array, kernel: Array | None = None, *, before: Array | None = None, **options: Any
) -> None:
    """Restore ``data`` (`selfinv.restore`), write what there is to write, say what happened, end the program.

    ``before`` is the picture beside the result, if not the image itself.
    """
    from selfinv.restoration import restore as run

    image = job.image
    check_range(data, job.dtype, job.clip)
    with progress(job.quiet) as callback:
        result = run(data, kernel, callback=callback, **options)
    with uninterrupted():
        if image.axes is None and result.model is not None:
            image = replace(image, axes=result.model.axes)
        image = with_history(image, f"restored by {_how(result.stats)}")
        save_image(job.output, result.image, image, job.dtype, job.clip)
        if job.residual is not None:
            assert result.predicted is not None
            save_residual(job.residual, data, result.predicted, image)
        if job.save_model is not None and result.model is not None:
            result.model.described(input=job.input.name).save(job.save_model)
        if job.preview is not None:
            shown = image if before is None else replace(image, data=before)
            draw_preview(job.preview, shown, result.image)
    if not result.status.failed and (result.status.failed_attempts or result.status.name == "cancelled"):
        say(str(result.status))  # of a failure, a warning has told
    if job.save_model is not None and result.model is None:
        chosen = result.stats.get("chosen", result.stats["method"])
        say(
            f"warning: no model was written to {job.save_model}: the image is by {chosen}, "
            "which trains none; --method ssi-network keeps the network in any case"
        )
    elif job.save_model is not None and "mixture" in result.stats:
        say(f"{job.save_model} holds the network alone, without what was mixed into this image")
    if not job.quiet:
        if job.image.axes is None and job.image.data.ndim > 2:
            say(f"the file does not name its axes; taken as {result.stats['axes']} (--axes tells them)")
        _report(job.output, result.stats)
    if result.status.name == "cancelled":
        sys.exit(INTERRUPTED)
    if result.status.failed:
        raise typer.Exit(FAILED)


def with_history(image: Image, done: str) -> Image:
    """The image with a line of what was done to it, and by what."""
    from selfinv import __version__

    return replace(image, metadata=image.metadata | {"history": f"selfinv {__version__}: {done}"})


def spacing_of(image: Image) -> list[float] | None:
    """Voxel sizes along z, y, x, if the file tells all of them and what its axes are."""
    sizes = [image.voxel_size.get(axis) for axis in "zyx" if axis in (image.axes or "")]
    known = [size for size in sizes if size]
    return known if known and len(known) == len(sizes) else None


def _how(stats: dict[str, Any]) -> str:
    """The method, and what was chosen for it."""
    if "mixture" in stats:
        return stats["mixture"]
    setting = next((f", {k} {stats[k]:.3g}" for k in ("weight", "balance") if k in stats), "")
    return f"{stats.get('chosen', stats['method'])}{setting}"


def _report(output: Path, stats: dict[str, Any]) -> None:
    compared = {trial[0] for trial in stats.get("trials", [])}
    shown = len(compared) > 1 and not one_of_many()
    if shown:
        show(stats["table"])
    for name, why in stats.get("skipped", {}).items():
        if not (shown and name in compared):  # of which the table tells
            say(f"{name} was left out: {why}")
    tuned = ", tuning included," if "trials" in stats and "best_step" not in stats else ""
    words = f"wrote {output}: {_how(stats)}, {stats['steps']} steps{tuned} in {stats['seconds']:.0f} s"
    if "held_out_score" in stats:
        words += (
            f", held-out {stats['loss']} score {stats['held_out_score']:.5g} "
            f"(a constant image: {stats['held_out_score_of_a_constant']:.5g})"
        )
    say(words + (f", boundary {stats['boundary']}" if stats["boundary"] else ""))


@recorded
def apply(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="Written by 'train', or by --save-model of 'restore', 'denoise' or 'inpaint'; those of "
            "'superres' and 'tomography' are for their own --model.",
        ),
    ],
    input: TiledInput,
    output: TiledOutput,
    axes: Axes = None,
    device: Device = "auto",
    mask_nan: MaskNan = False,
    mask: Mask = None,
    saturation: Saturation = None,
    dtype: DType = None,
    clip: Clip = False,
    preview: Preview = None,
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    symmetries: Annotated[
        int,
        typer.Option(min=1, max=8, help="Average over so many flips and turns; 1 is up to 8 times as fast."),
    ] = 8,
    quiet: Quiet = False,
    no_recipe: NoRecipe = False,
) -> None:
    """Restore INPUT with a model trained on another image of the same instrument.

    With an OUTPUT that ends in .zarr, INPUT may be larger than memory.
    """
    from selfinv.restoration import load_model

    how = Large(memory, workers, scheduler, symmetries, resume, overwrite)
    if how.check_output(output, ("symmetries",)):
        from selfinv.io.lazy import open_lazily

        refuse_where_tiled(preview=preview, mask=mask, saturation=saturation)
        return apply_large(
            load_model(model),
            open_lazily(input, axes=axes),
            output,
            how,
            axes=axes,
            device=device,
            mask_nan=mask_nan,
            dtype=dtype,
            clip=clip,
            quiet=quiet,
        )
    image, dtype, clip = open_image(input, output, axes, dtype, clip, others=[model, mask], preview=preview)
    data, mask_nan = without(image, mask, saturation, mask_nan)
    trained = load_model(model)
    job = Job(input, output, image, dtype, clip, preview, quiet=quiet)
    carry_over(job, data, trained, axes=image.axes, mask_nan=mask_nan, device=device, symmetries=symmetries)


def carry_over(
    job: Job, data: Array, model: TrainedModel, *, before: Array | None = None, device: str, **options: Any
) -> None:
    """The same as `carry_out` with a model that has been trained before."""
    from selfinv.instrument import choose_device

    check_range(data, job.dtype, job.clip)
    restored = model.apply(data, device=str(choose_device(device)), **options)
    with uninterrupted():
        image = replace(job.image, axes=job.image.axes or same_layout(model.axes, restored.ndim))
        trained = (
            f"{model.origin.get('method', 'a network')}, trained on {model.origin.get('input', 'another')}"
        )
        image = with_history(image, f"restored by {trained}")
        save_image(job.output, restored, image, job.dtype, job.clip)
        if job.preview is not None:
            shown = image if before is None else replace(image, data=before)
            draw_preview(job.preview, shown, restored)
    if not job.quiet:
        say(f"wrote {job.output}")
