"""The named recipes of `selfinv.restore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selfinv.learning.inverter import Head
from selfinv.learning.losses import MaskedLoss
from selfinv.learning.masks import Decaying, RandomPixels
from selfinv.learning.solver import SSI, Hiding, Training
from selfinv.learning.unet import UNetSettings, pooled_axes_for


def ssi(shape: Sequence[int], channels: int, *, steps: int | None = None) -> SSI:
    """Our best recipe, for an object of this spatial ``shape``."""
    widths, fold = (32, 64, 64, 64), 2 if min(shape) >= 16 else 1
    network = UNetSettings(
        ndim=len(shape),
        channels=channels,
        marks=1,
        widths=widths,
        kernels=(3, 3),
        pool="average",
        slope=0.1,
        fold=fold,
        pooled_axes=pooled_axes_for(shape, len(widths), fold=fold),
    )
    training = Training(max_steps=steps or (600 if len(shape) < 3 else 300), learning_rate=1e-2)
    return SSI(network=network, training=training, window=384 * 384)


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


def ssi_unmasked(shape: Sequence[int], channels: int, *, steps: int | None = None) -> SSI:
    """The paper's control: the same, but nothing is hidden, so the noise can be learned too."""
    recipe = ssi_paper(shape, channels, steps=steps)
    return replace(recipe, hiding=replace(recipe.hiding, scheme=None))
