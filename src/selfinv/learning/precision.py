"""In which precision networks run: half where the processor is built for it, single elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch


def half_precision(device: torch.device) -> bool:
    """Whether bfloat16 convolutions are much faster than single precision here.

    On CPUs that takes matrix units (AMX): several times as fast; without them bfloat16 is emulated.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        supported: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        return bool(supported())
    return False


def autocast(
    device: torch.device, precision: Literal["auto", "single"]
) -> contextlib.AbstractContextManager[Any]:
    """Run what follows in half precision, if that is wanted and pays on this device."""
    if precision == "single" or not half_precision(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
