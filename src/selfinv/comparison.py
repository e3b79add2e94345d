"""The methods that were compared for an image, as a table."""

from __future__ import annotations

import math

from selfinv.learning.normalisation import ChannelUnits
from selfinv.selection import SelfTunedState
from selfinv.trials import Trial, difference


def setting_of(trial: Trial, units: ChannelUnits | None) -> float:
    """A trial's setting; a weight in the image's units, if there is such a one for all channels."""
    unit = units.weight_unit if units is not None and trial.parameter == "weight" else None
    return trial.setting if unit is None else trial.setting * unit


def table(state: SelfTunedState, units: ChannelUnits | None = None) -> str:
    """What was tried and why this was chosen, in Markdown."""
    mean = state.mixture.trial if state.mixture else None
    first = state.trial
    assert first is not None
    reference = mean or first
    against = "against the chosen one (± standard error; significant beyond two)"
    lines = [f"| method | setting | held-out score (lower is better) | {against} |", "|---|---|---|---|"]
    rows = {id(trial): trial for trial in (*state.best.values(), reference)}.values()
    for trial in sorted(rows, key=lambda trial: trial.score):
        setting = "-" if trial.parameter is None else f"{trial.parameter} {setting_of(trial, units):.3g}"
        if trial is mean:
            setting = str(state.mixture)
        score = f"{trial.score:.5g}" if math.isfinite(trial.score) else "failed"
        if trial is reference:
            words = "chosen"
        elif score == "failed":
            words = "left out"
        else:
            d = difference(trial, reference)
            words = f"{d.mean:+.3g} ± {d.error:.2g}" + (
                "" if d.significant else ", no significant difference"
            )
        lines.append(f"| {trial.name} | {setting} | {score} | {words} |")
    if mean is not None:
        lines.append(
            f"\nThe result is a weighted mean: its score is lower by {first.score - mean.score:.3g} than "
            f"that of {first.name} alone. By the score itself the others would have more weight; but hidden "
            f"values do not show all errors, so it stays nearer to {first.name}."
        )
    elif first.score > min(trial.score for trial in state.best.values() if trial.name not in state.skipped):
        lines.append(
            f"\n{first.name} is kept, although another method predicts hidden values better: the "
            f"difference is below {_errors(state.convincing)}, or too small to matter, as hidden values do "
            f"not show all errors; where noise is correlated, a better score only says that more of it was "
            f"kept."
        )
    tried = {trial.name for trial in state.trials}  # what was not has nothing to be compared
    lines += [f"\n{name} was left out: {why}." for name, why in state.skipped.items() if name in tried]
    return "\n".join(lines)


def _errors(count: float) -> str:
    return f"{count:g} standard error{'s' if count != 1 else ''}"
