"""The forward operator of a point spread function, and the device to compute on."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from selfinv.operators import Boundary, Convolution, Identity, choose_boundary
from selfinv.psf import check_psf, normalise
from selfinv.solvers.base import Forward
from selfinv.types import Array, AxisLayout, InputError, Shape, warn


def psf_operator(
    psf: Array | None,
    shape: Shape,
    layout: AxisLayout,
    boundary: Boundary | Literal["auto"],
    y: Tensor | None = None,
) -> Forward:
    """The convolution with a PSF that has been checked and divided by its sum; the identity without one.

    ``boundary="auto"`` is decided by the measurement ``y``.
    """
    if psf is None:
        return Identity(shape)
    ndim = len(shape)
    kernels = list(psf) if psf.ndim == ndim + 1 and "c" in layout.axes else [psf]
    if y is not None and len(kernels) not in (1, y.shape[1]):
        raise InputError(
            f"psf {psf.shape} has one axis more than the image has in space ({layout.spatial}), so "
            f"{len(kernels)} channels, but the image has {y.shape[1]}; give one psf, or one for each channel"
        )
    if all(k > n for k, n in zip(kernels[0].shape, shape, strict=False)) and kernels[0].ndim == ndim:
        raise InputError(
            f"psf {kernels[0].shape} is larger than the image {shape} along every axis; were they swapped? "
            f"If not, crop the psf to the image's size"
        )
    for kernel in kernels:
        for warning in check_psf(kernel, ndim, shape):
            warn(warning)  # to whom called `selfinv.restore`
    normalised = [torch.from_numpy(normalise(kernel)).to(torch.float32) for kernel in kernels]
    check_boundary(boundary)
    if boundary == "auto":
        boundary = "unknown" if y is None else choose_boundary(y, torch.stack(normalised).mean(dim=0))
    kernel = torch.stack(normalised) if len(kernels) > 1 else normalised[0]
    # Light from further away than an eighth of the image is too spread out to say where it came from.
    return Convolution(kernel, shape, boundary, margin=[max(8, n // 8) for n in shape])


def check_boundary(boundary: str) -> None:
    """Raise `InputError` unless this is the name of a boundary, or ``"auto"``."""
    known = ("auto", *get_args(Boundary))
    if boundary not in known:
        raise InputError(f"boundary={boundary!r} is unknown; use one of {', '.join(known)}")


def choose_device(device: str) -> torch.device:
    """The device meant by a name; ``"auto"`` is the fastest one there is.

    Raises
    ------
    InputError
        If the name is unknown or the device is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"device={device!r} is unknown; use 'auto', 'cpu', 'cuda' or 'mps'") from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError("device='cuda' was asked for but torch finds no CUDA GPU; use 'auto' or 'cpu'")
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={device!r} is not there; torch finds {torch.cuda.device_count()} GPU(s)")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device='mps' was asked for but torch finds no Apple GPU; use 'auto' or 'cpu'")
    if place.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device={device!r} is not supported; use 'auto', 'cpu', 'cuda' or 'mps'")
    return place
