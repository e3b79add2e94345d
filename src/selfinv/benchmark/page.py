"""The report as one HTML file that needs nothing else, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from selfinv.atomic import written_beside
from selfinv.benchmark import markdown, page_tables
from selfinv.benchmark.cases import Case, pictured_names
from selfinv.benchmark.conditions import ABOUT
from selfinv.benchmark.figures import figure_3, figure_4, figure_time
from selfinv.benchmark.images import Source, synthetic_shape
from selfinv.benchmark.methods import Method
from selfinv.benchmark.store import Row, Store
from selfinv.benchmark.style import CSS
from selfinv.benchmark.summary import Table, tables, verdict

if TYPE_CHECKING:
    from selfinv.benchmark.run import Plan


def write_reports(
    plan: Plan,
    cases: Sequence[Case],
    rows: Sequence[Row],
    store: Store,
    methods: Sequence[Method],
    remarks: Sequence[str],
) -> list[Path]:
    """``report.md`` and ``report.html`` in the store's folder.

    Raises
    ------
    InputError
        If they cannot be written.
    """
    found = tables(rows, plan.ours)
    facts = _facts(plan, cases, rows)
    about = {t: f"noise {'; '.join(plan.noise)}" if plan.noise else ABOUT[t] for t in plan.tracks}
    heading = "Benchmark: " + "; ".join(f"track {t.upper()}, {about[t]}" for t in plan.tracks)
    files = {
        "report.md": markdown.report(found, heading, facts, remarks),
        "report.html": _html(plan, cases, rows, store, found, methods, heading, facts, remarks),
    }
    for name, text in files.items():
        with written_beside(store.folder / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return [store.folder / name for name in files]


def _facts(plan: Plan, cases: Sequence[Case], rows: Sequence[Row]) -> str:
    """What a number depends on, in a few lines."""

    def values(column: str) -> str:
        return (
            ", ".join(dict.fromkeys(str(r[column]) for r in rows if r.get(column) not in (None, "")))
            or "unknown"
        )

    sources = list(dict.fromkeys(c.source for c in cases))
    missing = len(cases) - len(rows)
    words = [
        *_sizes(sources, plan.crop),
        _counted(plan.seeds, "seed"),
        f"boundary {plan.boundary}",
        *([f"training budget {plan.steps} steps"] if plan.steps else []),
        f"selfinv {values('selfinv')} at {values('commit')}",
        f"torch {values('torch')}",
        f"{values('cpu')}, {values('threads')} thread(s) a process, {values('jobs')} process(es) at once",
        f"device {values('device')}",
        *([f"{missing} of {len(cases)} cases are not there yet"] if missing else []),
    ]
    return "; ".join(words) + "."


def _sizes(sources: Sequence[Source], crop: int) -> list[str]:
    """How many sources of each kind, and how much of each was taken."""
    flat = [s for s in sources if s.kind == "image"]
    volumes = [s for s in sources if s.kind == "volume"]
    made = [s for s in sources if s.kind == "synthetic"]
    words = []
    if flat:
        words.append(f"{_counted(len(flat), 'image')}, {f'central {crop}² crops' if crop else 'whole'}")
    if volumes:
        cut = f"cut to {crop} voxels along longer axes" if crop else "whole"
        words.append(f"{_counted(len(volumes), 'volume')}, {cut}")
    if made:
        shape = " × ".join(map(str, synthetic_shape(made[0])))
        words.append(f"{_counted(len(made), 'synthetic volume')} of {shape}")
    return words


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' if count != 1 else ''}"


def _html(
    plan: Plan,
    cases: Sequence[Case],
    rows: Sequence[Row],
    store: Store,
    found: Sequence[Table],
    methods: Sequence[Method],
    heading: str,
    facts: str,
    remarks: Sequence[str],
) -> str:
    about = {m.name: m.about for m in methods}
    parts = [f"<h1>{escape(heading)}</h1><p class='facts'>{escape(facts)}</p>"]
    several = len(found) > 1
    if several:
        parts.append(page_tables.overview(found))
    for i, table in enumerate(found):
        inner = _table_parts(table, rows, cases, store, about, plan.pictures)
        title = escape(table.title)
        if several:
            opened = " open" if i == 0 else ""
            parts.append(f"<details{opened}><summary>{title}</summary>{inner}</details>")
        else:
            parts.append(inner)
    if remarks:
        parts.append("<h2>Remarks</h2><ul>" + "".join(f"<li>{escape(r)}</li>" for r in remarks) + "</ul>")
    body = "\n".join(parts)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>selfinv "
        f"benchmark</title><style>{CSS}</style></head><body><main>{body}</main></body></html>\n"
    )


def _table_parts(
    table: Table,
    rows: Sequence[Row],
    cases: Sequence[Case],
    store: Store,
    about: Mapping[str, str],
    pictures: int,
) -> str:
    mine = [
        r
        for r in rows
        if (r["track"], r["condition"]) == (table.track, table.condition) and r["image"] in table.images
    ]
    parts = [f"<p class='verdict'>{escape(verdict(table))}</p>", page_tables.bars(table, about)]
    parts += ["<h2>Scores</h2>", page_tables.scores(table), page_tables.troubles(table)]
    if any("seconds" in line.costs for line in table.lines):
        parts += ["<h2>Time and memory</h2>", page_tables.times(table)]
    shown = pictured_names(
        list(dict.fromkeys(c.source.name for c in cases if c.source.name in table.images)), pictures
    )
    wanted = [
        c
        for c in cases
        if (c.condition.track, c.condition.name) == (table.track, table.condition) and c.pictured
    ]
    parts.append(figure_3(table, [c for c in wanted if c.source.name in shown], store))
    parts += [figure_4(table, mine), figure_time(table, mine)]
    return "\n".join(part for part in parts if part)
