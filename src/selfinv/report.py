"""Pictures: what went in, what came out, zoomed crops and spectra."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from selfinv.atomic import written_beside
from selfinv.types import Array, AxisLayout, InputError

CROP = 80
PICTURES = ("png", "pdf", "svg")


def preview(path: str | os.PathLike[str], images: Mapping[str, Array], axes: str, *, title: str = "") -> None:
    """Write a picture that compares images: the whole, a zoomed crop, and the spectrum of each.

    Parameters
    ----------
    path
        Where to; the extension (png, pdf, svg) says the format.
    images
        Title to image, in the order shown; all with the same ``axes`` and shape. The last one sets the grey
        scale and where to zoom. Of a time series the first frame is shown, of a volume its plane with most
        contrast and a section across it.

    Raises
    ------
    InputError
        If the extension is another, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in PICTURES:
        raise InputError(f"{path} has the extension {Path(path).suffix!r}; use .{', .'.join(PICTURES)}")
    panels = {name: _panels(image, axes) for name, image in images.items()}
    reference = list(panels.values())[-1]
    plane, row, column, height, width = where_to_look(reference)
    shown = {name: stack[plane] for name, stack in panels.items()}
    low, high = (float(v) for v in np.percentile(reference[plane], (0.1, 99.9)))
    high = high if high > low else low + 1.0
    deep = reference.shape[0] > 1
    across = int(np.argmax(reference[plane].reshape(reference.shape[1], -1).std(axis=1)))
    rows = 4 if deep else 3
    figure = Figure(figsize=(3.4 * len(shown), 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, len(shown), squeeze=False)
    spectra = {name: spectrum(image) for name, image in shown.items()}
    floor, top = np.percentile(np.stack(list(spectra.values())), (1, 99.9))
    for column_index, (name, image) in enumerate(shown.items()):
        crop = image[row : row + height, column : column + width]
        views: list[tuple[Array, str, float, float]] = [
            (image, name, low, high),
            (crop, f"{width} × {height} pixels", low, high),
            (spectra[name], "spectrum (log)", floor, top),
        ]
        if deep:
            views.insert(2, (panels[name][:, across], "section (z, x)", low, high))
        for axis, (view, label, bottom, ceiling) in zip(grid[:, column_index], views, strict=True):
            scaled = np.clip((view - bottom) / (ceiling - bottom or 1.0), 0, 1)
            axis.imshow(scaled, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(label, fontsize=10)
            axis.set_axis_off()
    if title:
        figure.suptitle(title, fontsize=11)
    with written_beside(path) as beside:
        figure.savefig(beside, format=suffix, dpi=110)


def _panels(image: Array, axes: str) -> Array:
    """The first frame as ``plane y x``, with a last axis of 3 where the image is RGB."""
    layout = AxisLayout(axes)
    frame = layout.to_batch(np.asarray(image, dtype=np.float64))[0]
    finite = np.isfinite(frame)
    if not finite.all():
        frame = np.where(finite, frame, np.median(frame[finite]) if finite.any() else 0.0)
    while frame.ndim < 4:
        frame = frame[:, None]
    return np.moveaxis(frame, 0, -1) if frame.shape[0] == 3 else frame[0]


def where_to_look(stack: Array) -> tuple[int, int, int, int, int]:
    """The plane with most contrast, and in it the crop with most detail."""
    from scipy.ndimage import uniform_filter

    grey = stack.mean(axis=-1) if stack.ndim == 4 else stack
    plane = int(np.argmax(grey.reshape(grey.shape[0], -1).std(axis=1)))
    image = grey[plane]
    height, width = (min(CROP, n) for n in image.shape)
    detail = sum(np.abs(np.diff(image, axis=a, append=0)) for a in (0, 1))
    busy = uniform_filter(np.asarray(detail), size=(height, width), mode="constant")
    inner = busy[
        height // 2 : image.shape[0] - (height - 1) // 2, width // 2 : image.shape[1] - (width - 1) // 2
    ]
    row, column = np.unravel_index(int(np.argmax(inner)), inner.shape)
    return plane, int(row), int(column), height, width


def spectrum(image: Array) -> Array:
    grey = image.mean(axis=-1) if image.ndim == 3 else image
    window: Any = np.hanning(grey.shape[0])[:, None] * np.hanning(grey.shape[1])
    power = np.abs(np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * window))) ** 2
    scale = float(grey.var()) * grey.size or 1.0  # of a constant image there is no power either
    return np.asarray(np.log10(power / scale + 1e-12))
