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

from collections.abc import Sequence
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
    sizes
        How many reductions there are: few, as sizes of `Windows` are.
    few
        And where each shape must be recorded before it is fast (on a GPU); every second one is turned by a
        quarter.
    """

    weight: float = 0.5
    begin: float = 0.25
    end: float = 0.7
    renew: int = 20
    scales: tuple[float, float] = (0.6, 0.95)
    hidden: float = 0.5
    sizes: int = 4
    few: int = 3

    def due(self, step: int, planned: int) -> bool:
        """Whether there is a lesson in this step."""
        return self.begin * planned < step < self.end * planned

    def suit(self, data: Measurement) -> bool:
        """Whether the same instrument can be simulated with a smaller field, in two dimensions."""
        operator = data.operator
        if not isinstance(operator, LinearOperator) or data.y.ndim != 4:
            return False
        return operator.for_shape(operator.out_shape) is not None

    def draw(
        self, x: Tensor, data: Measurement, multiple: int, seed: int, step: int, *, recorded: bool = False
    ) -> Lesson | None:
        """What to teach from the object ``x``; None if it is too small for that.

        Parameters
        ----------
        x
            The present reconstruction on the object's grid, in the network's units, without gradient.
        multiple
            Lessons have a multiple of this many samples along each axis.
        recorded
            Whether there are to be a ``few`` sizes only.
        """
        sizes = self.few if recorded else self.sizes
        which = int(sizes * float(torch.rand((), generator=generator_for(seed + 10, step))))
        low, high = self.scales
        small = reduced(x, low + (high - low) * (which + 0.5) / sizes, multiple)
        if small is None:
            return None
        generator = generator_for(seed + 11, step)
        turns = grid_symmetries(2)  # the operator comes after them, so it need not have these symmetries
        if recorded:
            turns = [turn for turn in turns if (turn.order == (0, 1)) == (which % 2 == 0)]
        small = turns[int(torch.randint(len(turns), (1,), generator=generator))](small)
        if min(n - a - b for n, (a, b) in zip(small.shape[2:], data.pads, strict=True)) < multiple:
            return None
        share = self.hidden * float(torch.rand((), generator=generator))
        return Lesson(small, torch.full((), share, device=x.device))  # a copy would wait for the GPU

    def teach(
        self,
        model: Inverter,
        lesson: Lesson,
        data: Measurement,
        operator: LinearOperator,
        likelihood: NoiseLikelihood,
        generator: torch.Generator,
    ) -> Tensor:
        """How far the network is from a lesson's object, shown to it measured, noisy and in part.

        What the instrument shows of the error is not counted.

        Parameters
        ----------
        model
            In training; its running statistics stay those of the data, with which it is used.
        data, operator, likelihood
            The instrument, for an object of the lesson's shape, and its noise.
        generator
            On the object's device.
        """
        small = lesson.object
        with torch.no_grad():
            mean = data.normalisation.apply(operator(data.object_normalisation.undo(small)))
            y = likelihood.sample(mean, generator)
            hidden = torch.rand(y.shape, generator=generator, device=y.device) < lesson.hidden
            seen = data.entrance(y, hidden, data.pads, model.network.settings.marks, generator)
        with frozen_statistics(model):
            error = model(seen) - small
        gain = data.normalisation.scale / data.object_normalisation.scale
        inside = error[field_of_view(data.pads, operator.out_shape)]
        return (inside - operator(error) / gain).abs().mean()


@dataclass(frozen=True)
class Lesson:
    """What the network is to find again.

    Parameters
    ----------
    object
        ``batch channel *space``, in the network's units.
    hidden
        The share of its measured values that is hidden, a tensor of one number.
    """

    object: Tensor
    hidden: Tensor


def instrument(data: Measurement, shape: Sequence[int]) -> LinearOperator:
    """The operator for an object of this spatial shape; it must `ScaleLessons.suit`."""
    assert isinstance(data.operator, LinearOperator)
    operator = data.operator.for_shape([n - a - b for n, (a, b) in zip(shape, data.pads, strict=True)])
    assert operator is not None
    return operator.to(data.y.device)


def reduced(x: Tensor, scale: float, multiple: int) -> Tensor | None:
    """The object at this scale, in multiples of ``multiple``; None if that is too small.

    ``x`` is ``batch channel *space`` with two spatial axes.
    """
    size = [int(n * scale) // multiple * multiple for n in x.shape[2:]]
    if min(size) < 2 * multiple:
        return None
    return F.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False)
