"""Large images end to end: trained on pieces, restored tile by tile, killed and gone on with."""

import os
import pickle
import re
import shutil
import signal
import sys
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import selfinv
from selfinv.large import (
    ClassicalRestorer,
    NetworkRestorer,
    Tile,
    apply,
    classical,
    engine,
    parse_memory,
    train,
)
from selfinv.large.journal import Journal
from selfinv.large.tiles import Reach
from selfinv.learning.normalisation import ChannelUnits
from selfinv.learning.presets import ssi
from selfinv.solvers.richardson_lucy import RichardsonLucy
from selfinv.types import InputError, SelfinvWarning

zarr = pytest.importorskip("zarr")
cloudpickle = pytest.importorskip("cloudpickle")
pytest.importorskip("distributed")

RNG = np.random.default_rng
PSF = selfinv.psf.gaussian(1.2, (9, 9))
SEAM = (
    2e-3  # of the range: what a value says of an object behind a PSF decays but does not end (docs/large.md)
)
# Workers cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def movie(frames=3, side=600):
    grid = np.indices((side, side)) / 9.0
    scene = 100 + 40 * np.sin(grid[0]) * np.cos(grid[1])
    return np.stack([scene + RNG(i).normal(0, 5, scene.shape) for i in range(frames)]).astype("f4")


def write_zarr(path, values, axes, chunks, **attributes):
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array("0", shape=values.shape, chunks=chunks, dtype=values.dtype)
    array[:] = values
    kinds = {"t": "time", "c": "channel"}
    scale = [0.25 if a in "yx" else 1.0 for a in axes]
    multiscale = {
        "name": "image",
        "axes": [
            {"name": a, "type": kinds.get(a, "space")} | ({"unit": "micrometer"} if a in "zyx" else {})
            for a in axes
        ],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return Path(path)


@pytest.fixture(scope="module")
def model():
    preset = ssi((256, 256), 1, steps=3)
    network = replace(preset.network, precision="single", widths=(8, 8), pooled_axes=((True, True),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SelfinvWarning)
        result = selfinv.restore(
            movie(1, 256)[0], PSF, method=replace(preset, network=network), boundary="unknown"
        )
    return result.model


@dataclass(frozen=True)
class Doubling:
    """Twice the values; what a test wants to go wrong goes wrong."""

    folder: str
    channels: int | None = None
    ndim: int | None = None
    killer: bool = False
    slow: float = 0.0

    def fitted(self, pieces):
        return self

    def digest(self):
        return "twice"

    def reaches(self, space):
        return [Reach(2)] * len(space)

    def bytes_for(self, values, channels):
        return 8.0 * values

    def restore(self, block, seen, space):
        flag = Path(self.folder) / "killed"
        if self.killer and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slow)
        return 2.0 * block

    def score(self, block):
        return None


def test_a_time_series_is_restored_as_if_it_fitted_in_memory(tmp_path, model):
    frames = movie()
    source = write_zarr(tmp_path / "in.zarr", frames, "tyx", (1, 128, 128))
    result = apply(model, source, tmp_path / "out.zarr", memory=parse_memory("900MiB"), workers=0)
    out = zarr.open_group(tmp_path / "out.zarr", mode="r")
    expected = model.apply(frames, axes="tyx")
    assert np.abs(out["0"][:] - expected).max() < SEAM * np.ptp(frames)
    assert not result.outcome.failed
    ome = out.attrs["ome"]["multiscales"][0]
    assert [a["name"] for a in ome["axes"]] == ["t", "y", "x"]
    assert ome["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 0.25, 0.25]
    assert len(ome["datasets"]) > 1
    assert not list(tmp_path.glob("out.zarr.*"))


@pytest.mark.filterwarnings("ignore:the model does not suit this image")  # it has hardly learned
def test_tiles_of_the_networks_answer_alone_are_the_whole(tmp_path, model):
    alone, frames = replace(model, own_values=None), movie(1, 700)
    np.save(tmp_path / "in.npy", frames[0])
    apply(alone, tmp_path / "in.npy", tmp_path / "out.zarr", axes="yx", memory=6 * 10**8, workers=0)
    restored = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:]
    assert np.abs(restored - alone.apply(frames[0], axes="yx")).max() < 1e-4 * np.ptp(frames)


def test_tiles_over_two_processes_are_the_whole(tmp_path, model):
    frames = movie(1, 1100)
    np.save(tmp_path / "in.npy", frames[0])
    result = apply(model, tmp_path / "in.npy", tmp_path / "out.zarr", axes="yx", memory=10**10, workers=2)
    assert result.outcome.tiles >= 3
    assert len({facts["process"] for facts in result.outcome.facts.values()}) == 2
    restored = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:]
    assert np.abs(restored - model.apply(frames[0], axes="yx")).max() < SEAM * np.ptp(frames)


def test_colour_with_channels_last_is_written_in_the_order_of_ome_zarr(tmp_path):
    image = RNG(0).random((40, 50, 3)).astype("f4")
    np.save(tmp_path / "in.npy", image)
    apply(Doubling(str(tmp_path)), tmp_path / "in.npy", tmp_path / "out.zarr", axes="yxc", workers=0)
    out = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"]
    assert np.array_equal(out[:], 2 * image.transpose(2, 0, 1))


def test_a_poisoned_tile_is_reported_the_rest_completes_and_it_is_done_later(tmp_path):
    frames = movie(4, 64)
    source = write_zarr(tmp_path / "in.zarr", frames, "tyx", (1, 64, 64))
    store = zarr.open_group(source)["0"]
    store[1] = np.where(frames[1] > 120, np.nan, frames[1])
    chunk = source / "0" / "c" / "2" / "0" / "0"
    there, stamp = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(b"?" * len(there))
    os.utime(chunk, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    result = apply(Doubling(str(tmp_path)), source, tmp_path / "out.zarr", workers=0)
    assert len(result.failures()) == 2
    assert any("NaN" in line and "t 1:2" in line for line in result.failures())
    out = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"]
    assert np.array_equal(out[0], 2 * frames[0])
    assert np.array_equal(out[3], 2 * frames[3])
    assert np.isnan(out[1]).all()
    chunk.write_bytes(there)
    os.utime(chunk, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # the disk is back
    job = {"workers": 0, "resume": True}
    again = apply(Doubling(str(tmp_path)), source, tmp_path / "out.zarr", **job)
    assert (again.outcome.skipped, again.outcome.done, len(again.failures())) == (2, 1, 1)
    missing = apply(Doubling(str(tmp_path)), source, tmp_path / "out.zarr", **job, mask_nan=True)
    assert (missing.outcome.skipped, missing.outcome.done) == (3, 1)
    expected = np.where(np.isnan(store[:]), np.nan, 2 * frames)
    assert np.array_equal(zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:], expected, equal_nan=True)


def test_a_run_does_not_go_on_once_a_zarrs_values_have_changed(tmp_path):
    frames = movie(4, 64)
    source = write_zarr(tmp_path / "in.zarr", frames, "tyx", (1, 64, 64))
    arguments = (Doubling(str(tmp_path), slow=0.05), source, tmp_path / "out.zarr")

    def stop(outcome, tile):
        raise KeyboardInterrupt

    assert apply(*arguments, workers=0, on_tile=stop).outcome.cancelled
    zarr.open_group(source)["0"][3] = 900.0
    with pytest.raises(InputError, match="the input is another one or has changed; leave out --resume"):
        apply(*arguments, workers=0, resume=True)


def test_missing_values_are_allowed_where_they_are_said_to_be_missing(tmp_path, model):
    frames = movie(1, 256)
    frames[0, 40:50, 60] = np.nan
    np.save(tmp_path / "in.npy", frames[0])
    result = apply(model, tmp_path / "in.npy", tmp_path / "out.zarr", axes="yx", workers=0, mask_nan=True)
    assert not result.outcome.failed
    assert np.isfinite(zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:]).all()


def test_values_that_do_not_fit_are_clipped_only_if_asked_for(tmp_path):
    frames = movie(2, 64)  # twice as much is above 255 in places
    np.save(tmp_path / "in.npy", frames)
    job = {"axes": "tyx", "workers": 0, "dtype": "uint8"}
    arguments = (Doubling(str(tmp_path)), tmp_path / "in.npy", tmp_path / "out.zarr")
    failed = apply(*arguments, **job)
    assert len(failed.failures()) == 2
    assert all("do not fit uint8" in line and "--clip" in line for line in failed.failures())
    done = apply(*arguments, **job, clip=True, resume=True)
    assert not done.failures()
    assert done.outcome.clipped() == (np.rint(2 * frames) > 255).sum()


def test_tiles_that_were_clipped_are_not_mixed_with_others(tmp_path):
    np.save(tmp_path / "in.npy", movie(4, 64))
    arguments = (Doubling(str(tmp_path), slow=0.05), tmp_path / "in.npy", tmp_path / "out.zarr")
    job = {"axes": "tyx", "workers": 0, "dtype": "uint8"}

    def stop(outcome, tile):
        raise KeyboardInterrupt

    assert apply(*arguments, **job, clip=True, on_tile=stop).outcome.cancelled
    with pytest.raises(InputError, match="begun otherwise: clip was True and is False"):
        apply(*arguments, **job, resume=True)
    shutil.rmtree(tmp_path / "out.zarr.part")
    assert apply(*arguments, **job, overwrite=True, on_tile=stop).outcome.cancelled
    assert apply(*arguments, **job, resume=True, clip=True, on_tile=stop).outcome.cancelled
    with pytest.raises(InputError, match="begun otherwise: clip was True and is False"):
        apply(*arguments, **job, resume=True)


def test_no_process_is_started_for_a_single_tile(tmp_path, monkeypatch):
    counts = []
    workers = engine.workers
    monkeypatch.setattr(
        engine, "workers", lambda count, **options: counts.append(count) or workers(0, **options)
    )
    for side, axes in ((64, "cyx"), (64, "tyx")):
        np.save(tmp_path / "in.npy", np.ones((2, side, side), "f4"))
        apply(Doubling(str(tmp_path)), tmp_path / "in.npy", tmp_path / f"{axes}.zarr", axes=axes)
    assert counts[0] == 0
    assert counts[1] >= 1


def test_a_relative_path_is_read_by_workers_elsewhere(tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("in.npy", movie(2, 64))
    result = apply(
        Doubling(str(tmp_path)), "in.npy", "out.zarr", axes="tyx", scheduler=cluster.scheduler_address
    )
    assert not result.failures()


def test_chunks_of_pathological_size_are_said(tmp_path):
    big = zarr.create_array(tmp_path / "big.zarr", shape=(40000, 40000), chunks=(40000, 40000), dtype="f4")
    assert big.nchunks == 1
    with pytest.raises(InputError, match=r"chunks of 6104 MiB, more than a worker may use"):
        apply(
            Doubling(str(tmp_path)),
            tmp_path / "big.zarr",
            tmp_path / "out.zarr",
            axes="yx",
            workers=0,
            memory=2**30,
        )
    write_zarr(tmp_path / "small.zarr", movie(1, 40), "tyx", (1, 8, 8))
    with pytest.warns(SelfinvWarning, match="chunks of 256 bytes"):
        apply(Doubling(str(tmp_path)), tmp_path / "small.zarr", tmp_path / "out.zarr", workers=0)


def test_a_piece_that_cannot_be_read_is_not_learned_from(tmp_path):
    source = write_zarr(tmp_path / "in.zarr", movie(4, 64), "tyx", (1, 64, 64))
    (source / "0" / "c" / "2" / "0" / "0").write_bytes(b"no chunk")
    _, pieces = train(source, PSF, method="tv-chambolle-pock", pieces=3)
    assert {piece.region[0].start for piece in pieces} <= {0, 1, 3}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_is_survived(tmp_path, workers):
    frames = movie(6, 64)
    np.save(tmp_path / "in.npy", frames)
    result = apply(
        Doubling(str(tmp_path), killer=True),
        tmp_path / "in.npy",
        tmp_path / "out.zarr",
        axes="tyx",
        workers=workers,
        memory=10**10,
    )
    assert (tmp_path / "killed").exists()
    assert result.outcome.done == 6
    assert np.array_equal(zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:], 2 * frames)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, dashboard_address=":0", memory_limit=None
    ) as cluster:
        yield cluster


def test_an_existing_scheduler_is_used_if_its_workers_are_like_us(tmp_path, cluster, monkeypatch):
    frames = movie(4, 64)
    np.save(tmp_path / "in.npy", frames)
    job = {"axes": "tyx", "scheduler": cluster.scheduler_address}
    result = apply(Doubling(str(tmp_path)), tmp_path / "in.npy", tmp_path / "out.zarr", **job)
    assert result.outcome.done == 4
    assert all(facts["process"] != os.getpid() for facts in result.outcome.facts.values())
    assert np.array_equal(zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:], 2 * frames)
    monkeypatch.setattr(selfinv, "__version__", "99")
    with pytest.raises(InputError, match=r"other versions: selfinv .* there, 99 here"):
        apply(Doubling(str(tmp_path)), tmp_path / "in.npy", tmp_path / "other.zarr", **job)


def test_what_tiles_warn_of_is_without_repeats(tmp_path):
    np.save(tmp_path / "in.npy", movie(3, 64) - 100)
    restorer = ClassicalRestorer(RichardsonLucy(max_steps=2), None)
    result = apply(restorer, tmp_path / "in.npy", tmp_path / "out.zarr", axes="tyx", workers=0)
    (words,) = result.outcome.warnings()
    assert re.match(r"in 3 tiles, such as: \d+ of 4096 values are below 0", words)


def test_a_run_that_ends_early_goes_on_where_it_was(tmp_path):
    frames = movie(8, 64)
    np.save(tmp_path / "in.npy", frames)
    job = {"axes": "tyx", "workers": 0}

    def stop(outcome, tile):
        if outcome.done == 3:
            raise KeyboardInterrupt

    arguments = (tmp_path / "in.npy", tmp_path / "out.zarr")
    first = apply(Doubling(str(tmp_path), slow=0.05), *arguments, **job, on_tile=stop)
    assert first.outcome.cancelled
    assert not (tmp_path / "out.zarr").exists()
    with open(tmp_path / "out.zarr.journal.jsonl", "a") as stream:
        stream.write('{"tile": 7, "sc')  # killed while writing a line
    with pytest.raises(InputError, match="--resume goes on, --overwrite starts anew"):
        apply(Doubling(str(tmp_path)), *arguments, **job)
    with pytest.raises(InputError, match=r"begun otherwise: dtype was 'float32' and is 'uint16'"):
        apply(Doubling(str(tmp_path), slow=0.05), *arguments, **job, dtype="uint16", resume=True)
    second = apply(Doubling(str(tmp_path), slow=0.05), *arguments, **job, resume=True)
    assert second.outcome.skipped >= 3
    assert second.outcome.skipped + second.outcome.done == 8
    assert np.array_equal(zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:], 2 * frames)


def test_a_tile_is_on_the_disk_before_the_journal_says_so(tmp_path, monkeypatch):
    """After a power cut only what was flushed is there, of files and of the names in folders."""
    flushed, fsync, whole = set(), os.fsync, Journal.finished

    def told(handle):
        flushed.add(os.fstat(handle).st_ino)
        fsync(handle)

    def finished(self, tile, **facts):
        chunks = [path for path in tmp_path.glob(f"out.zarr.part/0/c/{tile}/*/*") if path.is_file()]
        assert len(chunks) == 4
        needed = {way for chunk in chunks for way in (chunk, *chunk.parents) if way.is_relative_to(tmp_path)}
        needed |= {tmp_path / "out.zarr.part" / name for name in ("zarr.json", "0/zarr.json")}
        assert not [way for way in needed if way.stat().st_ino not in flushed]
        whole(self, tile, **facts)

    monkeypatch.setattr(os, "fsync", told)
    monkeypatch.setattr(Journal, "finished", finished)
    source = frames_file(tmp_path, movie(2, 600))
    assert (
        apply(Doubling(str(tmp_path)), source, tmp_path / "out.zarr", axes="tyx", workers=0).outcome.done == 2
    )


def test_a_run_killed_as_it_replaces_another_is_not_taken_for_that(tmp_path, monkeypatch):
    np.save(tmp_path / "in.npy", movie(4, 64))
    job = {"axes": "tyx", "workers": 0}
    arguments = (Doubling(str(tmp_path), slow=0.05), tmp_path / "in.npy", tmp_path / "out.zarr")

    def stop(outcome, tile):
        raise KeyboardInterrupt

    def killed(self):
        raise SystemExit

    assert apply(*arguments, **job, on_tile=stop).outcome.cancelled
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "begin", killed)
        with pytest.raises(SystemExit):
            apply(*arguments, **job, overwrite=True)
    with pytest.raises(InputError, match="there is no unfinished run"):  # the old run's tiles are gone
        apply(*arguments, **job, resume=True)
    with pytest.raises(InputError, match=r"is not known: --overwrite starts anew"):
        apply(*arguments, **job)
    assert apply(*arguments, **job, overwrite=True).outcome.done == 4


def test_a_run_does_not_go_on_in_other_units(tmp_path):
    def stop(outcome, tile):
        raise KeyboardInterrupt

    arguments = (frames_file(tmp_path, movie(4, 64)), tmp_path / "out.zarr")
    restorer = ClassicalRestorer(RichardsonLucy(max_steps=2), None, units=ChannelUnits((0.0,), (50.0,)))
    assert apply(restorer, *arguments, axes="tyx", workers=0, on_tile=stop).outcome.cancelled
    with pytest.raises(InputError, match=r"the method .* is another one"):
        apply(replace(restorer, units=None), *arguments, axes="tyx", workers=0, resume=True)


def test_a_run_goes_on_where_the_output_is_a_link(tmp_path):
    np.save(tmp_path / "in.npy", movie(4, 64))
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.zarr").symlink_to(tmp_path / "disk" / "result.zarr")

    def stop(outcome, tile):
        raise KeyboardInterrupt

    job = {"axes": "tyx", "workers": 0}
    arguments = (Doubling(str(tmp_path), slow=0.05), tmp_path / "in.npy", tmp_path / "out.zarr")
    assert apply(*arguments, **job, on_tile=stop).outcome.cancelled
    assert apply(*arguments, **job, resume=True).outcome.skipped
    assert (tmp_path / "disk" / "result.zarr" / "zarr.json").exists()
    assert (tmp_path / "out.zarr").is_symlink()


def test_unnamed_axes_are_those_that_a_solver_was_tuned_for(tmp_path):
    volume = movie(16, 48)
    np.save(tmp_path / "in.npy", volume)
    restorer = ClassicalRestorer(RichardsonLucy(max_steps=2), torch.full((3, 3, 3), 1.0 / 27.0))
    with pytest.warns(SelfinvWarning, match="taken as zyx"):
        result = apply(restorer, tmp_path / "in.npy", tmp_path / "out.zarr", workers=0)
    assert result.plan.axes == "zyx"


def test_an_older_result_is_there_until_the_new_one_is(tmp_path):
    np.save(tmp_path / "in.npy", movie(2, 64))
    job = {"axes": "tyx", "workers": 0}
    apply(Doubling(str(tmp_path)), tmp_path / "in.npy", tmp_path / "out.zarr", **job)
    with pytest.raises(InputError, match="exists already"):
        apply(Doubling(str(tmp_path)), tmp_path / "in.npy", tmp_path / "out.zarr", **job)

    def look(outcome, tile):
        assert (tmp_path / "out.zarr" / "zarr.json").exists()

    apply(
        Doubling(str(tmp_path)),
        tmp_path / "in.npy",
        tmp_path / "out.zarr",
        **job,
        overwrite=True,
        on_tile=look,
    )


def test_training_pieces_come_from_where_something_is(tmp_path):
    frames = RNG(0).normal(0, 1.0, (4, 700, 700)).astype("f4")
    frames[2, :350, 350:] += 40 * np.sin(np.indices((350, 350))[0] / 8)
    np.save(tmp_path / "in.npy", frames)
    result, pieces = train(tmp_path / "in.npy", PSF, axes="tyx", method="wiener", pieces=2)
    best = max(pieces, key=lambda piece: piece.information)
    assert best.region[0] == slice(2, 3)
    assert best.region[1].start < 300
    restorer = classical(result, PSF)
    done = apply(restorer, tmp_path / "in.npy", tmp_path / "out.zarr", axes="tyx", workers=0)
    assert not done.outcome.failed
    out = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"]
    assert np.std(out[0]) < 0.5


def test_pieces_with_a_few_gaps_are_learned_from_where_there_are_no_others(tmp_path):
    frame = movie(1, 700)
    gaps = RNG(3).random(frame.shape) < 1e-4
    np.save(tmp_path / "in.npy", np.where(gaps, np.nan, frame)[0])
    job = {"axes": "yx", "method": "wiener"}
    with pytest.raises(InputError, match=r"NaN or infinite values wherever .* \(--mask-nan\)"):
        train(tmp_path / "in.npy", PSF, **job)
    _, pieces = train(tmp_path / "in.npy", PSF, **job, mask_nan=True)
    _, whole = train(frames_file(tmp_path, frame[0]), PSF, **job)
    assert pieces[0].information == pytest.approx(whole[0].information, abs=0.02)
    gaps[:, :, 300:] = True  # mostly missing
    np.save(tmp_path / "in.npy", np.where(gaps, np.nan, frame)[0])
    _, pieces = train(tmp_path / "in.npy", PSF, **job, mask_nan=True)
    assert all(piece.region[1].start < 50 for piece in pieces)


def test_tiles_are_restored_by_as_many_steps_as_the_method_was_tuned_to(tmp_path):
    """Tiles were given 200 steps of Richardson-Lucy, however few were right: six times the error."""
    image = RNG(0).poisson(3.0 + 2.0 * np.sin(np.indices((96, 96)).sum(0) / 9)).astype("f4")
    np.save(tmp_path / "in.npy", image)
    result, _ = train(tmp_path / "in.npy", PSF, axes="yx", method="richardson-lucy")
    apply(classical(result, PSF), tmp_path / "in.npy", tmp_path / "out.zarr", axes="yx", workers=0)
    tiled = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:]
    whole = selfinv.restore(image, PSF, method="richardson-lucy", boundary="unknown").image
    assert np.sqrt(np.mean((tiled - whole) ** 2)) < 0.03 * np.ptp(whole)


@pytest.mark.parametrize(("units", "level"), [((1.0, 1000.0), 0.0), ((1e-25, 1e-25), 0.0), ((1.0, 1.0), 3e4)])
def test_settings_tuned_in_common_units_are_used_in_them(tmp_path, units, level):
    """They were used on the values as they are: a dark channel was gone, tiny units were not denoised."""
    truth = np.kron(RNG(0).random((6, 6)), np.ones((16, 16)))
    noisy = truth + RNG(1).normal(0, 0.1, (2, *truth.shape))
    units = np.array(units)[:, None, None]
    np.save(tmp_path / "in.npy", noisy * units + level)
    result, _ = train(tmp_path / "in.npy", axes="cyx", method="auto", max_steps=3)
    assert len(result.stats["channel_units"]) == 2
    restorer = classical(result, None)
    done = apply(restorer, tmp_path / "in.npy", tmp_path / "out.zarr", axes="cyx", workers=0)
    assert not done.outcome.failed
    tiled = zarr.open_group(tmp_path / "out.zarr", mode="r")["0"][:].astype(float)
    error = np.sqrt(np.mean(((tiled - level) / units - truth) ** 2, axis=(1, 2)))
    assert error.max() < 0.06
    with pytest.raises(InputError, match="trained on 2 channel"):
        apply(restorer, frames_file(tmp_path, movie(1, 64)), tmp_path / "other.zarr", axes="tyx", workers=0)


def test_values_that_single_precision_cannot_take_are_refused_before_the_first_tile(tmp_path):
    restorer = ClassicalRestorer(RichardsonLucy(max_steps=2), None)
    with pytest.raises(InputError, match=r"largest value is \d.\d+e-24; use a unit in which"):
        apply(
            restorer,
            frames_file(tmp_path, 1e-26 * movie(1, 64)),
            tmp_path / "out.zarr",
            axes="tyx",
            workers=0,
        )
    assert not (tmp_path / "out.zarr.part").exists()


def test_a_frame_that_the_model_no_longer_fits_is_noticed(tmp_path):
    frames = movie(3, 256)
    result, _ = train(frames_file(tmp_path, frames), PSF, axes="tyx", pieces=3, max_steps=40, seed=3)
    assert len(result.model.origin["scores"]) >= 2
    frames[1] += RNG(9).normal(0, 25, frames[1].shape)
    job = {"axes": "tyx", "workers": 0}
    with pytest.warns(SelfinvWarning, match="the noise of this image"):  # of the frames together, too
        done = apply(result.model, frames_file(tmp_path, frames), tmp_path / "out.zarr", **job)
    assert list(done.drifted) == [1]
    assert done.drifted[1] > 1.5


def frames_file(folder, frames):
    np.save(folder / "frames.npy", frames)
    return folder / "frames.npy"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "out.tif"}, "has no ending .zarr"),
        ({"output": "nowhere/out.zarr"}, "does not exist; make it first"),
        ({"resume": True}, "there is no unfinished run"),
        ({"memory": 10**6}, "is less than the libraries take"),
        ({"workers": -1}, "workers=-1 is negative"),
        ({"scheduler": "tcp://127.0.0.1:9"}, "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ({"axes": "tzyx"}, "names 4 axes but the image has 3"),
        ({"axes": "zyx"}, "was trained on 2 spatial axes"),
        ({"axes": "cyx"}, "trained on 1 channel"),
        ({"dtype": "uint99"}, "unknown pixel type 'uint99'"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, model, options, words):
    np.save(tmp_path / "in.npy", movie(2, 64))
    options = {"output": "out.zarr", "axes": "tyx", "workers": 0} | options
    output = tmp_path / options.pop("output")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=words) as told:
        apply(model, tmp_path / "in.npy", output, **options)
    assert len(str(told.value).splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_tile_is_a_small_thing_to_send(tmp_path):
    assert len(pickle.dumps(Tile(3, (slice(0, 1), slice(0, 512), slice(0, 512))))) < 500
    journal = Journal(tmp_path / "journal.jsonl", {"a": 1})
    with pytest.raises(InputError, match="tells of no run to resume"):
        journal.resume()


def test_a_network_goes_with_its_symmetries_selectable(tmp_path, model):
    frames = movie(1, 200)
    one = NetworkRestorer(model, symmetries=1).restore(frames, (slice(0, 200),) * 2, (200, 200))
    eight = NetworkRestorer(model).restore(frames, (slice(0, 200),) * 2, (200, 200))
    assert not np.allclose(one, eight, atol=1e-3)


def test_pieces_of_an_image_are_no_frames_to_be_warned_of(tmp_path, recwarn):
    """Of a scene with a bright half: some of its pieces span ten times less than others."""
    scene = np.kron(RNG(0).random((64, 64)), np.ones((16, 16)))
    scene[:, 512:] *= 10.0
    np.save(tmp_path / "in.npy", scene + RNG(1).normal(0, 0.02, scene.shape))
    train(tmp_path / "in.npy", axes="yx", method="tv-conjugate-gradient", max_steps=2)
    assert not [w for w in recwarn if "frame" in str(w.message)]
