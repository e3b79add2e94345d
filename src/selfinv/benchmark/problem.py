"""What a method is given, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from selfinv.arrangement import is_on_grid
from selfinv.instrument import choose_device, psf_operator
from selfinv.learning.measurement import field_of_view, object_pads
from selfinv.operators import Identity, LinearOperator
from selfinv.solvers.base import Callback, Progress
from selfinv.types import SPACE, Array, AxisLayout, spatial_index


class Watch:
    """A stopwatch that stands still while one looks at how good the present image is.

    Parameters
    ----------
    quality
        Scores an image; what it says goes into ``trace`` and nowhere else. None: never look.
    """

    def __init__(self, quality: Callable[[Array], float] | None = None) -> None:
        self.quality = quality
        self.trace: list[tuple[float, float]] = []
        self.prepared: float | None = None  # seconds until the last solve began, where there are several
        self.looking = 0.0
        self.start = time.perf_counter()
        self.next_look = 0.5

    def seconds(self) -> float:
        """Since the start, without the time spent looking."""
        return time.perf_counter() - self.start - self.looking

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that does not count."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.looking += time.perf_counter() - start

    def look(self, image: Callable[[], Array]) -> None:
        """Score the present image, now and then: after half a second, one, two, four, ..."""
        if self.quality is None or self.seconds() < self.next_look:
            return
        now = self.seconds()
        with self.paused():
            self.trace.append((now, self.quality(image())))
        self.next_look = 2 * now

    @property
    def callback(self) -> Callback:
        """For `selfinv.restore`: notes when tuning is over and looks at the image of a long training."""

        def after_step(progress: Progress) -> None:
            if progress.phase.startswith("final") and self.prepared is None:
                self.prepared = self.seconds()
            # A network's estimate before its first look at the validation values would be that look.
            if progress.step > progress.max_steps // 20 + 1:
                self.look(progress.estimate)  # type: ignore[arg-type]  # an image here

        return after_step


@dataclass(frozen=True)
class Problem:
    """One measurement to restore, and what is told of it.

    Parameters
    ----------
    image
        ``(y, x)`` or ``(z, y, x)``, float32; NaN where nothing was measured. With an ``operator`` what that
        gives.
    psf, operator
        The forward model: a kernel with its centre at ``n // 2`` and sum 1, or an operator, or neither, if
        only noise is to be removed.
    truth
        For methods that are told it; None for all others.
    steps
        A budget of training steps for methods that train; None for their own.
    boundary
        As in `selfinv.restore`.
    """

    image: Array
    psf: Array | None = None
    operator: LinearOperator | None = None
    truth: Array | None = None
    seed: int = 0
    device: str = "auto"
    steps: int | None = None
    boundary: str = "auto"
    spacing: tuple[float, ...] | None = None
    watch: Watch = field(default_factory=Watch)

    @property
    def axes(self) -> str:
        """``yx`` or ``zyx``."""
        return SPACE[-(self.image.ndim if self.operator is None else len(self.operator.in_shape)) :]

    def filled(self) -> Problem:
        """The same with missing values filled in from around them (`fill_missing`)."""
        missing = ~np.isfinite(self.image)
        if not missing.any():
            return self
        return replace(self, image=fill_missing(self.image, missing))

    def forward_model(self) -> tuple[Tensor, LinearOperator, Callable[[Tensor], Array]]:
        """The measurement (``batch channel *space``), the operator, and the way from object to image."""
        shape = self.image.shape
        y = torch.from_numpy(np.ascontiguousarray(self.image, dtype=np.float32))[None, None]
        A: LinearOperator = Identity(shape)
        if self.operator is not None:
            A = self.operator
        elif self.psf is not None:
            A = psf_operator(self.psf, shape, AxisLayout(self.axes), self.boundary, y.double())  # type: ignore
        place = choose_device(self.device)
        view = spatial_index(A.view) if not is_on_grid(A) else field_of_view(object_pads(A, shape), shape)
        return y.to(place), A.to(place), lambda x: x[view][0, 0].detach().float().cpu().numpy()


@dataclass
class Restored:
    """A restored image and what it cost.

    Parameters
    ----------
    image
        Of the measurement's shape, in its units.
    training_seconds, inference_seconds
        What is done once for an instrument or an image (training, tuning), and what the image itself takes.
    steps, setting
        Taken, and chosen.
    flag
        What the method itself says is wrong with the result; empty if nothing.
    device
        Where it ran.
    predicted
        What the instrument would measure of all that was restored; None: of the image, which goes on beyond
        its edges as it ends there.
    curve
        Of an iterative method, told the truth: (iterations, image scores) along the way.
    """

    image: Array
    training_seconds: float = 0.0
    inference_seconds: float = 0.0
    steps: int | None = None
    setting: str = ""
    flag: str = ""
    device: str = "cpu"
    predicted: Array | None = None
    curve: list[dict[str, float]] = field(default_factory=list)


def fill_missing(image: Array, missing: Array) -> Array:
    """Replace missing values by the median of those around them (of volumes, and of many, by the mean)."""
    from scipy.ndimage import generic_filter

    filled = np.where(missing, np.nan, image)
    size = 3
    while np.isnan(filled).any() and size < 2 * max(image.shape):
        where = np.isnan(filled)
        if image.ndim > 2 or where.sum() > 20000:  # a median of every pixel would take minutes
            weights = _box(~where, size)
            means = _box(np.where(where, 0.0, filled), size) / np.maximum(weights, 1e-9)
            filled = np.where(where & (weights > 1e-6), means, filled)
        else:
            filled = np.where(where, generic_filter(filled, _nanmedian, size=size), filled)
        size = 2 * size + 1
    return filled.astype(image.dtype)


def _nanmedian(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _box(values: Array, size: int) -> Array:
    from scipy.ndimage import uniform_filter

    return np.asarray(uniform_filter(np.asarray(values, dtype=np.float64), size, mode="constant"))
