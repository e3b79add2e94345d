"""The report as Markdown: the tables, and what they mean in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selfinv.benchmark.published import TABLE_1, TABLE_2
from selfinv.benchmark.scores import LABELS, METRICS
from selfinv.benchmark.summary import Difference, Line, Table, duration, verdict

PUBLISHED_NOTES = [
    "Rows marked published are the paper's Table 1, of 22 whole images, 8 of which are not here: they "
    "compare with the row above only as far as the same images were run whole.",
    "SMI swings between images that look alike, since one coefficient, the mean, sets its histogram's range.",
]
BEAD = {
    "held_out": "held-out variance explained",
    "width_z": "width z",
    "width_y": "width y",
    "width_x": "width x",
    "flux": "flux",
}


def report(found: Sequence[Table], heading: str, conditions: str, remarks: Sequence[str]) -> str:
    """The whole report.

    Parameters
    ----------
    heading, conditions
        What was run, and on what.
    remarks
        What a reader should know of it.
    """
    parts = [f"# {heading}\n", conditions + "\n", *(f"- {remark}" for remark in remarks), ""]
    parts += [" ".join(legend(found)), ""]
    for table in found:
        parts += [f"## {table.title}\n", verdict(table) + "\n"]
        parts += [_scores(table), "", _times(table), "", *_troubles(table)]
    return "\n".join(parts).rstrip() + "\n"


def legend(found: Sequence[Table]) -> list[str]:
    """How to read the tables, a sentence each."""
    sentences = [
        "Means over images (each the mean of its seeds) ± standard deviation over images.",
        "Bold: the best of the methods not told the truth.",
        "In brackets: 95 % interval of the paired differences over images, by Student's t, from 2 images on.",
        "Memory: the peak beyond what was in use before.",
    ]
    return sentences + (PUBLISHED_NOTES if any(table.as_published for table in found) else [])


def shown_metrics(table: Table) -> dict[str, str]:
    """The scores of a table by column title."""
    return BEAD if table.score == "held_out" else {m: LABELS[m] for m in METRICS}


def number(name: str, value: float | None) -> str:
    """A score with the digits that mean something."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.2f}" if name in ("psnr", "width_z", "width_y", "width_x", "flux") else f"{value:.3f}"


def difference_in_words(d: Difference | None, digits: int = 2) -> str:
    """``+0.71 [+0.55, +0.90]``."""
    if d is None:
        return "–"
    interval = f" [{d.low:+.{digits}f}, {d.high:+.{digits}f}]" if math.isfinite(d.low) else ""
    return f"{d.mean:+.{digits}f}{interval}"


def _scores(table: Table) -> str:
    names = shown_metrics(table)
    ours = table.ours or "ours"
    titles = ["method", "told", "n", *names.values(), f"{ours} less this", "wins–losses", "worst image"]
    lines = [_row(titles), _row(["---"] * len(titles))]
    best = table.ranked()[0].method if table.ranked() else ""
    for line in table.lines:
        cells = [
            f"**{line.method}**" if line.method == best else line.method,
            line.told or "–",
            _count(line, table),
        ]
        for name in names:
            spread = line.spreads.get(name)
            around = f" ± {spread:.1f}" if name == "psnr" and spread is not None else ""
            cells.append(number(name, line.means.get(name)) + around)
        d = line.difference
        cells += [difference_in_words(d, 2 if table.score == "psnr" else 3)]
        cells += [f"{d.wins}–{d.losses}", f"{d.worst} ({d.worst_by:+.2f})"] if d else ["–", "–"]
        lines.append(_row(cells))
        if table.as_published and line.method in TABLE_1:
            label, values = TABLE_1[line.method]
            # The paper has no SSIM of range 1, no spectral score and no FRC.
            numbers = dict(zip(("psnr", "ssim_range2", "mi", "smi"), values, strict=True))
            cells = [
                f"*{label}, published*",
                "",
                "22",
                *(f"*{numbers[n]:g}*" if n in numbers else "" for n in names),
            ]
            lines.append(_row([*cells, "", "", ""]))
    return "\n".join(lines)


def _times(table: Table) -> str:
    timed = [line for line in table.lines if "seconds" in line.costs]
    if not timed:
        return ""
    titles = ["method", "training or tuning", "inference", "in all", "per Mpx", "peak memory"]
    titles += ["published (training / inference)"] if table.as_published else []
    lines = [_row(titles), _row(["---"] * len(titles))]
    for line in timed:
        c = line.costs
        kinds = ("training_seconds", "inference_seconds", "seconds", "seconds_per_mpx")
        cells = [line.method, *(duration(c[kind]) for kind in kinds), f"{c['peak_memory_mib']:.0f} MiB"]
        if table.as_published:
            theirs = TABLE_2.get(line.method)
            cells.append(f"*{theirs[0]:.2f} s / {theirs[1]:.2f} s*" if theirs else "")
        lines.append(_row(cells))
    return "\n".join(lines)


def _troubles(table: Table) -> list[str]:
    lines = []
    for line in table.lines:
        lines += [f"- {line.method} **failed** on {image}: {why}" for image, why in line.failed]
        lines += [f"- {line.method} says of its result on {image}: {why}" for image, why in line.flagged]
    return [*lines, ""] if lines else []


def _count(line: Line, table: Table) -> str:
    return table.share(line) or str(line.images)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
