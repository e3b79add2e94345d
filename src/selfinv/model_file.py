"""A trained model as a ``.safetensors`` file: weights, and a description in JSON."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from selfinv.arrangement import is_on_grid
from selfinv.atomic import written_beside
from selfinv.learning.crude import CrudeInverse
from selfinv.learning.error_spectrum import ErrorSpectrum
from selfinv.learning.inverse_filters import InverseFilters
from selfinv.learning.inverter import Head, Looks, build_inverter
from selfinv.learning.log_density import LogDensity
from selfinv.learning.noise_line import NoiseLine
from selfinv.learning.normalisation import Normalisation
from selfinv.learning.outliers import OutlierTest
from selfinv.learning.own_values import OwnValues
from selfinv.learning.symmetry import Symmetry
from selfinv.learning.unet import UNetSettings
from selfinv.operators import LinearOperator
from selfinv.types import InputError

if TYPE_CHECKING:
    from selfinv.model import TrainedModel

FORMAT = "selfinv-model"
FORMAT_VERSION = 13  # raised whenever the same file would no longer say the same


def write(path: str | os.PathLike[str], model: TrainedModel) -> None:
    """Write what is `packed` beside, then rename."""
    data = packed(model)
    with written_beside(_path(path)) as beside:
        beside.write_bytes(data)


def packed(model: TrainedModel) -> bytes:
    """Weights and description as they are in a file.

    Of an operator other than a PSF the shapes, where measured values are not pixels; else nothing.
    """
    from safetensors.torch import save

    tensors = {f"inverter.{k}": v.cpu().contiguous() for k, v in model.inverter.state_dict().items()}
    if model.psf is not None:
        tensors["psf"] = model.psf.detach().cpu().contiguous()
    if model.filters is not None:
        tensors["filters"] = model.filters.kernels.contiguous()
    description = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": model.inverter.network.settings.to_dict(),
        "head": asdict(model.inverter.head),
        "normalisation": asdict(model.normalisation),
        "object_normalisation": asdict(model.object_normalisation),
        "pads": model.pads,
        "symmetries": [asdict(s) for s in model.symmetries],
        "fill": model.fill,
        "axes": model.axes,
        "sharp": model.sharp,
        "crude": model.crude.settings() if model.crude is not None else None,
        "outliers": asdict(model.outliers) if model.outliers else None,
        "own_values": asdict(model.own_values) if model.own_values else None,
        "light": model.light,
        "looks": asdict(model.looks) if model.looks else None,
        "boundary": model.boundary,
        "noise": model.noise,
        "origin": model.origin,
    }
    return save(tensors, metadata={"selfinv": json.dumps(description)})


def origin_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """How a model of any format was made; empty if the file is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as opened:
            origin = json.loads((opened.metadata() or {})["selfinv"])["origin"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}


def read(path: str | os.PathLike[str], operator: LinearOperator | None = None) -> dict[str, Any]:
    """The fields of a `TrainedModel` (see `TrainedModel.load`)."""
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
        return _fields(description, tensors, operator)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{file}: {error}") from None
        raise InputError(f"{file}: the model's description is damaged ({error!r})") from None


def _fields(
    description: dict[str, Any], tensors: dict[str, Tensor], operator: LinearOperator | None
) -> dict[str, Any]:
    kept: Any = description.get("crude")
    if kept is not None and operator is None:
        raise InputError(
            "the model is for an operator whose values are not pixels; give that to load_model "
            "(from the shell, the model to --model of the command that trained it)"
        )
    on_pixels = kept is None and operator is not None
    if kept is None and operator is not None:
        alone = "psf" in tensors or description["sharp"]
        if not is_on_grid(operator) or (alone and operator.measured is None):
            raise InputError("the model was trained for pixels; it takes no operator but one that masks them")
    inverter = build_inverter(
        UNetSettings.from_dict(description["architecture"]), Head(**description["head"])
    )
    weights = {k.removeprefix("inverter."): v for k, v in tensors.items() if k.startswith("inverter.")}
    inverter.load_state_dict(weights)
    return {
        "inverter": inverter.eval(),
        "normalisation": Normalisation.from_dict(description["normalisation"]),
        "object_normalisation": Normalisation.from_dict(description["object_normalisation"]),
        "pads": tuple((int(a), int(b)) for a, b in description["pads"]),
        "symmetries": tuple(
            Symmetry(tuple(s["order"]), tuple(s["flipped"])) for s in description["symmetries"]
        ),
        "fill": description["fill"],
        "axes": description["axes"],
        "psf": tensors.get("psf"),
        "sharp": bool(description["sharp"]),
        "operator": copy.deepcopy(operator) if on_pixels else None,
        "crude": None if kept is None or operator is None else CrudeInverse.with_settings(operator, kept),
        "filters": InverseFilters(tensors["filters"]) if "filters" in tensors else None,
        "outliers": OutlierTest(**test) if (test := description.get("outliers")) else None,
        "own_values": _own_values(description["own_values"]),
        "light": tuple(description.get("light", ())),
        "looks": Looks(**looks) if (looks := description["looks"]) else None,
        "boundary": description["boundary"],
        "noise": float(description.get("noise", 0.0)),
        "origin": description["origin"],
    }


def _own_values(settings: dict[str, Any] | None) -> OwnValues | None:
    if not settings:
        return None
    of_channels = {name: tuple(settings[name]) for name in ("excess", "share", "power")}
    response, errors, tails = settings["response"], settings.get("errors"), settings["tails"]
    return OwnValues(
        **{
            **settings,
            **of_channels,
            "noise": tuple(NoiseLine(**line) for line in settings["noise"]),
            "response": None if response is None else tuple(response),
            "errors": None if errors is None else _error_spectrum(errors),
            "tails": None if tails is None else LogDensity(tuple(tails["slopes"])),
        }
    )


def _error_spectrum(settings: dict[str, Any]) -> ErrorSpectrum:
    measured = settings["measured"]
    return ErrorSpectrum(
        tuple(settings["frequency"]),
        tuple(map(tuple, settings["log_power"])),
        None if measured is None else _error_spectrum(measured),
    )


def _path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"a {type(path).__name__} is no path; give the path of a model file")
    return Path(path)
