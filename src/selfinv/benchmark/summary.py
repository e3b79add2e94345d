"""From rows to statements: means, spreads, paired differences with their uncertainty, who wins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from selfinv.benchmark.execute import FAILED, FLAGGED
from selfinv.benchmark.methods import TRUTH
from selfinv.benchmark.scores import METRICS
from selfinv.types import Array

Row = Mapping[str, Any]
Pair = tuple[str, int]  # image and seed: one measurement
OURS = "ssi"
COSTS = ("training_seconds", "inference_seconds", "seconds", "peak_memory_mib")


@dataclass(frozen=True)
class Difference:
    """One method's score (ours') less another's, image by image, each the mean of the seeds both have.

    Parameters
    ----------
    mean, low, high
        In the score's units; the interval over images is Student's t of 95 %, NaN with fewer than 2 of them.
    wins, losses
        Images on which the first is better, and worse, by more than 0.005.
    worst, worst_by
        The image on which the first does worst in comparison, and the difference there.
    """

    mean: float
    low: float
    high: float
    wins: int
    losses: int
    images: int
    worst: str
    worst_by: float


@dataclass(frozen=True)
class Line:
    """A method in one condition, over all images (each the mean of its seeds).

    Parameters
    ----------
    images, cases
        How many images, and how many (image, seed), have a result.
    means, spreads
        By score; the spread is the standard deviation over images.
    costs
        Means of `COSTS`, and ``seconds_per_mpx``; missing where nothing was timed.
    failed, flagged
        (image, reason) of the cases that have no result, or one that the method itself says not to use.
    """

    method: str
    group: str
    told: str
    images: int
    cases: int
    means: dict[str, float]
    spreads: dict[str, float]
    costs: dict[str, float]
    difference: Difference | None = None
    failed: list[tuple[str, str]] = field(default_factory=list)
    flagged: list[tuple[str, str]] = field(default_factory=list)

    @property
    def fair(self) -> bool:
        """Whether it is a method that a user can have: it restores, and was not told the truth."""
        return self.group != "reference" and TRUTH not in self.told.split(", ")


@dataclass(frozen=True)
class Table:
    """One condition.

    Parameters
    ----------
    cases
        How many (image, seed) there are.
    lines
        In the order of the methods.
    score
        What decides: ``psnr``, or ``held_out`` where there is no truth.
    ours
        The method that the others are compared with; empty if there is none.
    lead
        Of the best over the second of `ranked`; None if there are not two with an image in common.
    """

    track: str
    condition: str
    images: list[str]
    cases: int
    lines: list[Line]
    score: str
    ours: str
    lead: Difference | None = None

    @property
    def title(self) -> str:
        """Track and condition; volumes of one condition with and without a truth are tables of their own."""
        without = ", without a truth" if self.score == "held_out" else ""
        return f"Track {self.track.upper()}: {self.condition}{without}"

    @property
    def as_published(self) -> bool:
        """Whether it is the paper's benchmark, so that the published numbers compare."""
        return (self.track, self.condition) == ("a", "paper")

    def ranked(self) -> list[Line]:
        """The lines of methods a user can have, best first; those that lack an image or a seed last."""
        lines = [line for line in self.lines if line.fair and line.images]
        return sorted(
            lines, key=lambda line: (line.cases < self.cases, -line.means.get(self.score, -math.inf))
        )

    def share(self, line: Line) -> str:
        """``2 of 3 images``, or ``5 of 6 cases`` where no image lacks all of its seeds; else empty."""
        if line.images < len(self.images):
            return f"{line.images} of {len(self.images)} images"
        return f"{line.cases} of {self.cases} cases" if line.cases < self.cases else ""

    def line(self, method: str) -> Line | None:
        """A method's line."""
        return next((line for line in self.lines if line.method == method), None)


def tables(rows: Sequence[Row], ours: str | None = None) -> list[Table]:
    """A table for every condition, in the order of the rows.

    The others are compared with ``ours``, or, where that has no result, with `OURS`, or else with the best.
    """
    # Where some volumes have a truth and others none, each kind is a table of its own.
    kinds = {(r["track"], r["condition"], r["image"]): _score(r) for r in rows if _score(r)}

    def table_of(row: Row) -> tuple[str, str, str]:
        return (
            row["track"],
            row["condition"],
            kinds.get((row["track"], row["condition"], row["image"]), "psnr"),
        )

    found = []
    for track, condition, score in dict.fromkeys(table_of(r) for r in rows):
        some = [r for r in rows if table_of(r) == (track, condition, score)]
        lines = [_line(method, some) for method in dict.fromkeys(r["method"] for r in some)]
        images = list(dict.fromkeys(r["image"] for r in some))
        cases = len({_pair(r) for r in some})
        found.append(_compared(Table(track, condition, images, cases, lines, score, ""), some, ours))
    return found


def _compared(table: Table, rows: Sequence[Row], ours: str | None) -> Table:
    """With the paired differences between its methods."""
    good = [r for r in rows if r["status"] != FAILED]
    scores = {line.method: per_case(good, line.method, table.score) for line in table.lines}
    ranked = [line.method for line in table.ranked()]
    reference = next((m for m in (ours, OURS, *ranked) if m is not None and scores.get(m)), "")
    lines = [
        line
        if line.method == reference
        else replace(line, difference=compare(scores.get(reference, {}), scores[line.method]))
        for line in table.lines
    ]
    lead = compare(scores[ranked[0]], scores[ranked[1]]) if len(ranked) > 1 else None
    return replace(table, lines=lines, ours=reference, lead=lead)


def per_case(rows: Sequence[Row], method: str, score: str) -> dict[Pair, float]:
    """A method's score on every image with every seed."""
    return {_pair(r): float(r[score]) for r in rows if r["method"] == method and _number(r.get(score))}


def per_image(scores: Mapping[Pair, float]) -> dict[str, float]:
    """On every image the mean of its seeds."""
    values: dict[str, list[float]] = {}
    for (image, _), value in scores.items():
        values.setdefault(image, []).append(value)
    return {image: float(np.mean(v)) for image, v in values.items()}


def compare(ours: Mapping[Pair, float], theirs: Mapping[Pair, float]) -> Difference | None:
    """Differences over the images and seeds that both have; None if there is none.

    Examples
    --------
    >>> ours = {("a", 0): 2.0, ("b", 0): 3.0, ("c", 0): 5.0, ("c", 1): 9.0}
    >>> found = compare(ours, {("a", 0): 1.0, ("b", 0): 2.0, ("c", 0): 6.0})
    >>> round(found.mean, 3), found.wins, found.losses, found.worst
    (0.333, 2, 1, 'c')
    """
    by_image = per_image({pair: ours[pair] - theirs[pair] for pair in ours if pair in theirs})
    if not by_image:
        return None
    common, d = list(by_image), np.array(list(by_image.values()))
    mean, around = float(d.mean()), _half_width(d)
    i = int(np.argmin(d))
    wins, losses = int((d > 0.005).sum()), int((d < -0.005).sum())
    return Difference(mean, mean - around, mean + around, wins, losses, len(d), common[i], float(d[i]))


def _half_width(d: Array) -> float:
    """Of the mean's 95 % interval by Student's t; NaN for one value.

    A bootstrap's is too narrow where there are few: of 3 it covers 74 %.
    """
    from scipy.special import stdtrit

    if len(d) < 2:
        return math.nan
    return float(stdtrit(len(d) - 1, 0.975) * d.std(ddof=1) / math.sqrt(len(d)))


def verdict(table: Table) -> str:
    """Who wins, by how much, at what cost: a few sentences that the numbers bear out."""
    ranked = table.ranked()
    count = f"{len(table.images)} image{'s' if len(table.images) != 1 else ''}"
    if not ranked:
        if any(line.fair for line in table.lines):
            return "No method has a result here."
        scored = [line for line in table.lines if table.score in line.means]
        means = [f"{line.method} {_value(line.means[table.score], table)}" for line in scored]
        return f"No method to rank was asked for: {', '.join(means) or 'no result'} on {count}."
    best = ranked[0]
    value = f"{_value(best.means[table.score], table)} on {count}{cost_in_words(best)}"
    start = table.line("input")
    if start is not None and start.means.get(table.score, -math.inf) >= best.means[table.score]:
        unrestored = _value(start.means[table.score], table)
        better = "improves on the input"
        if table.score == "held_out":  # the input's own score is what neighbours predict of a hidden value
            better = "predicts hidden values better than their neighbours do"
        words = [f"No method {better}, {unrestored}; best of them is {best.method}: {value}."]
    else:
        words = [f"{best.method} is best: {value}."]
    if table.lead is not None and table.ours != ranked[1].method:
        words.append(_comparison(best, ranked[1], table.lead, table))
    ours = table.line(table.ours)
    if ours is not None and ours is not best and best.difference is not None:
        words.append(_comparison(ours, best, best.difference, table))
    return " ".join(words)


def _comparison(one: Line, other: Line, d: Difference, table: Table) -> str:
    """By how much one method is better or worse than another, and on how many images."""
    digits = 2 if table.score == "psnr" else 3
    than = f"{other.method}{cost_in_words(other)}"
    if abs(d.mean) < 0.5 * 10**-digits:
        return f"{one.method} is as good as {than} (wins {d.wins} of {d.images}, loses {d.losses})."
    interval = sure = ""
    if math.isfinite(d.low):
        interval = f" (95 % interval {d.low:+.{digits}f} to {d.high:+.{digits}f})"
        sure = "" if d.low > 0 or d.high < 0 else "; that is not significant"
    return (
        f"{one.method} is {_value(abs(d.mean), table)} {'better' if d.mean > 0 else 'worse'} than "
        f"{than}{interval}{sure}; it wins {d.wins} of {d.images} image{'s' if d.images != 1 else ''} and "
        f"loses {d.losses}."
    )


def _value(value: float, table: Table) -> str:
    """With unit and the digits that mean something."""
    return f"{value:.2f} dB" if table.score == "psnr" else f"{value:.3f}"


def cost_in_words(line: Line) -> str:
    """``, at 7 s an image``."""
    return f", at {duration(line.costs['seconds'])} an image" if "seconds" in line.costs else ""


def duration(seconds: float) -> str:
    """Three digits, and a unit that suits.

    Examples
    --------
    >>> duration(0.0123), duration(75.2), duration(4000)
    ('0.012 s', '75 s', '67 min')
    """
    if seconds >= 600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"


def _line(method: str, rows: Sequence[Row]) -> Line:
    mine = [r for r in rows if r["method"] == method]
    good = [r for r in mine if r["status"] != FAILED]
    names = [*METRICS, "blur_rms", "noise_rms", "held_out", "width_z", "width_y", "width_x", "flux"]
    scores = {name: per_image(per_case(good, method, name)) for name in names}
    scores = {name: values for name, values in scores.items() if values}
    costs = {}
    for name in COSTS:
        values = [float(r[name]) for r in good if _number(r.get(name))]
        if values:
            costs[name] = float(np.mean(values))
    paced = [float(r["seconds"]) / (float(r["pixels"]) / 1e6) for r in good if _number(r.get("seconds"))]
    if paced:
        costs["seconds_per_mpx"] = float(np.mean(paced))
    return Line(
        method=method,
        group=next((r["group"] for r in mine if r.get("group")), "other"),
        told=next((r["told"] for r in mine if r.get("told")), ""),
        images=len({r["image"] for r in good}),
        cases=len({_pair(r) for r in good}),
        means={name: float(np.mean(list(v.values()))) for name, v in scores.items()},
        spreads={name: float(np.std(list(v.values()), ddof=1)) for name, v in scores.items() if len(v) > 1},
        costs=costs,
        failed=[(r["image"], r.get("error", "")) for r in mine if r["status"] == FAILED],
        flagged=[(r["image"], r.get("error", "")) for r in mine if r["status"] == FLAGGED],
    )


def _pair(row: Row) -> Pair:
    return row["image"], row["seed"]


def _score(row: Row) -> str:
    return next((name for name in ("psnr", "held_out") if _number(row.get(name))), "")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
