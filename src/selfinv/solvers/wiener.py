r"""Wiener's filter with spectra from the data, for any edge, missing values and any linear operator.

The object is taken to be random with the power spectrum :math:`S_x(f)`, the noise to be white with the power
:math:`S_n`. The best linear estimate is then where

.. math:: F(x) = \tfrac12 \sum_{i\,\text{measured}} \bigl((Ax)_i - y_i\bigr)^2
                 + \tfrac12 \sum_f \beta\,\frac{S_n}{S_x(f)}\,|\hat x_f|^2

is least. For a complete, periodic image that is Wiener's
:math:`\hat x = \bar H \hat y / (|H|^2 + \beta\,S_n / S_x)`. Otherwise edges and holes couple the
frequencies and no filter is exact, but conjugate gradients preconditioned by that filter get there in a few
passes of it, and nothing need be made up outside the image or in the holes. The modes :math:`\hat x_f` are
cosines, or waves where the object repeats.

The object's spectrum is a power law, :math:`S_x = c f^{-\gamma}`, which leaves the mean free and so preserves
flux. Where the operator treats all places alike, :math:`c`, :math:`\gamma` and :math:`S_n` are those that
make the measured spectrum, :math:`|H|^2 S_x + S_n` on average, the likeliest (Whittle 1953,
doi:10.1007/BF02590998); what is missing is filled in with predictions. For any other operator
:math:`\gamma = 2`, a penalty on slopes, and the rest follows from how well the values are explained and by
how many degrees of freedom (MacKay 1992, doi:10.1162/neco.1992.4.3.415).

Wiener 1949, ISBN 978-0-262-73005-1; a smoothness prior: Hunt 1973, doi:10.1109/TC.1973.5009169; its strength
from the data: Orieux, Giovannelli & Rodet 2010, doi:10.1364/JOSAA.27.001593.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selfinv.operators import LinearOperator
from selfinv.solvers.base import Forward, Status, linear, observed
from selfinv.solvers.channelwise import constant_object, ratio, spread
from selfinv.solvers.modes import Modes, Rings, power_transfer, probed_power, wraps
from selfinv.spectrum import taper
from selfinv.types import check_integer, check_number

EXPONENTS = torch.arange(4, 17, dtype=torch.float64) / 4  # 1 (lines and dots) to 4 (smooth blobs)
NOISE_RATIOS = 10.0 ** -(torch.arange(-10, 121, dtype=torch.float64) / 10)
LEAST_NOISE = 0.1  # of the power at the highest frequencies, where fine texture looks like noise
# Of the operator's greatest power: without noise in the data, what the operator all but hides would be
# rounding errors and errors of the PSF, enlarged without limit. This enlarges by 30 at most.
LEAST_PENALTY = 3e-4
TAPER = 1 / 4  # of the image, both ends of an axis together
FILLS, UPDATES = 2, 6  # of missing values, or of the noise-to-signal ratio of an operator without a filter,
ROUGH_STEPS = 8  # from so many passes each
FIRST_RATIO = 10.0  # noise to signal; from too smooth an estimate the updates go to the right place


@dataclass(frozen=True)
class WienerState:
    """A run in progress; ``coefficients``, ``slope`` and ``direction`` are in the modes' space."""

    operator: LinearOperator
    modes: Modes
    power: Tensor
    values: Tensor
    measured: Tensor
    noise_to_signal: Tensor
    penalty: Tensor
    inverse: Tensor
    residual: Tensor
    coefficients: Tensor
    slope: Tensor
    direction: Tensor
    energy: Tensor
    start_energy: Tensor
    step: int = 0
    score: float = math.nan

    @property
    def share(self) -> Tensor:
        """Of the values that were measured, ``batch channel``."""
        return self.measured.flatten(2).mean(-1)

    @property
    def seen(self) -> Tensor:
        """The mean of :math:`|A u_f|^2` over what was measured, for each mode :math:`u_f`."""
        return spread(self.share, self.coefficients) * self.power

    @property
    def loss(self) -> float:
        """The objective divided by the number of measured values."""
        coefficients = self.coefficients.detach()
        rough = self.modes.dot(self.penalty * coefficients, coefficients).sum()
        misfit = self.residual.detach().square().sum()
        return 0.5 * float(misfit + rough) / max(1.0, float(self.measured.sum()))

    def is_of(self, values: Tensor, measured: Tensor) -> bool:
        """Whether it is of this measurement."""
        return torch.equal(self.values, values) and torch.equal(self.measured, measured)


@dataclass(frozen=True)
class Wiener:
    r"""Wiener's filter: the best linear estimate of an object with a power-law spectrum in white noise.

    Parameters
    ----------
    balance
        :math:`\beta`, a factor on the noise-to-signal ratio that the data suggest: 1 takes it as it is,
        more is smoother.
    max_steps, rtol
        Passes of the filter at most; the run has converged when what is left of the error's gradient, in the
        norm that the filter makes natural, is this part of what it was at the start.

    Raises
    ------
    InputError
        If the balance is not positive or no step is allowed.

    Examples
    --------
    >>> import torch
    >>> from selfinv.operators import Convolution
    >>> from selfinv.solvers import run
    >>> A = Convolution(torch.full((5,), 0.2), (64,), "periodic")
    >>> x = torch.zeros(1, 1, 64)
    >>> x[..., 20:40] = 10.0
    >>> y = A(x) + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    >>> state, status = run(Wiener(), y, A)
    >>> state.step, str(status)
    (1, 'converged: the filter has nothing left to change')
    >>> bool((Wiener().estimate(state) - x).norm() < 0.7 * (y - x).norm())
    True
    """

    balance: float = 1.0
    max_steps: int = 100
    rtol: float = 1e-4
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.balance, "balance", above=0.0)
        check_integer(self.max_steps, "max_steps", least=1)

    def planned_steps(self) -> int:
        """The largest number of passes."""
        return self.max_steps

    def init(
        self, y: Tensor, operator: Forward, *, seed: int = 0, start: WienerState | None = None
    ) -> WienerState:
        """Estimate the spectra and begin with the constant object that explains the measurement best.

        Nothing here depends on ``seed``.

        Parameters
        ----------
        start
            Begin where another run on the same operator stood. The spectra are the same if only the balance
            is another, and so is the change at which a run has converged.
        """
        A = linear(operator, y)
        values, measured = observed(y)
        x, predicted, _ = constant_object(A, values, measured)
        residual = values - predicted
        modes = start.modes if start else Modes(A.in_shape, wraps(A), values)
        flat, slope = modes.analyse(x), modes.analyse(A.adjoint(residual))
        filtered = power_transfer(A, modes)
        if start is not None:
            power = start.power
        else:
            power = probed_power(A, modes, y.shape[1]) if filtered is None else filtered
        energy = modes.dot(slope, slope)
        state = WienerState(  # without a penalty as yet, which `_penalised` gives it
            operator=A,
            modes=modes,
            power=power,
            values=values,
            measured=measured,
            noise_to_signal=torch.zeros_like(flat),
            penalty=torch.zeros_like(flat),
            inverse=torch.zeros_like(flat),
            residual=residual,
            coefficients=flat,
            slope=slope,
            direction=slope,
            energy=energy,
            start_energy=energy,
        )
        if start is not None and start.is_of(values, measured):
            noise_to_signal = start.noise_to_signal
        elif filtered is None:
            noise_to_signal = self._ratio_by_freedom(state)
        else:
            noise_to_signal = self._ratio_by_spectrum(state)
        state = _penalised(state, noise_to_signal, self.balance)
        if start is None or not math.isfinite(start.loss):
            return state
        return _moved(state, start.coefficients)

    def _ratio_by_freedom(self, state: WienerState) -> Tensor:
        """As `explained_ratio`, from a smooth estimate on."""
        modes, smooth = state.modes, state.modes.frequency.square()
        signs = torch.randint(0, 2, state.values.shape, generator=torch.Generator().manual_seed(0))
        noise = replace(state, values=(2.0 * signs.to(state.values) - 1.0) * state.measured)
        noise = _moved(noise, torch.zeros_like(state.coefficients))
        found = smooth * ratio(FIRST_RATIO * state.seen.mean(dim=modes.dims, keepdim=True), smooth.mean())
        for _ in range(UPDATES):
            taken = noise.values - self._roughly(_penalised(noise, found)).residual
            freedom = (taken * noise.values).flatten(2).sum(-1)
            found = explained_ratio(self._roughly(_penalised(state, found)), freedom)
        return found

    def _ratio_by_spectrum(self, state: WienerState) -> Tensor:
        """As `likeliest_ratio`, with what is missing as it is predicted."""
        A, modes, measured, residual = state.operator, state.modes, state.measured, state.residual
        share, constant = state.share, self.estimate(state)
        found = likeliest_ratio(A, modes, fill_holes(residual, measured), share)
        for _ in range(0 if bool(measured.all()) else FILLS):
            prediction = A(self.estimate(self._roughly(_penalised(state, found))) - constant)
            found = likeliest_ratio(A, modes, torch.where(measured > 0.0, residual, prediction), share)
        return found

    def _roughly(self, state: WienerState) -> WienerState:
        for _ in range(ROUGH_STEPS):
            state = self.step(state)
        return state

    def step(self, state: WienerState) -> WienerState:
        """One pass of the filter over what the estimate leaves unexplained."""
        modes, d = state.modes, state.direction
        change = state.operator(modes.synthesise(d)) * state.measured
        curved = modes.analyse(state.operator.adjoint(change)) + state.penalty * d
        t = ratio(state.energy, modes.dot(d, curved))
        coefficients = state.coefficients + spread(t, d) * d
        residual = state.residual - spread(t, change) * change
        slope = state.slope - spread(t, d) * curved
        filtered = state.inverse * slope
        energy = modes.dot(slope, filtered)
        return replace(
            state,
            coefficients=coefficients,
            residual=residual,
            slope=slope,
            direction=filtered + spread(ratio(energy, state.energy), d) * d,
            energy=energy,
            step=state.step + 1,
        )

    def status(self, state: WienerState) -> Status:
        """Running, converged, out of steps, or not finite."""
        if not math.isfinite(state.loss):
            return Status.NONFINITE
        if bool((state.energy <= self.rtol**2 * state.start_energy).all()):
            return replace(Status.CONVERGED, message="converged: the filter has nothing left to change")
        return Status.MAX_STEPS if state.step >= self.max_steps else Status.RUNNING

    def estimate(self, state: WienerState) -> Tensor:
        """The object, ``batch channel *in_shape``."""
        return state.modes.synthesise(state.coefficients)


def _penalised(state: WienerState, noise_to_signal: Tensor, balance: float = 1.0) -> WienerState:
    """The same measurement, begun from the same coefficients with another penalty."""
    modes, slope, seen = state.modes, state.slope, state.seen
    penalty = balance * noise_to_signal
    least = LEAST_PENALTY * seen.amax(dim=modes.dims, keepdim=True)
    penalty = torch.where(penalty > 0.0, torch.maximum(penalty, least), penalty)  # the mean stays free
    curvature = seen + penalty
    # Modes that neither the operator nor the penalty holds stay as they are.
    least = torch.finfo(slope.real.dtype).eps * seen.amax(dim=modes.dims, keepdim=True)
    inverse = ratio((curvature > least).to(curvature), curvature)
    energy = modes.dot(slope, inverse * slope)
    return replace(
        state,
        noise_to_signal=noise_to_signal,
        penalty=penalty,
        inverse=inverse,
        direction=inverse * slope,
        energy=energy,
        start_energy=energy,
    )


def _moved(state: WienerState, coefficients: Tensor) -> WienerState:
    """The same objective, begun elsewhere."""
    A, modes = state.operator, state.modes
    residual = state.values - A(modes.synthesise(coefficients)) * state.measured
    slope = modes.analyse(A.adjoint(residual)) - state.penalty * coefficients
    direction = state.inverse * slope
    return replace(
        state,
        residual=residual,
        coefficients=coefficients,
        slope=slope,
        direction=direction,
        energy=modes.dot(slope, direction),
    )


def likeliest_ratio(A: LinearOperator, modes: Modes, y: Tensor, share: Tensor) -> Tensor:
    r""":math:`S_n / S_x` of each mode of the object; as `likeliest_spectrum`."""
    exponent, noise_ratio = likeliest_spectrum(A, modes, y, share)
    return spread(noise_ratio, y) * modes.frequency ** spread(exponent, y)


def likeliest_spectrum(A: LinearOperator, modes: Modes, y: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    r"""The object's power law, from the spectrum of its measurement.

    Returns :math:`\gamma` and :math:`\rho` of :math:`S_n / S_x = \rho f^\gamma`, each ``batch channel``.

    Parameters
    ----------
    A
        An operator that treats all places alike.
    y
        The measurement less a constant object's, what is missing filled in without noise,
        ``batch channel *space``.
    share
        Of the values that were measured, and so have noise, ``batch channel``.
    """
    waves = Modes(A.out_shape, True, y)
    response = power_transfer(A, waves)
    assert response is not None
    rings = Rings(waves)
    spectrum = rings.mean(_periodogram(y.detach(), waves, modes.periodic))
    full = rings.counts > 0
    means = (
        spectrum,
        rings.mean(response),
        share[..., None].expand_as(spectrum),
        rings.frequency,
        rings.counts,
    )
    power, signal, noise, frequency, counts = (m[..., full].cpu().double() for m in means)
    exponent, noise_ratio = likeliest_power_law(power, lambda g: signal * frequency**-g, noise, counts)
    return exponent.to(y), noise_ratio.to(y)


def explained_ratio(state: WienerState, freedom: Tensor) -> Tensor:
    r""":math:`S_n / S_x` of each mode of the object, from how an estimate explains the measurement.

    Of the :math:`N` values as many as the estimate has degrees of freedom, :math:`\nu`, are explained by it,
    which is as much as it takes in of each of independent values (Hutchinson 1990,
    doi:10.1080/03610919008812866); so :math:`S_n = \|Ax - y\|^2 / (N - \nu)`, and
    :math:`c = \sum_f |\hat x_f|^2 f^2 / \nu`.

    Parameters
    ----------
    freedom
        :math:`\nu`, ``batch channel``.
    """
    smooth = state.modes.frequency.square()
    measured = state.measured.flatten(2).sum(-1)
    freedom = freedom.clamp_min(1.0)
    misfit = state.residual.detach().square().flatten(2).sum(-1)
    noise = ratio(misfit, torch.maximum(measured - freedom, 0.01 * measured))
    coefficients = state.coefficients.detach()
    scale = ratio(state.modes.dot(smooth * coefficients, coefficients), freedom)
    return spread(ratio(noise, scale), coefficients) * smooth


def likeliest_power_law(
    spectrum: Tensor, signal: Callable[[float], Tensor], noise: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The exponent :math:`\gamma` and :math:`S_n / c` per batch and channel, from means over rings.

    Whittle's likelihood of the spectrum :math:`P` is :math:`-\sum \log S + P / S` with
    :math:`S = c\,(\text{signal}(\gamma) + \text{noise} \cdot S_n / c)`; the best :math:`c` has a closed form,
    the other two are looked for on a grid.

    Parameters
    ----------
    spectrum
        ``... ring``, double precision.
    signal
        What is measured of an object with the spectrum :math:`f^{-\gamma}`, of that shape.
    noise
        Of the variance 1, of that shape.
    counts
        Of the modes in each ring.
    """
    lowest = torch.full(spectrum.shape[:-1], math.inf, dtype=torch.float64)
    exponent, noise_ratio = torch.ones_like(lowest), torch.ones_like(lowest)
    if not counts.numel():  # a single sample has a mean only, which stays free
        return exponent, noise_ratio
    tail = int(0.9 * spectrum.shape[-1])
    floor = LEAST_NOISE * ratio(spectrum[..., tail:].sum(-1), noise[..., tail:].sum(-1))
    for gamma in EXPONENTS.tolist():
        shape = signal(gamma)
        ratios = NOISE_RATIOS * ratio(shape, noise).amax(-1, keepdim=True)
        model = shape.unsqueeze(-2) + ratios[..., None] * noise.unsqueeze(-2)
        scale = (counts * ratio(spectrum.unsqueeze(-2), model)).sum(-1) / counts.sum()
        cost = (counts * model.clamp_min(1e-300).log()).sum(-1) + counts.sum() * scale.clamp_min(1e-300).log()
        best, at = cost.min(-1, keepdim=True)
        found = ratios.gather(-1, at)[..., 0]
        found = torch.maximum(found, ratio(floor, scale.gather(-1, at)[..., 0]))
        better = best[..., 0] < lowest
        lowest = torch.where(better, best[..., 0], lowest)
        exponent = torch.where(better, gamma, exponent)
        noise_ratio = torch.where(better, found, noise_ratio)
    return exponent, noise_ratio


def _periodogram(image: Tensor, waves: Modes, periodic: bool) -> Tensor:
    """The power of each wave; edges that do not fit together are tapered."""
    window = torch.from_numpy(taper(waves.shape, 0.0 if periodic else TAPER)).to(image)
    mean = (image * window).sum(dim=waves.dims, keepdim=True) / window.sum()
    return waves.analyse((image - mean) * window).abs().square() / window.square().mean()


def fill_holes(image: Tensor, measured: Tensor) -> Tensor:
    """Put into holes the mean of the smallest block around them (2, 4, 8, ... a side) that has values."""
    if bool((measured > 0.0).all()) or max(image.shape[2:]) == 1:
        return image
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[image.ndim - 3]
    block = [min(2, n) for n in image.shape[2:]]
    weight = pool(measured, block, ceil_mode=True)
    coarse = ratio(pool(image * measured, block, ceil_mode=True), weight)
    coarse = fill_holes(coarse, (weight > 0.0).to(image))
    for axis in range(2, image.ndim):
        coarse = coarse.repeat_interleave(2, axis).narrow(axis, 0, image.shape[axis])
    return torch.where(measured > 0.0, image, coarse)
