r"""Lessons from the image at a coarser scale, about what the forward operator hides.

Seen from further away, a scene is sharper: an edge that the reconstruction spreads over three pixels is a
step of two when it is reduced. So the present reconstruction, reduced, is an object of which the fine detail
*is* known. Measured by the same instrument, with noise as in the data, it makes a pair from which the network
learns to undo the blur where no held-out value could teach it, because :math:`g` suppresses it. Only there:
of its error :math:`e = f(n(g(T\hat x))) - T\hat x` the part that the instrument would show is left out,

.. math:: \mathbb E\, \bigl| e - g(e) \bigr|

(:math:`g` with a gain of 1), for about that part the measured values know better. Scenes have alike edges,
dots and lines at neighbouring scales, but not alike texture, and without this restriction texture is
flattened.

:math:`g` need not have any symmetry. Scanvic et al. 2023, arXiv:2312.11232 (scale-equivariant imaging); Chen
et al. 2022, arXiv:2111.12855 (robust equivariant imaging); Schwab et al. 2019, arXiv:1806.06137 (learning in
the null space alone); on small structure that recurs across the scales of one image: Glasner et al. 2009,
doi:10.1109/ICCV.2009.5459271.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.learning.inverter import Inverter
from selfinv.learning.likelihood import NoiseLikelihood
from selfinv.learning.measurement import Measurement, field_of_view
from selfinv.learning.random import generator_for
from selfinv.learning.symmetry import grid_symmetries
from selfinv.learning.unet import frozen_statistics
from selfinv.operators import LinearOperator


@dataclass(frozen=True)
class ScaleLessons:
    """When and how strongly the network is taught by its own reduced reconstruction.

    Parameters
    ----------
    weight
        Of these lessons beside the loss on hidden values.
    begin, end
        As fractions of the run. They begin when there is a reconstruction to learn from, and end long before
        the run does, so that the data have the last word.
    renew
        Steps after which the reconstruction to learn from is made anew.
    scales
        Reductions to draw from.
    hidden
        The largest part of the simulated values that is hidden from the network; it is drawn each time.
    """

    weight: float = 0.5
    begin: float = 0.25
    end: float = 0.7
    renew: int = 20
    scales: tuple[float, float] = (0.6, 0.95)
    hidden: float = 0.5

    def due(self, step: int, planned: int) -> bool:
        """Whether there is a lesson in this step."""
        return self.begin * planned < step < self.end * planned

    def suit(self, data: Measurement) -> bool:
        """Whether the same instrument can be simulated with a smaller field, in two dimensions."""
        operator = data.operator
        if not isinstance(operator, LinearOperator) or data.y.ndim != 4:
            return False
        return operator.for_shape(operator.out_shape) is not None

    def teach(
        self,
        model: Inverter,
        x: Tensor,
        data: Measurement,
        likelihood: NoiseLikelihood,
        seed: int,
        step: int,
    ) -> Tensor:
        """How far the network is from the reduced object ``x``, shown to it measured, noisy and in part.

        What the instrument shows of the error is not counted.

        Parameters
        ----------
        model
            In training; its running statistics stay those of the data, with which it is used.
        x
            The present reconstruction on the object's grid, in the network's units, without gradient.
        data, likelihood
            The instrument and its noise.
        seed, step
            Of the draws.
        """
        settings = model.network.settings
        small = reduced(x, self.scales, max(settings.multiple()), seed + 10, step)
        if small is None:
            return x.new_zeros(())
        generator = generator_for(seed + 11, step)
        turns = grid_symmetries(2)  # the operator comes after them, so it need not have these symmetries
        small = turns[int(torch.randint(len(turns), (1,), generator=generator))](small)
        shape = [n - a - b for n, (a, b) in zip(small.shape[2:], data.pads, strict=True)]
        if min(shape) < max(settings.multiple()):
            return x.new_zeros(())
        assert isinstance(data.operator, LinearOperator)
        operator = data.operator.for_shape(shape)
        assert operator is not None
        operator = operator.to(x.device)
        with torch.no_grad():
            mean = data.normalisation.apply(operator(data.object_normalisation.undo(small)))
            share = self.hidden * float(torch.rand((), generator=generator))
            there = generator_for(seed + 13, step, x.device)
            y = likelihood.sample(mean, there)
            hidden = torch.rand(y.shape, generator=there, device=y.device) < share
            seen = data.entrance(y, hidden, data.pads, settings.marks, generator)
        with frozen_statistics(model):
            error = model(seen) - small
        gain = data.normalisation.scale / data.object_normalisation.scale
        return (error[field_of_view(data.pads, shape)] - operator(error) / gain).abs().mean()


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
