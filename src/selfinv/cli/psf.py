"""``psf gaussian``, ``psf gibson-lanni``, ``psf zernike``, ``psf measured``, ``psf fit``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from selfinv.cli.console import FAILED, say
from selfinv.cli.images import check_float32
from selfinv.cli.options import Axes, MaskNan, PSFOutput, Quiet, Seed, numbers, per_axis, shape_of, whole
from selfinv.cli.psf_family import Told, terms_of
from selfinv.types import Array, InputError, Shape, guess_axes, parse_axes

# A PSF's share of light: an Airy pattern's rings go on for long, and 5 % of it in the outermost do little.
_HELD, _ENOUGH = 0.9, 0.95
_MORE = 0.05  # of the light, that a larger shape has to hold to be advised
_MANY = 10**6
_LARGEST = 300  # pixels: of larger ones it is not worth the time to tell how much they hold

psf_app = typer.Typer(
    help="Make a point spread function: by formula, from a bead, or fitted to a blurred image.",
    no_args_is_help=True,
)


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

    widths = numbers("--sigma", sigma)
    widths = widths * ndim if len(widths) == 1 else widths
    sizes = None if pixel_size is None else per_axis("--pixel-size", pixel_size, len(widths))
    kernel = psf.gaussian(
        widths, None if shape is None else shape_of(shape, len(widths)), pixel_size=sizes or 1.0
    )
    if words := _cut_off(kernel, [w / s for w, s in zip(widths, sizes or [1.0] * len(widths), strict=True)]):
        say(f"warning: {words}")
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
    sample: Annotated[
        float | None, typer.Option(help="Refractive index of the sample; by default the immersion's.")
    ] = None,
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
    sides = whole("--shape", numbers("--shape", shape))
    if z_step is not None and len(sides) == 2:
        raise InputError(f"--shape {shape} is a plane, and --z-step of a stack; leave it out, or give z,y,x")
    lateral = per_axis("--pixel-size", pixel_size, 2)

    def light(sides: Sequence[int]) -> Array:
        return psf.gibson_lanni(
            sides,
            optics,
            pixel_size=lateral,
            z_step=z_step,
            defocus=defocus,
            particle_depth=depth,
            integrate_pixels=integrate_pixels,
            normalise=False,
        )

    _write_psf(output, _whole(light, sides), lateral if len(sides) == 2 else [z_step or 1.0, *lateral])


@psf_app.command("zernike")
def psf_zernike(
    terms: Annotated[
        str,
        typer.Option(
            help="Aberrations in waves rms, e.g. defocus=0.3,spherical=-0.1: defocus, astigmatism, "
            "oblique_astigmatism, coma_x, coma_y, trefoil_x, trefoil_y, spherical, tilt_x, tilt_y, or Noll's "
            "index."
        ),
    ],
    na: Annotated[float, typer.Option(help="Numerical aperture.")],
    wavelength: Annotated[float, typer.Option(help="Emission wavelength, µm.")],
    pixel_size: Annotated[str, typer.Option(help="Pixel size in the sample, µm; one number or y,x.")],
    shape: Annotated[str, typer.Option(help="Size in pixels, e.g. 25,25.")],
    output: PSFOutput,
    defocus: Annotated[float, typer.Option(help="Distance from focus, µm; adds to the terms.")] = 0.0,
    immersion: Annotated[float, typer.Option(help="Refractive index: air 1, water 1.33, oil 1.515.")] = 1.33,
) -> None:
    """A plane of a widefield microscope with aberrations, as Zernike terms."""
    from selfinv import psf

    lateral = per_axis("--pixel-size", pixel_size, 2)
    optics = psf.Objective(na=na, wavelength=wavelength, ni=immersion)
    told = terms_of(terms)

    def light(sides: Sequence[int]) -> Array:
        return psf.zernike(sides, optics, told, pixel_size=lateral, defocus=defocus, normalise=False)

    _write_psf(output, _whole(light, shape_of(shape, 2)), lateral)


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

    check_float32(output, [input])
    image = io.read(input, axes=axes)
    ndim = image.data.ndim
    letters = "zyx"[-ndim:]
    if image.axes not in (None, letters):
        raise InputError(f"{input} has the axes {image.axes!r}; a bead's image has 'yx' or 'zyx'")
    given = None if voxel_size is None else per_axis("--voxel-size", voxel_size, ndim)
    if given is None and all(a in image.voxel_size for a in letters):
        given = [image.voxel_size[a] for a in letters]
    target = None if target_voxel_size is None else per_axis("--target-voxel-size", target_voxel_size, ndim)
    level = background if background == "auto" else per_axis("--background", background, 1, "auto or 100")[0]
    measured = psf.from_bead(
        image.data,
        voxel_size=given,
        target_voxel_size=target,
        shape=None if shape is None else shape_of(shape, ndim),
        background=level,  # type: ignore[arg-type]
        centre=centre,
    )
    for words in measured.warnings:
        say(f"warning: {words}")
    _write_psf(output, measured.psf, None if measured.voxel_size is None else list(measured.voxel_size))
    moved = ", ".join(f"{a} {s:+.3f}" for a, s in zip(letters, measured.shift, strict=True))
    done = "moved back" if centre else "left there"
    say(f"background {measured.background:.6g} removed; bead off centre by {moved} pixels, {done}")


@psf_app.command("fit")
def psf_fit(
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="The noisy, blurred image.")],
    output: PSFOutput,
    family: Annotated[str, typer.Option(help="gaussian, scaled, gibson-lanni or zernike.")] = "gaussian",
    psf: Annotated[
        Path | None, typer.Option(help="scaled: a PSF of the right shape, whose size is not sure.")
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(
            help="gaussian: about how wide, in pixels, or in µm with --pixel-size; of a volume along z and "
            "within its planes, e.g. 3,1.5."
        ),
    ] = None,
    defocus: Annotated[
        float | None,
        typer.Option(
            help="gibson-lanni: about how far out of focus, µm; zernike: exactly, beside the terms."
        ),
    ] = None,
    terms: Annotated[
        str | None,
        typer.Option(help="zernike: about which aberrations, waves rms, e.g. defocus=0.3,spherical=-0.1."),
    ] = None,
    na: Annotated[float | None, typer.Option(help="Optics: numerical aperture.")] = None,
    wavelength: Annotated[float | None, typer.Option(help="Optics: emission wavelength, µm.")] = None,
    pixel_size: Annotated[
        str | None,
        typer.Option(
            help="In the sample, µm, one number or one per axis; for optics one, by default INPUT's."
        ),
    ] = None,
    immersion: Annotated[
        float | None,
        typer.Option(help="Optics: refractive index: air 1, water 1.33 (the default), oil 1.515."),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(
            help="What to fit. gibson-lanni: defocus (the default), na, or both; zernike: one to three "
            "terms, by default defocus,spherical."
        ),
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Size of the PSF in pixels, e.g. 17,17; of a volume z,y,x.")
    ] = None,
    spread: Annotated[
        float | None,
        typer.Option(
            help="Looked for between the told value divided and multiplied by this, by default 2 for a "
            "width or scale, 1.5 for gibson-lanni; of zernike, minus and plus this, by default 0.15 waves."
        ),
    ] = None,
    axes: Axes = None,
    mask_nan: MaskNan = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Fit a PSF known up to its width, size, defocus or aberrations to the image that it blurred.

    Where the image does not tell it, nothing is written, with exit status 1.

    Intervals tell of noise alone. In volumes what the object itself is like may put widths 20 to 30 % off:
    compare what is restored with the fitted PSF and with the told one.
    """
    from selfinv import io, semiblind

    check_float32(output, [input, psf] if psf else [input])
    image = io.read(input, axes=axes)
    told, pixels = Told(
        family, psf, shape, sigma, defocus, terms, na, wavelength, immersion, fit, pixel_size, spread
    ).of(image)
    if not quiet:
        say(f"fitting {', '.join(told.names)}; it takes from seconds to a minute")
    fitted = semiblind.fit_psf(image.data, told, axes=image.axes, mask_nan=mask_nan, seed=seed)
    kernel = fitted.psf
    if shape is None:
        layout = parse_axes(image.axes or guess_axes(image.data.shape, kernel.ndim), image.data.ndim)
        kernel = _within(kernel, layout.spatial_shape(image.data.shape))
    for line in fitted.explain(profile=False).splitlines():  # what was asked for, also if quiet
        say(line)
    if fitted.kept:
        say(f"{output} was not written: the PSF is best left as it was told")
        raise typer.Exit(FAILED)
    _write_psf(output, kernel, pixels)


def _cut_off(kernel: Array, widths: list[float]) -> str:
    """That a Gaussian of these widths in pixels does not fit into the kernel; empty if nearly all does."""
    from scipy.special import erfinv

    from selfinv import psf

    held = math.prod(float(psf.gaussian([width]).max()) for width in widths) / kernel.max()
    if held > 0.98:
        return ""
    reach = math.sqrt(2) * erfinv(0.99 ** (1 / len(widths)))
    enough = ",".join(str(2 * math.ceil(reach * width - 0.5) + 1) for width in widths)
    return (
        f"--shape {','.join(map(str, kernel.shape))} holds only {held:.0%} of the Gaussian's light, so that "
        f"the PSF is narrower than asked for; --shape {enough} holds 99%"
    )


def _whole(light: Callable[[Sequence[int]], Array], shape: Sequence[int]) -> Array:
    """The PSF of this shape, sum 1, of shares of light by shape; one that is cut off is told of."""

    def held(sides: Sequence[int]) -> tuple[Array, float]:
        shares = light(sides)
        # Of a stack, of all its planes; large pixels' centres may miss what is dark around a sharp peak.
        return shares, float(shares.sum(axis=(-2, -1)).clip(max=1.0).mean())

    kernel, share = held(shape)
    if share < _HELD:
        larger, more = list(shape), share
        while more < _ENOUGH and max(larger[-2:]) < _LARGEST and math.prod(larger) < _MANY:
            wider = [*larger[:-2], *(math.ceil(1.5 * n) | 1 for n in larger[-2:])]
            try:
                more = held(wider)[1]
            except InputError:  # a plane that is too large for the model to sample its phase
                break
            larger = wider
        advice = f"--shape {','.join(map(str, larger))} holds {more:.0%}"
        if more - share < _MORE:
            advice = (
                "its light is spread widely: less defocus, or an aberration less strong, keeps it together"
            )
        say(
            f"warning: --shape {','.join(map(str, shape))} holds only {share:.0%} of the light, so that the "
            f"PSF is cut off; {advice}"
        )
    return kernel / kernel.sum()


def _within(kernel: Array, shape: Shape) -> Array:
    """The PSF's inner part, no larger than an image of this shape, about the same centre; its sum is 1."""
    sides = [min(k, n - 1 + n % 2) for k, n in zip(kernel.shape, shape, strict=True)]
    inner = tuple(
        slice(k // 2 - m // 2, k // 2 - m // 2 + m) for k, m in zip(kernel.shape, sides, strict=True)
    )
    return kernel[inner] / kernel[inner].sum()


def _write_psf(output: Path, kernel: Array, voxel_size: list[float] | None) -> None:
    from selfinv import io

    letters = "zyx"[-kernel.ndim :]
    sizes = dict(zip(letters, voxel_size, strict=True)) if voxel_size else {}
    check_float32(output, shape=kernel.shape, axes=letters)
    io.write(output, io.Image(kernel.astype(np.float32), letters, sizes))
    say(f"wrote {output}: {' × '.join(str(n) for n in kernel.shape)}, sum {kernel.sum():.4g}")
