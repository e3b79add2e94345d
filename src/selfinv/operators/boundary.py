"""Reflection of an image beyond its edges, and the adjoint of that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def reflected_index(n: int, before: int, after: int, device: torch.device | None = None) -> Tensor:
    """Which of the ``n`` samples stands at each place of an axis extended by ``before`` and ``after``.

    Half-sample symmetric (``c b a | a b c | c b a``), as often as needed: SciPy's ``mode="reflect"``.
    """
    index = torch.arange(-before, n + after, device=device) % (2 * n)
    return torch.minimum(index, 2 * n - 1 - index)


def reflect(x: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    """Extend the trailing axes of ``x`` by reflection, by ``(before, after)`` samples each."""
    for axis, (before, after) in enumerate(pads, start=x.ndim - len(pads)):
        n = x.shape[axis]
        if not (before or after):
            continue
        if max(before, after) <= n:  # one mirror image at each end, which is much faster than an index
            first, last = x.narrow(axis, 0, before), x.narrow(axis, n - after, after)
            x = torch.cat([first.flip(axis), x, last.flip(axis)], dim=axis)
        else:
            x = x.index_select(axis, reflected_index(n, before, after, x.device))
    return x


def reflect_adjoint(y: Tensor, shape: Sequence[int], pads: Sequence[tuple[int, int]]) -> Tensor:
    """The adjoint of `reflect`: fold the extension of each trailing axis back onto ``shape``."""
    for axis, ((before, after), n) in enumerate(zip(pads, shape, strict=True), start=y.ndim - len(pads)):
        if before or after:
            folded = list(y.shape)
            folded[axis] = n
            index = reflected_index(n, before, after, y.device)
            y = y.new_zeros(folded).index_add(axis, index, y)
    return y
