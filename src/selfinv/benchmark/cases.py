"""A case: one image, degraded in one way, restored by one method, with one seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from selfinv.benchmark.conditions import Condition
from selfinv.benchmark.images import Source
from selfinv.benchmark.methods import Method

PICTURED = ("usaf", "fishembryo", "characters")  # the paper's Figure 3, where they are there


@dataclass(frozen=True)
class Settings:
    """What is the same for every case of a run.

    Parameters
    ----------
    psf
        The benchmark PSF's file; None for our own model of it.
    psf_digest
        Of that file's contents.
    steps
        Budget of training steps, or None for each method's own.
    """

    psf: Path | None = None
    psf_digest: str = ""
    steps: int | None = None
    device: str = "auto"
    boundary: str = "auto"


@dataclass(frozen=True)
class Case:
    """One measurement, small enough to be sent to another process.

    Parameters
    ----------
    method
        A name that `selfinv.benchmark.methods.named` knows.
    seed
        Of the noise and of the method.
    pictured
        Keep the restored image, for the page.
    code
        Digest of the method's code, if it is a user's.
    """

    source: Source
    condition: Condition
    method: str
    seed: int
    settings: Settings
    pictured: bool = False
    code: str = ""

    @property
    def key(self) -> str:
        """A file name of its own, readable, the same in every run."""
        words = (self.condition.track, self.condition.name, self.source.name, self.method, f"seed{self.seed}")
        readable = "--".join(re.sub(r"[^\w.+%-]+", "-", w) for w in words)
        return f"{readable[:150]}--{hashlib.sha256('|'.join(words).encode()).hexdigest()[:6]}"

    @property
    def fingerprint(self) -> str:
        """Of all that the result depends on but the program: a kept result with another one is stale."""
        settings = replace(self.settings, psf=None, device="")
        source = replace(self.source, path="")
        parts = (source, self.condition, self.method + self.code, self.seed, settings)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def labels(self) -> dict[str, str | int]:
        """What tells its row from others."""
        return {
            "track": self.condition.track,
            "condition": self.condition.name,
            "image": self.source.name,
            "method": self.method,
            "seed": self.seed,
            "key": self.key,
            "fingerprint": self.fingerprint,
        }


def make_cases(
    sources: Sequence[Source],
    conditions: Sequence[Condition],
    methods: Sequence[Method],
    seeds: int,
    settings: Settings,
    pictures: int = 3,
) -> list[Case]:
    """All combinations that fit together, image by image, so that a run cut short has whole images.

    Of ``pictures`` sources the restored images of the first seed are kept.
    """
    kept = pictured_names([s.name for s in sources], pictures)
    cases = []
    for source in sources:
        for condition in conditions:
            if condition.sources != source.kind:
                continue
            for seed in range(seeds):
                for method in methods:
                    if method.name == "blurred" and condition.measured:
                        continue
                    if not method.takes(source.ndim, source.has_truth):
                        continue
                    if condition.told_operator and not method.operators:
                        continue
                    keep = seed == 0 and source.name in kept
                    cases.append(Case(source, condition, method.name, seed, settings, keep, method.digest))
    return cases


def pictured_names(names: Sequence[str], count: int) -> list[str]:
    """Which sources are shown: the paper's choice where it is there, then the first."""
    first = [n for start in PICTURED for n in names if n.startswith(start)]
    return list(dict.fromkeys([*first, *names]))[:count]
