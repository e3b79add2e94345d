"""Results on disk: one file per case, written whole or not at all, and one table made of them.

``OUTPUT/cases/KEY.json`` is a case, ``OUTPUT/images/KEY.npy`` its image if it is shown,
``OUTPUT/results.csv`` the table. A run that is killed has lost the cases in flight and nothing else.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from selfinv.atomic import written_beside
from selfinv.benchmark.cases import Case
from selfinv.benchmark.execute import FAILED
from selfinv.benchmark.scores import METRICS
from selfinv.types import Array, InputError

Row = dict[str, Any]

COLUMNS = (
    *("track", "condition", "image", "shape", "pixels", "method", "group", "told", "seed", "status", "error"),
    *METRICS,
    *("blur_rms", "noise_rms", "held_out", "width_z", "width_y", "width_x", "flux"),
    *("training_seconds", "inference_seconds", "seconds", "peak_memory_mib", "steps", "setting", "warnings"),
    *("crop", "steps_budget", "boundary", "date", "selfinv", "commit", "torch", "numpy", "python"),
    *("cpu", "cores", "threads", "jobs", "device", "key"),
)


class Store:
    """The folder of a run's results.

    Raises
    ------
    InputError
        If it cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases, self.images = folder / "cases", folder / "images"
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; give a folder with --output")
        try:
            self.cases.mkdir(parents=True, exist_ok=True)
            self.images.mkdir(exist_ok=True)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise InputError(f"the folder {folder} could not be made: {why}") from error

    def count(self) -> int:
        """How many cases are there."""
        return sum(1 for _ in self.cases.glob("*.json"))

    def finished(self, cases: Sequence[Case]) -> set[str]:
        """The keys of the cases that are there, did not fail, and were made with the same settings."""
        done = set()
        for case in cases:
            row = self.row(case.key)
            if row is not None and row.get("fingerprint") == case.fingerprint and row.get("status") != FAILED:
                done.add(case.key)
        return done

    def stale(self, cases: Sequence[Case]) -> list[tuple[Case, Row]]:
        """Cases that are there and did not fail, but were made with other settings, and their rows."""
        found = [(case, self.row(case.key)) for case in cases]
        return [
            (case, row)
            for case, row in found
            if row is not None and row.get("status") != FAILED and row.get("fingerprint") != case.fingerprint
        ]

    def row(self, key: str) -> Row | None:
        """A case's row; None if it is not there or not whole."""
        try:
            row = json.loads((self.cases / f"{key}.json").read_text())
        except (OSError, ValueError):
            return None
        return row if isinstance(row, dict) else None

    def keep(self, case: Case, row: Row, image: Array | None) -> None:
        """Write a case's result; the row last, since it is what says that the case is done.

        Without an image, one of an earlier result is removed, lest it be shown with the new numbers.

        Raises
        ------
        InputError
            If the operating system refuses.
        """
        path = self.images / f"{case.key}.npy"
        if image is None:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise InputError(f"{path}, of an earlier result, could not be removed: {why}") from error
        else:
            kind = np.float16 if float(np.abs(image).max()) < 6e4 else np.float32
            with written_beside(path) as beside:
                np.save(beside, image.astype(kind))
        with written_beside(self.cases / f"{case.key}.json") as beside:
            beside.write_text(json.dumps(row, indent=1, default=float))

    def image(self, key: str) -> Array | None:
        """The restored image of a case, if it was kept."""
        try:
            return np.asarray(np.load(self.images / f"{key}.npy"), dtype=np.float32)
        except (OSError, ValueError):
            return None

    def rows(self, cases: Sequence[Case]) -> list[Row]:
        """The rows of these cases that are there and not stale, in their order."""
        found = [(case, self.row(case.key)) for case in cases]
        return [r for c, r in found if r is not None and r.get("fingerprint") == c.fingerprint]

    def write_table(self, rows: Sequence[Row]) -> Path:
        """``results.csv``: one line per case, every column of `COLUMNS`.

        Raises
        ------
        InputError
            If the operating system refuses.
        """
        path = self.folder / "results.csv"
        with written_beside(path) as beside, beside.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", restval="")
            writer.writeheader()
            for row in rows:
                writer.writerow({k: _short(v) for k, v in row.items()})
        return path


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value
