"""``restore`` and ``apply``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from selfinv.cli.console import FAILED, INTERRUPTED, progress, say, uninterrupted
from selfinv.cli.images import check_beside, draw_preview, open_image, read_psf, save_image
from selfinv.cli.options import Axes, Clip, Device, DType, Input, MaskNan, Output, Preview, Quiet, Seed
from selfinv.types import same_layout


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

    Ctrl-C ends the training and, from the first step on, writes the best so far (exit status 130).
    """
    from selfinv.restoration import restore as run

    image, dtype, clip = open_image(input, output, axes, dtype, clip, others=[psf], preview=preview)
    kernel = None if psf is None else read_psf(psf, image)
    if save_model is not None:
        check_beside(save_model, ".safetensors", [input, psf], output)
    with progress(quiet) as callback:
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
    with uninterrupted():
        if result.model is not None:
            image = replace(image, axes=result.model.axes)
        save_image(output, result.image, image, dtype, clip)
        if save_model is not None and result.model is not None:
            result.model.described(input=input.name).save(save_model)
        if preview is not None:
            draw_preview(preview, image, result.image)
    if not result.status.failed and (result.status.failed_attempts or result.status.name == "cancelled"):
        say(str(result.status))  # of a failure, a warning has told
    stats = result.stats
    if not quiet:
        say(
            f"wrote {output}: {stats['method']}, {stats['steps']} steps in {stats['seconds']:.0f} s, "
            f"held-out {stats['loss']} score {stats['held_out_score']:.5g} "
            f"(a constant image: {stats['held_out_score_of_a_constant']:.5g})"
            + (f", boundary {stats['boundary']}" if stats["boundary"] else "")
        )
    if result.status.name == "cancelled":
        sys.exit(INTERRUPTED)
    if result.status.failed:
        raise typer.Exit(FAILED)


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

    image, dtype, clip = open_image(input, output, axes, dtype, clip, others=[model], preview=preview)
    trained = load_model(model)
    restored = trained.apply(
        image.data, axes=image.axes, mask_nan=mask_nan, device=str(choose_device(device))
    )
    with uninterrupted():
        image = replace(image, axes=image.axes or same_layout(trained.axes, restored.ndim))
        save_image(output, restored, image, dtype, clip)
        if preview is not None:
            draw_preview(preview, image, restored)
    say(f"wrote {output}")
