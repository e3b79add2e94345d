"""From the caller's units to the network's and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from torch import Tensor

from selfinv.types import check_contrast


@dataclass(frozen=True)
class Normalisation:
    """The affine map ``(y - offset) / scale``.

    Parameters
    ----------
    offset, scale
        In the caller's intensity units.
    """

    offset: float
    scale: float

    @classmethod
    def of(cls, y: Tensor) -> Normalisation:
        """The map that takes the range of ``y`` without its outliers to [0, 1].

        The range is that of the median of every 3-sample neighbourhood: a hot pixel stands alone, what an
        instrument has blurred does not.

        Raises
        ------
        InputError
            If the image is constant.
        """
        array = y.detach().cpu().numpy().astype(np.float64)
        finite = np.isfinite(array)
        if not finite.all():
            array = np.where(finite, array, np.median(array[finite]))
        check_contrast(array)
        low, high = float(array.min()), float(array.max())
        smooth = ndimage.median_filter(array, size=(1, 1, *(3,) * (array.ndim - 2)))
        if smooth.max() > smooth.min():
            low, high = float(smooth.min()), float(smooth.max())
        return cls(low, high - low)

    def divided_by(self, gain: float) -> Normalisation:
        """The map for an object that an operator of this gain turns into such a measurement."""
        return Normalisation(self.offset / gain, self.scale / gain)

    def apply(self, y: Tensor) -> Tensor:
        """To the network's units."""
        return (y - self.offset) / self.scale

    def undo(self, x: Tensor) -> Tensor:
        """Back to the caller's units."""
        return x * self.scale + self.offset
