"""The default network with one thing changed, as methods for the benchmark.

selfinv benchmark --images DIR --crop 256 --seeds 3 --methods ssi-network,benchmarks/ablation.py:no_lessons
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import selfinv
from selfinv.learning.inverter import Head
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.masks import RandomPixels
from selfinv.learning.presets import ssi
from selfinv.learning.solver import SSI

Array = np.ndarray[Any, Any]


def _restore(image: Array, psf: Array | None, seed: int, **changes: Any) -> Array:
    solver = ssi(image.shape, 1)
    return selfinv.restore(
        image, psf, method=_changed(solver, **changes), axes="zyx"[-image.ndim :], seed=seed, mask_nan=True
    ).image


def _changed(solver: SSI, training: Any = (), hiding: Any = (), **changes: Any) -> SSI:
    return replace(
        solver,
        training=replace(solver.training, **dict(training)),
        hiding=replace(solver.hiding, **dict(hiding)),
        **changes,
    )


def l1(image: Array, psf: Array | None, *, seed: int) -> Array:
    """Least absolute deviations in place of the learned likelihood; without lessons, which need its noise."""
    return _restore(image, psf, seed, loss=MaskedLoss("l1"))


def l2(image: Array, psf: Array | None, *, seed: int) -> Array:
    """Least squares in place of the learned likelihood; without lessons, which need its noise."""
    return _restore(image, psf, seed, loss=MaskedLoss("l2"))


def no_lessons(image: Array, psf: Array | None, *, seed: int) -> Array:
    """No lessons from its own reduced reconstruction."""
    return _restore(image, psf, seed, lessons=None)


def no_filters(image: Array, psf: Array | None, *, seed: int) -> Array:
    """Not shown what regularised inverses of the blur make of the measurement."""
    return _restore(image, psf, seed, filters=False)


def wild_shown(image: Array, psf: Array | None, *, seed: int) -> Array:
    """The network sees values that the blur cannot have made as they are."""
    return _restore(image, psf, seed, outliers=False)


def values_unasked(image: Array, psf: Array | None, *, seed: int) -> Array:
    """The network's answer as it is, without what each value itself adds to it."""
    return _restore(image, psf, seed, own_values=False)


def no_symmetries(image: Array, psf: Array | None, *, seed: int) -> Array:
    """Neither trained on nor averaged over flips and turns."""
    return _restore(image, psf, seed, augment=False)


def no_average(image: Array, psf: Array | None, *, seed: int) -> Array:
    """The weights as they are, not their moving average."""
    return _restore(image, psf, seed, training={"average": 0.0})


def half_hidden(image: Array, psf: Array | None, *, seed: int) -> Array:
    """Half of the pixels hidden in each step in place of a quarter."""
    return _restore(image, psf, seed, hiding={"scheme": RandomPixels(0.5)})


def zero_filled(image: Array, psf: Array | None, *, seed: int) -> Array:
    """Hidden pixels filled with zero in place of their neighbours."""
    return _restore(image, psf, seed, hiding={"fill": "zero"})


def clamped(image: Array, psf: Array | None, *, seed: int) -> Array:
    """The output cut to the measurement's range in place of learned bounds."""
    return _restore(image, psf, seed, head=Head("clamp"))


for _method in (
    l1,
    l2,
    no_lessons,
    no_filters,
    wild_shown,
    no_symmetries,
    no_average,
    half_hidden,
    zero_filled,
    clamped,
):
    _method.takes_missing = True  # type: ignore[attr-defined]
