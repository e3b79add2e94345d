"""What of a long run is done, in a file that outlives it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from selfinv.atomic import flush, written_beside
from selfinv.io.fits import parted
from selfinv.io.zarr_regions import zarr_digest
from selfinv.types import Array, InputError


class Journal:
    """One line for the job, then one for each tile that was finished or has failed.

    A line is written, flushed to the disk, only after its tile's values are (`ZarrTarget.write`). A run that
    is killed leaves at worst a line cut short, which is not read.

    Parameters
    ----------
    path
        Of the file, beside the result.
    job
        What the run is: anything that, if it differs, makes the tiles done so far worthless.
    """

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        self.path = path
        self.job = json.loads(json.dumps(job))
        self.done: dict[int, dict[str, Any]] = {}

    def begin(self) -> None:
        """Start a new one."""
        self.path.write_text(json.dumps({"job": self.job}) + "\n")
        flush(self.path)
        flush(self.path.parent)

    @staticmethod
    def job_in(path: Path) -> dict[str, Any]:
        """What a journal's run is; nothing if there is none."""
        lines = Journal(path, {})._lines()
        return dict(lines[0].get("job", {})) if lines else {}

    def resume(self, may_differ: Collection[str] = ()) -> None:
        """Read what an earlier run has done.

        Parameters
        ----------
        may_differ
            Settings that may have been others, for no tile that is done depends on them.

        Raises
        ------
        InputError
            If there is none, or its job was another one (which settings differ is said).
        """
        lines = self._lines()
        if not lines or "job" not in lines[0]:
            raise InputError(f"{self.path} tells of no run to resume; leave out --resume, or --overwrite")
        before = lines[0]["job"]
        told = {*before, *self.job} - {*may_differ}
        differ = sorted(k for k in told if before.get(k) != self.job.get(k))
        if differ:
            in_words = {
                "input": "the input is another one or has changed",
                "restorer": "the model, the PSF, the method or --symmetries is another one",
            }
            what = "; ".join(
                in_words.get(k, f"{k} was {before.get(k)!r} and is {self.job.get(k)!r}") for k in differ
            )
            raise InputError(
                f"the run of {self.path} was begun otherwise: {what}; leave out --resume and use --overwrite "
                f"to start anew"
            )
        for line in lines[1:]:
            if "failed" not in line:
                self.done[line["tile"]] = line
        lines[0] = {"job": before | {k: self.job[k] for k in may_differ if k in self.job}}
        # A line cut short by a kill must not be continued by the next one.
        with written_beside(self.path) as beside:
            beside.write_text("".join(json.dumps(line) + "\n" for line in lines))
        flush(self.path.parent)

    def finished(self, tile: int, **facts: Any) -> None:
        """A tile's values are on the disk."""
        self.done[tile] = {"tile": tile, **facts}
        self._write(self.done[tile])

    def gave_up(self, tile: int, why: str) -> None:
        """A tile could not be restored."""
        self._write({"tile": tile, "failed": why})

    def _write(self, line: dict[str, Any]) -> None:
        with open(self.path, "a") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        lines = []
        for words in self.path.read_text().splitlines():
            try:
                lines.append(json.loads(words))
            except json.JSONDecodeError:
                break
        return lines


def fingerprint(path: Path) -> str:
    """What tells inputs apart: a digest of a Zarr folder or a small file, else size and time."""
    file, extension = parted(path)
    if extension is not None:
        return f"{fingerprint(file)}[{extension}]"
    if path.is_dir():
        return zarr_digest(path)[:16]
    if path.stat().st_size < 256 * 2**20:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return f"{path.stat().st_size} bytes of {path.stat().st_mtime_ns}"


def array_digest(values: Array) -> str:
    """What tells arrays apart: the same numbers in another shape are another array."""
    digest = hashlib.sha256(repr((values.shape, values.dtype.str)).encode())
    digest.update(values.tobytes())
    return digest.hexdigest()
