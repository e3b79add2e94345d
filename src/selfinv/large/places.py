"""Where the result of a large run will be, where it is made, and what is there already."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from selfinv.io.lazy import LazyImage
from selfinv.io.ome_zarr import ZarrTarget
from selfinv.large.tiles import Plan, chunks_for
from selfinv.types import AXES, InputError


@dataclass(frozen=True)
class Places:
    """Of one result.

    Parameters
    ----------
    output
        As the caller names it; it may be a link.
    """

    output: Path

    @property
    def final(self) -> Path:
        """Where the result will be."""
        return Path(os.path.realpath(self.output))

    @property
    def part(self) -> Path:
        """Where it is made."""
        return self.final.with_name(f"{self.final.name}.part")

    @property
    def journal(self) -> Path:
        """What tells of an unfinished result, or of one with tiles that failed, what is done."""
        return self.final.with_name(f"{self.final.name}.journal.jsonl")

    @property
    def has_begun(self) -> bool:
        """Whether there is such a result, to go on with."""
        return self.journal.is_file() and (self.part.exists() or self.final.exists())

    def check(self, source: Path, *, resume: bool, overwrite: bool) -> None:
        """Raise `InputError` if the result of ``source`` cannot be there.

        No folder, no permission, something there already, nothing to resume.
        """
        output, folder = self.output, self.output.parent
        if output.suffix != ".zarr":
            raise InputError(
                f"{output} has no ending .zarr; a large result is an OME-Zarr, e.g. restored.zarr"
            )
        if not self.final.parent.is_dir():
            raise InputError(f"the folder {folder} of {output.name} does not exist; make it first")
        if not os.access(self.final.parent, os.W_OK | os.X_OK):
            raise InputError(f"the folder {folder} is read-only; write elsewhere or change its permissions")
        if self.final == Path(os.path.realpath(source)):
            raise InputError(f"the output {output} is the input; choose another name")
        if resume:
            if not self.has_begun:
                raise InputError(f"there is no unfinished run at {self.part}; leave out --resume")
            return
        if self.final.exists() and not overwrite:
            raise InputError(f"{output} exists already; choose another name, or --overwrite")
        if self.part.exists() and not overwrite:
            goes_on = "--resume goes on, " if self.has_begun else "what of it is done is not known: "
            raise InputError(f"an unfinished run is at {self.part}; {goes_on}--overwrite starts anew")

    def begun(self) -> ZarrTarget:
        """The target of a run to go on with: one that was ended, or finished but for tiles that failed."""
        if not self.part.exists():
            os.replace(self.final, self.part)
        return ZarrTarget.open(self.part)

    def new(self, source: LazyImage, plan: Plan, dtype: str) -> ZarrTarget:
        """An empty target; the journal of an earlier one goes first, for it would tell of tiles not there."""
        self.journal.unlink(missing_ok=True)
        if self.part.exists():
            shutil.rmtree(self.part)
        ordered = "".join(a for a in AXES if a in plan.axes)
        shape = tuple(plan.shape[plan.axes.index(a)] for a in ordered)
        return ZarrTarget.create(
            self.part,
            shape=shape,
            axes=ordered,
            dtype=dtype,
            chunks=chunks_for(shape, ordered),
            voxel_size=source.voxel_size,
            metadata=source.metadata,
        )
