"""Who restores: every method by name, with what it is told, and users' own.

The methods of `selfinv.methods.METHODS` are taken from there by themselves, so that a new one is measured
from its first day. Only a method whose ``told`` names the truth is given it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from selfinv.benchmark.problem import Problem, Restored
from selfinv.types import InputError

PSF, NOISE, TRUTH = "PSF", "noise level", "truth"
RL_STEPS = (5, 10, 20)


@dataclass(frozen=True)
class Method:
    """A way to restore.

    Parameters
    ----------
    name, about
        For tables; one line.
    group
        ``"reference"`` (no restoration), ``"paper"`` (its settings), ``"self-supervised"``, ``"self-tuned"``,
        ``"other"`` (other packages' and users'), ``"oracle"`` (tuned with the truth).
    run
        Does it. What it raises is reported as a failure.
    told
        Of PSF, noise level, truth, outside data, what it is given. (Those told the PSF are told the forward
        operator in the conditions that have another.)
    missing
        Whether it takes NaN; others are given images with those filled.
    needs
        A package without which it cannot run, and the extra that installs it.
    dimensions
        Numbers of spatial axes it takes.
    digest
        Of the file with a user's code.
    operators
        Whether it takes an operator in place of a PSF.
    """

    name: str
    about: str
    group: str
    run: Callable[[Problem], Restored]
    told: tuple[str, ...] = (PSF,)
    missing: bool = False
    needs: tuple[str, str] | None = None
    dimensions: tuple[int, ...] = (2, 3)
    digest: str = ""
    operators: bool = True

    def takes(self, ndim: int, has_truth: bool) -> bool:
        """Whether it can restore an image of so many axes, with or without a truth to be told."""
        return ndim in self.dimensions and (has_truth or TRUTH not in self.told)

    @property
    def available(self) -> bool:
        """Whether what it needs is installed."""
        return self.needs is None or importlib.util.find_spec(self.needs[0]) is not None


def _reference(problem: Problem) -> Restored:
    return Restored(problem.image)


def front_door(problem: Problem, *, method: str, steps: int | None = None) -> Restored:
    """`selfinv.restore` as a user calls it; training apart from applying the trained network once more."""
    from selfinv.restoration import restore

    watch = problem.watch
    result = restore(
        problem.image,
        None if problem.operator is not None else problem.psf,
        operator=problem.operator,
        method=method,
        axes=problem.axes,
        boundary="auto" if problem.psf is None else problem.boundary,  # type: ignore[arg-type]
        mask_nan=True,
        device=problem.device,
        seed=problem.seed,
        max_steps=steps or (problem.steps if method.startswith(("ssi", "auto")) else None),
        spacing=problem.spacing,
        callback=watch.callback,
    )
    total = watch.seconds()
    stats = result.stats
    setting = next((f"{k} {stats[k]:.3g}" for k in ("weight", "balance", "steps") if k in stats), "")
    chosen = stats.get("chosen", "")
    words = f"{chosen}, {setting}" if chosen and chosen != method else setting
    if "mixture" in stats:
        words = stats["mixture"]
    inference = total - (watch.prepared or 0.0)
    if result.model is not None:
        before = watch.looking
        with watch.paused():  # the image is there already
            result.model.apply(
                problem.image, axes=problem.axes, mask_nan=True, device=stats["device"], check=False
            )
        inference = watch.looking - before
    return Restored(
        result.image,
        training_seconds=max(0.0, total - inference),
        inference_seconds=inference,
        steps=stats.get("steps"),
        setting=words + (f", boundary {stats['boundary']}" if stats.get("boundary") else ""),
        flag=str(result.status) if result.status.failed else "",
        device=stats["device"],
        predicted=result.predicted,
    )


def _own() -> list[Method]:
    from selfinv.methods import METHODS

    methods = [
        Method(
            f"richardson-lucy-{n}",
            f"Richardson-Lucy, {n} iterations, as in the paper",
            "paper",
            partial(front_door, method="richardson-lucy", steps=n),
            missing=True,
        )
        for n in RL_STEPS
    ]
    for name in METHODS:
        paper = name.endswith("-paper") or name == "ssi-unmasked"
        learned = name.startswith(("ssi", "auto"))
        group = "paper" if paper else "self-supervised" if learned else "self-tuned"
        about = {
            "paper": "the paper's settings",
            "self-supervised": "trained on the noisy image alone",
            "self-tuned": "tuned on the noisy image alone",
        }[group]
        methods.append(Method(name, about, group, partial(front_door, method=name), missing=True))
    return methods


def _lazy(module: str, function: str) -> Callable[[Problem], Restored]:
    """A function of this package that is imported when it is first called (it brings heavy modules)."""

    def run(problem: Problem) -> Restored:
        found = getattr(importlib.import_module(f"selfinv.benchmark.{module}"), function)
        restored: Restored = found(problem)
        return restored

    return run


def _others() -> list[Method]:
    psf_and_truth = (PSF, TRUTH)
    oracles = {
        "tv-chambolle-pock": "weight and fidelity picked with the truth",
        "tv-conjugate-gradient": "weight picked with the truth",
        "richardson-lucy": "iteration picked with the truth",
        "wiener": "balance picked with the truth",
    }
    return [
        Method(
            "deep-image-prior",
            "a network fed fixed noise, stopped by held-out pixels",
            "other",
            _lazy("deep_image_prior", "deep_image_prior"),
            missing=True,
        ),
        Method(
            "deepinv-splitting",
            "deepinv's splitting loss on the network and step budget of ssi",
            "other",
            _lazy("peers", "deepinv_splitting"),
            needs=("deepinv", "deepinv"),
        ),
        Method(
            "skimage-richardson-lucy",
            "scikit-image's, its default 30 iterations",
            "other",
            _lazy("peers", "skimage_richardson_lucy"),
            operators=False,
        ),
        Method(
            "skimage-unsupervised-wiener",
            "scikit-image's, its defaults",
            "other",
            _lazy("peers", "skimage_unsupervised_wiener"),
            operators=False,
            dimensions=(2,),  # it raises on volumes
        ),
        *(
            Method(
                f"{name}-oracle",
                about,
                "oracle",
                _lazy("oracles", name.replace("-", "_")),
                psf_and_truth,
                missing=True,
            )
            for name, about in oracles.items()
        ),
    ]


def known() -> dict[str, Method]:
    """Every method by name, in the order of tables."""
    references = [
        Method("blurred", "the blurred image without noise", "reference", _reference, ("noise-free image",)),
        Method("input", "the blurred, noisy image", "reference", _reference, ()),
    ]
    return {method.name: method for method in (*references, *_own(), *_others())}


GROUPS = ("reference", "paper", "self-supervised", "self-tuned", "other", "oracle")


def choose(names: Sequence[str]) -> list[Method]:
    """The methods of these names, groups of them (`GROUPS`), ``all``, or ``module:function``; no name: a
    good set.

    The good set is all but ``auto``, which runs what the others run.

    Raises
    ------
    InputError
        If a name is unknown, or a function cannot be imported.
    """
    methods = known()
    if not names:
        return [m for m in methods.values() if m.name != "auto"]
    chosen: dict[str, Method] = {}
    for name in names:
        if name == "all":
            chosen |= methods
        elif name in GROUPS:
            chosen |= {k: m for k, m in methods.items() if m.group == name}
        else:
            chosen[name] = named(name)
    order = list(methods)
    return sorted(chosen.values(), key=lambda m: order.index(m.name) if m.name in methods else len(order))


def named(name: str) -> Method:
    """One method, known or a user's ``module:function`` or ``file.py:function``.

    Raises
    ------
    InputError
        As in `choose`.
    """
    methods = known()
    if name in methods:
        return methods[name]
    if ":" in name:
        return _users(name)
    raise InputError(
        f"there is no method {name!r}; use {', '.join(methods)}, a group ({', '.join(GROUPS)}), all, or "
        f"module:function"
    )


def _users(name: str) -> Method:
    r"""A function ``(image, psf, *, seed) -> image``, wrapped.

    It may carry ``told``, a tuple of words; ``takes_missing = True`` if it can be given NaN, to fill in. One
    that has a parameter ``operator`` is given those that are no PSF.
    """
    function, file = _imported(name)
    told = getattr(function, "told", (PSF,))
    operators = _has(function, "operator")
    keywords = ["seed", *([TRUTH] if TRUTH in told else []), *(["operator"] if operators else [])]
    _check_arguments(name, function, keywords)

    def run(problem: Problem) -> Restored:
        more: dict[str, object] = {"truth": problem.truth} if TRUTH in told else {}
        more |= {"operator": problem.operator} if operators else {}
        image = function(problem.image, problem.psf, seed=problem.seed, **more)
        if image is None:
            raise InputError(f"{name} returned nothing; expected an image")
        return Restored(np.asarray(image), inference_seconds=problem.watch.seconds())

    about = (function.__doc__ or "a function of the user's").strip().splitlines()[0]
    missing = bool(getattr(function, "takes_missing", False))
    digest = "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return Method(name, about, "other", run, tuple(told), missing, digest=digest, operators=operators)


def _has(function: Callable[..., object], keyword: str) -> bool:
    """Whether a function has a parameter of this name."""
    try:
        return keyword in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a compiled function may not tell
        return False


def _check_arguments(name: str, function: Callable[..., object], keywords: Sequence[str]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a compiled function may not tell
        return
    try:
        signature.bind("image", "psf", **dict.fromkeys(keywords))
    except TypeError as error:
        called = f"(image, psf, *, {', '.join(keywords)})"
        raise InputError(
            f"the method {name!r} is called with {called}, and takes {signature}: {error}"
        ) from None


def _imported(name: str) -> tuple[Callable[..., object], Path | None]:
    """A user's function, and the file that it is in."""
    module_name, _, function_name = name.rpartition(":")
    try:
        if module_name.endswith(".py"):
            path = Path(module_name)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None or not path.is_file():
                raise ImportError(f"there is no file {path}")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if "" not in sys.path and str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))  # where a user's own module lies, as with `python -m`
            module = importlib.import_module(module_name)
        function = getattr(module, function_name)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise InputError(f"the method {name!r} could not be imported: {error}") from None
    if not callable(function):
        raise InputError(
            f"{name!r} is a {type(function).__name__}; expected a function (image, psf, *, seed)"
        )
    return function, Path(module.__file__) if module.__file__ else None
