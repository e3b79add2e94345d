"""A trained inverse on its own: apply it to more images, save it, load it."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfinv.arrangement import Arrangement, as_measured, for_operator
from selfinv.atomic import written_beside
from selfinv.learning.answer import answer
from selfinv.learning.crude import CrudeInverse
from selfinv.learning.error_spectrum import ErrorSpectrum
from selfinv.learning.forward_model import ForwardModel
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.inverter import Entrance, Head, Inverter, Looks, build_inverter
from selfinv.learning.measurement import Pads, field_of_view
from selfinv.learning.noise_line import NoiseLine
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.own_values import OwnValues
from selfinv.learning.photometry import brightened
from selfinv.learning.stray_values import without_stray
from selfinv.learning.symmetry import Symmetry
from selfinv.learning.unet import UNetSettings
from selfinv.noise import noise_level
from selfinv.operators import Boundary, Convolution, LinearOperator
from selfinv.types import Array, InputError, SelfinvWarning, check_image, parse_axes, same_layout

FORMAT = "selfinv-model"
FORMAT_VERSION = 9  # raised whenever the same weights would no longer make the same image
OTHER_RANGE = 4.0  # times that of training, or a part of it, at which an image is called unlike it
BRIGHTER = 2.0  # times, or a part of it, that the next frame may be
OTHER_NOISE = 2.0  # times that of training, or a part of it, at which an image is called unlike it


@dataclass(frozen=True)
class TrainedModel:
    """A network trained to invert one forward operator, with all that is needed to use it again.

    Parameters
    ----------
    inverter
        Network and head, in evaluation mode.
    normalisation, object_normalisation
        The intensity scales of measurement and object it was trained on, also used for further images.
    pads
        How far the object's grid reaches beyond the measurement's.
    symmetries
        What its answers are averaged over.
    fill
        What stands in for missing values.
    axes
        Axes of the image it was trained on.
    psf
        The point spread function it inverts, or None for another operator.
    sharp
        Whether nothing is blurred: the operator measures the object itself, or a part of it.
    crude
        The first guess, where measured values are not pixels; it holds the operator.
    filters
        What makes the sharper copies of the image that the network sees beside it, if it does.
    outliers
        What is filled in before the network sees it, if anything is.
    own_values
        The noise and the network's error, where each value is asked what it adds in the end.
    light
        What each channel of the object is multiplied by in the end; empty: nothing.
    looks
        What is hidden of a measurement whose values are not pixels.
    boundary
        Of the convolution with ``psf``.
    noise
        The noise's deviation in the image it was trained on (`selfinv.noise.noise_level`), in its units; 0 if
        it is not known.
    origin
        How it was made: method, seed, versions, steps, held-out score.
    """

    inverter: Inverter = field(repr=False)
    normalisation: Normalisation
    object_normalisation: Normalisation
    pads: Pads
    symmetries: tuple[Symmetry, ...]
    fill: str
    axes: str
    psf: Tensor | None = field(default=None, repr=False)
    sharp: bool = False
    crude: CrudeInverse | None = field(default=None, repr=False)
    filters: InverseFilters | None = None
    outliers: OutlierTest | None = None
    own_values: OwnValues | None = None
    light: tuple[float, ...] = ()
    looks: Looks | None = None
    boundary: Boundary = "unknown"
    noise: float = 0.0
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def entrance(self) -> Entrance:
        """How the network sees a measurement."""
        return Entrance(self.fill, self.crude, self.filters, self.outliers, self.looks)

    def forward_model(self, shape: Sequence[int]) -> ForwardModel | None:
        """What measures an image of this spatial shape, as far as `own_values` ask for it; else None."""
        if self.own_values is None or (self.psf is None and self.crude is None):
            return None
        if self.crude is not None:
            operator = self.crude.operator
        else:
            assert self.psf is not None
            operator = Convolution(self.psf, shape, self.boundary, margin=[max(pad) for pad in self.pads])
        # In the units that channels have in common: beside a large level, single precision tells little.
        both = (replace(n, channels=None) for n in (self.normalisation, self.object_normalisation))
        return ForwardModel(operator, *both)

    def apply(
        self,
        image: Any,
        *,
        axes: str | None = None,
        mask_nan: bool = False,
        device: str | None = None,
        symmetries: int = 8,
    ) -> Array:
        """Restore another image of the same instrument.

        Parameters
        ----------
        image
            Any size; as many channels as in training; the same intensity units.
        axes
            Its axes; by default those of the training image.
        mask_nan
            Treat NaN and infinite values as missing. Others are taken for missing, too, if neither blur nor
            noise can have made them (`selfinv.learning.stray_values`).
        symmetries
            Average over so many flips and turns at most; 1 is up to 8 times as fast.

        Returns
        -------
        array
            The restored image, float32, same shape and units.

        Raises
        ------
        InputError
            If the image's axes or channels are not those the model was trained for, or ``symmetries`` is not
            1 to 8.

        Warns
        -----
        SelfinvWarning
            If values are taken for missing, as neither blur nor noise makes them; if their range is less than
            a quarter of that it was trained on or more than four times as wide, or elsewhere; or if the noise
            is less than half, or more than twice as much.
        """
        if not 1 <= symmetries <= 8:
            raise InputError(f"symmetries={symmetries} is not a number from 1 to 8")
        operator = self.crude.operator if self.crude is not None else None
        array = check_image(as_measured(image, operator), allow_nan=mask_nan)
        settings, arrangement = self.inverter.network.settings, None
        if self.crude is not None:
            A = self.crude.operator
            ndim = array.ndim - len(A.out_shape) + len(A.in_shape)
            arrangement = Arrangement.of(A, array.shape, axes or same_layout(self.axes, ndim))
            layout, batch = arrangement.layout, arrangement.to_batch(array)
        else:
            layout = parse_axes(axes or same_layout(self.axes, array.ndim), array.ndim)
            batch = layout.to_batch(array)
        fits = batch.ndim - 2 == settings.ndim and batch.shape[1] == settings.channels
        if arrangement is None and not fits:
            raise InputError(
                f"the model was trained on {settings.channels} channel(s) and {settings.ndim} spatial axes "
                f"({self.axes}); this image has {batch.shape[1]} and {batch.ndim - 2} ({layout.axes}); "
                f"train a model on an image like it"
            )
        y = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float64))
        if self.psf is not None or self.sharp:
            y, count, words = without_stray(self.psf, y)
            if count:
                warnings.warn(words, SelfinvWarning, stacklevel=2)
        if self.crude is None and not self._has_another_range(y):
            self._compare_noise(y)
        missing = ~torch.isfinite(y)
        if operator is not None and operator.measured is not None:
            missing = missing | ~operator.measured.cpu()
        y = self.normalisation.apply(y).masked_fill(missing, 0.0).to(torch.float32)
        place = torch.device(device) if device else next(self.inverter.parameters()).device
        inverter = self.inverter.to(place)
        x = answer(
            inverter,
            y.to(place),
            missing.to(place),
            self.pads,
            self.symmetries,
            self.entrance,
            self.own_values,
            self.forward_model(y.shape[2:]),
            most=symmetries,
        )
        x = self.object_normalisation.undo(brightened(x, self.light))
        if arrangement is None:
            x = x[field_of_view(self.pads, y.shape[2:])]
        else:
            x = arrangement.from_object(for_operator(arrangement.operator, x))
        return layout.from_batch(x.cpu().numpy())

    def _has_another_range(self, y: Tensor) -> bool:
        """Whether the image's values are far from those that the network has learned from; warn if so."""
        trained = self.normalisation
        try:
            found = Normalisation.of(y if trained.channels is None else trained.channels.apply(y))
        except InputError:  # of one value only
            return False
        if 1 / OTHER_RANGE <= found.scale / trained.scale <= OTHER_RANGE and found.meets(trained, BRIGHTER):
            return False
        spans = [f"{n.offset:.4g} to {n.offset + n.scale:.4g}" for n in (found, trained)]
        several = trained.channels is not None and len(trained.channels.scales) > 1
        units = "" if not several else ", in units that channels have in common"
        warnings.warn(
            f"this image's values span about {spans[0]}, which is far from the {spans[1]} of the one that "
            f"the model was trained on{units}; give it in the same units, or train a model on one like it",
            SelfinvWarning,
            stacklevel=3,
        )
        return True

    def _compare_noise(self, y: Tensor) -> None:
        """Warn of an image whose noise is not what the network has learned to take away."""
        found = noise_level(y.numpy())
        if self.noise and not 1 / OTHER_NOISE <= found / self.noise <= OTHER_NOISE:
            warnings.warn(
                f"the noise of this image, about {found:.3g}, is {found / self.noise:.2g} times that of "
                f"the one that the model was trained on; train a model on an image like this",
                SelfinvWarning,
                stacklevel=3,
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write weights and description to one ``.safetensors`` file (written beside, then renamed).

        Of an operator other than a PSF, only the shapes are kept.
        """
        from safetensors.torch import save

        tensors = {f"inverter.{k}": v.cpu().contiguous() for k, v in self.inverter.state_dict().items()}
        if self.psf is not None:
            tensors["psf"] = self.psf.detach().cpu().contiguous()
        if self.filters is not None:
            tensors["filters"] = self.filters.kernels.contiguous()
        description = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "architecture": self.inverter.network.settings.to_dict(),
            "head": asdict(self.inverter.head),
            "normalisation": asdict(self.normalisation),
            "object_normalisation": asdict(self.object_normalisation),
            "pads": self.pads,
            "symmetries": [asdict(s) for s in self.symmetries],
            "fill": self.fill,
            "axes": self.axes,
            "sharp": self.sharp,
            "crude": self.crude.settings() if self.crude is not None else None,
            "outliers": asdict(self.outliers) if self.outliers else None,
            "own_values": asdict(self.own_values) if self.own_values else None,
            "light": self.light,
            "looks": asdict(self.looks) if self.looks else None,
            "boundary": self.boundary,
            "noise": self.noise,
            "origin": self.origin,
        }
        data = save(tensors, metadata={"selfinv": json.dumps(description)})
        with written_beside(_path(path)) as beside:
            beside.write_bytes(data)

    @classmethod
    def load(cls, path: str | os.PathLike[str], operator: LinearOperator | None = None) -> TrainedModel:
        """Read a model written by `save`.

        Parameters
        ----------
        operator
            The one it was trained for, where measured values are not pixels: it is not in the file.

        Raises
        ------
        InputError
            If the file is missing, damaged, or not such a model, or the operator is missing or another one.
        """
        from safetensors import SafetensorError, safe_open

        file = _path(path)
        if operator is not None and not isinstance(operator, LinearOperator):
            raise InputError(
                f"operator is a {type(operator).__name__}; pass the LinearOperator it was trained for"
            )
        if not file.is_file():
            raise InputError(f"{file}: no such model file")
        try:
            with safe_open(str(file), framework="pt") as opened:
                words = (opened.metadata() or {}).get("selfinv")
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError:
            raise InputError(
                f"{file}: not a model file; expected one that 'selfinv train' or --save-model has written "
                f"(.safetensors)"
            ) from None
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error})") from None
        if words is None:
            raise InputError(f"{file}: a safetensors file, but not one written by selfinv")
        try:
            description = json.loads(words)
            version = description["format_version"]
            if version != FORMAT_VERSION:
                relation, remedy = (
                    ("newer", "update selfinv") if version > FORMAT_VERSION else ("older", "train it again")
                )
                raise InputError(
                    f"model format {version} is {relation} than this program's ({FORMAT_VERSION}); {remedy}"
                )
            return cls._from_description(description, tensors, operator)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise InputError(f"{file}: {error}") from None
            raise InputError(f"{file}: the model's description is damaged ({error!r})") from None

    @classmethod
    def _from_description(
        cls, description: dict[str, Any], tensors: dict[str, Tensor], operator: LinearOperator | None
    ) -> TrainedModel:
        kept: Any = description.get("crude")
        if (kept is None) is not (operator is None):
            raise InputError(
                "the model was trained for pixels; it takes no operator"
                if kept is None
                else "the model is for an operator whose values are not pixels; give that to load_model "
                "(from the shell, the model to --model of the command that trained it)"
            )
        inverter = build_inverter(
            UNetSettings.from_dict(description["architecture"]), Head(**description["head"])
        )
        weights = {k.removeprefix("inverter."): v for k, v in tensors.items() if k.startswith("inverter.")}
        inverter.load_state_dict(weights)
        return cls(
            inverter=inverter.eval(),
            normalisation=Normalisation.from_dict(description["normalisation"]),
            object_normalisation=Normalisation.from_dict(description["object_normalisation"]),
            pads=tuple((int(a), int(b)) for a, b in description["pads"]),
            symmetries=tuple(
                Symmetry(tuple(s["order"]), tuple(s["flipped"])) for s in description["symmetries"]
            ),
            fill=description["fill"],
            axes=description["axes"],
            psf=tensors.get("psf"),
            sharp=bool(description["sharp"]),
            crude=None if operator is None else CrudeInverse.with_settings(operator, kept),
            filters=InverseFilters(tensors["filters"]) if "filters" in tensors else None,
            outliers=OutlierTest(**test) if (test := description.get("outliers")) else None,
            own_values=_own_values(description["own_values"]),
            light=tuple(description.get("light", ())),
            looks=Looks(**looks) if (looks := description["looks"]) else None,
            boundary=description["boundary"],
            noise=float(description.get("noise", 0.0)),
            origin=description["origin"],
        )

    def described(self, **origin: Any) -> TrainedModel:
        """The same model with more said about its origin."""
        return replace(self, origin={**self.origin, **origin})


def _own_values(settings: dict[str, Any] | None) -> OwnValues | None:
    if not settings:
        return None
    of_channels = {name: tuple(settings[name]) for name in ("excess", "share", "power")}
    response, errors = settings["response"], settings.get("errors")
    return OwnValues(
        **{
            **settings,
            **of_channels,
            "noise": tuple(NoiseLine(**line) for line in settings["noise"]),
            "response": None if response is None else tuple(response),
            "errors": None if errors is None else ErrorSpectrum(**{k: tuple(v) for k, v in errors.items()}),
        }
    )


def versions() -> dict[str, str]:
    """The versions a result depends on."""
    import scipy

    from selfinv import __version__

    return {
        "selfinv": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a {type(path).__name__} is no path; give the path of a model file")
    return Path(path)
