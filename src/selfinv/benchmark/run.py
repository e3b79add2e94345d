"""A whole run: plan the cases, leave out those that are done, execute the rest, report."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfinv.benchmark import machine, psfs
from selfinv.benchmark.cases import Case, Settings, make_cases
from selfinv.benchmark.conditions import conditions_of
from selfinv.benchmark.execute import FAILED
from selfinv.benchmark.images import SMALLEST, Source, find_images, find_volumes
from selfinv.benchmark.methods import Method, choose
from selfinv.benchmark.pool import run_cases
from selfinv.benchmark.store import Row, Store
from selfinv.types import InputError, warn

MOST_JOBS = 8  # at once by default: each needs a GiB or two
TOLERANCE = 1e-3
# In a table of published scores of the inputs: its kinds and scores, and what they are called here.
INPUT_KINDS = {"blurry": "blurred", "noisy": "input"}
INPUT_SCORES = {
    "psnr": "psnr",
    "ssim_range2": "ssim_range2",
    "ssim_range1": "ssim",
    "mi": "mi",
    "smi": "smi",
}
FEW = 3  # conditions of which several images are shown


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Parameters
    ----------
    images, volumes
        Folders. Tracks a, b, d need the first; track c has synthetic volumes of its own.
    tracks
        Letters of `selfinv.benchmark.conditions.TRACKS`.
    methods, conditions, noise, names
        See `selfinv.benchmark.methods.choose`, `selfinv.benchmark.conditions.conditions_of`, `find_images`.
    crop
        Central part of each image; 0: whole images.
    psf
        A file; None takes ``psf.npy`` (``psf.tif``) in the folder of images, else our model of it.
    jobs
        Processes at once; None for one per core on a CPU (at most 8), one on a GPU.
    """

    images: Path | None
    output: Path
    volumes: Path | None = None
    tracks: tuple[str, ...] = ("a",)
    methods: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    noise: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    crop: int = 512
    seeds: int = 1
    psf: Path | None = None
    steps: int | None = None
    device: str = "auto"
    boundary: str = "auto"
    jobs: int | None = None
    resume: bool = False
    pictures: int = 3
    ours: str | None = None


@dataclass
class Outcome:
    """What came of a run: the rows, and the files written."""

    rows: list[Row]
    files: list[Path]

    @property
    def failed(self) -> list[Row]:
        """The cases that failed."""
        return [row for row in self.rows if row["status"] == FAILED]


Say = Callable[[str], None]


def run_benchmark(
    plan: Plan, say: Say = lambda words: None, done: Callable[[int, int, Row], None] | None = None
) -> Outcome:
    """Run a plan and write ``results.csv``, ``report.md`` and ``report.html`` to its output folder.

    Parameters
    ----------
    say
        Told what a user should know before it begins, one line at a time.
    done
        Told of every case: how many are done, how many there are, its row.

    Raises
    ------
    InputError
        If the plan cannot be carried out; cases that fail do not raise, they are rows.
    KeyboardInterrupt
        If interrupted; what is finished has been reported then.

    Warns
    -----
    SelfinvWarning
        If finished results are about to be replaced because they were made with other settings.
    """
    from selfinv.benchmark.page import write_reports

    methods, skipped = _methods(plan)
    remarks = list(skipped)
    cases, more = plan_cases(plan, methods)
    remarks += more
    for remark in remarks:
        say(remark)
    store = Store(plan.output)
    there = store.count()
    if there and not plan.resume:
        raise InputError(
            f"{plan.output} holds {there} cases of an earlier run; go on with --resume, or give another "
            f"--output"
        )
    finished = store.finished(cases)
    stale = store.stale(cases)
    if stale:
        how_many = f"{len(stale)} finished case{'s were' if len(stale) > 1 else ' was'}"
        warn(
            f"{how_many} made with other settings ({_changes(stale)}) and will be done again; "
            f"another --output would keep both"
        )
    unseen = [c.source.name for c in cases if c.pictured and c.key in finished and store.image(c.key) is None]
    if unseen:
        remarks.append(
            f"restored images of {', '.join(dict.fromkeys(unseen))} were not kept when these cases were "
            f"done, so that they are not shown; --resume does none of them again, another --output would"
        )
        say(remarks[-1])
    left = [case for case in cases if case.key not in finished]
    jobs, threads = share(plan, len(left))
    if left:
        kept = f", {len(finished)} are there already" if finished else ""
        say(f"{len(left)} cases to do{kept}; {jobs} at once with {threads} threads each")
    else:
        say(f"all {len(cases)} cases are there already; nothing is computed")
    count = [len(finished)]

    def one_done(case: Case, row: Row) -> None:
        count[0] += 1
        if done is not None:
            done(count[0], len(cases), row)

    def report() -> Outcome:
        rows = store.rows(cases)
        files = [store.write_table(rows), *write_reports(plan, cases, rows, store, methods, remarks)]
        return Outcome(rows, files)

    try:
        if left:
            run_cases(left, store, jobs, threads, one_done)
    except KeyboardInterrupt:
        if store.finished(cases):
            report()
        raise
    except InputError as error:
        raise InputError(
            f"{error}; the {len(store.finished(cases))} cases finished are kept, make room and go on with "
            f"--resume"
        ) from error
    return report()


def _changes(stale: Sequence[tuple[Case, Row]]) -> str:
    """What was another setting when these rows were made, of those that a row tells."""
    found = []
    for case, row in stale:
        now = {"crop": case.source.crop, "steps": case.settings.steps, "boundary": case.settings.boundary}
        then = {"crop": row.get("crop"), "steps": row.get("steps_budget"), "boundary": row.get("boundary")}
        found += [f"{k} {_or_default(then[k])}, now {_or_default(now[k])}" for k in now if now[k] != then[k]]
    return "; ".join(dict.fromkeys(found)) or "another image, PSF, condition or code"


def _or_default(value: object) -> object:
    return "default" if value is None else value


def plan_cases(plan: Plan, methods: Sequence[Method]) -> tuple[list[Case], list[str]]:
    """Every case of a plan, and remarks on images that are changed or left out.

    Raises
    ------
    InputError
        If there is no image, or an option names what is not there.
    """
    if plan.seeds < 1:
        raise InputError(f"--seeds {plan.seeds}: give 1 or more")
    if plan.images is not None and plan.output.resolve() == plan.images.resolve():
        raise InputError(f"--output {plan.output} is the folder of the images; give another one")
    if plan.crop and plan.crop < SMALLEST:
        raise InputError(f"--crop {plan.crop}: give a crop of {SMALLEST} or more, or 0 for whole images")
    psf = plan.psf or _beside(plan.images)
    if psf is not None and not psf.is_file():
        raise InputError(f"{psf} is no file; give the PSF's file with --psf")
    digest = "" if psf is None else hashlib.sha256(psf.read_bytes()).hexdigest()[:16]
    settings = Settings(psf, digest, plan.steps, plan.device, plan.boundary)
    flat: list[Source] = []
    remarks: list[str] = []
    if of_images := [track for track in plan.tracks if track != "c"]:
        if plan.images is None:
            raise InputError(f"track {of_images[0]} needs images; give their folder with --images")
        flat, remarks = find_images(plan.images, plan.crop, plan.names)
        psfs.benchmark_psf(psf)  # a bad one shows now, not in every case
    if psf is None and flat:
        remarks.append("no --psf and no psf.npy beside the images: the benchmark PSF is our own model of it")
    cases: list[Case] = []
    for track in plan.tracks:
        sources = flat
        if track == "c":
            sources, left_out = find_volumes(plan.volumes, plan.crop, plan.names)
            remarks += left_out
        conditions = conditions_of(track, plan.conditions, plan.noise)
        pictures = plan.pictures if len(conditions) <= FEW else min(plan.pictures, 1)  # a page that loads
        cases += make_cases(sources, conditions, methods, plan.seeds, settings, pictures)
        others = sum(condition.told_operator for condition in conditions)
        remarks += [
            f"{method.name} takes no operator: left out of {others} of {len(conditions)} conditions"
            for method in methods
            if others and not method.operators
        ]
    if not cases:
        raise InputError("there is nothing to do: no image fits the conditions chosen")
    return cases, remarks


def share(plan: Plan, cases: int) -> tuple[int, int]:
    """How many processes at once, and threads for each, so that no core is asked for twice."""
    from selfinv.instrument import choose_device

    cores = machine.cores()
    gpu = choose_device(plan.device).type != "cpu"
    jobs = plan.jobs or (1 if gpu else min(cores, MOST_JOBS))
    jobs = max(1, min(jobs, cases)) if plan.jobs is None else jobs
    return jobs, max(1, cores // jobs)


def check_comparable(path: Path, plan: Plan) -> None:
    """Refuse, before anything runs, what `compare_with` could not compare.

    Raises
    ------
    InputError
        If the plan does not score whole inputs degraded as in the paper, or the table is none.
    """
    if plan.crop or plan.noise or "a" not in plan.tracks:
        raise InputError(
            "--check-inputs compares whole images degraded as in the paper: give --crop 0, --track a and no "
            "--noise"
        )
    read_inputs(path)


def read_inputs(path: Path) -> list[dict[str, str]]:
    """A table of published scores of the inputs: ``image``, ``kind`` (blurry or noisy) and `INPUT_SCORES`.

    Raises
    ------
    InputError
        If it cannot be read or is no such table.
    """
    try:
        with path.open(newline="") as stream:
            table = list(csv.DictReader(stream))
        for line in table:
            _ = line["image"], INPUT_KINDS[line["kind"]]
            if not all(math.isfinite(float(line[column])) for column in INPUT_SCORES):
                raise ValueError("a score is no number")
    except OSError as error:
        raise InputError(f"{path} could not be read: {(error.strerror or str(error)).lower()}") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        table = []
    if not table:
        raise InputError(
            f"{path} is no table of inputs; expected the columns image, kind (blurry or noisy) and the "
            f"numbers {', '.join(INPUT_SCORES)}"
        )
    return table


def compare_with(path: Path, rows: Sequence[Row]) -> tuple[list[str], int]:
    """Differences of more than 0.001 between a table for `read_inputs` and the rows measured; of how many.

    Raises
    ------
    InputError
        If it cannot be read, or has no image in common with the rows.
    """
    ours = {(r["image"], r["method"]): r for r in rows if r["track"] == "a" and r["seed"] == 0}
    differences, compared = [], 0
    for line in read_inputs(path):
        row = ours.get((line["image"], INPUT_KINDS[line["kind"]]))
        if row is None or row["status"] == FAILED:
            continue
        compared += 1
        for theirs, mine in INPUT_SCORES.items():
            if not abs(row[mine] - float(line[theirs])) <= TOLERANCE:
                differences.append(
                    f"{line['image']}, {line['kind']}: {theirs} is {row[mine]:.4f}, expected {line[theirs]}"
                )
    if not compared:
        raise InputError(
            f"{path}: none of its images was measured in track a with the methods blurred and input"
        )
    return differences, compared


def _methods(plan: Plan) -> tuple[list[Method], list[str]]:
    chosen = choose(plan.methods)
    asked = set(plan.methods)
    remarks, usable = [], []
    for method in chosen:
        if method.available:
            usable.append(method)
            continue
        assert method.needs is not None
        words = f'{method.name} needs {method.needs[0]}: pip install "selfinv[{method.needs[1]}]"'
        if method.name in asked and len(chosen) == 1:
            raise InputError(words)
        remarks.append(f"skipped: {words}")
    if plan.ours is not None and plan.ours not in [m.name for m in usable]:
        raise InputError(f"--ours {plan.ours!r} is not among the methods of this run")
    return usable, remarks


def _beside(images: Path | None) -> Path | None:
    if images is None:
        return None
    found = (images / f"psf{suffix}" for suffix in (".npy", ".tif", ".tiff"))
    return next((path for path in found if path.is_file()), None)


__all__: list[Any] = [
    "Outcome",
    "Plan",
    "check_comparable",
    "compare_with",
    "plan_cases",
    "read_inputs",
    "run_benchmark",
    "share",
]
