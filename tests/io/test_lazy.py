"""What is read region by region must be what reading it all gives, whatever it is stored as."""

import json
import pickle
import sys
import time
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfinv.io import Image, read, write
from selfinv.io.lazy import open_lazily
from selfinv.types import InputError, SelfinvWarning

VOLUME = np.random.default_rng(0).integers(0, 4000, (5, 70, 52), np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 255, (70, 52, 3), np.uint8)


def message(path, **options):
    """The one line that opening this ends with."""
    with pytest.raises(InputError) as error:
        open_lazily(path, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def everything(image):
    return image.read([slice(None)] * len(image.shape))


def zarr_array(path, data, chunks, **options):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(path), shape=data.shape, dtype=data.dtype, chunks=chunks, **options)
    array[...] = data
    return array


def ome_04(path, data, axes, scale, **more):
    """An OME-Zarr 0.4 image as the specification has it: Zarr 2, the description at the top."""
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(str(path), zarr_format=2)
    chunks = tuple(max(1, n // 3) for n in data.shape)
    separated = {"name": "v2", "separator": "/"}
    array = group.create_array(
        "0", shape=data.shape, dtype=data.dtype, chunks=chunks, chunk_key_encoding=separated
    )
    array[...] = data
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    group.attrs.update({"multiscales": [{"version": "0.4", "axes": axes, "datasets": [dataset]}], **more})


def axis(name, kind="space", unit=None):
    return {"name": name, "type": kind} | ({"unit": unit} if unit else {})


ZYX = [axis(a, unit="nanometer") for a in "zyx"]

# --- any region of any format -------------------------------------------------------------------------------

TIFF = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
STORED = {
    "imagej.tif": lambda path: write(path, Image(VOLUME, "zyx")),
    "big-endian.tif": lambda path: tifffile.imwrite(path, VOLUME, byteorder=">", **TIFF),
    "a.ome.tif": lambda path: write(path, Image(VOLUME, "zyx")),
    "pages.tif": lambda path: stacked(path, byteorder=">"),
    "zlib.tif": lambda path: tifffile.imwrite(path, VOLUME, compression="zlib", rowsperstrip=8, **TIFF),
    "one-strip.tif": lambda path: tifffile.imwrite(path, VOLUME, compression="lzw", rowsperstrip=999, **TIFF),
    "tiled.tif": lambda path: tifffile.imwrite(
        path, VOLUME, compression="zstd", predictor=True, tile=(16, 32), **TIFF
    ),
    "one-page.tif": lambda path: tifffile.imwrite(
        path, VOLUME, imagej=True, truncate=True, metadata={"axes": "ZYX"}
    ),
    "singles.tif": lambda path: tifffile.imwrite(
        path, VOLUME[None, :, None], compression="zlib", metadata={"axes": "TZCYX"}, photometric="minisblack"
    ),
    "rgb.tif": lambda path: tifffile.imwrite(path, COLOUR, photometric="rgb", compression="zlib"),
    "planar.tif": lambda path: tifffile.imwrite(
        path,
        COLOUR.transpose(2, 0, 1),
        photometric="rgb",
        planarconfig="separate",
        compression="zlib",
        rowsperstrip=9,
    ),
    "planar-tiled.tif": lambda path: tifffile.imwrite(
        path,
        np.stack([COLOUR.transpose(2, 0, 1)] * 2),
        photometric="rgb",
        planarconfig="separate",
        tile=(32, 16),
        metadata={"axes": "ZSYX"},
    ),
    "bits.tif": lambda path: tifffile.imwrite(path, VOLUME > 2000, photometric="minisblack"),
    "a.npy": lambda path: np.save(path, VOLUME.astype(">i4")),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(VOLUME)),
    "a.png": lambda path: write(path, COLOUR),
}


def stacked(path, **options):
    """Pages with something between them, so that they cannot be mapped as one block."""
    with tifffile.TiffWriter(path, **options) as tif:
        for plane in VOLUME:
            tif.write(plane, contiguous=False, rowsperstrip=20, photometric="minisblack", metadata=None)


def regions(shape):
    """Slices as NumPy takes them: from the end, beyond the end, empty."""
    bound = [st.one_of(st.none(), st.integers(-n - 2, n + 2)) for n in shape]
    return st.tuples(*(st.builds(slice, one, one) for one in bound))


@pytest.mark.parametrize("name", STORED)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_region_is_that_of_the_whole(tmp_path, name, data):
    path = tmp_path / name
    if not path.exists():
        STORED[name](path)
    whole = read(path)
    image = open_lazily(path)
    assert (image.shape, image.dtype, image.axes) == (whole.data.shape, whole.data.dtype, whole.axes)
    assert (image.voxel_size, image.metadata) == (whole.voxel_size, whole.metadata)
    region = data.draw(regions(image.shape))
    values = image.read(region)
    assert values.dtype.isnative
    assert values.flags.writeable
    np.testing.assert_array_equal(values, whole.data[region], strict=True)


@pytest.mark.parametrize("options", [{}, {"shards": (4, 40, 40)}, {"zarr_format": 2}])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_region_of_a_zarr(tmp_path, options, data):
    path = tmp_path / "a.zarr"
    if not path.exists():
        zarr_array(path, VOLUME.astype(">u2"), (2, 20, 20), **options)
    image = open_lazily(path, axes="zyx")
    assert (image.shape, image.dtype, image.chunks) == (VOLUME.shape, np.uint16, (2, 20, 20))
    region = data.draw(regions(image.shape))
    np.testing.assert_array_equal(image.read(region), VOLUME[region], strict=True)


def test_a_region_with_a_step_or_too_few_axes_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", VOLUME)
    image = open_lazily(tmp_path / "a.npy")
    with pytest.raises(InputError, match="has a step"):
        image.read([slice(None, None, 2)] * 3)
    with pytest.raises(InputError, match="one slice for each axis"):
        image.read([slice(0, 2)] * 2)


@pytest.mark.parametrize("name", ["imagej.tif", "zlib.tif", "a.npy", "a.png"])
def test_an_image_goes_to_another_process(tmp_path, name):
    STORED[name](tmp_path / name)
    image = open_lazily(tmp_path / name)
    expected = everything(image)
    sent = pickle.dumps(image)
    assert len(sent) < 3000  # how to open it, not its values
    np.testing.assert_array_equal(everything(pickle.loads(sent)), expected)


def test_threads_that_read_at_once_leave_warnings_as_they_were(tmp_path, monkeypatch):
    from selfinv.io import tiff_regions

    STORED["zlib.tif"](tmp_path / "zlib.tif")
    image, quickly, opened = open_lazily(tmp_path / "zlib.tif"), tiff_regions.series_of, []

    def slowly(path):
        opened.append(path)
        time.sleep(0.2 * len(opened))  # the first to begin would be the first to end
        return quickly(path)

    monkeypatch.setattr(tiff_regions, "series_of", slowly)
    before = warnings.filters[:]
    with ThreadPoolExecutor(2) as threads:
        for values in threads.map(everything, [image] * 2):
            np.testing.assert_array_equal(values, VOLUME)
    assert warnings.filters == before
    assert len(opened) == 1


def test_only_the_region_is_decoded(tmp_path):
    planes = np.random.default_rng(0).integers(0, 9, (40, 256, 256), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", planes, compression="zlib", tile=(64, 64), **TIFF)
    np.save(tmp_path / "a.npy", planes)
    for name in ("a.tif", "a.npy"):
        image = open_lazily(tmp_path / name)
        image.read([slice(0, 1)] * 3)
        tracemalloc.start()
        image.read([slice(7, 9), slice(10, 90), slice(10, 90)])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < planes.nbytes / 20


def test_the_pieces_of_a_tiff_are_tiles_or_planes(tmp_path):
    for name, chunks in {
        "tiled.tif": (1, 16, 32),
        "zlib.tif": (1, 70, 52),
        "imagej.tif": (1, 70, 52),
    }.items():
        STORED[name](tmp_path / name)
        assert open_lazily(tmp_path / name).chunks == chunks


def test_transparency_is_left_out_with_a_word(tmp_path):
    rgba = np.dstack([COLOUR, np.full((70, 52), 255, np.uint8)])
    for compression in (None, "zlib"):
        tifffile.imwrite(
            tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], compression=compression
        )
        with pytest.warns(SelfinvWarning, match="transparency, which is ignored"):
            image = open_lazily(tmp_path / "a.tif")
        assert image.axes == "yxc"
        np.testing.assert_array_equal(everything(image), COLOUR)


def test_names_of_the_axes_can_be_given(tmp_path):
    write(tmp_path / "a.tif", Image(VOLUME, "zyx", {"z": 1.0, "y": 2.0, "x": 2.0}))
    image = open_lazily(tmp_path / "a.tif", axes="tyx")
    assert (image.axes, image.voxel_size) == ("tyx", {"y": 2.0, "x": 2.0})
    assert "one letter per axis" in message(tmp_path / "a.tif", axes="yx")


# --- what OME-Zarr says -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["millisecond", "ms"])
def test_ome_zarr_04(tmp_path, unit):
    data = VOLUME[None, None].repeat(2, 1)
    axes = [axis("t", "time", unit), axis("c", "channel"), *ZYX]
    names = {"omero": {"channels": [{"label": "nuclei", "color": "00FF00"}, {"color": "FF0000"}]}}
    ome_04(tmp_path / "a.zarr", data, axes, [500, 1, 300, 65, 65.0], **names)
    image = open_lazily(tmp_path / "a.zarr")
    assert (image.axes, image.shape, image.dtype) == ("tczyx", data.shape, np.uint16)
    assert image.voxel_size == pytest.approx({"z": 0.3, "y": 0.065, "x": 0.065})
    assert image.metadata == {"time_interval": 0.5, "channel_names": ["nuclei", ""]}
    assert image.chunks == (1, 1, 1, 23, 17)
    np.testing.assert_array_equal(everything(pickle.loads(pickle.dumps(image))), data)


def test_ome_zarr_05_by_another_writer_and_its_first_level_is_read(tmp_path):
    ngff_zarr = pytest.importorskip("ngff_zarr")
    values = np.random.default_rng(0).normal(size=(8, 64, 64)).astype(np.float32)
    image = ngff_zarr.to_ngff_image(
        values,
        dims=["z", "y", "x"],
        scale={"z": 2.0, "y": 0.5, "x": 0.5},
        axes_units=dict.fromkeys("zyx", "micrometer"),
    )
    scales = ngff_zarr.to_multiscales(image, scale_factors=[2], chunks=32)
    ngff_zarr.to_ngff_zarr(str(tmp_path / "a.ome.zarr"), scales, version="0.5")
    image = open_lazily(tmp_path / "a.ome.zarr")
    assert (image.axes, image.voxel_size) == ("zyx", {"z": 2.0, "y": 0.5, "x": 0.5})
    np.testing.assert_array_equal(everything(image), values)


def test_the_scale_of_all_levels_multiplies_that_of_one(tmp_path):
    ome_04(tmp_path / "a.zarr", VOLUME, ZYX, [1.0, 0.5, 0.5])
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    whole = [{"type": "scale", "scale": [300.0, 130.0, 130.0]}]
    attributes["multiscales"][0]["coordinateTransformations"] = whole
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(attributes))
    size = open_lazily(tmp_path / "a.zarr").voxel_size
    assert size == pytest.approx({"z": 0.3, "y": 0.065, "x": 0.065})


@pytest.mark.parametrize("axes", [[axis(a) for a in "zyx"], list("zyx"), [{"name": a} for a in "ZYX"]])
def test_without_units_or_scales_the_axes_are_known_and_the_voxel_size_is_not(tmp_path, axes):
    ome_04(tmp_path / "a.zarr", VOLUME, axes, [2.0, 1.0, 1.0])
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    for transformations in (attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"], None):
        if transformations is None:
            del attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"]
            (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(attributes))
        image = open_lazily(tmp_path / "a.zarr")
        assert (image.axes, image.voxel_size) == ("zyx", {})


def test_a_converter_s_folder_of_one_image_and_of_several(tmp_path):
    zarr = pytest.importorskip("zarr")
    root = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    ome_04(tmp_path / "a.zarr" / "0", VOLUME, ZYX, [1, 1, 1])
    np.testing.assert_array_equal(everything(open_lazily(tmp_path / "a.zarr")), VOLUME)
    ome_04(tmp_path / "a.zarr" / "1", VOLUME[:2], ZYX, [1, 1, 1])
    with pytest.warns(SelfinvWarning, match="holds 2 images; took '0'"):
        assert open_lazily(tmp_path / "a.zarr").shape == VOLUME.shape
    assert open_lazily(tmp_path / "a.zarr" / "1").shape == VOLUME[:2].shape


def test_a_bare_array_is_read_and_says_what_is_assumed(tmp_path):
    zarr_array(tmp_path / "a.zarr", VOLUME, (5, 70, 52))
    with pytest.warns(SelfinvWarning, match=r"has no OME metadata; read .* nothing names its axes") as caught:
        image = open_lazily(tmp_path / "a.zarr")
    assert len(caught) == 1
    assert image.axes is None
    np.testing.assert_array_equal(everything(image), VOLUME)
    assert open_lazily(tmp_path / "a.zarr", axes="zyx").axes == "zyx"  # and then there is nothing to say
    zarr_array(tmp_path / "b.zarr", VOLUME, (5, 70, 52), dimension_names=["z", "y", "x"])
    with pytest.warns(SelfinvWarning, match="took the axes 'zyx' from its dimensions"):
        assert open_lazily(tmp_path / "b.zarr").axes == "zyx"


def test_the_largest_array_of_a_group_without_metadata(tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(str(tmp_path / "a.zarr"))
    for name, data in {"small": VOLUME[:1], "raw": VOLUME}.items():
        group.create_array(name, data=data)
    with pytest.warns(SelfinvWarning, match=r"the array 'raw' of shape \(5, 70, 52\)"):
        np.testing.assert_array_equal(everything(open_lazily(tmp_path / "a.zarr")), VOLUME)


@pytest.mark.parametrize("chunks", [(1, 1, 1), (5, 9, 9)])
def test_odd_chunks_are_opened_and_told(tmp_path, chunks):
    zarr_array(tmp_path / "a.zarr", VOLUME[:, :9, :9], chunks)
    assert open_lazily(tmp_path / "a.zarr", axes="zyx").chunks == chunks


# --- what is no good ----------------------------------------------------------------------------------------


def test_axes_that_are_not_ours(tmp_path):
    ome_04(tmp_path / "a.zarr", VOLUME, [axis("lambda", "other"), *ZYX[1:]], [1, 1, 1])
    assert "has the axis 'lambda' of the type 'other'; expected t, c, z, y, x" in message(tmp_path / "a.zarr")
    ome_04(tmp_path / "b.zarr", VOLUME, [axis("z", "channel"), *ZYX[1:]], [1, 1, 1])
    assert "has the axis 'z' of the type 'channel'" in message(tmp_path / "b.zarr")
    ome_04(tmp_path / "c.zarr", VOLUME, [ZYX[1], *ZYX[1:]], [1, 1, 1])
    assert "names an axis twice" in message(tmp_path / "c.zarr")
    zarr_array(tmp_path / "d.zarr", np.zeros((1, 2, 1, 2, 3, 4)), (1,) * 6)
    assert "has 6 axes (1, 2, 1, 2, 3, 4)" in message(tmp_path / "d.zarr")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((3, 3), complex), "is complex"),
        (np.zeros((3, 3), "S4"), "has the type"),
        (np.zeros((3, 3), "datetime64[s]"), "has the type"),
        (np.zeros((3, 0)), "is empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Zarr V3 specification")
def test_arrays_that_are_no_images(tmp_path, data, words):
    zarr_array(tmp_path / "a.zarr", data, (1, 1))
    np.save(tmp_path / "a.npy", data)
    assert words in message(tmp_path / "a.zarr")
    assert words in message(tmp_path / "a.npy")


def test_truth_values_are_zeros_and_ones(tmp_path):
    zarr_array(tmp_path / "a.zarr", VOLUME > 2000, (5, 70, 52))
    image = open_lazily(tmp_path / "a.zarr", axes="zyx")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(everything(image), (VOLUME > 2000).astype(np.uint8), strict=True)


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "cells.zarr").mkdir()
    assert "is a folder but no Zarr" in message(tmp_path / "cells.zarr")
    assert "did you mean" in message(tmp_path / "cell.zarr")
    assert "remote address" in message("https://example.org/a.zarr")
    assert "remote address" in message("s3://bucket/a.zarr")


def test_damaged_metadata(tmp_path):
    ome_04(tmp_path / "a.zarr", VOLUME, ZYX, [1, 1])
    assert "incomplete or malformed" in message(tmp_path / "a.zarr")
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    for wrong in ([], [{}], [{"datasets": []}], "x", None, [{"datasets": [{"path": "0"}], "axes": 3}]):
        (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps({"multiscales": wrong}))
        assert "incomplete or malformed" in message(tmp_path / "a.zarr")
    attributes["multiscales"][0]["datasets"] = [{"path": "9"}]
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(attributes))
    message(tmp_path / "a.zarr")
    attributes["multiscales"][0] |= {"datasets": [{"path": "0"}], "axes": ZYX[1:]}
    (tmp_path / "a.zarr" / ".zattrs").write_text(json.dumps(attributes))
    assert "names the axes 'yx' but has the shape (5, 70, 52)" in message(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "0" / ".zarray").write_text("{")
    message(tmp_path / "a.zarr")


def test_a_plate_and_an_empty_group(tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.create_group(str(tmp_path / "a.zarr")).attrs["ome"] = {"version": "0.5", "plate": {}}
    assert "is a plate or a well" in message(tmp_path / "a.zarr")
    zarr.create_group(str(tmp_path / "b.zarr"))
    assert "without an image" in message(tmp_path / "b.zarr")


def test_a_damaged_chunk_is_found_when_it_is_read(tmp_path):
    zarr_array(tmp_path / "a.zarr", VOLUME, (1, 70, 52))
    (tmp_path / "a.zarr" / "c" / "2" / "0" / "0").write_bytes(b"garbage")
    image = open_lazily(tmp_path / "a.zarr", axes="zyx")
    np.testing.assert_array_equal(image.read([slice(0, 2), slice(None), slice(None)]), VOLUME[:2])
    with pytest.raises(InputError, match="truncated or corrupt"):
        everything(image)


@pytest.mark.parametrize("name", ["imagej.tif", "zlib.tif", "tiled.tif", "a.npy"])
def test_a_file_cut_short_is_refused_on_opening(tmp_path, name):
    STORED[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for part in (0.05, 0.5, 0.9):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
        assert "truncated or corrupt" in message(tmp_path / name)


def test_without_zarr_the_way_to_get_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert "pip install 'selfinv[large]'" in message(tmp_path / "a.zarr")
