"""What OME-Zarr (0.4, 0.5) says of an image, to and from axes, voxel sizes (µm) and intervals (s)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfinv.io.image import SECONDS, Metadata, micrometres
from selfinv.types import AXES, SPACE, InputError

TYPES = {"t": "time", "c": "channel", **dict.fromkeys(SPACE, "space")}


@dataclass(frozen=True)
class Described:
    """The full resolution of a multiscale image: where it is in its group, and what its axes are."""

    dataset: str
    axes: str
    voxel_size: dict[str, float]
    metadata: Metadata


def ome_of(attributes: dict[str, Any]) -> dict[str, Any]:
    """The OME part of a group's attributes: under ``"ome"`` since 0.5, at the top before."""
    ome = attributes.get("ome")
    return ome if isinstance(ome, dict) else attributes


def described(name: str, ome: dict[str, Any]) -> Described:
    """What the first multiscale image in ``ome`` says of its full resolution.

    Raises
    ------
    InputError
        If an axis is none of t, c, z, y, x, or if the description is incomplete; ``name`` is what it is of.
    """
    try:
        multiscale = ome["multiscales"][0]
        dataset = multiscale["datasets"][0]
        path = str(dataset["path"])
        # Before 0.3 the axes were always these, before 0.4 they were names alone.
        entries = [one if isinstance(one, dict) else {"name": one} for one in multiscale.get("axes", AXES)]
        axes = "".join(_letter(name, one) for one in entries)
        scale = [1.0] * len(axes)
        for level in (dataset, multiscale):
            for one in level.get("coordinateTransformations", ()):
                if "scale" in one:
                    scale = [a * float(b) for a, b in zip(scale, one["scale"], strict=True)]
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{name} has OME metadata that is incomplete or malformed ({type(error).__name__}: {error}); "
            f"convert it again, or give the array itself (often '0') and name its axes"
        ) from error
    if len(set(axes)) < len(axes):
        raise InputError(f"{name} names an axis twice ({axes}); expected each of t, c, z, y, x at most once")

    voxel_size, metadata = {}, {}
    for letter, entry, size in zip(axes, entries, scale, strict=True):
        if letter in SPACE and (length := micrometres(size, entry.get("unit"))):
            voxel_size[letter] = length
        seconds = SECONDS.get(str(entry.get("unit")), 0.0) * size
        if letter == "t" and 0 < seconds < math.inf:
            metadata["time_interval"] = seconds
    names = channel_names(ome)
    return Described(path, axes, voxel_size, metadata | ({"channel_names": names} if any(names) else {}))


def _letter(name: str, entry: dict[str, Any]) -> str:
    called, kind = str(entry.get("name")), entry.get("type")
    letter = called.lower() if called.lower() in TYPES else {"time": "t", "channel": "c"}.get(str(kind), "")
    if not letter or kind not in (None, TYPES[letter]):
        of_type = f" of the type {kind!r}" if kind is not None else ""
        raise InputError(
            f"{name} has the axis {called!r}{of_type}; expected t, c, z, y, x (time, channel, space), "
            f"so save the part of it that has only these"
        )
    return letter


def channel_names(ome: dict[str, Any]) -> list[str]:
    """The labels of the channels, empty where there is none."""
    omero = ome.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return []
    return [str(one.get("label") or "") if isinstance(one, dict) else "" for one in channels]


@dataclass(frozen=True)
class Level:
    """One resolution: how many voxels of the full resolution each of its voxels covers, axis by axis."""

    path: str
    factors: tuple[int, ...]


def description(
    name: str,
    axes: str,
    voxel_size: dict[str, float],
    metadata: Metadata,
    levels: Sequence[Level],
    windows: Sequence[tuple[float, float]] | None = None,
) -> dict[str, Any]:
    """The OME-Zarr 0.5 attributes of an image.

    ``windows`` are the smallest and largest values of each channel, for display; viewers need them where
    channels have names.
    """
    interval = metadata.get("time_interval")
    known = voxel_size | ({"t": interval} if interval else {})
    entries = []
    for letter in axes:
        entry = {"name": letter, "type": TYPES[letter]}
        if letter in known:
            entry["unit"] = "second" if letter == "t" else "micrometer"
        entries.append(entry)
    steps = [float(known.get(letter, 1.0)) for letter in axes]
    datasets = []
    for level in levels:
        scale = [step * factor for step, factor in zip(steps, level.factors, strict=True)]
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if max(level.factors) > 1:
            # A coarse voxel's centre is the middle of those that it covers, not the first of them.
            middle = [step * (factor - 1) / 2 for step, factor in zip(steps, level.factors, strict=True)]
            transformations.append({"type": "translation", "translation": middle})
        datasets.append({"path": level.path, "coordinateTransformations": transformations})
    ome: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [{"name": name, "type": "mean", "axes": entries, "datasets": datasets}],
    }
    names = metadata.get("channel_names")
    if names and "c" in axes:
        bounds = windows or [(0.0, 1.0)] * len(names)
        ome["omero"] = {
            "channels": [
                {
                    "label": str(label),
                    "color": "FFFFFF",
                    "active": True,
                    "window": {"min": low, "max": high, "start": low, "end": high},
                }
                for label, (low, high) in zip(names, bounds, strict=True)
            ]
        }
    return {"ome": ome}
