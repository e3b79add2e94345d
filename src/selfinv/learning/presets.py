"""The named recipes of `selfinv.restore`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from selfinv.learning.equivariance import ScaleLessons
from selfinv.learning.inverter import Head, Looks
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.masks import Decaying, RandomPixels
from selfinv.learning.settings import Hiding, Training
from selfinv.learning.solver import SSI
from selfinv.learning.unet import UNetSettings, pooled_axes_for
from selfinv.learning.windows import Windows

# Values that one training step looks at, at first and at the end, at most.
WINDOWS = {
    1: Windows(512 * 512, 2200 * 2200),
    2: Windows(512 * 512, 2200 * 2200),
    3: Windows(384 * 384, 384 * 384),
}
FEW_SETS = 1000
MOST_TIMES = 100.0  # that each value is hidden in a run
STEPS = {1: 200, 2: 200, 3: 450}
GROWTH = 1.5  # times as many for a large image, at most


def planned_steps(shape: Sequence[int], growth: float = GROWTH) -> int:
    """Training steps for an object of this spatial shape.

    Up to ``growth`` times as many for a larger image, which has more to teach and of which most steps see a
    part; where they never see the whole of a flat image, in proportion to the root of the number of parts.
    """
    ndim, size = len(shape), math.prod(shape)
    windows = WINDOWS[ndim]
    if ndim == 3:
        return STEPS[ndim]
    larger = min(growth, max(1.0, math.sqrt(size / windows.first)))
    return round(STEPS[ndim] * larger * math.sqrt(max(1.0, size / windows.last)))


def ssi(
    shape: Sequence[int],
    channels: int,
    *,
    steps: int | None = None,
    effort: float = 1.0,
    growth: float = GROWTH,
    fold: int = 2,
    pixels: bool = True,
    sets: float = math.inf,
) -> SSI:
    """Our best recipe, for an object of this spatial ``shape``.

    Parameters
    ----------
    steps
        In all; None: `planned_steps`.
    effort, growth
        A factor on the number of steps; how much larger it may be for a larger image (`planned_steps`).
    fold
        See `UNetSettings`; less on small images. A step with 4 costs half of one with 2, and teaches less.
    pixels
        Whether measured values are pixels of the object; if not, the network improves a crude image of them.
    sets
        How many sets of values there are that are hidden together. Of few, as lines of a spectrum, more are
        hidden at a time, or a step would have too little to score.
    """
    parts = 4 if pixels or sets > FEW_SETS else 3
    ndim, widths = len(shape), (32, 64, 64, 64)
    while min(shape) < 8 * fold and fold > 1:
        fold //= 2
    network = UNetSettings(
        ndim=ndim,
        channels=channels,
        marks=1,
        widths=widths,
        kernels=(3, 3),
        first_kernels=(3,),
        pool="average",
        slope=0.1,
        skip="add",
        fold=fold,
        pooled_axes=pooled_axes_for(shape, len(widths), fold=fold),
        precision="auto",
    )
    planned = steps or max(1, round(effort * planned_steps(shape, growth)))
    return SSI(
        network=network,
        training=Training(max_steps=planned),
        head=Head(residual=not pixels),
        hiding=Hiding(
            RandomPixels(1.0 / parts),
            looks=Looks(parts, partitions=4),
            most=MOST_TIMES if pixels else math.inf,  # others are shown in the end as they were here
        ),
        lessons=ScaleLessons(),
        windows=WINDOWS[ndim],
        filters=ndim < 3,  # on volumes they double the time and gain nothing
        outliers=True,
        own_values=True,
        adapt=True,
    )


def ssi_paper(shape: Sequence[int], channels: int, *, steps: int | None = None) -> SSI:
    """The paper's recipe, on convolution, boundary and validation that are what they are said to be.

    Kobayashi et al. 2020, arXiv:2006.06156, with the settings of its public code. Images too small for four
    halvings are halved less often.
    """
    network = UNetSettings(ndim=len(shape), channels=channels)
    levels = len(network.widths)
    return SSI(
        network=replace(network, pooled_axes=pooled_axes_for(shape, levels, smallest=1)),
        hiding=Hiding(scheme=RandomPixels(Decaying(0.5, 0.01, 0.005)), fill="zero", validation=0.1),
        training=Training(
            optimiser="noisy-adam",
            schedule="plateau",
            learning_rate=0.01,
            max_steps=steps or 3000,
            patience=300,
            weight_decay=1e-6,
            input_noise=True,
            average=0.0,
            check_every=1,
        ),
        head=Head("clamp"),
        loss=MaskedLoss("l2"),
        augment=False,
    )


def ssi_unmasked(shape: Sequence[int], channels: int) -> SSI:
    """The paper's control: the same, but nothing is hidden, so the noise can be learned too."""
    recipe = ssi_paper(shape, channels)
    return replace(recipe, hiding=replace(recipe.hiding, scheme=None))
