"""The versions a result depends on."""

from __future__ import annotations

import platform


def versions() -> dict[str, str]:
    """Of selfinv, the libraries and the machine's system."""
    import numpy as np
    import scipy
    import torch

    from selfinv import __version__

    return {
        "selfinv": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
