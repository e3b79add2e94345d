"""``denoise``, ``inpaint``, ``superres`` and ``tomography``: restoring where it is not (only) blur."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from selfinv.cli.console import progress, say
from selfinv.cli.images import check_beside, check_float32, open_image, read_psf
from selfinv.cli.missing import without
from selfinv.cli.options import (
    Axes,
    Clip,
    Device,
    DType,
    Input,
    Mask,
    MaskNan,
    Memory,
    NoRecipe,
    Output,
    Overwrite,
    Preview,
    Quiet,
    Resume,
    Saturation,
    SaveModel,
    SaveOwnModel,
    Scheduler,
    Seed,
    Steps,
    Symmetries,
    TiledInput,
    TiledOutput,
    UseModel,
    Workers,
    per_axis,
)
from selfinv.cli.recording import recorded
from selfinv.cli.restoring import Job, carry_out, carry_over, check_model, restore, spacing_of
from selfinv.types import Array, AxisLayout, InputError, guess_axes

Method = Annotated[str, typer.Option(help="As for 'restore'.")]
Weight = Annotated[float | None, typer.Option(help="Regularisation weight, instead of tuning it.")]
PSF = Annotated[Path | None, typer.Option(help="The point spread function's file, if there is blur too.")]


@recorded
def denoise(
    input: TiledInput,
    output: TiledOutput,
    method: Method = "ssi",
    axes: Axes = None,
    device: Device = "auto",
    seed: Seed = 0,
    steps: Steps = None,
    weight: Weight = None,
    mask_nan: MaskNan = False,
    mask: Mask = None,
    saturation: Saturation = None,
    dtype: DType = None,
    clip: Clip = False,
    preview: Preview = None,
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
    """Remove noise that is independent from pixel to pixel (Noise2Self), and nothing else.

    With an OUTPUT that ends in .zarr, INPUT may be larger than memory.
    """
    restore(
        input,
        output,
        method=method,
        axes=axes,
        device=device,
        seed=seed,
        steps=steps,
        weight=weight,
        mask_nan=mask_nan,
        mask=mask,
        saturation=saturation,
        dtype=dtype,
        clip=clip,
        preview=preview,
        save_model=save_model,
        memory=memory,
        workers=workers,
        scheduler=scheduler,
        resume=resume,
        overwrite=overwrite,
        symmetries=symmetries,
        quiet=quiet,
        no_recipe=True,  # its own is written by denoise
    )


@recorded
def inpaint(
    input: Input,
    output: Output,
    mask: Mask = None,
    saturation: Saturation = None,
    psf: PSF = None,
    method: Method = "ssi",
    axes: Axes = None,
    boundary: Annotated[str, typer.Option(help="With --psf, as for 'restore'.")] = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    steps: Steps = None,
    weight: Weight = None,
    dtype: DType = None,
    clip: Clip = False,
    preview: Preview = None,
    save_model: SaveModel = None,
    quiet: Quiet = False,
    no_recipe: NoRecipe = False,
) -> None:
    """Fill in pixels that are NaN, bad (--mask) or saturated; remove the noise, and with a PSF the blur."""
    image, dtype, clip = open_image(input, output, axes, dtype, clip, others=[mask, psf], preview=preview)
    data, _ = without(image, mask, saturation, mask_nan=True)
    if mask is None and saturation is None and np.isfinite(data).all():
        raise InputError(
            f"{input} has no NaN, and neither --mask nor --saturation says which other pixels are to be "
            f"filled in; give one of them"
        )
    kernel = None if psf is None else read_psf(psf, image)
    check_model(save_model, method, [input, mask, psf], output)
    carry_out(
        Job(input, output, image, dtype, clip, preview, save_model, quiet),
        data,
        kernel,
        method=method,
        axes=image.axes,
        boundary=boundary,
        mask_nan=True,
        device=device,
        seed=seed,
        weight=weight,
        max_steps=steps,
        spacing=spacing_of(image),
    )


@recorded
def superres(
    input: Input,
    output: Output,
    factor: Annotated[
        str, typer.Option(help="Finer by this factor, not necessarily whole; one for all axes or z,y,x.")
    ] = "2",
    psf: Annotated[
        Path | None, typer.Option(help="The point spread function's file, sampled on OUTPUT's grid.")
    ] = None,
    method: Method = "ssi",
    axes: Axes = None,
    device: Device = "auto",
    seed: Seed = 0,
    steps: Steps = None,
    weight: Weight = None,
    mask_nan: MaskNan = False,
    mask: Mask = None,
    saturation: Saturation = None,
    dtype: DType = None,
    clip: Clip = False,
    preview: Preview = None,
    save_model: SaveOwnModel = None,
    model: UseModel = None,
    quiet: Quiet = False,
    no_recipe: NoRecipe = False,
) -> None:
    """Restore INPUT on a finer grid: its pixels measure the mean over their area, after the blur of the PSF.

    With --factor 4,1,1, for instance, a volume whose planes are far apart comes back with cubic voxels.
    """
    from selfinv.instrument import psf_operator
    from selfinv.io.fits import with_finer_pixels
    from selfinv.operators import Downsample, LinearOperator
    from selfinv.restoration import load_model

    image, dtype, clip = open_image(input, output, axes, dtype, clip, others=[psf, mask], preview=preview)
    values, mask_nan = without(image, mask, saturation, mask_nan)
    names = image.axes or guess_axes(image.data.shape)
    layout = AxisLayout(names)
    factors = per_axis("--factor", factor, len(layout.spatial), example="2 or 4,1,1")
    if not all(1.0 <= f <= 16.0 for f in factors) or max(factors) == 1.0:
        raise InputError(f"--factor {factor} is not between 1 and 16, and more than 1 along some axis")
    check_model(save_model, method, [input, psf, mask], output, model)
    if model is not None:
        _refuse_where_trained(method=method, steps=steps, weight=weight)
    coarse = layout.spatial_shape(image.data.shape)
    fine = tuple(math.ceil(n * f - 1e-9) for n, f in zip(coarse, factors, strict=True))
    steps_of = dict(zip(layout.spatial, factors, strict=True))
    # To what a file's decimals mean: 0.3 / 3 is 0.09999999999999999.
    sizes = {a: float(f"{size / steps_of.get(a, 1.0):.12g}") for a, size in image.voxel_size.items()}
    A: LinearOperator = Downsample(fine, factors)
    if psf is not None:
        kernel = read_psf(psf, replace(image, voxel_size=sizes), "the finer grid")
        blur = psf_operator(kernel, fine, AxisLayout(layout.spatial), "unknown")
        assert isinstance(blur, LinearOperator)
        A = A @ blur
    data = layout.to_batch(values)
    leading = [a for a in "tc" if a in names]
    data = data.reshape([data.shape["tc".index(a)] for a in leading] + list(coarse))
    spacing = spacing_of(image)
    metadata = dict(image.metadata)
    if "fits_header" in metadata:
        metadata["fits_header"] = with_finer_pixels(metadata["fits_header"], steps_of)
    target = replace(image, axes="".join(leading) + layout.spatial, voxel_size=sizes, metadata=metadata)
    job = Job(input, output, target, dtype, clip, preview, save_model, quiet)
    before = _enlarged(data, factors, fine) if preview is not None else None
    if model is not None:
        trained = load_model(model, A)
        return carry_over(
            job, data, trained, before=before, axes=target.axes, mask_nan=mask_nan, device=device
        )
    carry_out(
        job,
        data,
        before=before,
        operator=A,
        method=method,
        axes=target.axes,
        mask_nan=mask_nan,
        device=device,
        seed=seed,
        weight=weight,
        max_steps=steps,
        spacing=None if spacing is None else [s / f for s, f in zip(spacing, factors, strict=True)],
    )


@recorded
def tomography(
    input: Annotated[
        Path, typer.Argument(metavar="INPUT", help="A sinogram: one row per angle; or a stack of them.")
    ],
    output: Output,
    angles: Annotated[Path, typer.Option(help="Text or NPY file with the angle of every row, in degrees.")],
    centre: Annotated[
        float | None,
        typer.Option(
            help="Detector pixel (from 0) that sees the axis of rotation. Default: n // 2 of n.",
            show_default=False,
        ),
    ] = None,
    rings: Annotated[
        bool, typer.Option("--rings", help="Take off what each detector pixel adds to all projections alike.")
    ] = False,
    method: Method = "ssi",
    device: Device = "auto",
    seed: Seed = 0,
    steps: Steps = None,
    weight: Weight = None,
    mask_nan: MaskNan = False,
    preview: Preview = None,
    save_model: SaveOwnModel = None,
    model: UseModel = None,
    quiet: Quiet = False,
    no_recipe: NoRecipe = False,
) -> None:
    """Reconstruct slices from parallel-beam projections, at few or limited angles too.

    The object lies within the circle that the detector sees, and angles turn as scikit-image's do. Where the
    projections' centres of mass show another axis of rotation than --centre, a warning says so. A stack
    (slice, angle, detector) shares one network. --rings first restores one slice by total variation, up to
    four times.
    """
    import torch

    from selfinv import io
    from selfinv.operators import LinearOperator, Radon
    from selfinv.restoration import load_model
    from selfinv.rings import without_rings

    sinogram = io.read(input)
    data = sinogram.data
    if data.ndim not in (2, 3):
        raise InputError(f"{input} has the shape {data.shape}; expected angle × detector, or a stack of such")
    degrees = _angles(angles, data.shape[-2])
    n = data.shape[-1]
    stack = data.ndim == 3
    image = io.Image(np.zeros((*data.shape[:-2], n, n), np.float32), "zyx" if stack else "yx")
    check_float32(output, [input, angles], image.data.shape, image.axes)
    if preview is not None:
        check_beside(preview, ".png .pdf .svg", [input, angles], output)
    check_model(save_model, method, [input, angles], output, model)
    if model is not None:
        _refuse_where_trained(method=method, steps=steps, weight=weight)
    if rings and (model is not None or save_model is not None):
        raise InputError("--rings weighs this sinogram's projections, which no model is for; leave one out")
    A = Radon((n, n), degrees, circle=True, centre=centre)
    job = Job(input, output, image, "float32", False, preview, save_model, quiet)
    before, axes = None, "tyx" if stack else "yx"
    if preview is not None:
        shown = torch.as_tensor(np.nan_to_num(data.astype(np.float32)))
        before = A.filtered_backprojection(shown).numpy()
    if model is not None:
        trained = load_model(model, A)
        return carry_over(job, data, trained, before=before, axes=axes, mask_nan=mask_nan, device=device)
    operator: LinearOperator = A
    if rings:
        with progress(quiet) as callback:
            found = without_rings(data, A, device=device, callback=callback)
        data, operator = found.sinogram, found.operator
        if not quiet:
            say(_rings_in_words(found.excess))
    carry_out(
        job,
        data,
        before=before,
        operator=operator,
        method=method,
        axes=axes,
        mask_nan=mask_nan,
        device=device,
        seed=seed,
        weight=weight,
        max_steps=steps,
    )


def _rings_in_words(excess: float) -> str:
    if excess == 1.0:
        return "no rings: detector pixels share no more over all angles than chance makes them"
    return (
        f"rings: from one detector pixel to the next means over the angles differ {excess:.0f} times as much "
        f"(in the mean square) as by chance, and count for as much less"
    )


def _refuse_where_trained(**options: str | float | None) -> None:
    """Refuse options that say how to train, where a model is that has been."""
    for name, value in options.items():
        if value not in (None, "ssi"):
            raise InputError(
                f"--{name} {value} has no effect with --model, which is trained already; leave one out"
            )


def _enlarged(data: Array, factors: list[float], fine: tuple[int, ...]) -> Array:
    """Coarse pixels repeated on the fine grid."""
    for axis, (f, n) in enumerate(zip(factors, fine, strict=True), start=data.ndim - len(fine)):
        places = np.minimum(np.floor((np.arange(n) + 0.5) / f).astype(int), data.shape[axis] - 1)
        data = np.take(data, places, axis)
    return data


def _angles(path: Path, rows: int) -> Array:
    degrees = _listed(path)
    if degrees.shape != (rows,):
        found = f"{len(degrees)} angles" if degrees.ndim == 1 else f"the shape {degrees.shape}"
        raise InputError(f"{path} has {found} but the sinogram {rows} rows; give one for each")
    if not np.isfinite(degrees).all():
        raise InputError(f"{path} has angles that are not finite numbers")
    return degrees


def _listed(path: Path) -> Array:
    """The numbers of a text file, or of an NPY file."""
    if path.suffix.lower() == ".npy":
        from selfinv import io

        return io.read(path).data.astype(float)
    try:
        lines = [line.partition("#")[0] for line in path.read_text().splitlines()]  # as NumPy writes headers
        words = " ".join(lines).replace(",", " ").split()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text file; expected one number per row, in degrees") from None
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        wrong = str(error).rpartition(": ")[2]
        raise InputError(
            f"{path} is no list of angles: {wrong} is no number; expected one per row, in degrees"
        ) from None
