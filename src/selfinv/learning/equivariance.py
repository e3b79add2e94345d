r"""Lessons from the image at a coarser scale, about what the forward operator hides.

Seen from further away, a scene is sharper: an edge that the reconstruction spreads over three pixels is a
step of two when it is reduced. So the present reconstruction, reduced, is an object of which the fine detail
*is* known. Measured by the same instrument, with noise as in the data, it makes a pair from which the network
learns to undo the blur where no held-out value could teach it, because :math:`g` suppresses it:

.. math:: \mathbb E\, \bigl| f\bigl(n(g(T\hat x))\bigr) - T\hat x \bigr|

It assumes that the scene has alike structure at neighbouring scales (edges, dots, lines do; texture does not,
and is flattened), and :math:`g` need not have any symmetry. Scanvic et al. 2023, arXiv:2312.11232
(scale-equivariant imaging); Chen et al. 2022, arXiv:2111.12855 (robust equivariant imaging); on small
structure that recurs across the scales of one image: Glasner et al. 2009, doi:10.1109/ICCV.2009.5459271.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.learning.random import generator_for


@dataclass(frozen=True)
class ScaleLessons:
    """When, how often and how strongly the network is taught by its own reduced reconstruction.

    Parameters
    ----------
    weight
        Of these lessons beside the loss on hidden values.
    begin, end
        As fractions of the run. They begin when there is a reconstruction to learn from, and end long before
        the run does, so that the data have the last word.
    every
        Steps from one lesson to the next.
    renew
        Steps after which the reconstruction to learn from is made anew.
    scales
        Reductions to draw from.
    hidden
        The largest part of the simulated values that is hidden from the network; it is drawn each time.
    """

    weight: float = 1.0
    begin: float = 0.25
    end: float = 0.7
    every: int = 2
    renew: int = 20
    scales: tuple[float, float] = (0.6, 0.95)
    hidden: float = 0.5

    def due(self, step: int, planned: int) -> bool:
        """Whether there is a lesson in this step."""
        within = self.begin * planned < step < self.end * planned
        return within and step % self.every == 0


def reduced(x: Tensor, scales: tuple[float, float], multiple: int, seed: int, step: int) -> Tensor | None:
    """The object at a scale drawn from ``scales``, in multiples of ``multiple``; None if that is too small.

    ``x`` is ``batch channel *space`` with two spatial axes.
    """
    low, high = scales
    scale = low + (high - low) * float(torch.rand((), generator=generator_for(seed, step)))
    size = [int(n * scale) // multiple * multiple for n in x.shape[2:]]
    if min(size) < 2 * multiple:
        return None
    return F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
