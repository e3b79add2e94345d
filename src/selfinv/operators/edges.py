"""What lies outside the image, read off how the image behaves at its edges."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor

BLOCKS = 16
ENOUGH = 200_000  # values to tell a quantile by


def choose_boundary(y: Tensor, psf: Tensor) -> Literal["zero", "unknown"]:
    r"""``"zero"`` if the image fades at its edges just as a blurred object with nothing outside would.

    At a distance :math:`d` from an edge the share :math:`c(d)` of the kernel lies inside. With nothing
    outside, the image there is :math:`c(d)` times the level further in; an object that goes on keeps the
    level. For each edge the slope between the two (1 and 0) is fitted, with the standard error of a jackknife
    over blocks of the edge. Unless two edges (of any channel) or more are informative and all of them agree
    on 1, the answer is ``"unknown"``, which is never wrong, only less informed.

    Parameters
    ----------
    y
        The measurement, ``batch channel *space``; NaN marks missing values.
    psf
        The kernel, ``*kernel``, sum 1.
    """
    channels = [c - _floor(c) for c in y.to(torch.float64).split(1, dim=1) if torch.isfinite(c).any()]
    slopes, errors, weights = [], [], []
    for axis, low in itertools.product(range(psf.ndim), (True, False)):
        inside = _inside(psf.to(torch.float64), axis, low)
        for channel in channels:
            lines = channel.movedim(2 + axis, -1)
            edge = _edge(lines if low else lines.flip(-1), inside)
            if edge is not None:
                slopes.append(edge[0])
                errors.append(edge[1])  # each channel has a say, however bright the others are
                weights.append(edge[2] / float(channel.square().nanmean().clamp_min(1e-300)))
    informative = [w > 0.02 * max(weights) and e < 0.3 for w, e in zip(weights, errors, strict=True)]
    agree = [abs(s - 1.0) < 0.25 + 2.5 * e and s > 0.35 for s, e in zip(slopes, errors, strict=True)]
    if sum(informative) < 2 or not all(a for a, i in zip(agree, informative, strict=True) if i):
        return "unknown"
    used = [i for i, good in enumerate(informative) if good]
    total = sum(weights[i] for i in used)
    mean = sum(weights[i] * slopes[i] for i in used) / total
    error = sum((weights[i] * errors[i]) ** 2 for i in used) ** 0.5 / total
    return "zero" if 0.7 < mean < 1.3 and mean > 4 * error else "unknown"


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
