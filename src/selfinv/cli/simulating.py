"""``simulate`` and ``score``."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from selfinv.cli.console import say
from selfinv.cli.images import check_different, check_float32, read_psf
from selfinv.cli.options import Axes, Input, Output, Seed
from selfinv.types import Array, AxisLayout, InputError, guess_axes, parse_axes

if TYPE_CHECKING:
    from selfinv.io import Image


def simulate(
    input: Input,
    output: Output,
    psf: Annotated[Path | None, typer.Option(help="Blur by this point spread function first.")] = None,
    alpha: Annotated[
        float | None,
        typer.Option(help="Variance per intensity (Poisson part): 0.001, or with --photons 0."),
    ] = None,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the Gaussian part.")] = 0.1,
    salt_pepper: Annotated[float, typer.Option(help="Fraction of pixels replaced at random.")] = 0.01,
    bits: Annotated[int, typer.Option(min=0, max=32, help="Of the converter; 0 for none.")] = 10,
    photons: Annotated[
        float | None, typer.Option(help="Count real photons, so many at intensity 1, instead of --alpha.")
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
    """Degrade a clean image (rescaled to 0 to 1) as an instrument would: blur, then noise."""
    import torch

    from selfinv import io, noise
    from selfinv.instrument import psf_operator
    from selfinv.psf import check_psf, normalise

    image = io.read(input, axes=axes)
    inputs = [input] + ([psf] if psf else [])
    for path in [output] + ([clean] if clean else []):
        check_float32(path, inputs, image.data.shape, image.axes)
    if clean is not None:
        check_different(clean, output)
    kernel = None if psf is None else read_psf(psf, image)
    letters = image.axes or guess_axes(image.data.shape, None if kernel is None else kernel.ndim)
    truth = noise.normalise_minmax(image.data)
    if benchmark:
        if kernel is None:
            raise InputError("--benchmark needs --psf")
        check_psf(kernel, 2)
        degraded = noise.benchmark_degradation(truth, normalise(kernel), seed)[1]
    else:
        layout = parse_axes(letters, truth.ndim)
        if photons is not None and alpha:
            raise InputError(
                f"--photons {photons:g} and --alpha {alpha:g} both make shot noise, which would be counted "
                f"twice; give one of them"
            )
        if alpha is None:
            alpha = 0.001 if photons is None else 0.0
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
    """Compare images with the truth: PSNR, SSIM, MI, SMI, spectral concordance, Fourier correlation.

    Of colours, channels and time series, the mean over all of them.
    """
    from selfinv import io, metrics, noise

    image = io.read(reference)
    truth = noise.normalise_minmax(image.data) if rescale else image.data
    low, high = float(np.min(truth)), float(np.max(truth))
    image, limits = replace(image, data=truth), (low, high) if clip and low < high else None
    if data_range is None and low < high:
        data_range = high - low  # of all channels and frames
    rows: dict[str, dict[str, float]] = {}
    for path in images:
        compared = io.read(path)
        values, planes, others = compared.data, _planes(image, compared), _planes(compared, image)
        if len(planes) != len(others):
            raise InputError(
                f"{reference} has the shape {truth.shape} and {len(planes)} images in it but {path} "
                f"{values.shape} and {len(others)}; compare images of the same channels and frames"
            )
        each = [
            metrics.scores(a, b, data_range=data_range, clip=limits)
            for a, b in zip(planes, others, strict=True)
        ]
        rows[str(path)] = {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}
        ratio = _deviation(values, high - low) / max(_deviation(truth, high - low), 1e-30)
        if not rescale and not 0.05 < ratio < 20:
            say(
                f"warning: {reference} spans {low:g} to {high:g} but {path} spans "
                f"{float(values.min()):.3g} to {float(values.max()):.3g}; is --rescale meant?"
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


def _deviation(values: Array, unit: float) -> float:
    """In units in which no square overflows, and in double precision."""
    return float(np.nanstd(np.divide(values, unit, dtype=np.float64)))


def _planes(image: Image, like: Image) -> list[Array]:
    """Each channel of each frame; the whole, where nothing names them, nor those ``like`` it in shape."""
    axes = image.axes or (like.axes if like.data.shape == image.data.shape else None)
    if axes is None or not set("tc") & set(axes):
        return [image.data]
    batch = AxisLayout(axes).to_batch(image.data)
    return list(batch.reshape(-1, *batch.shape[2:]))
