"""Part of an object's spectrum, as in magnetic resonance and interferometry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfinv.operators.base import LinearOperator
from selfinv.operators.sampling import boolean
from selfinv.types import InputError, check_flag, check_shape, shown

LOWEST = 4  # periods in the object up to which a frequency is always shown
SAME = 1e-5  # of two frequencies' size: so near are conjugates in single precision, and noise hardly ever


class MaskedFourier(LinearOperator):
    r"""The spectrum of a real object, where it was sampled: :math:`y = M F x`, :math:`F` orthonormal.

    Parameters
    ----------
    shape
        Of the object, 1 to 3 axes.
    mask
        Booleans of this shape: True where the spectrum was sampled.
    lines
        The axis (-1 is the object's last) along which samples are hidden together, because they were measured
        together: the read-out of magnetic resonance. None: each sample by itself.
    centred
        The zero frequency, and the origin of the object, are at ``n // 2`` of each axis, as in most raw data.
        False: at 0, as `torch.fft.fftn` has it.

    Raises
    ------
    InputError
        If the mask does not fit the shape, is not boolean or is empty, or there is no such axis.

    Notes
    -----
    Objects are ``(..., *shape)``, measurements ``(..., *shape, 2)``, the real and the imaginary part
    (`as_real` makes them of complex values), zero where nothing was sampled (`measured`). The parts of a
    sample are hidden together. A real object's spectrum is the same, conjugated, at opposite frequencies: a
    mask that has both has two measurements of one value, each with its own noise. Where they have the same,
    as in the transform of a noisy real image, or where one was filled in from the other, one is left out
    (`without_repeats`).

    Examples
    --------
    >>> import torch
    >>> A = MaskedFourier((4,), [True, False, True, False], centred=False)
    >>> A(torch.tensor([1.0, 2, 3, 2])).tolist()
    [[4.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(
        self, shape: Sequence[int], mask: Any, lines: int | None = None, centred: bool = True
    ) -> None:
        shape, mask = check_shape(shape), boolean(mask)
        if mask.shape != shape or not 1 <= len(shape) <= 3:
            raise InputError(
                f"mask has the shape {tuple(mask.shape)} but the object {shape}; they must be the same, "
                f"of 1 to 3 axes"
            )
        if lines is not None and lines not in range(-len(shape), len(shape)):
            raise InputError(
                f"lines={shown(lines)} is no axis of an object of the shape {shape}; expected an integer "
                f"from {-len(shape)} to {len(shape) - 1}"
            )
        super().__init__(shape, (*shape, 2))
        self.lines = None if lines is None else int(lines) % len(shape) - len(shape)
        self.centred = check_flag(centred, "centred")
        self.mask: Tensor
        self.register_buffer("mask", mask)

    @property
    def together(self) -> tuple[int, ...]:
        return (-1,) if self.lines is None else (self.lines - 1, -1)

    @property
    def always_shown(self) -> Tensor:
        low = torch.ones(self.in_shape, dtype=torch.bool, device=self.mask.device)
        for axis, n in enumerate(self.in_shape):
            if axis - len(self.in_shape) != self.lines:
                frequency = torch.fft.fftfreq(n, 1 / n, device=self.mask.device).abs()
                frequency = torch.fft.fftshift(frequency) if self.centred else frequency
                low &= (frequency <= LOWEST).reshape(-1, *(1,) * (len(self.in_shape) - 1 - axis))
        return (low & self.mask)[..., None].expand(self.out_shape)

    @property
    def measured(self) -> Tensor:
        return self.mask[..., None].expand(self.out_shape)

    @property
    def hint(self) -> str:
        return f"that is complex frequencies of the shape {self.in_shape}, or their two parts on a last axis"

    def doubts(self, y: Tensor) -> list[str]:
        power = torch.where(self.measured, y, 0.0).nan_to_num().square().sum(-1)
        power = power.reshape(-1, *self.in_shape).sum(0)
        place = tuple(int(i) for i in np.unravel_index(int(power.argmax()), self.in_shape))
        middle = sum(abs(i - n // 2) for i, n in zip(place, self.in_shape, strict=True))
        corner = sum(min(i, n - i) for i, n in zip(place, self.in_shape, strict=True))
        if (corner < middle) is not self.centred or corner == middle:
            return self._doubts_of_phase(y)
        return [
            f"the strongest frequency is at {place}, near "
            f"{'a corner' if self.centred else 'the middle'}: are the data "
            f"{'not ' if self.centred else ''}centred? Then pass centred={not self.centred} to MaskedFourier"
        ]

    def _doubts_of_phase(self, y: Tensor) -> list[str]:
        """Of a real object opposite frequencies are conjugates: asked where most power is, above noise."""
        spectrum = torch.view_as_complex(torch.where(self.measured, y, 0.0).nan_to_num().contiguous())
        spectrum = torch.fft.ifftshift(spectrum, dim=self._dims) if self.centred else spectrum
        opposite = self._opposite(spectrum)
        power = spectrum.abs().square()
        power = torch.where(opposite.abs() > 0, power, 0.0)  # both were sampled
        strong = power > 0.1 * power.amax()
        apart = (spectrum - opposite.conj()).abs().square()[strong].sum()
        if not float(apart) > 0.2 * float(power[strong].sum()):
            return []
        return [
            "opposite frequencies are not conjugates, as those of a real object are: an object with a phase? "
            "Only real ones are restored; take the phase out first"
        ]

    def without_repeats(self, y: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(y.contiguous())
        spectrum = torch.fft.ifftshift(spectrum, dim=self._dims) if self.centred else spectrum
        size = spectrum.abs()
        wave = torch.ones(self.in_shape, dtype=size.dtype, device=size.device)
        wave[(0,) * len(self.in_shape)] = 0.0  # a level is no measure of what varies
        typical = (wave * size).square().nanmean(self._dims, keepdim=True).sqrt()
        same = (spectrum - self._opposite(spectrum).conj()).abs() <= SAME * (size + typical)
        # Of samples measured together as many are kept as can be: those of one line follow one another.
        line = -1 if self.lines is None else self.lines
        shape = self.mask.movedim(line, -1).shape
        places = torch.arange(self.mask.numel(), device=y.device).reshape(shape).movedim(-1, line)
        repeats = same & (places > self._opposite(places))
        repeats = torch.fft.fftshift(repeats, dim=self._dims) if self.centred else repeats
        return y.masked_fill(repeats[..., None], torch.nan)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x, self.in_shape, "forward", "object")
        x = torch.fft.ifftshift(x, dim=self._dims) if self.centred else x
        spectrum = torch.fft.fftn(x, dim=self._dims, norm="ortho")
        spectrum = torch.fft.fftshift(spectrum, dim=self._dims) if self.centred else spectrum
        return torch.where(self.mask[..., None], torch.view_as_real(spectrum), 0.0)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, self.out_shape, "adjoint", "measurement")
        spectrum = torch.view_as_complex(torch.where(self.mask[..., None], y, 0.0).contiguous())
        spectrum = torch.fft.ifftshift(spectrum, dim=self._dims) if self.centred else spectrum
        x = torch.fft.ifftn(spectrum, dim=self._dims, norm="ortho").real
        return torch.fft.fftshift(x, dim=self._dims) if self.centred else x

    def _opposite(self, spectrum: Tensor) -> Tensor:
        """At each frequency what is at the opposite one; the zero frequency is the first."""
        return spectrum.flip(self._dims).roll((1,) * len(self._dims), self._dims)

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(range(-len(self.in_shape), 0))


def as_real(values: Any) -> Tensor:
    """Complex values, ``(...)``, as a real measurement, ``(..., 2)``: the real and the imaginary part.

    Examples
    --------
    >>> as_real([1 + 2j]).tolist()
    [[1.0, 2.0]]
    """
    values = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    if not values.is_complex():
        raise InputError(f"values have the type {values.dtype}; expected complex ones")
    return torch.view_as_real(values.resolve_conj()).clone()
