"""Random numbers that depend on the seed and the step alone."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")


def generator_for(seed: int, step: int = 0, device: torch.device = CPU) -> torch.Generator:
    """A generator of its own for every (seed, step), so that draws do not depend on what came before.

    Another ``device`` draws other numbers.
    """
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % (2**63))
