"""``benchmark``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from selfinv.cli.console import FAILED, INTERRUPTED, say
from selfinv.cli.options import Device, Quiet
from selfinv.types import InputError


def benchmark(
    images: Annotated[Path | None, typer.Option(help="Folder of clean 2-D images (PNG, TIFF, NPY).")] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated names, groups or module:function; see --list. Default: all but auto."
        ),
    ] = None,
    track: Annotated[
        str,
        typer.Option(
            help="a: the paper's degradation; b: other noise, PSFs and wrong PSFs; c: volumes; d: other "
            "operators. "
            "Several: a,b."
        ),
    ] = "a",
    crop: Annotated[int, typer.Option(min=0, help="Central part of each image; 0: whole images.")] = 512,
    seeds: Annotated[int, typer.Option(min=1, help="Repeat with noise and method seeds 0, 1, ...")] = 1,
    noise: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of the track's conditions, the benchmark PSF with this noise, e.g. "
            "sigma=0.05,salt-pepper=0 "
            "or photons=30. May be repeated."
        ),
    ] = None,
    condition: Annotated[
        list[str] | None, typer.Option(help="Only this condition of the track. May be repeated.")
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Only images whose names start with one of these, comma-separated.")
    ] = None,
    volumes: Annotated[
        Path | None,
        typer.Option(help="Track c: folder of folders with observed, psf and perhaps truth (TIFF)."),
    ] = None,
    psf: Annotated[
        Path | None,
        typer.Option(help="The benchmark PSF; default psf.npy beside the images, else our model of it."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for results and reports.")] = Path(
        "benchmark"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what OUTPUT has, do the rest; failed cases again.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes at once; the cores are shared out. Default: one per core, 1 on a GPU."
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Training steps of every method that trains, instead of its own number."),
    ] = None,
    boundary: Annotated[
        str, typer.Option(help="What the methods are told of the outside; auto, as 'restore'.")
    ] = "auto",
    ours: Annotated[
        str | None,
        typer.Option(help="The method that the others are compared with. Default: ssi, else the best."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="Images of which crops and spectra are shown.")] = 3,
    check_inputs: Annotated[
        Path | None,
        typer.Option(
            help="CSV of published scores of the inputs, of whole images (--crop 0): say and exit 1 if ours "
            "differ by more than 0.001."
        ),
    ] = None,
    device: Device = "auto",
    list_only: Annotated[
        bool, typer.Option("--list", help="Print methods and conditions, run nothing.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Degrade clean images, restore them with every method, score, time, and write a report.

    OUTPUT gets results.csv, report.html and report.md. Exit status 1 if a method failed on an image (the rest
    goes on).
    """
    if list_only:
        _list()
        return
    from selfinv.benchmark.run import Plan, check_comparable, compare_with, run_benchmark

    plan = Plan(
        images=images,
        output=output,
        volumes=volumes,
        tracks=_words(track.lower()),
        methods=_words(methods),
        conditions=tuple(condition or ()),
        noise=tuple(noise or ()),
        names=_words(names),
        crop=crop,
        seeds=seeds,
        psf=psf,
        steps=steps,
        device=device,
        boundary=boundary,
        jobs=jobs,
        resume=resume,
        pictures=pictures,
        ours=ours,
    )
    if boundary not in ("auto", "unknown", "zero", "reflect", "periodic"):
        raise InputError(f"--boundary {boundary!r} is unknown; use auto, unknown, zero, reflect or periodic")
    if check_inputs is not None and not check_inputs.is_file():
        raise InputError(f"{check_inputs} is no file; give the CSV with --check-inputs")
    if check_inputs is not None:
        check_comparable(check_inputs, plan)
    start = time.monotonic()

    def done(count: int, total: int, row: dict[str, Any]) -> None:
        if not quiet:
            say(f"{count}/{total} {_line(row)}")

    try:
        outcome = run_benchmark(plan, say if not quiet else lambda words: None, done)
    except KeyboardInterrupt:
        say(f"interrupted; what is finished is kept and reported in {output}: go on with --resume")
        raise SystemExit(INTERRUPTED) from None
    if not quiet:
        for path in outcome.files:
            say(f"wrote {path}")
        say(f"{len(outcome.rows)} cases, {time.monotonic() - start:.0f} s")
    _print(outcome.rows, ours)
    wrong, compared = compare_with(check_inputs, outcome.rows) if check_inputs is not None else ([], 0)
    if compared and not wrong:
        say(f"the inputs' scores are those of {check_inputs} to 0.001 ({compared} compared)")
    for words in wrong:
        say(f"not as published: {words}")
    for row in outcome.failed:
        say(f"failed: {row['method']} on {row['image']} ({row['condition']}): {row['error']}")
    if outcome.failed or wrong:
        raise typer.Exit(FAILED)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(w for w in (word.strip() for word in (text or "").split(",")) if w)


def _line(row: dict[str, Any]) -> str:
    where = f"{row['condition']}, {row['image']}, {row['method']}, seed {row['seed']}"
    if row["status"] == "failed":
        return f"{where}: failed, {row['error']}"
    score = f"{row['psnr']:.2f} dB" if "psnr" in row else f"held-out {row['held_out']:.3f}"
    time_taken = f" in {row['seconds']:.1f} s" if row.get("seconds") is not None else ""
    return f"{where}: {score}{time_taken}" + (f" ({row['error']})" if row.get("error") else "")


def _print(rows: list[dict[str, Any]], ours: str | None) -> None:
    """The verdicts, on standard output."""
    from selfinv.benchmark.summary import tables, verdict

    for table in tables(rows, ours):
        print(f"{table.title}: {verdict(table)}")


def _list() -> None:
    from selfinv.benchmark.conditions import ABOUT, TRACKS
    from selfinv.benchmark.methods import GROUPS, known

    for group in GROUPS:
        print(f"{group}:")
        for method in known().values():
            if method.group == group:
                needs = "" if method.available else f" (needs {method.needs[0] if method.needs else ''})"
                print(
                    f"  {method.name:32} told: {', '.join(method.told) or 'nothing':12} {method.about}{needs}"
                )
    for track, conditions in TRACKS.items():
        print(f"track {track}, {ABOUT[track]}:")
        print("  " + "; ".join(c.name for c in conditions))
