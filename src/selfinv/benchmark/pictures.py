"""Small pictures for the page, each a data URL: crops, spectra, and the two plots."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selfinv.report import CROP, spectrum, where_to_look
from selfinv.types import Array

SPECTRUM = 120  # samples of a spectrum's picture
COLOURS = {
    "self-supervised": "#0b6e4f",
    "self-tuned": "#2f6db5",
    "paper": "#b5651d",
    "other": "#7d4fa0",
    "oracle": "#8a8a8a",
    "reference": "#444444",
}


def plane_of(image: Array, index: int) -> Array:
    """A 2-D image as it is; of a volume one plane."""
    return image if image.ndim == 2 else image[index]


def crops(images: Mapping[str, Array], reference: Array, *, own_scale: bool = False) -> dict[str, str]:
    """The same 80×80 of every image, where the reference has most detail, on its grey scale.

    Of volumes the plane where the reference has most contrast is shown. With ``own_scale`` each image has a
    grey scale of its own.
    """
    index, row, column, height, width = where_to_look(reference if reference.ndim == 3 else reference[None])
    part = (slice(row, row + height), slice(column, column + width))
    low, high = (float(v) for v in np.percentile(plane_of(reference, index), (0.1, 99.9)))
    found = {}
    for name, image in images.items():
        plane = plane_of(image, index)
        if own_scale:
            low, high = (float(v) for v in np.percentile(plane, (0.1, 99.9)))
        found[name] = picture(plane[part], low, high)
    return found


def spectra(images: Mapping[str, Array], reference: Array) -> dict[str, str]:
    """Log power spectra of whole images, all on the reference's scale, so that noise and lost detail show."""
    index = where_to_look(reference if reference.ndim == 3 else reference[None])[0]
    found = {k: _reduced(spectrum(plane_of(image, index))) for k, image in images.items()}
    floor, top = np.percentile(_reduced(spectrum(plane_of(reference, index))), (2, 99.9))
    return {k: picture(view, float(floor) - 0.5, float(top)) for k, view in found.items()}


def picture(image: Array, low: float, high: float) -> str:
    """Eight-bit grey PNG."""
    from imagecodecs import png_encode

    scaled = np.clip((image - low) / max(high - low, 1e-30), 0, 1)
    return _url(bytes(png_encode(np.round(255 * scaled).astype(np.uint8))), "image/png")


def trade_off(curve: Sequence[Mapping[str, float]], points: Mapping[str, tuple[float, float, str]]) -> str:
    """Figure 4: Richardson-Lucy's way from blurred to noisy, iteration by iteration, and other methods as
    points.

    Parameters
    ----------
    curve
        With ``steps``, ``blur``, ``noise`` (`selfinv.benchmark.scores.blur_and_noise`, means over images).
    points
        Name to blur, noise, colour; the first is ours.
    """
    figure, axis = _figure(8.6, 4.6)
    blur, noise = [p["blur"] for p in curve], [p["noise"] for p in curve]
    axis.plot(noise, blur, "-o", color="#b5651d", ms=3, lw=1.2, label="Richardson-Lucy")
    for p in curve:
        if p["steps"] in (1, 2, 5, 10, 20, 40):
            axis.annotate(
                f"{p['steps']:.0f}", (p["noise"], p["blur"]), (4, 4), textcoords="offset points", fontsize=8
            )
    for marker, (name, (x_blur, x_noise, colour)) in zip("*osD^v", points.items(), strict=False):
        size = 13 if marker == "*" else 7
        axis.plot(
            [x_noise], [x_blur], marker, color=colour, ms=size, mec="white", ls="none", label=name, zorder=3
        )
    axis.set_xlabel("noise and artefacts (RMS)")
    axis.set_ylabel("missing detail (RMS)")
    axis.set_xlim(left=0)
    axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.01, 0.5))
    axis.set_title("less of both is better: towards the lower left", fontsize=9, color="#555555", loc="left")
    return _svg(figure)


def quality_and_time(
    points: Mapping[str, tuple[float, float, str]], traces: Mapping[str, Sequence[tuple[float, float]]]
) -> str:
    """PSNR against seconds an image: every method a point, those that were watched a curve up to theirs."""
    figure, axis = _figure(8.6, 4.6)
    markers = "osD^vP*X<>ph"
    used: dict[str, int] = {}
    for name, (seconds, quality, group) in points.items():
        used[group] = used.get(group, -1) + 1
        colour = COLOURS.get(group, "#444444")
        style: dict[str, Any] = {"mfc": "white"} if group == "oracle" else {}
        seconds = max(seconds, 1e-3)
        trace = [(max(s, 1e-3), q) for s, q in traces.get(name, [])]
        if trace:
            xs, ys = zip(*trace, (seconds, quality), strict=True)
            axis.plot(xs, ys, "-", color=colour, lw=1, alpha=0.6)
        axis.plot(
            [seconds],
            [quality],
            markers[used[group] % len(markers)],
            color=colour,
            ms=7,
            label=name,
            ls="none",
            **style,
        )
    axis.set_xscale("log")
    axis.set_xlabel("seconds an image, training or tuning included")
    axis.set_ylabel("mean PSNR (dB)")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return figure, axis


def _svg(figure: Any) -> str:
    import matplotlib

    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "selfinv"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _url(stream.getvalue(), "image/svg+xml")


def _url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _reduced(image: Array) -> Array:
    """Averaged over blocks to about `SPECTRUM` samples a side."""
    blocks = [max(1, n // SPECTRUM) for n in image.shape]
    cut = image[tuple(slice(0, n // b * b) for n, b in zip(image.shape, blocks, strict=True))]
    return np.asarray(cut.reshape(cut.shape[0] // blocks[0], blocks[0], -1, blocks[1]).mean(axis=(1, 3)))


__all__ = ["COLOURS", "CROP", "crops", "picture", "plane_of", "quality_and_time", "spectra", "trade_off"]
