"""The page's tables: who wins at a glance, all scores beside the published ones, times, all conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from selfinv.benchmark import markdown
from selfinv.benchmark.methods import GROUPS
from selfinv.benchmark.pictures import COLOURS
from selfinv.benchmark.published import TABLE_1, TABLE_2
from selfinv.benchmark.summary import Difference, Line, Table, duration

GROUP_NAMES = {
    "reference": "no restoration",
    "paper": "the paper's settings",
    "self-supervised": "self-supervised, ours",
    "self-tuned": "classical, self-tuned",
    "other": "other packages and controls",
    "oracle": "tuned with the truth (nobody has it)",
}


def bars(table: Table, about: Mapping[str, str]) -> str:
    """Every method, best first, as a bar: what ten seconds are enough for."""
    lines = [line for line in table.lines if table.score in line.means]
    if not lines:
        return ""
    values = [line.means[table.score] for line in lines]
    start = table.line("input")
    base = start.means.get(table.score, min(values)) if start else min(values)
    low, span = min(base, *values), max(max(base, *values) - min(base, *values), 1e-9)
    best = next((line.method for line in table.ranked()), "")
    rows = []
    for line in sorted(lines, key=lambda line: -line.means[table.score]):
        value = line.means[table.score]
        left, right = sorted((100 * (base - low) / span, 100 * (value - low) / span))
        kind = f"bar {line.group}" + (" loss" if value < base else "")
        row = "best" if line.method == best else "ours" if line.method == table.ours else ""
        cells = [
            markdown.number(table.score, value),
            f"{value - base:+.2f}" if line.method != "input" else "",
            duration(line.costs["seconds"]) if "seconds" in line.costs else "",
        ]
        rows.append(
            f"<tr class='{row}'><th title='{escape(about.get(line.method, ''))}'>{escape(line.method)}</th>"
            f"<td class='track'><span class='{kind}' "
            f"style='left:{left:.1f}%;width:{right - left:.1f}%'></span>"
            f"</td>{_numbers(cells)}<td class='told'>{_badges(line.told)}</td></tr>"
        )
    legend = "".join(
        f"<span><i style='background:{COLOURS[g]}'></i>{escape(GROUP_NAMES[g])}</span>"
        for g in GROUPS
        if any(line.group == g for line in lines)
    )
    unit = "PSNR, dB" if table.score == "psnr" else "held-out variance explained"
    head = "".join(f"<th class='n'>{title}</th>" for title in (unit, "over the input", "time an image"))
    return (
        f"<table class='bars'><thead><tr><th>method</th><th></th>{head}<th>told</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table><p class='legend'>{legend}</p>"
    )


def scores(table: Table) -> str:
    """Table 1: means and spreads, the published row under each counterpart, and ours less each method."""
    names = markdown.shown_metrics(table)
    best = {
        name: max((o.means[name] for o in table.lines if o.fair and name in o.means), default=math.nan)
        for name in names
        if not name.startswith("width") and name != "flux"
    }
    rows = []
    for line in table.lines:
        cells = []
        for name in names:
            value, spread = markdown.number(name, line.means.get(name)), line.spreads.get(name)
            if line.fair and line.means.get(name) == best.get(name):
                value = f"<b>{value}</b>"
            if name == "psnr" and spread is not None:
                value += f" <small>± {spread:.1f}</small>"
            title = "" if spread is None else f" title='± {markdown.number(name, spread)} over images'"
            cells.append(f"<td class='n'{title}>{value}</td>")
        head = f"<th>{escape(line.method)}{_count(line, table)}</th>"
        rows.append(f"<tr{_row_class(line, table)}>{head}{''.join(cells)}{_against(line, table)}</tr>")
        if table.as_published and line.method in TABLE_1:
            rows.append(_published(line.method, names))
    ours = escape(table.ours or "ours")
    titles = [escape(title) for title in names.values()] + [f"{ours} less this [95 %]", "wins–losses"]
    head = "".join(f"<th class='n'>{title}</th>" for title in titles)
    notes = [
        "Mean over images (± standard deviation; of the other scores when pointed at). Bold: best of the "
        "methods not told the truth. Intervals: of the paired differences over images, by Student's t."
    ]
    if table.as_published:
        notes += markdown.PUBLISHED_NOTES
    return (
        f"<div class='wide'><table class='scores'><thead><tr><th>method</th>{head}<th>worst image for "
        f"{ours}</th>"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>" + "".join(_note(n) for n in notes)
    )


def times(table: Table) -> str:
    """Table 2: seconds of training or tuning and of inference, memory, and the published ones."""
    titles = ["training or tuning", "inference", "in all", "per Mpx", "peak memory"]
    if table.as_published:
        titles += ["published training", "published inference"]
    rows = []
    for line in table.lines:
        if "seconds" not in line.costs:
            continue
        costs = line.costs
        kinds = ("training_seconds", "inference_seconds", "seconds", "seconds_per_mpx")
        cells = [*(duration(costs[kind]) for kind in kinds), f"{costs['peak_memory_mib']:.0f} MiB"]
        if table.as_published:
            published = TABLE_2.get(line.method)
            cells += [f"<em>{seconds:.2f} s</em>" for seconds in published] if published else ["", ""]
        rows.append(f"<tr{_row_class(line, table)}><th>{escape(line.method)}</th>{_numbers(cells)}</tr>")
    head = "".join(f"<th class='n'>{title}</th>" for title in titles)
    return (
        f"<div class='wide'><table class='scores'><thead><tr><th>method</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        + _note(
            "Means over images. Of a method that trains a network, inference is applying it to the image "
            "once "
            "more; of one that tunes itself, the last solve. Published: the paper's Table 2, whole images, "
            "total "
            "variation on a CPU, the rest on an RTX TITAN. Memory: the peak beyond what was in use before."
        )
    )


def overview(found: Sequence[Table]) -> str:
    """Conditions × methods: the mean score, the best of each row marked."""
    methods = list(dict.fromkeys(line.method for table in found for line in table.lines))
    head = "".join(f"<th class='turned'><span>{escape(m)}</span></th>" for m in methods)
    rows = []
    for table in found:
        best = next((line.method for line in table.ranked()), "")
        cells = []
        for method in methods:
            line = table.line(method)
            words = markdown.number("psnr", line.means.get(table.score)) if line else ""
            if line and line.failed:
                words = f"{words}*" if line.images else "failed"
            cells.append(f"<td class='n{' win' if method == best else ''}'>{words}</td>")
        rows.append(
            f"<tr><th>{escape(table.title.removeprefix('Track '))}</th>{''.join(cells)}"
            f"{_against_best(table)}</tr>"
        )
    last = "<th class='n'>ours less the best other [95 %]</th>"
    return (
        f"<h2>All conditions</h2><div class='wide'><table class='scores "
        f"overview'><thead><tr><th></th>{head}{last}"
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        + _note(
            "Mean PSNR in dB (held-out variance explained where there is no truth). Marked: the best of the "
            "methods not told the truth. * failed on some images."
        )
    )


def troubles(table: Table) -> str:
    """What failed, and what its own method says not to use."""
    items = []
    for line in table.lines:
        kinds = (("failed", "failed on", line.failed), ("flagged", "warns of its result on", line.flagged))
        for kind, words, cases in kinds:
            for image, why in cases:
                head = f"<b>{escape(line.method)}</b> {words} {escape(image)}"
                items.append(f"<li class='{kind}'>{head}: {escape(why)}</li>")
    return f"<ul class='troubles'>{''.join(items)}</ul>" if items else ""


def _against(line: Line, table: Table) -> str:
    d, digits = line.difference, 2 if table.score == "psnr" else 3
    if d is None:
        return "<td></td><td></td><td></td>"
    worst = f"{d.worst_by:+.{digits}f} <small title='{escape(d.worst)}'>{escape(d.worst)}</small>"
    return (
        f"<td class='n{_sign(d)}'>{markdown.difference_in_words(d, digits)}</td>"
        f"<td class='n'>{d.wins}–{d.losses}</td><td class='worst'>{worst}</td>"
    )


def _against_best(table: Table) -> str:
    rival = next((line for line in table.ranked() if line.difference is not None), None)
    if rival is None:
        return "<td></td>"
    d = rival.difference
    assert d is not None
    words = f"{markdown.difference_in_words(d)} <small>{escape(rival.method)}</small>"
    return f"<td class='n{_sign(d)}'>{words}</td>"


def _sign(d: Difference) -> str:
    if not math.isfinite(d.low):
        return ""
    return " pos" if d.low > 0 else " neg" if d.high < 0 else ""


def _published(method: str, names: Mapping[str, str]) -> str:
    label, values = TABLE_1[method]
    known = dict(zip(("psnr", "ssim_range2", "mi", "smi"), values, strict=True))
    words = {name: f"{value:.{1 if name == 'psnr' else 2}f}" for name, value in known.items()}
    cells = _numbers([words.get(name, "") for name in names])
    return (
        f"<tr class='published'><th>{escape(label)} "
        f"<em>published</em></th>{cells}<td></td><td></td><td></td></tr>"
    )


def _numbers(cells: Sequence[str]) -> str:
    return "".join(f"<td class='n'>{cell}</td>" for cell in cells)


def _note(words: str) -> str:
    return f"<p class='note'>{words}</p>"


def _count(line: Line, table: Table) -> str:
    share = table.share(line)
    return f" <small class='few'>{share}</small>" if share else ""


def _row_class(line: Line, table: Table) -> str:
    kinds = (("ours", line.method == table.ours), ("notfair", not line.fair))
    classes = " ".join(name for name, yes in kinds if yes)
    return f" class='{classes}'" if classes else ""


def _badges(told: str) -> str:
    return "".join(
        f"<span "
        f"class='badge{' truth' if word in ('truth', 'noise-free image') else ''}'>{escape(word)}</span>"
        for word in told.split(", ")
        if word
    )
