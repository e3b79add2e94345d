"""The page's figures: what methods make of chosen images; where they stand between blur, noise, time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from selfinv.benchmark import images, pictures
from selfinv.benchmark.cases import Case
from selfinv.benchmark.conditions import degrade
from selfinv.benchmark.pictures import COLOURS
from selfinv.benchmark.store import Row, Store
from selfinv.benchmark.summary import Table
from selfinv.types import Array, InputError


def figure_3(table: Table, cases: Sequence[Case], store: Store) -> str:
    """80×80 crops and spectra, image by image, the truth first and then every method, the best first."""
    rank = {line.method: i for i, line in enumerate(table.ranked())}
    parts = []
    for name in dict.fromkeys(case.source.name for case in cases):
        mine = [case for case in cases if case.source.name == name]
        shown: dict[str, tuple[Array, str]] = {}
        try:
            loaded = images.load(mine[0].source)
            degraded = degrade(loaded, mine[0].condition, mine[0].seed, mine[0].settings.psf)
        except InputError:
            continue  # the source has changed or gone since
        if loaded.truth is not None:
            shown["truth"] = (loaded.truth, "")
        for case in sorted(
            mine, key=lambda c: (c.method not in ("blurred", "input"), rank.get(c.method, len(rank)))
        ):
            image, row = store.image(case.key), store.row(case.key)
            if case.method == "blurred" and degraded.blurred is not None:
                image = degraded.pictured(degraded.blurred)
            if image is None or row is None or row.get("fingerprint") != case.fingerprint:
                continue
            image = np.where(np.isfinite(image), image, float(np.nanmedian(image)))
            shown[case.method] = (image, _score(table, row))
        if len(shown) < 2:
            continue
        views = {k: _scaled(v, loaded.truth) for k, (v, _) in shown.items()}
        reference = next(iter(views.values()))  # the truth, or what was measured
        crops = pictures.crops(views, reference, own_scale=loaded.truth is None)
        spectra = pictures.spectra(views, reference)
        cells = "".join(
            f"<figure><img alt='crop' src='{crops[k]}'><img alt='spectrum' src='{spectra[k]}'>"
            f"<figcaption>{escape(k)}<span>{escape(score)}</span></figcaption></figure>"
            for k, (_, score) in shown.items()
        )
        parts.append(f"<h3>{escape(name)}</h3><div class='gallery'>{cells}</div>")
    if not parts:
        return ""
    note = (
        "<p class='note'>Above: the 80×80 pixels with most detail, on the truth's grey scale (without a "
        "truth, each on its own). Below: the whole image's spectrum (log power, zero frequency in the "
        "middle), on the truth's scale. Numbers: PSNR, SSIM (range 2).</p>"
    )
    return "<h2>Crops and spectra</h2>" + "".join(parts) + note


def figure_4(table: Table, rows: Sequence[Row]) -> str:
    """The blur-noise trade-off of Richardson-Lucy, and ours beside it; empty without its curve."""
    curves = [row["curve"] for row in rows if row.get("curve")]
    if not curves or table.score != "psnr":
        return ""
    common = set.intersection(*({p["steps"] for p in curve} for curve in curves))
    curve = []
    for steps in sorted(s for s in common if s <= 60):
        points = [p for c in curves for p in c if p["steps"] == steps]
        curve.append({k: float(np.mean([p[k] for p in points])) for k in ("steps", "blur", "noise")})
    shown = {}
    wanted = [table.ours, *(line.method for line in table.ranked()[:3]), "ssi-paper", "ssi-unmasked"]
    for name in dict.fromkeys(wanted):
        line = table.line(name)
        if line and "blur_rms" in line.means and not name.startswith("richardson-lucy"):
            shown[name] = (line.means["blur_rms"], line.means["noise_rms"], COLOURS.get(line.group, "#444"))
    plot = pictures.trade_off(curve, shown)
    return (
        f"<h2>Between blur and noise</h2><img class='plot' alt='blur against noise' src='{plot}'>"
        "<p class='note'>The restored spectrum, ring by ring, is a multiple of the truth's plus a rest. "
        "What the "
        "multiple lacks is missing detail, the rest is noise and artefacts; their squares add up to the "
        "mean squared "
        "error. Numbers along the curve: iterations. Below and to the left of the curve lies what no "
        "number of "
        "iterations reaches.</p>"
    )


def figure_time(table: Table, rows: Sequence[Row]) -> str:
    """PSNR against time."""
    lines = [line for line in table.lines if "seconds" in line.costs and "psnr" in line.means]
    if len(lines) < 2 or table.score != "psnr":
        return ""
    points = {line.method: (line.costs["seconds"], line.means["psnr"], line.group) for line in lines}
    traces = {
        line.method: _mean_trace([r.get("trace") or [] for r in rows if r["method"] == line.method])
        for line in lines
    }
    plot = pictures.quality_and_time(points, traces)
    return (
        f"<h2>Quality and time</h2><img class='plot' alt='PSNR against time' src='{plot}'>"
        "<p class='note'>Lines: the image as it was on the way there, of methods that take longer than "
        "half a second. "
        "Grey: tuned with the truth; their time is that of the search.</p>"
    )


def _mean_trace(traces: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Look by look (after about half a second, one, two, ...), as far as every image got."""
    if not traces:
        return []
    looks = min(len(trace) for trace in traces)
    means = [np.mean([trace[i] for trace in traces], axis=0) for i in range(looks)]
    return [(float(m[0]), float(m[1])) for m in means]


def _score(table: Table, row: Row) -> str:
    value = row.get(table.score)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    if table.score == "psnr":
        return f"{value:.2f} dB · {row['ssim_range2']:.2f}"
    return f"{value:.3f}"


def _scaled(image: Array, truth: Array | None) -> Array:
    """On the truth's scale where the units are the measurement's own (see `against_truth`)."""
    if truth is None or image is truth or float(np.abs(image).max()) < 20:
        return image
    slope, offset = np.polyfit(image.ravel().astype(np.float64), truth.ravel().astype(np.float64), 1)
    return np.asarray(slope * image + offset, dtype=np.float32)
