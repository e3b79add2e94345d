"""What is written region by region must be an OME-Zarr image that others read, with true coarser levels."""

import itertools
import json
import multiprocessing
import os
import pickle
import threading
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest

from selfinv.io.lazy import open_lazily
from selfinv.io.ome_zarr import ZarrTarget, commit_folder
from selfinv.types import InputError

zarr = pytest.importorskip("zarr")

SIZES = {"z": 0.3, "y": 0.1, "x": 0.1}


def fill(target, values):
    """Write everything, chunk by chunk."""
    starts = (range(0, n, chunk) for n, chunk in zip(target.shape, target.chunks, strict=True))
    for corner in itertools.product(*starts):
        bounds = zip(corner, target.chunks, target.shape, strict=True)
        region = tuple(slice(start, min(start + chunk, n)) for start, chunk, n in bounds)
        target.write(region, values[region])


def made(path, values, axes, chunks, **options):
    options.setdefault("dtype", values.dtype)
    target = ZarrTarget.create(path, shape=values.shape, axes=axes, chunks=chunks, **options)
    fill(target, values)
    target.finish()
    return target


def noise(*shape):
    return np.random.default_rng(0).normal(100, 5, shape).astype(np.float32)


def levels(path):
    """Every level, as anybody with zarr reads it."""
    group = zarr.open_group(str(path), mode="r")
    datasets = group.attrs["ome"]["multiscales"][0]["datasets"]
    return [group[one["path"]][...] for one in datasets], [
        one["coordinateTransformations"] for one in datasets
    ]


def block_mean(values, factors):
    """The mean over blocks by a definition of its own: pad with NaN, gather the blocks, average."""
    padding = [(0, -n % factor) for n, factor in zip(values.shape, factors, strict=True)]
    padded = np.pad(values.astype(float), padding, constant_values=np.nan)
    split = [part for n, f in zip(padded.shape, factors, strict=True) for part in (n // f, f)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of blocks that are NaN altogether
        return np.nanmean(padded.reshape(split), axis=tuple(range(1, 2 * values.ndim, 2)))


# --- others read it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "shape"), [("yx", (300, 520)), ("zyx", (6, 300, 270)), ("tczyx", (2, 3, 4, 280, 270))]
)
def test_the_specification_s_model_accepts_it(tmp_path, axes, shape):
    models = pytest.importorskip("ome_zarr_models.v05")
    metadata = {"channel_names": ["a", "b", "c"], "time_interval": 2.5, "imagej": {"Info": "x"}}
    path = tmp_path / "a.ome.zarr"
    values = noise(*shape)
    chunks = tuple(min(n, 128) for n in shape)
    made(path, values, axes, chunks, voxel_size=SIZES, metadata=metadata)
    image = models.Image.from_zarr(zarr.open_group(str(path), mode="r"))
    multiscale = image.ome_attributes.multiscales[0]
    assert "".join(one.name for one in multiscale.axes) == axes
    units = {one.name: one.unit for one in multiscale.axes if one.type != "channel"}
    assert units == {a: "second" if a == "t" else "micrometer" for a in axes if a != "c"}
    assert len(multiscale.datasets) > 1
    scale = multiscale.datasets[0].coordinateTransformations[0].scale
    assert scale == [{"t": 2.5, "c": 1.0, **SIZES}[a] for a in axes]
    if "c" in axes:
        omero = pytest.importorskip("ome_zarr_models.common.omero").Omero(**image.ome_attributes.omero)
        assert [one.label for one in omero.channels] == ["a", "b", "c"]
        assert all(70 < one.window.start < one.window.end < 130 for one in omero.channels)

    again = open_lazily(path)
    assert (again.axes, again.shape, again.dtype, again.chunks) == (axes, shape, values.dtype, chunks)
    assert again.voxel_size == {a: SIZES[a] for a in axes if a in SIZES}
    assert again.metadata == {key: metadata[key] for key in ("channel_names", "time_interval") if "c" in axes}


def test_another_reader_sees_values_sizes_and_places(tmp_path):
    ngff_zarr = pytest.importorskip("ngff_zarr")
    values = noise(4, 300, 270)
    made(tmp_path / "a.ome.zarr", values, "zyx", (2, 128, 128), voxel_size=SIZES)
    images = ngff_zarr.from_ngff_zarr(str(tmp_path / "a.ome.zarr"), version="0.5").images
    np.testing.assert_array_equal(np.asarray(images[0].data), values)
    assert images[0].scale == SIZES
    assert images[1].scale == pytest.approx({"z": 0.3, "y": 0.2, "x": 0.2})
    assert images[1].translation == pytest.approx({"z": 0.0, "y": 0.05, "x": 0.05})


def test_an_object_stays_where_it_is_at_every_level(tmp_path):
    y, x = np.mgrid[:700, :900]
    blob = np.exp(-(((y - 411.0) / 40) ** 2 + ((x - 307.0) / 60) ** 2) / 2)
    made(tmp_path / "a.zarr", blob, "yx", (100, 130), voxel_size={"y": 0.2, "x": 0.1})
    arrays, transformations = levels(tmp_path / "a.zarr")
    assert len(arrays) == 4  # x first, which is finer
    for array, (scale, *translation) in zip(arrays, transformations, strict=True):
        offset = translation[0]["translation"] if translation else [0.0, 0.0]
        centre = [
            (np.arange(n) @ array.sum(1 - axis) / array.sum()) * scale["scale"][axis] + offset[axis]
            for axis, n in enumerate(array.shape)
        ]
        assert centre == pytest.approx([411 * 0.2, 307 * 0.1], rel=1e-4)


# --- coarser levels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [(3, 64, 64), (2, 33, 51), (7, 301, 530), (1, 300, 7)])
def test_each_level_is_the_mean_of_blocks_of_the_one_before(tmp_path, chunks):
    values = noise(7, 301, 530)
    values[np.random.default_rng(1).random(values.shape) < 0.2] = np.nan
    values[2:4, :70, 90:300] = np.nan
    made(tmp_path / "a.zarr", values, "zyx", chunks, voxel_size=SIZES)
    arrays, transformations = levels(tmp_path / "a.zarr")
    np.testing.assert_array_equal(arrays[0], values)
    assert [a.shape for a in arrays] == [(7, 301, 530), (7, 151, 265), (4, 76, 133)]
    for (fine, coarse), (before, after) in zip(
        itertools.pairwise(arrays), itertools.pairwise(transformations), strict=True
    ):
        factors = np.rint(np.divide(after[0]["scale"], before[0]["scale"])).astype(int)
        np.testing.assert_allclose(coarse, block_mean(fine, factors), rtol=1e-6)
    assert np.isnan(arrays[1][2, 10, 60])


def test_levels_of_integers_are_rounded(tmp_path):
    values = np.random.default_rng(0).integers(0, 65535, (300, 300), np.uint16)
    made(tmp_path / "a.zarr", values, "yx", (64, 64))
    coarse = levels(tmp_path / "a.zarr")[0][1]
    assert coarse.dtype == np.uint16
    np.testing.assert_array_equal(coarse, np.rint(block_mean(values, (2, 2))))


def test_time_and_channels_are_kept_at_every_level_and_small_images_have_one(tmp_path):
    made(tmp_path / "a.zarr", noise(3, 2, 300, 300), "tcyx", (1, 1, 128, 128))
    assert [a.shape for a in levels(tmp_path / "a.zarr")[0]] == [(3, 2, 300, 300), (3, 2, 150, 150)]
    made(tmp_path / "b.zarr", noise(300, 256, 200), "zyx", (64, 64, 64), voxel_size=SIZES)
    assert len(levels(tmp_path / "b.zarr")[0]) == 1


def test_memory_stays_bounded_whatever_the_size(tmp_path):
    target = ZarrTarget.create(tmp_path / "a.zarr", shape=(64, 512, 512), axes="zyx", chunks=(16, 64, 64))
    fill(target, np.broadcast_to(np.float32(1), target.shape))
    chunk = 4 * 16 * 64 * 64
    tracemalloc.start()
    target.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * chunk < 4 * np.prod(target.shape) / 10


def test_finish_can_be_called_again_after_a_kill(tmp_path, monkeypatch):
    values = noise(1100, 600)
    made(tmp_path / "a.zarr", values, "yx", (128, 128))
    expected = levels(tmp_path / "a.zarr")
    target = ZarrTarget.create(tmp_path / "b.zarr", shape=values.shape, axes="yx", chunks=(128, 128))
    fill(target, values)
    from selfinv.io import ome_zarr

    calls = itertools.count()
    means = ome_zarr._block_means

    def killed(*args):
        if next(calls) == 40:
            raise KeyboardInterrupt
        return means(*args)

    with monkeypatch.context() as patched:
        patched.setattr(ome_zarr, "_block_means", killed)
        with pytest.raises(KeyboardInterrupt):
            target.finish()
    # What zarr leaves where it is killed while writing.
    (tmp_path / "b.zarr" / "0" / "c" / "0" / "0.0123.partial").write_bytes(b"half a chunk")
    np.testing.assert_array_equal(levels(tmp_path / "b.zarr")[0][0], values)  # a valid image all along
    for _ in range(2):
        ZarrTarget.open(tmp_path / "b.zarr").finish()
        found = levels(tmp_path / "b.zarr")
        assert found[1] == expected[1]
        for one, other in zip(found[0], expected[0], strict=True):
            np.testing.assert_array_equal(one, other)
    assert not list((tmp_path / "b.zarr").rglob("*.partial"))


# --- writing ------------------------------------------------------------------------------------------------


def test_two_processes_write_neighbours(tmp_path):
    values = noise(64, 96)
    target = ZarrTarget.create(tmp_path / "a.zarr", shape=(64, 96), axes="yx", chunks=(32, 8))
    assert np.isnan(target.read([slice(None)] * 2)).all()  # opened here, but not sent along
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(2) as pool:
        regions = [
            (slice(y, y + 32), slice(x, x + 8)) for x in range(0, 96, 8) for y in range(0, 64, 32)
        ]  # neighbours go to different processes
        pool.starmap(target.write, [(region, values[region]) for region in regions], chunksize=1)
    np.testing.assert_array_equal(target.read([slice(None)] * 2), values)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_writes_and_reads_what_its_parent_has_open(tmp_path):
    values = noise(64, 64)
    target = ZarrTarget.create(tmp_path / "a.zarr", shape=(64, 64), axes="yx", chunks=(32, 64))
    target.write([slice(0, 32), slice(None)], values[:32])
    image = open_lazily(tmp_path / "a.zarr")
    image.read([slice(0, 1)] * 2)
    fork = multiprocessing.get_context("fork")
    with fork.Pool(1) as pool:
        pool.apply(target.write, ([slice(32, 64), slice(None)], values[32:]))
        np.testing.assert_array_equal(pool.apply(image.read, ([slice(None)] * 2,)), values)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_a_file_is_being_opened_reads_others(tmp_path):
    """It waited for ever for the thread that was opening, which is not in it."""
    np.save(tmp_path / "a.npy", noise(8, 8))
    slow, image = open_lazily(tmp_path / "a.npy"), open_lazily(tmp_path / "a.npy")
    begun, end = threading.Event(), threading.Event()

    def opener():
        begun.set()
        end.wait()
        return image.opener()

    thread = threading.Thread(target=replace(slow, opener=opener).read, args=([slice(None)] * 2,))
    thread.start()
    begun.wait()
    child = multiprocessing.get_context("fork").Process(target=image.read, args=([slice(None)] * 2,))
    child.start()
    child.join(20)
    hangs = child.is_alive()
    child.kill()
    end.set()
    thread.join()
    assert not hangs
    assert child.exitcode == 0


def test_it_is_gone_on_with_by_name_or_pickle(tmp_path):
    metadata = {"channel_names": ["a"], "time_interval": 0.5}
    target = ZarrTarget.create(
        tmp_path / "a.zarr", shape=(1, 1, 9, 9), axes="tcyx", chunks=(1, 1, 4, 4), metadata=metadata
    )
    again = ZarrTarget.open(tmp_path / "a.zarr")
    assert again == target == pickle.loads(pickle.dumps(target))
    again.write([slice(0, 1), slice(0, 1), slice(8, 9), slice(4, 9)], np.ones((1, 1, 1, 5)))
    values = target.read([slice(None)] * 4)
    assert np.nansum(values) == 5
    assert np.isnan(values).sum() == 76


@pytest.mark.parametrize(
    "region", [(slice(0, 8), slice(1, 4)), (slice(0, 3), slice(0, 4)), (slice(4, 9), slice(4))]
)
def test_a_region_that_cuts_a_chunk_is_refused(tmp_path, region):
    target = ZarrTarget.create(tmp_path / "a.zarr", shape=(10, 9), axes="yx", chunks=(4, 4))
    shape = [one.stop - (one.start or 0) for one in region]
    with pytest.raises(InputError, match="cuts a chunk; start and stop at multiples of 4"):
        target.write(region, np.ones(shape))
    assert np.isnan(target.read([slice(None)] * 2)).all()
    target.write([slice(8, 10), slice(4, 9)], np.ones((2, 5)))  # up to the end is no cut


def test_values_that_do_not_fit_are_refused(tmp_path):
    target = ZarrTarget.create(tmp_path / "a.zarr", shape=(8, 8), axes="yx", chunks=(4, 4), dtype="uint8")
    assert (target.read([slice(None)] * 2) == 0).all()
    region = [slice(0, 4)] * 2
    with pytest.raises(InputError, match="do not fit uint8"):
        target.write(region, np.full((4, 4), 300.0))
    with pytest.raises(InputError, match=r"have the shape \(4, 5\), but the region is \(4, 4\)"):
        target.write(region, np.ones((4, 5)))
    target.write(region, np.full((4, 4), 2.6))
    assert (target.read(region) == 3).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"axes": "xy"}, "in the order 'yx'; transpose"),
        ({"axes": "tx"}, "needs the axes y and x"),
        ({"axes": "zyx"}, "one letter per axis"),
        ({"chunks": (4,)}, "do not suit"),
        ({"chunks": (4, 0)}, "do not suit"),
        ({"dtype": "complex64"}, "unknown pixel type"),
        ({"path": "nowhere/a.zarr"}, "does not exist; make it first"),
        ({"path": "there.zarr"}, "exists already"),
        ({"path": "papers", "overwrite": True}, "no Zarr folder"),
    ],
)
def test_what_cannot_be_made(tmp_path, options, words):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    zarr.create_group(str(tmp_path / "there.zarr"))
    given = {"path": "a.zarr", "shape": (8, 8), "axes": "yx", "chunks": (4, 4)} | options
    with pytest.raises(InputError, match=words) as error:
        ZarrTarget.create(tmp_path / given.pop("path"), **given)
    assert "\n" not in str(error.value)
    assert (tmp_path / "papers" / "thesis.txt").exists()
    assert not (tmp_path / "a.zarr").exists()


def test_what_is_no_target_cannot_be_gone_on_with(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="no Zarr folder"):
            ZarrTarget.open(path)
    zarr.create_group(str(tmp_path / "a.zarr"))
    with pytest.raises(InputError, match="incomplete or malformed"):
        ZarrTarget.open(tmp_path / "a.zarr")


# --- into place ---------------------------------------------------------------------------------------------


def test_the_finished_folder_takes_the_place_of_the_old_one(tmp_path):
    for value, name in ((1, "a.zarr"), (2, "a.zarr.part")):
        made(tmp_path / name, np.full((8, 8), value, np.float32), "yx", (4, 4))
    with pytest.raises(InputError, match="exists already"):
        commit_folder(tmp_path / "a.zarr.part", tmp_path / "a.zarr", overwrite=False)
    assert levels(tmp_path / "a.zarr")[0][0].max() == 1
    commit_folder(tmp_path / "a.zarr.part", tmp_path / "a.zarr", overwrite=True)
    assert levels(tmp_path / "a.zarr")[0][0].min() == 2
    assert (
        json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["attributes"]["ome"]["version"] == "0.5"
    )
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]


def test_the_old_folder_comes_back_where_the_new_one_cannot(tmp_path, monkeypatch):
    for name in ("a.zarr", "a.zarr.part"):
        made(tmp_path / name, np.ones((8, 8), np.float32), "yx", (4, 4))
    rename = os.rename

    def refused(source, target):
        if str(source).endswith(".part"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(InputError, match="could not be written: no space left on device"):
        commit_folder(tmp_path / "a.zarr.part", tmp_path / "a.zarr", overwrite=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zarr", "a.zarr.part"]


def test_a_folder_of_other_things_is_never_replaced(tmp_path):
    made(tmp_path / "a.zarr.part", np.ones((8, 8), np.float32), "yx", (4, 4))
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no Zarr folder"):
        commit_folder(tmp_path / "a.zarr.part", tmp_path / "papers", overwrite=True)
    assert (tmp_path / "papers" / "thesis.txt").exists()
