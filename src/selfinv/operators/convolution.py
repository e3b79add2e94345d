"""Blur by a point spread function, with the boundary stated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.operators.base import LinearOperator, as_numbers
from selfinv.operators.blocks import Blocks
from selfinv.operators.boundary import reflect, reflect_adjoint
from selfinv.operators.linear_map import LinearMap, Map
from selfinv.operators.sampling import Surround
from selfinv.operators.transform_length import fast_length
from selfinv.types import InputError, Shape, check_integer, check_shape

Boundary = Literal["unknown", "zero", "reflect", "periodic"]


@dataclass(frozen=True)
class Torus:
    """The periodic domain on which a convolution is a product of spectra.

    Parameters
    ----------
    shape
        Of the domain; the object lies at its start.
    otf
        The kernel's spectrum there, by `torch.fft.rfftn`, kernel axes in front as in the PSF.
    starts
        Where the measurement's window begins.
    """

    shape: Shape
    otf: Tensor
    starts: Shape


# Below this many multiplications (voxels times kernel voxels) a direct convolution beats two FFTs
# (measured on CPU for images of 16³ to 1024²; above it FFT is never slower).
DIRECT_LIMIT = 500_000


class Convolution(LinearOperator):
    r"""Convolution with a point spread function, :math:`(Ax)_m = \sum_j h_j\, x_{m-j+c}`, :math:`c = n // 2`.

    Parameters
    ----------
    psf
        The kernel :math:`h`, used as given (not normalised), ``*kernel``: as many axes as ``shape``, any
        size, odd or even, also larger than the image. More axes in front broadcast against the batch and
        channel axes, for instance ``(channel, *kernel)`` for one kernel per channel.
    shape
        Spatial shape of the measurement, 1 to 3 axes.
    boundary
        What the object is outside the measured field. ``"unknown"``: it goes on, and is part of what is
        sought, as in a camera frame; the object's grid is larger by the kernel less one (see ``margin``).
        ``"zero"``: nothing is there. ``"reflect"``: it is mirrored (half-sample, SciPy's ``"reflect"``).
        ``"periodic"``: it repeats.
    method
        ``"fft"``, ``"direct"``, or ``"auto"``: whichever is faster for these sizes.
    margin
        With ``"unknown"``, how many samples at most the object's grid reaches beyond the image on each side,
        one number or one per axis; further out the object is taken to be mirrored. None: as far as the kernel
        reaches. Kernels as large as the image would make the object's grid many times larger than the image.
    lines_share_noise
        The axes (-1 is the last) along which whole lines have noise in common, as a camera's rows may: lines
        are hidden as a whole then, for the values left of one would tell its noise.

    Raises
    ------
    InputError
        If the kernel's axes do not fit the shape, or a name or an axis is unknown.

    Examples
    --------
    >>> import torch
    >>> A = Convolution(torch.full((3,), 1 / 3), shape=(5,), boundary="zero")
    >>> A(torch.tensor([0.0, 0, 3, 0, 0])).round().tolist()
    [0.0, 1.0, 1.0, 1.0, 0.0]
    """

    def __init__(
        self,
        psf: Any,
        shape: Sequence[int],
        boundary: Boundary = "unknown",
        method: Literal["auto", "fft", "direct"] = "auto",
        margin: int | Sequence[int] | None = None,
        lines_share_noise: int | Sequence[int] = (),
    ) -> None:
        kernel = as_numbers(psf, "psf", "an array of real numbers")
        if not kernel.numel() or not bool(torch.isfinite(kernel).all()):
            found = "NaN or infinite values" if kernel.numel() else "no values"
            raise InputError(f"psf has {found}; expected real numbers")
        if not kernel.is_floating_point():
            kernel = kernel.to(torch.float64)
        shape = check_shape(shape)
        ndim = len(shape)
        if boundary not in get_args(Boundary):
            raise InputError(f"boundary={boundary!r} is unknown; use one of {', '.join(get_args(Boundary))}")
        if method not in ("auto", "fft", "direct"):
            raise InputError(f"method={method!r} is unknown; use 'auto', 'fft' or 'direct'")
        if not 1 <= ndim <= 3:
            raise InputError(f"convolution works on 1 to 3 spatial axes, got the shape {shape}")
        if kernel.ndim < ndim:
            raise InputError(
                f"psf has {kernel.ndim} axes but the image has {ndim} spatial axes; "
                f"pass a {ndim}-D psf or name the image's axes (axes='cyx', for instance)"
            )
        self.kernel_shape: Shape = tuple(kernel.shape[kernel.ndim - ndim :])
        # The object's sample at the measurement's pixel m is multiplied by the kernel's centre n // 2, so the
        # kernel reaches n - 1 - n // 2 samples to the left of m and n // 2 to the right.
        pads = [(k - 1 - k // 2, k // 2) for k in self.kernel_shape]
        if boundary != "unknown":
            margins: list[int] = [0] * ndim
        elif margin is None:
            margins = [max(pad) for pad in pads]
        else:
            given = margin if isinstance(margin, Iterable) else [margin] * ndim
            margins = [check_integer(m, "margin", least=0) for m in given]
        if len(margins) != ndim:
            raise InputError(
                f"margin={margin!r} does not fit {ndim} spatial axes; give one number, or one each"
            )
        # What of the kernel's reach is on the object's grid, and what lies beyond it.
        own = [(min(a, m), min(b, m)) for (a, b), m in zip(pads, margins, strict=True)]
        super().__init__([n + a + b for n, (a, b) in zip(shape, own, strict=True)], shape)
        self.boundary = boundary
        self.margin = margin
        self.pads = pads
        self.own = own
        self.mirrored = [(a - c, b - d) for (a, b), (c, d) in zip(pads, own, strict=True)]
        self.chosen: Literal["auto", "fft", "direct"] = method
        if method == "auto":
            work = kernel[(0,) * (kernel.ndim - ndim)].numel() * torch.Size(shape).numel()
            method = "direct" if work <= DIRECT_LIMIT and kernel.ndim == ndim else "fft"
        if method == "direct" and kernel.ndim != ndim:
            raise InputError("method='direct' takes one kernel for all channels; use 'fft' or 'auto'")
        self.method = method
        self.psf: Tensor
        self.register_buffer("psf", kernel.detach().clone())
        self._otfs: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._spectra: dict[tuple[torch.dtype, torch.device], tuple[Map, Map]] = {}
        lines = lines_share_noise if isinstance(lines_share_noise, Iterable) else [lines_share_noise]
        self.lines_share_noise = tuple(
            check_integer(axis, "an axis of lines_share_noise", least=-ndim, most=-1) for axis in lines
        )

    @property
    def together(self) -> tuple[int, ...]:
        return self.lines_share_noise

    @property
    def field_of_view(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for (a, _), n in zip(self.own, self.out_shape, strict=True))

    @property
    def reach(self) -> tuple[tuple[int, int], ...] | None:
        whole = self.boundary == "unknown" and self.own == self.pads
        return tuple(self.pads) if whole or self.boundary == "zero" else None

    def window(self, shape: Sequence[int], outside: Sequence[tuple[int, int]]) -> LinearOperator:
        lines = self.lines_share_noise
        inner = Convolution(self.psf, shape, "unknown", self.chosen, lines_share_noise=lines)
        if self.boundary == "unknown":
            return inner
        known = [n - a - b for n, (a, b) in zip(inner.in_shape, outside, strict=True)]
        return inner @ Surround(known, outside)

    def for_shape(self, shape: Sequence[int]) -> LinearOperator:
        return Convolution(self.psf, shape, self.boundary, self.chosen, self.margin, self.lines_share_noise)

    def torus(self, like: Tensor) -> Torus | None:
        """How this looks in Fourier space, in ``like``'s precision; None where the object is mirrored."""
        mirrors = self.boundary in ("reflect", "unknown") and any(a or b for a, b in self.mirrored)
        if mirrors:
            return None
        return Torus(self._fft_shape(like.device), self._otf(like), tuple(self._starts))

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        if self.method == "direct":
            return self._valid_direct(self._extend(x))
        if self.boundary == "periodic":
            spectrum = torch.fft.rfftn(x, dim=self._dims) * self._otf(x)
            return torch.fft.irfftn(spectrum, s=self.out_shape, dim=self._dims)
        if self.boundary in ("reflect", "unknown"):
            x = reflect(x, self.mirrored)
        there, back = self._blocks(x)
        return LinearMap.apply(x, there, back)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        if self.method == "direct":
            return self._extend_adjoint(self._valid_direct_adjoint(y))
        if self.boundary == "periodic":
            spectrum = torch.fft.rfftn(y, dim=self._dims) * self._otf(y).conj()
            return torch.fft.irfftn(spectrum, s=self.out_shape, dim=self._dims)
        there, back = self._blocks(y)
        x = LinearMap.apply(y, back, there)
        if self.boundary in ("reflect", "unknown"):
            return reflect_adjoint(x, self.in_shape, self.mirrored)
        return x

    def _blocks(self, like: Tensor) -> tuple[Map, Map]:
        """The way there and, by the flipped kernel, back, cut into blocks, for ``like``'s precision."""
        dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
        key = (dtype, like.device)
        if key not in self._spectra:
            kernel = self._clip(self.psf.to(like.device))
            size = tuple(kernel.shape[kernel.ndim - len(self.out_shape) :])
            shift = tuple(self._starts)
            reached = self.out_shape
            if self.boundary != "zero":
                reached = tuple(n + k - 1 for n, k in zip(self.out_shape, size, strict=True))
            mirrored = tuple(k - 1 - s for k, s in zip(size, shift, strict=True))
            there = Blocks(reached, self.out_shape, size, shift, gpu=like.is_cuda)
            back = Blocks(self.out_shape, reached, size, mirrored, gpu=like.is_cuda)
            self._spectra[key] = (
                partial(there.convolve, spectrum=there.spectrum(kernel, dtype)),
                partial(back.convolve, spectrum=back.spectrum(kernel.flip(self._dims), dtype)),
            )
        return self._spectra[key]

    # ---- on a periodic domain: the object starts at 0, the measurement at `_starts` ----

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(-len(self.out_shape), 0))

    @property
    def _starts(self) -> list[int]:
        if self.boundary == "periodic":
            return [0] * len(self.out_shape)
        if self.boundary == "zero":
            return [k // 2 for k in self._clipped_shape]
        return [k - 1 for k in self.kernel_shape]

    @property
    def _clipped_shape(self) -> Shape:
        """The kernel's shape without what cannot reach from one end of the image to the other."""
        return tuple(
            min(k // 2, n - 1) + min(k - 1 - k // 2, n - 1) + 1
            for k, n in zip(self.kernel_shape, self.out_shape, strict=True)
        )

    def _fft_shape(self, device: torch.device) -> Shape:
        if self.boundary == "periodic":
            return self.out_shape
        if self.boundary == "zero":
            # Wrapped-around samples may fall only where the measurement's window is not.
            sizes = [
                n + max(k // 2, k - 1 - k // 2)
                for n, k in zip(self.out_shape, self._clipped_shape, strict=True)
            ]
        else:
            sizes = [n + k - 1 for n, k in zip(self.out_shape, self.kernel_shape, strict=True)]
        return tuple(fast_length(size, gpu=device.type == "cuda") for size in sizes)

    def _otf(self, like: Tensor) -> Tensor:
        dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
        key = (dtype, like.device)
        if key not in self._otfs:
            kernel = self.psf.to(like.device, torch.promote_types(dtype, self.psf.dtype))
            if self.boundary == "periodic":
                for axis, (n, k) in enumerate(zip(self.out_shape, self.kernel_shape, strict=True)):
                    axis += kernel.ndim - len(self.out_shape)
                    place = (torch.arange(k, device=like.device) - k // 2) % n
                    wrapped = list(kernel.shape)
                    wrapped[axis] = n
                    kernel = kernel.new_zeros(wrapped).index_add(axis, place, kernel)
            kernel = self._clip(kernel)
            self._otfs[key] = torch.fft.rfftn(kernel, s=self._fft_shape(like.device), dim=self._dims).to(
                torch.complex128 if dtype == torch.float64 else torch.complex64
            )
        return self._otfs[key]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._otfs.clear()
        self._spectra.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._otfs.clear()
        self._spectra.clear()
        super()._load_from_state_dict(*args)

    def _clip(self, kernel: Tensor) -> Tensor:
        """Without what cannot reach from one end of the image to the other, where nothing is outside."""
        if self.boundary == "zero":
            for axis, (k, n, kept) in enumerate(
                zip(self.kernel_shape, self.out_shape, self._clipped_shape, strict=True)
            ):
                axis += kernel.ndim - len(self.out_shape)
                kernel = kernel.narrow(axis, k // 2 - min(k // 2, n - 1), kept)
        return kernel

    # ---- direct route: extend the object by the kernel's reach, then keep what is fully covered ----

    def _extend(self, x: Tensor) -> Tensor:
        if self.boundary == "zero":
            return F.pad(x, [p for pair in reversed(self.pads) for p in pair])
        if self.boundary in ("reflect", "unknown"):
            return reflect(x, self.mirrored)
        if self.boundary == "periodic":
            for axis, n, (before, after) in zip(self._dims, self.out_shape, self.pads, strict=True):
                x = x.index_select(axis, torch.arange(-before, n + after, device=x.device) % n)
        return x

    def _extend_adjoint(self, y: Tensor) -> Tensor:
        if self.boundary == "zero":
            for axis, n, (before, _) in zip(self._dims, self.in_shape, self.pads, strict=True):
                y = y.narrow(axis, before, n)
        elif self.boundary in ("reflect", "unknown"):
            y = reflect_adjoint(y, self.in_shape, self.mirrored)
        elif self.boundary == "periodic":
            for axis, n, (before, after) in zip(self._dims, self.out_shape, self.pads, strict=True):
                folded = list(y.shape)
                folded[axis] = n
                index = torch.arange(-before, n + after, device=y.device) % n
                y = y.new_zeros(folded).index_add(axis % y.ndim, index, y)
        return y

    def _valid_direct(self, x: Tensor) -> Tensor:
        ndim = len(self.out_shape)
        conv = (F.conv1d, F.conv2d, F.conv3d)[ndim - 1]
        kernel = self.psf.to(x).flip(self._dims)[None, None]  # torch correlates; a flipped kernel convolves
        return conv(x.reshape(-1, 1, *x.shape[x.ndim - ndim :]), kernel).reshape(
            *x.shape[: x.ndim - ndim], *self.out_shape
        )

    def _valid_direct_adjoint(self, y: Tensor) -> Tensor:
        ndim = len(self.out_shape)
        conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[ndim - 1]
        kernel = self.psf.to(y).flip(self._dims)[None, None]
        x = conv(y.reshape(-1, 1, *self.out_shape), kernel)
        return x.reshape(*y.shape[: y.ndim - ndim], *x.shape[2:])
