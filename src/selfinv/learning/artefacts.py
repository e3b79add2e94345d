"""Patterns a network can leave in what the forward operator cannot see."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from selfinv.types import spatial_index


def checkerboard_energy(x: Tensor) -> float:
    """How far the spectrum stands out at the frequencies of period 2 and 4, relative to its surroundings.

    Upsampling and pooling leave patterns of exactly these periods, which appear as isolated spikes of the
    spectrum; honest detail is spread over neighbouring frequencies. The value is the largest ratio, over
    these frequencies, of the power in the spike to the mean power in a ring of frequencies around it.
    ``x`` is ``(..., *space)`` with the leading axes ``batch channel``.
    """
    dims = tuple(range(2, x.ndim))
    sizes = [x.shape[d] - x.shape[d] % 4 for d in dims]  # whole periods: the spike is one bin
    x = x[spatial_index(slice(0, n) for n in sizes)]
    if min(sizes, default=0) < 16:
        return 0.0
    x = x.cpu()  # where transforms of any length are quick
    x = x - x.mean(dim=dims, keepdim=True)
    for d, n in zip(dims, sizes, strict=True):
        window = torch.hann_window(n, device=x.device, dtype=x.dtype)
        shape = [1] * x.ndim
        shape[d] = n
        x = x * window.reshape(shape)
    power = torch.fft.fftn(x, dim=dims).abs().square().mean(dim=(0, 1))
    worst = 0.0
    for place in itertools.product((0.0, 0.25, 0.5), repeat=len(dims)):
        if not any(place):
            continue
        centre = [round(f * n) for f, n in zip(place, sizes, strict=True)]
        index = [
            (torch.arange(c - 5, c + 6, device=power.device)) % n for c, n in zip(centre, sizes, strict=True)
        ]
        patch = power[torch.meshgrid(*index, indexing="ij")]
        distance = torch.stack(
            torch.meshgrid(*[torch.arange(-5, 6, device=power.device).abs()] * len(dims), indexing="ij")
        ).amax(dim=0)
        spike = patch[distance <= 1].sum()
        around = patch[distance >= 3].mean() * (distance <= 1).sum()
        worst = max(worst, float(spike / around.clamp_min(1e-30)))
    return worst


def has_checkerboard(x: Tensor, y: Tensor) -> bool:
    """Whether a reconstruction ``x`` shows a pattern that its measurement ``y`` does not.

    Honest images stay below 15, but for those that have such a pattern themselves (screens, dithered prints);
    then the measurement shows it, too.
    """
    return checkerboard_energy(x) > 50.0 and checkerboard_energy(y) < 5.0
