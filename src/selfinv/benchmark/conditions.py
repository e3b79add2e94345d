"""What is done to an image: the tracks, each a list of conditions, and how a condition degrades.

Track A is the paper's benchmark, pixel for pixel. Track B varies one thing at a time around it: the noise,
the PSF, what the methods are told of the PSF. Track C is 3-D. Track D has operators other than a
convolution: to add one, give it a name in `instruments.OPERATORS` and write a `Condition` of that name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from selfinv.arrangement import is_on_grid
from selfinv.benchmark import psfs
from selfinv.benchmark.images import Loaded, synthetic_psf
from selfinv.benchmark.instruments import OPERATORS, textbook_inverse
from selfinv.noise import NoiseModel, benchmark_degradation
from selfinv.operators import LinearOperator
from selfinv.psf import normalise
from selfinv.types import Array, InputError

PAPER_NOISE = NoiseModel()
NO_NOISE = NoiseModel(0.0, 0.0, 0.0, None, clip=False)
PICTURES = ("coarser", "coarser 1.5", "dithered", "two views", "varying blur")  # intensities as in the paper
HELD_OUT = 0.02  # of the measured values, hidden from every method where there is no truth to score with


@dataclass(frozen=True)
class Condition:
    """One way to degrade an image, and what is told of it.

    Parameters
    ----------
    name, track
        The name is unique within a track.
    psf, told_psf
        Names (`selfinv.benchmark.psfs.NAMES`, ``"volume"`` for the source's own) of the PSF that blurs and of
        the one the methods are given; None for the same.
    noise
        None is the paper's own generator, which only a 2-D image of 0 to 1 can be given to.
    operator
        A name in `instruments.OPERATORS` in place of a PSF.
    relative
        The noise's deviation is ``noise.sigma`` times that of what is measured: for values that are no
        intensities between 0 and 1.
    missing
        The fraction of measured values that are lost (NaN).
    measured
        Nothing is simulated: the volume's own measurement is restored.
    sources
        The kind of source it takes.
    """

    name: str
    track: str
    psf: str = "benchmark"
    told_psf: str | None = None
    noise: NoiseModel | None = None
    operator: str | None = None
    relative: bool = False
    missing: float = 0.0
    measured: bool = False
    sources: str = "image"

    @property
    def told_operator(self) -> bool:
        """Whether methods are told an operator, not a PSF or that there is none."""
        return self.operator not in (None, "identity")


@dataclass(frozen=True)
class Measurement:
    """A degraded image.

    Parameters
    ----------
    image
        What the methods are given; NaN where nothing was measured.
    blurred
        The same before the noise; None where that is not known.
    psf, operator
        What the methods are told of the forward model: one of the two, or neither (denoising).
    hidden
        True where a measured value was replaced by NaN to score predictions with; None if none was.
    hidden_values
        What was measured there.
    """

    image: Array
    blurred: Array | None
    psf: Array | None
    operator: LinearOperator | None
    hidden: Array | None = None
    hidden_values: Array | None = None

    def pictured(self, values: Array) -> Array:
        """Measured values as an image of the object; where they are no pixels, by the textbook's inverse."""
        if self.operator is None or is_on_grid(self.operator):
            return values
        return textbook_inverse(self.operator, values)


def _b() -> list[Condition]:
    paper = Condition("paper", "b")
    noisy = {f"sigma {s:g}": replace(PAPER_NOISE, sigma=s) for s in (0.02, 0.05, 0.2)}
    noisy |= {f"salt and pepper {p} %": replace(PAPER_NOISE, salt_pepper=p / 100) for p in (0, 5)}
    noisy["not clipped"] = replace(PAPER_NOISE, clip=False)
    noisy |= {f"{peak} photons": replace(NO_NOISE, photons=float(peak)) for peak in (1, 10, 100, 1000)}
    read = {1: 0.1, 3: 0.05, 10: 0.02}
    noisy |= {
        f"{peak} photons, read noise": replace(NO_NOISE, photons=float(peak), sigma=sigma)
        for peak, sigma in read.items()
    }
    optics = [
        replace(paper, name=f"psf {p}", psf=p) for p in ("in-focus", "defocused", "motion", "asymmetric")
    ]
    wrong = [
        replace(paper, name=f"told {name}", psf="model", told_psf=name)
        for name in psfs.NAMES
        if name.endswith("%")
    ]
    return [
        paper,
        *(replace(paper, name=name, noise=model) for name, model in noisy.items()),
        *optics,
        *wrong,
    ]


def _c() -> list[Condition]:
    measured = Condition("measured", "c", psf="volume", noise=NO_NOISE, measured=True, sources="volume")
    camera = replace(NO_NOISE, photons=100.0, sigma=0.02)
    widefield = Condition("widefield, 100 photons", "c", psf="volume", noise=camera, sources="synthetic")
    return [
        measured,
        widefield,
        replace(widefield, name="widefield, 10 photons", noise=replace(camera, photons=10.0)),
    ]


def _d() -> list[Condition]:
    denoising = Condition("denoising", "d", operator="identity", noise=PAPER_NOISE)
    return [
        denoising,
        *(
            replace(denoising, name=f"denoising, {n} photons", noise=replace(NO_NOISE, photons=float(n)))
            for n in (1, 10)
        ),
        replace(denoising, name="30 % missing", missing=0.3),
        Condition("blurred, 20 % missing", "d", missing=0.2),
        *(replace(denoising, name=name, operator=name) for name in PICTURES),
        *(
            Condition(name, "d", operator=name, noise=replace(NO_NOISE, sigma=0.05), relative=True)
            for name in (
                "projections",
                "limited angles",
                "spectrum",
                "spectrum lines",
                "random signs",
                "hadamard",
            )
        ),
    ]


TRACKS: dict[str, list[Condition]] = {"a": [Condition("paper", "a")], "b": _b(), "c": _c(), "d": _d()}

ABOUT = {
    "a": "the paper's degradation, pixel for pixel",
    "b": "one thing varied at a time: noise, PSF, what is told of the PSF",
    "c": "volumes",
    "d": "other operators",
}


def conditions_of(track: str, names: Sequence[str] = (), noise: Sequence[str] = ()) -> list[Condition]:
    """The conditions of a track: all, those named, or the paper's blur with noise of one's own
    (`noise_from`).

    Raises
    ------
    InputError
        If there is no such track or condition, or a noise cannot be read.
    """
    if track not in TRACKS:
        raise InputError(f"there is no track {track!r}; use one of {', '.join(TRACKS)}")
    known = TRACKS[track]
    for name in names:
        if not any(c.name == name for c in known):
            all_names = "; ".join(c.name for c in known)
            raise InputError(f"track {track} has no condition {name!r}; use one of: {all_names}")
    if noise:
        first = TRACKS["a"][0] if track == "a" else known[0]
        if first.sources != "image":
            raise InputError(f"--noise is for 2-D images; track {track} has its own noise")
        return [replace(first, name=words, track=track, noise=noise_from(words)) for words in noise]
    return [c for c in known if not names or c.name in names]


def noise_from(words: str) -> NoiseModel:
    """The noise of words such as ``sigma=0.05,salt-pepper=0,clip=no``; what is not named is as in the paper.

    Known are ``alpha``, ``sigma``, ``salt-pepper``, ``bits`` (0: none), ``photons``, ``clip``. With
    ``photons``, what is not named is none at all, so that ``photons=30`` is pure photon noise.

    Raises
    ------
    InputError
        If a word is unknown or its value is none.

    Examples
    --------
    >>> noise_from("sigma=0.05,clip=no").sigma, noise_from("photons=30").sigma
    (0.05, 0.0)
    """
    known = [f.name for f in fields(NoiseModel) if f.name not in ("low", "high")]
    values: dict[str, float | int | bool | None] = {}
    for word in words.split(","):
        key, _, value = (part.strip() for part in word.partition("="))
        name = key.replace("-", "_")
        if name not in known:
            raise InputError(
                f"--noise {words!r}: {key!r} is unknown; use {', '.join(known).replace('_', '-')}, "
                f"e.g. sigma=0.05"
            )
        try:
            if name == "clip":
                values[name] = {"yes": True, "no": False}[value]
            else:
                values[name] = (int(value) or None) if name == "bits" else float(value)
        except (KeyError, ValueError):
            raise InputError(
                f"--noise {words!r}: {value!r} is no value for {key}; e.g. sigma=0.05,clip=no"
            ) from None
    return replace(NO_NOISE if "photons" in values else PAPER_NOISE, **values)  # type: ignore[arg-type]


def degrade(loaded: Loaded, condition: Condition, seed: int, psf_file: Path | None = None) -> Measurement:
    """Make the measurement of a source under a condition.

    Raises
    ------
    InputError
        If the condition does not fit the source.
    """
    if condition.measured:
        return _measured(loaded, seed)
    truth = loaded.truth
    if truth is None:
        raise InputError(f"{condition.name!r} degrades a truth, and there is none")
    operator = OPERATORS[condition.operator](truth.shape).float() if condition.operator else None
    kernel = told = None
    if operator is not None:
        with torch.no_grad():
            x = torch.nn.functional.pad(
                torch.from_numpy(truth)[None, None], _margins(operator), mode="reflect"
            )
            blurred = operator(x)[0, 0].numpy()
    else:
        kernel = _psf(condition.psf, loaded, psf_file)
        told = kernel if condition.told_psf is None else _psf(condition.told_psf, loaded, psf_file)
        blurred = blur(truth, kernel)
    if condition.noise is None:
        if kernel is None:
            raise InputError("the paper's generator blurs; give this condition a noise of its own")
        blurred, noisy = benchmark_degradation(truth, kernel, seed)
    else:
        noise = condition.noise
        if condition.relative:
            noise = replace(noise, sigma=noise.sigma * float(blurred.std()))
        noisy = noise.apply(blurred, seed).astype(np.float32)
    if operator is not None and operator.measured is not None:
        noisy = np.where(operator.measured.numpy(), noisy, np.float32(np.nan))
    if condition.missing:
        lost = np.random.default_rng([seed, 1]).random(noisy.shape) < condition.missing
        noisy = np.where(lost, np.float32(np.nan), noisy)
    return Measurement(noisy, blurred, told, operator if condition.told_operator else None)


def _margins(operator: LinearOperator) -> list[int]:
    """How far an operator's object reaches beyond what is shown of it, as `F.pad` takes it."""
    ends = zip(operator.view, operator.in_shape, strict=True)
    return [n for view, size in reversed(list(ends)) for n in (view.start, size - view.stop)]


def blur(truth: Array, kernel: Array) -> Array:
    """Full convolution cropped to the image, zeros outside, kernel centred on ``n // 2``; float32."""
    from scipy.signal import fftconvolve

    full = fftconvolve(truth.astype(np.float64), kernel)
    inside = tuple(slice(k // 2, k // 2 + n) for k, n in zip(kernel.shape, truth.shape, strict=True))
    return np.maximum(full[inside], 0.0 if truth.min() >= 0 else -np.inf).astype(np.float32)


def blur_beyond(image: Array, kernel: Array) -> Array:
    """The convolution of an image that goes on beyond its edges as it ends there; float32.

    A camera's offset is there too: with zeros outside, predictions near the edges would be too dark.
    """
    from scipy.signal import fftconvolve

    pads = [(k - 1 - k // 2, k // 2) for k in kernel.shape]
    wide = np.pad(image.astype(np.float64), pads, mode="edge")
    return np.asarray(fftconvolve(wide, kernel, mode="valid"), dtype=np.float32)


def _measured(loaded: Loaded, seed: int) -> Measurement:
    if loaded.observed is None or loaded.psf is None:
        raise InputError("there is no measurement to restore; expected observed.tif and psf.tif")
    image, kernel = loaded.observed, normalise(loaded.psf)
    if loaded.truth is not None:
        return Measurement(image, None, kernel, None)
    hidden = np.random.default_rng([seed, 2]).random(image.shape) < HELD_OUT
    return Measurement(np.where(hidden, np.float32(np.nan), image), None, kernel, None, hidden, image[hidden])


def _psf(name: str, loaded: Loaded, file: Path | None) -> Array:
    if name != "volume":
        return psfs.named(name, file)
    if loaded.psf is not None:
        return normalise(loaded.psf)
    assert loaded.truth is not None
    return synthetic_psf(loaded.truth.shape)
