"""What lies outside the image, read off how the image behaves at its edges."""

from __future__ import annotations

import itertools
import math
from typing import Literal

import torch
from torch import Tensor

BLOCKS = 16
LEAST_WEIGHT = 0.02  # of an edge, in parts of the largest
MOST_ERROR = 0.5  # of a slope that tells something
SCATTER, SCATTER_OF_OTHERS = 0.45, 1.0  # of slopes about 1, and about 0 where the object goes on
CLEAR = 3.0  # log likelihood ratio: an edge that fits gives 1.3 at most
ENOUGH = 200_000  # values to tell a quantile by


def choose_boundary(y: Tensor, psf: Tensor) -> Literal["zero", "unknown"]:
    r"""``"zero"`` if the image fades at its edges just as a blurred object with nothing outside would.

    At a distance :math:`d` from an edge the share :math:`c(d)` of the kernel lies inside. With nothing
    outside, the image there is :math:`c(d)` times the level further in; an object that goes on keeps the
    level. For each edge the slope between the two (1 and 0) is fitted, with the standard error of a jackknife
    over blocks of the edge. Objects have structure of their own there, which scatters slopes about 1 by
    ``SCATTER``, and those of an object that goes on about 0 by more. Unless the edges of all channels
    together make nothing outside clearly likelier, by a likelihood ratio that no two edges can reach, the
    answer is ``"unknown"``, which is never wrong, only less informed.

    Parameters
    ----------
    y
        The measurement, ``batch channel *space``; NaN marks missing values.
    psf
        The kernel, ``*kernel``, sum 1.
    """
    channels = [c - _floor(c) for c in y.to(torch.float64).split(1, dim=1) if torch.isfinite(c).any()]
    edges = []
    for axis, low in itertools.product(range(psf.ndim), (True, False)):
        inside = _inside(psf.to(torch.float64), axis, low)
        for channel in channels:
            lines = channel.movedim(2 + axis, -1)
            edge = _edge(lines if low else lines.flip(-1), inside)
            if edge is not None:  # each channel has a say, however bright the others are
                slope, error, weight = edge
                edges.append((slope, error, weight / float(channel.square().nanmean().clamp_min(1e-300))))
    most = max((weight for *_, weight in edges), default=0.0)
    told = [(s, e) for s, e, weight in edges if weight > LEAST_WEIGHT * most and e < MOST_ERROR]
    # Channels are no independent witnesses: those of a photograph look alike.
    evidence = sum(_log_ratio(s, e) for s, e in told) / math.sqrt(max(1, len(channels)))
    return "zero" if evidence > CLEAR else "unknown"


def _log_ratio(slope: float, error: float) -> float:
    """How much likelier a slope is with nothing outside than with an object that goes on, as a logarithm."""
    nothing, goes_on = (error**2 + scatter**2 for scatter in (SCATTER, SCATTER_OF_OTHERS))
    return 0.5 * (slope**2 / goes_on - (slope - 1.0) ** 2 / nothing + math.log(goes_on / nothing))


def _inside(psf: Tensor, axis: int, low: bool) -> Tensor:
    """The share of the kernel that lies inside, at each distance from an edge."""
    marginal = psf.movedim(axis, 0).flatten(1).sum(1) if psf.ndim > 1 else psf
    # A sample at the distance d from the low edge sees the kernel's taps j <= d + n // 2 inside.
    taps = marginal if low else marginal.flip(0)
    centre = marginal.numel() // 2
    return taps.cumsum(0)[centre if low else marginal.numel() - 1 - centre :]


def _edge(lines: Tensor, inside: Tensor) -> tuple[float, float, float] | None:
    """The slope where ``lines`` begin, its standard error, and its weight; None if they tell nothing."""
    reach = int((inside < 0.99).sum())
    if not 1 <= reach <= lines.shape[-1] // 4:
        return None
    profile = lines[..., : 2 * reach].reshape(-1, 2 * reach)
    blocks = profile.tensor_split(min(BLOCKS, profile.shape[0]))
    means = torch.stack([block.nanmean(dim=0) for block in blocks]).nan_to_num()
    level = means[:, reach:].mean(dim=1, keepdim=True)
    expected = level * (1.0 - inside[:reach])
    up = ((level - means[:, :reach]) * expected).sum(dim=1)
    down = expected.square().sum(dim=1)
    if not float(down.sum() - down.max()) > 0:
        return None
    n = down.numel()
    without = (up.sum() - up) / (down.sum() - down)
    error = float(((n - 1) / n * (without - without.mean()).square().sum()).sqrt())
    return float(up.sum() / down.sum()), error, float(down.sum())


def _floor(y: Tensor) -> float:
    """What a camera that cuts noise off at zero makes of darkness: 0.4 standard deviations."""
    steps = y.diff(dim=-1).abs().flatten()
    deviation = float(steps[:: max(1, steps.numel() // ENOUGH)].nanmedian()) / 0.954
    values = y[torch.isfinite(y)]
    dark = float(values[:: max(1, values.numel() // ENOUGH)].quantile(0.05))
    return 0.4 * deviation if 0.0 <= dark < 0.4 * deviation else 0.0
