"""Random numbers that depend on the seed and the step alone."""

from __future__ import annotations

import torch


def generator_for(seed: int, step: int = 0) -> torch.Generator:
    """A generator of its own for every (seed, step), so that draws do not depend on what came before."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63))
