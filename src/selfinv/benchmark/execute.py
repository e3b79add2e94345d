"""One case from beginning to end: degrade, restore, time, score."""

from __future__ import annotations

import datetime
import traceback
import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from selfinv.arrangement import is_on_grid
from selfinv.benchmark import images, machine, methods
from selfinv.benchmark.cases import Case
from selfinv.benchmark.conditions import Measurement, blur_beyond, degrade
from selfinv.benchmark.problem import Problem, Restored, Watch
from selfinv.benchmark.scores import against_truth, clipped_psnr, without_truth
from selfinv.benchmark.warm_up import warm_up
from selfinv.types import Array, InputError, SelfinvWarning, Shape

OK, FAILED, FLAGGED = "ok", "failed", "flagged"


def execute(case: Case) -> tuple[dict[str, Any], Array | None]:
    """The row of a case, and the restored image if it is to be kept.

    Whatever a method raises becomes a row with the status ``failed`` and the reason.
    """
    row: dict[str, Any] = {
        **case.labels(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "crop": case.source.crop,
        "steps_budget": case.settings.steps,
        "boundary": case.settings.boundary,
    }
    image: Array | None = None
    device = "cpu"
    try:
        method = methods.named(case.method)
        row |= {"group": method.group, "told": ", ".join(method.told)}
        loaded = images.load(case.source)
        measurement = degrade(loaded, case.condition, case.seed, case.settings.psf)
        if measurement.psf is None and measurement.operator is None:  # only noise is to be removed
            row["told"] = ", ".join(word for word in method.told if word != methods.PSF)
        picture = measurement.image if loaded.truth is None else loaded.truth
        row |= {"shape": "x".join(map(str, picture.shape)), "pixels": picture.size}
        restored = _restore(case, method, loaded, measurement, row)
        device = restored.device
        image = restored.image
        row |= _scores(case, loaded, measurement, restored) | {"status": FLAGGED if restored.flag else OK}
        row["error"] = restored.flag
    except Exception as error:
        row |= {"status": FAILED, "error": _words(error)}
        image = None
    row |= machine.describe(device)
    return row, image if case.pictured else None


def _restore(
    case: Case, method: methods.Method, loaded: images.Loaded, measurement: Measurement, row: dict[str, Any]
) -> Restored:
    settings, truth = case.settings, loaded.truth
    if methods.TRUTH in method.told and truth is None:
        raise InputError("this method is tuned with the truth, and here is none")
    looks = truth is not None and not case.condition.measured
    problem = Problem(
        image=measurement.image,
        psf=measurement.psf,
        operator=measurement.operator,
        truth=truth if methods.TRUTH in method.told else None,
        seed=case.seed,
        device=settings.device,
        steps=settings.steps,
        boundary=settings.boundary,
        spacing=loaded.spacing,
    )
    if method.group == "reference":
        values = _known(measurement.blurred) if case.method == "blurred" else measurement.image
        return Restored(measurement.pictured(values))
    if not method.missing:
        problem = problem.filled()
    warm_up(method, len(problem.axes), settings.device)
    cuda = _uses_cuda(settings.device)
    with warnings.catch_warnings(record=True) as caught, machine.peak_memory(cuda) as memory:
        warnings.simplefilter("always", SelfinvWarning)
        watch = Watch((lambda x: clipped_psnr(_known(truth), x)) if looks else None)
        problem = replace(problem, watch=watch)
        restored = method.run(problem)
        seconds = watch.seconds()
    pixels = measurement.operator is None or is_on_grid(measurement.operator)
    _check(restored.image, (measurement.image if pixels else _known(truth)).shape)
    row |= {
        "training_seconds": round(restored.training_seconds, 6),
        "inference_seconds": round(restored.inference_seconds, 6),
        "seconds": round(seconds, 6),
        "peak_memory_mib": round(memory.mebibytes, 1),
        "steps": restored.steps,
        "setting": restored.setting,
        "warnings": "; ".join(str(w.message) for w in caught if issubclass(w.category, SelfinvWarning)),
        "trace": watch.trace,
        "curve": restored.curve,
    }
    return restored


def _scores(
    case: Case, loaded: images.Loaded, measurement: Measurement, restored: Restored
) -> dict[str, float]:
    image = restored.image
    missing = ~np.isfinite(image)
    if missing.any():  # only the input's: restored images with holes have been refused
        image = Problem(image).filled().image
    if loaded.truth is not None:
        return against_truth(loaded.truth, image, fit=case.condition.measured)
    assert measurement.hidden is not None
    assert measurement.hidden_values is not None
    predicted = restored.predicted
    if predicted is None:
        predicted = image if case.method == "input" else blur_beyond(image, _known(measurement.psf))
    return without_truth(image, predicted, measurement.image, measurement.hidden, measurement.hidden_values)


def _check(image: Any, shape: Shape) -> None:
    if np.shape(image) != shape:
        raise InputError(f"the method returned the shape {np.shape(image)} for an image {shape}")
    holes = int((~np.isfinite(np.asarray(image, dtype=np.float64))).sum())
    if holes:
        raise InputError(
            f"the method returned {holes} values that are NaN or infinite; expected numbers everywhere, "
            "also where nothing was measured"
        )


def _uses_cuda(device: str) -> bool:
    from selfinv.instrument import choose_device

    return choose_device(device).type == "cuda"


def _known(array: Array | None) -> Array:
    assert array is not None
    return array


def _words(error: Exception) -> str:
    """One line: what was raised, and where if it was not meant for a user."""
    words = " ".join(str(error).split()) or "no message"
    if isinstance(error, InputError):
        return words
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {words}{where}"
