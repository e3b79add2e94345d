"""In which precision networks run: half where the processor is built for it, single elsewhere."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import torch


def half_precision(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are much faster than single precision here.

    On CPUs that takes instructions for it: AMX (several times as fast) or AVX-512 BF16 (twice as fast).
    Without them it is emulated.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return any(
            bool(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)())
            for name in ("amx_tile", "avx512_bf16")
        )
    return False


def autocast(
    device: torch.device, precision: Literal["auto", "single"]
) -> contextlib.AbstractContextManager[Any]:
    """Run what follows in half precision, if that is wanted and pays on this device."""
    if precision == "single" or not half_precision(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
