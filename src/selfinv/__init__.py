"""Noise-tolerant self-supervised inversion of one noisy, indirectly measured image.

>>> import selfinv
>>> result = selfinv.restore(image, psf)  # doctest: +SKIP
>>> result.image, result.status, result.model  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selfinv import (
        functionals,
        independence,
        io,
        learning,
        methods,
        metrics,
        noise,
        operators,
        psf,
        selection,
        semiblind,
        solvers,
    )
    from selfinv.model import TrainedModel
    from selfinv.restoration import load_model, restore
    from selfinv.result import Result
    from selfinv.rings import WithoutRings, without_rings
    from selfinv.solvers import Progress, Status
    from selfinv.types import InputError, SelfinvWarning

__version__ = "0.1.0"

# Everything is imported when it is first asked for, so `import selfinv` stays fast.
_NAMES = {
    "InputError": "selfinv.types",
    "Progress": "selfinv.solvers",
    "Result": "selfinv.result",
    "SelfinvWarning": "selfinv.types",
    "Status": "selfinv.solvers",
    "TrainedModel": "selfinv.model",
    "WithoutRings": "selfinv.rings",
    "load_model": "selfinv.restoration",
    "restore": "selfinv.restoration",
    "without_rings": "selfinv.rings",
}
_MODULES = (
    "functionals",
    "independence",
    "io",
    "learning",
    "methods",
    "metrics",
    "noise",
    "operators",
    "psf",
    "selection",
    "semiblind",
    "solvers",
)

__all__ = [
    "InputError",
    "Progress",
    "Result",
    "SelfinvWarning",
    "Status",
    "TrainedModel",
    "WithoutRings",
    "functionals",
    "independence",
    "io",
    "learning",
    "load_model",
    "methods",
    "metrics",
    "noise",
    "operators",
    "psf",
    "restore",
    "selection",
    "semiblind",
    "solvers",
    "without_rings",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"selfinv.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'selfinv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
