"""Files made by other programs, and files that are no good."""

import logging
import os
import struct
import sys

import numpy as np
import PIL.Image
import pytest
import tifffile

from selfinv.io import Image, check_output, read, write
from selfinv.io.lazy import open_lazily
from selfinv.types import InputError, SelfinvWarning

VOLUME = np.random.default_rng(0).integers(0, 4000, (4, 24, 20), np.uint16)


def message(path, **options):
    """The one line that reading this file ends with."""
    with pytest.raises(InputError) as error:
        read(path, **options)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


# --- good files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits"])
def test_compressed(tmp_path, compression):
    options = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}, "rowsperstrip": 5}
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, compression=compression, **options)
    image = read(tmp_path / "a.tif")
    assert image.axes == "zyx"
    np.testing.assert_array_equal(image.data, VOLUME)


def test_big_endian_becomes_native(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", VOLUME.astype(">u2"), photometric="minisblack", metadata={"axes": "ZYX"}
    )
    image = read(tmp_path / "a.tif")
    assert image.data.dtype.isnative
    np.testing.assert_array_equal(image.data, VOLUME)


def test_planar_and_interleaved_colours(tmp_path):
    colour = np.random.default_rng(0).integers(0, 255, (12, 9, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb")
    assert read(tmp_path / "a.tif").axes == "yxc"
    tifffile.imwrite(
        tmp_path / "b.tif", colour.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    )
    planar = read(tmp_path / "b.tif")
    assert planar.axes == "cyx"
    np.testing.assert_array_equal(planar.data.transpose(1, 2, 0), colour)


def test_pages_without_names_and_with_an_override(tmp_path):
    pages = [PIL.Image.fromarray((plane // 16).astype(np.uint8)) for plane in VOLUME]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert read(tmp_path / "a.tif").axes is None
    image = read(tmp_path / "a.tif", axes="zyx")
    assert image.axes == "zyx"
    np.testing.assert_array_equal(image.data, VOLUME // 16)


def test_axes_of_length_one_are_left_out(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[None, :, None], imagej=True, metadata={"axes": "TZCYX"})
    assert read(tmp_path / "a.tif").axes == "zyx"
    tifffile.imwrite(
        tmp_path / "b.tif", np.zeros((1, 1, 5, 6)), metadata={"axes": "ZCYX"}, photometric="minisblack"
    )
    assert (read(tmp_path / "b.tif").axes, read(tmp_path / "b.tif").data.shape) == ("yx", (5, 6))


def test_an_override_drops_the_voxel_size_of_an_axis_that_is_gone(tmp_path):
    write(tmp_path / "a.tif", Image(VOLUME, "zyx", {"z": 1.0, "y": 2.0, "x": 2.0}))
    assert read(tmp_path / "a.tif", axes="tyx").voxel_size == {"y": 2.0, "x": 2.0}


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("micron", 1),
        ("um", 1),
        ("µm", 1),
        ("\\u00B5m", 1),
        ("nm", 1e-3),
        ("mm", 1e3),
        ("cm", 1e4),
        ("inch", 25400),
    ],
)
def test_imagej_units(tmp_path, unit, factor):
    tifffile.imwrite(
        tmp_path / "a.tif",
        VOLUME,
        photometric="minisblack",
        description=f"ImageJ=1.54f\nimages=4\nslices=4\nunit={unit}\nspacing=0.5\n".encode("latin1"),
        metadata=None,
        resolution=(4.0, 2.0),
        resolutionunit="none",
    )
    image = read(tmp_path / "a.tif")
    assert image.axes == "zyx"
    assert image.voxel_size == pytest.approx({"z": 0.5 * factor, "y": 0.5 * factor, "x": 0.25 * factor})


@pytest.mark.parametrize("unit", ["unit=pixel\n", ""])
def test_imagej_pixels_are_no_length(tmp_path, unit):
    tifffile.imwrite(
        tmp_path / "a.tif",
        VOLUME,
        photometric="minisblack",
        description=f"ImageJ=1.54f\nimages=4\nslices=4\n{unit}spacing=0.5\n",
        metadata=None,
        resolution=(4.0, 2.0),
    )
    assert read(tmp_path / "a.tif").voxel_size == {}


def test_ome_units_and_interval(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        VOLUME,
        photometric="minisblack",
        metadata={
            **{"axes": "ZYX", "PhysicalSizeX": 65.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.1},
            **{"PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "pixel"},
            **{"TimeIncrement": 500.0, "TimeIncrementUnit": "ms"},
        },
    )
    image = read(tmp_path / "a.ome.tif")
    assert image.voxel_size == pytest.approx({"x": 0.065, "y": 0.1})
    assert image.metadata["time_interval"] == 0.5


def test_dots_per_inch_are_no_voxel_size_but_per_centimetre_are(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0], resolution=(300, 300), resolutionunit="inch")
    assert read(tmp_path / "a.tif").voxel_size == {}
    tifffile.imwrite(tmp_path / "b.tif", VOLUME[0], resolution=(1e5, 5e4), resolutionunit="centimeter")
    assert read(tmp_path / "b.tif").voxel_size == pytest.approx({"x": 0.1, "y": 0.2})


def test_the_largest_of_several_images_with_a_warning(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(VOLUME[0, :5, :5], photometric="minisblack")
        tif.write(VOLUME, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.warns(SelfinvWarning, match=r"2 images; took the largest, number 2"):
        image = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data, VOLUME)


def test_the_voxel_sizes_are_those_of_the_largest_ome_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        small = {"axes": "YX", "PhysicalSizeX": 9.0}
        tif.write(VOLUME[0, :5, :5], photometric="minisblack", metadata=small)
        tif.write(VOLUME, photometric="minisblack", metadata={"axes": "ZYX", "PhysicalSizeX": 0.1})
    with pytest.warns(SelfinvWarning, match="2 images"):
        assert read(tmp_path / "a.ome.tif").voxel_size == {"x": 0.1}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_dropped_and_not_silently(tmp_path, suffix, mode):
    if (suffix, mode) == (".tif", "LA"):
        grey = np.dstack([np.full((6, 5), 7, np.uint8), np.full((6, 5), 255, np.uint8)])
        tifffile.imwrite(tmp_path / f"a{suffix}", grey, photometric="minisblack", extrasamples=["unassalpha"])
        grey[0, 0, 1] = 0
        tifffile.imwrite(tmp_path / f"b{suffix}", grey, photometric="minisblack", extrasamples=["unassalpha"])
    else:
        picture = PIL.Image.new(mode, (5, 6), (7,) * (len(mode) - 1) + (255,))
        picture.save(tmp_path / f"a{suffix}")
        picture.putpixel((0, 0), (7,) * (len(mode) - 1) + (0,))
        picture.save(tmp_path / f"b{suffix}")
    expected = np.full((6, 5, 3) if mode == "RGBA" else (6, 5), 7)
    with pytest.warns(SelfinvWarning, match="an opaque alpha channel; left out"):
        np.testing.assert_array_equal(read(tmp_path / f"a{suffix}").data, expected)
    with pytest.warns(SelfinvWarning, match="transparen"):
        image = read(tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(image.data, expected)
    assert image.axes == "yxc"[: image.data.ndim]


def test_content_decides_not_the_name(tmp_path):
    write(tmp_path / "a.png", VOLUME[0])
    os.rename(tmp_path / "a.png", tmp_path / "a.tif")
    np.testing.assert_array_equal(read(tmp_path / "a.tif").data, VOLUME[0])


def test_one_bit_pages(tmp_path):
    pages = [PIL.Image.fromarray(plane > 2000) for plane in VOLUME]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    image = read(tmp_path / "a.tif", axes="zyx")
    assert image.data.dtype == np.uint8
    np.testing.assert_array_equal(image.data, VOLUME > 2000)


def test_booleans_become_zeros_and_ones(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3, dtype=bool))
    image = read(tmp_path / "a.npy")
    assert image.data.dtype == np.uint8
    assert image.data.tolist() == np.eye(3).tolist()


# --- files that are no good --------------------------------------------------------------------------------


def test_missing_file_with_a_suggestion(tmp_path):
    write(tmp_path / "cells.tif", VOLUME[0])
    assert f"did you mean {tmp_path / 'cells.tif'}?" in message(tmp_path / "cell.tif")
    assert "does not exist" in message(tmp_path / "entirely-different.npy")
    assert "nor does the folder" in message(tmp_path / "nowhere" / "cells.tif")


def test_folder_and_empty_file(tmp_path):
    assert "is a folder" in message(tmp_path)
    (tmp_path / "a.tif").touch()
    assert "is empty" in message(tmp_path / "a.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    assert "no regular file" in message(tmp_path / "pipe.tif")


def test_unreadable_file(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", VOLUME[0])

    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")

    # Root may read anything, so the refusal is made up.
    monkeypatch.setattr("builtins.open", denied)
    with pytest.raises(InputError) as error:
        read(tmp_path / "a.tif")
    assert "could not be opened: Permission denied" in str(error.value)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.npy", "a.fits"])
def test_garbage(tmp_path, name):
    (tmp_path / name).write_bytes(b"hello, I am no image" * 99)
    assert "or a corrupt one: it begins with b'hello, I'" in message(tmp_path / name)


def test_other_formats_are_named_and_the_known_ones_listed(tmp_path):
    PIL.Image.new("L", (5, 5)).save(tmp_path / "a.jpg")
    text = message(tmp_path / "a.jpg")
    assert "is a JPEG file" in text
    assert all(name in text for name in (".ome.tif", ".png", ".npy", ".fits"))
    (tmp_path / "a.xyz").write_bytes(b"hello")
    assert "unknown format" in message(tmp_path / "a.xyz")


@pytest.mark.parametrize("count", [3, 4, 5])
def test_no_frame_of_a_plain_stack_is_taken_for_transparency(tmp_path, count):
    frames = np.random.default_rng(0).random((count, 24, 20)).astype(np.float32)
    tifffile.imwrite(tmp_path / "stack.tif", frames)
    assert np.array_equal(read(tmp_path / "stack.tif", axes="tyx").data, frames)


def stacked(path):
    """A stack whose page directories and pixels alternate, as most programs write it."""
    pages = [PIL.Image.fromarray((plane // 16).astype(np.uint8)) for plane in VOLUME]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def virtual(path):
    """An ImageJ stack under a single page, as ImageJ writes it beyond 4 GB."""
    options = {"imagej": True, "truncate": True, "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(path, VOLUME, **options)


TIFFS = {
    "imagej": lambda path: write(path, Image(VOLUME, "zyx", {"x": 0.1})),
    "ome": lambda path: write(path, Image(VOLUME, "zyx", {"x": 0.1})),
    "plain": lambda path: write(path, Image(VOLUME.astype(float), "zyx", {"x": 0.1})),
    "bigtiff": lambda path: tifffile.imwrite(path, VOLUME, bigtiff=True, photometric="minisblack"),
    "big-endian": lambda path: tifffile.imwrite(path, VOLUME, byteorder=">", photometric="minisblack"),
    "zlib": lambda path: tifffile.imwrite(path, VOLUME, compression="zlib", photometric="minisblack"),
    "lzw": lambda path: tifffile.imwrite(path, VOLUME, compression="lzw", photometric="minisblack"),
    "tiled": lambda path: tifffile.imwrite(path, VOLUME, tile=(16, 16), photometric="minisblack"),
    "pages": stacked,
    "imagej virtual": virtual,
    "plain virtual": lambda path: tifffile.imwrite(path, VOLUME, truncate=True, photometric="minisblack"),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_a_tiff_cut_anywhere_is_never_read_as_something_else(tmp_path, kind):
    path = tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif")
    TIFFS[kind](path)
    whole = path.read_bytes()
    original = read(path)
    refused = 0
    for length in [*range(1, len(whole), max(1, len(whole) // 60)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        try:
            image = read(path)
        except InputError:
            refused += 1
        else:
            # A last byte of padding may go, but no page, pixel or name.
            assert length >= len(whole) - 1
            assert (image.axes, image.voxel_size) == (original.axes, original.voxel_size)
            np.testing.assert_array_equal(image.data, original.data)
    assert refused >= 55


@pytest.mark.parametrize(
    ("name", "data"), [("a.png", VOLUME[0]), ("a.npy", VOLUME), ("a.fits", VOLUME * 1.0)]
)
def test_other_formats_cut_short(tmp_path, name, data):
    if name == "a.fits":
        pytest.importorskip("astropy")
    path = tmp_path / name
    write(path, data)
    whole = path.read_bytes()
    for part in (0.02, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert "truncated or corrupt" in message(path)


def test_damaged_compressed_pixels(tmp_path):
    for name, options in {"a.tif": {"compression": "zlib"}, "b.tif": {"compression": "zstd"}}.items():
        tifffile.imwrite(tmp_path / name, VOLUME, photometric="minisblack", **options)
        raw = bytearray((tmp_path / name).read_bytes())
        with tifffile.TiffFile(tmp_path / name) as tif:
            start = tif.pages[1].dataoffsets[0]
        raw[start : start + 60] = b"\xff" * 60
        (tmp_path / name).write_bytes(raw)
        assert "truncated or corrupt" in message(tmp_path / name)
    write(tmp_path / "c.png", VOLUME[0])
    raw = bytearray((tmp_path / "c.png").read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    (tmp_path / "c.png").write_bytes(raw)
    assert "truncated or corrupt" in message(tmp_path / "c.png")


def test_planes_that_are_announced_but_missing(tmp_path, caplog):
    for name, compression in {"a.tif": None, "b.tif": "zlib"}.items():
        text = "ImageJ=1.54f\nimages=9\nslices=9\n"
        tifffile.imwrite(
            tmp_path / name,
            VOLUME,
            description=text,
            metadata=None,
            photometric="minisblack",
            compression=compression,
        )
        assert "truncated or corrupt" in message(tmp_path / name)
    write(tmp_path / "c.ome.tif", Image(VOLUME, "zyx"))
    xml = tifffile.TiffFile(tmp_path / "c.ome.tif").ome_metadata
    more = xml.replace('SizeZ="4"', 'SizeZ="9"').replace('PlaneCount="4"', 'PlaneCount="9"')
    tifffile.imwrite(
        tmp_path / "c.ome.tif", VOLUME, description=more.encode(), metadata=None, photometric="minisblack"
    )
    caplog.clear()
    assert "5 of 9 planes are missing" in message(tmp_path / "c.ome.tif")
    assert not caplog.records  # tifffile's own complaint would be a second line on the screen
    assert not logging.getLogger("tifffile").filters


def test_a_page_with_too_few_bytes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0], metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[0].tags["StripByteCounts"].overwrite(100)
    assert "has 100 of 960 bytes" in message(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        tif.pages[0].tags["StripByteCounts"].overwrite(0)
    assert "truncated or corrupt" in message(tmp_path / "a.tif")


def test_a_loop_of_pages_ends(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME[0], metadata=None)
    raw = bytearray((tmp_path / "a.tif").read_bytes())
    (first,) = struct.unpack_from("<I", raw, 4)
    (entries,) = struct.unpack_from("<H", raw, first)
    struct.pack_into("<I", raw, first + 2 + 12 * entries, first)
    (tmp_path / "a.tif").write_bytes(raw)
    assert "truncated or corrupt" in message(tmp_path / "a.tif")


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    np.save(tmp_path / "a.npy", np.array([Bomb()], object), allow_pickle=True)
    assert "pickled" in message(tmp_path / "a.npy")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((3, 3), complex), "is complex"),
        (np.zeros((3, 3), "S4"), "has the type"),
        (np.zeros((3, 3), "datetime64[s]"), "has the type"),
        (np.zeros((3, 3), [("a", "f4"), ("b", "f4")]), "has the type"),
        (np.zeros((3, 0)), "is empty"),
        (np.float64(3), "single number"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, data, words):
    np.save(tmp_path / "a.npy", data)
    assert words in message(tmp_path / "a.npy")


def test_an_absurd_size_does_not_take_the_machine_down(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 3)))
    raw = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(raw.replace(b"(3, 3)", b"(9999999, 9999999)")[: len(raw)])
    assert "does not fit in memory" in message(tmp_path / "a.npy")


def test_fits_without_an_image_and_with_several(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "a.fits")
    assert "holds no image" in message(tmp_path / "a.fits")
    science, error = (fits.ImageHDU(np.full((3, 4), n), name=name) for n, name in ((1, "SCI"), (2, "ERR")))
    fits.HDUList([fits.PrimaryHDU(), science, error]).writeto(tmp_path / "b.fits")
    with pytest.warns(SelfinvWarning, match="2 images; took SCI"):
        assert read(tmp_path / "b.fits").data.tolist() == np.ones((3, 4)).tolist()


def test_fits_without_astropy(tmp_path, monkeypatch):
    (tmp_path / "a.fits").write_bytes(b"SIMPLE  =                    T".ljust(2880))
    monkeypatch.setitem(sys.modules, "astropy.io", None)
    for call in (lambda: read(tmp_path / "a.fits"), lambda: write(tmp_path / "b.fits", VOLUME)):
        with pytest.raises(InputError, match=r"FITS needs astropy: pip install 'selfinv\[fits\]'"):
            call()


def several(path):
    """SCI twice, its second version with other values, a mask, and a table."""
    fits = pytest.importorskip("astropy.io.fits")
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=np.zeros(3))], name="CAT")
    images = [
        fits.ImageHDU(np.full((3, 4), n, kind), name=name, ver=version)
        for n, kind, name, version in ((1, "f4", "SCI", 1), (2, "f4", "SCI", 2), (3, "i2", "DQ", 1))
    ]
    fits.HDUList([fits.PrimaryHDU(), *images, table]).writeto(path)


@pytest.mark.parametrize(
    ("named", "value"), [("[DQ]", 3), ("[dq]", 3), ("[3]", 3), ("[SCI]", 1), ("[SCI,2]", 2), ("[sci, 2]", 2)]
)
def test_an_extension_is_read_by_name_version_or_number(tmp_path, recwarn, named, value):
    several(tmp_path / "a.fits")
    for image in (read(f"{tmp_path}/a.fits{named}"), open_lazily(f"{tmp_path}/a.fits{named}")):
        data = image.read([slice(None)] * 2) if hasattr(image, "read") else image.data
        assert (data.shape, data.max(), data.min()) == ((3, 4), value, value)
    assert not recwarn  # there is nothing to choose


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("[DX]", "is not there; the file has 0 (PRIMARY: no image), 1 (SCI), 2 (SCI,2), 3 (DQ), 4 (CAT: no"),
        ("[5]", "is not there; the file has 0"),
        ("[SCI,3]", "is not there; the file has 0"),
        ("[cat]", "is no image; the file has 0"),
        ("[0]", "is no image; the file has 0"),
    ],
)
def test_an_extension_that_is_none_is_told_with_those_that_are(tmp_path, named, words):
    several(tmp_path / "a.fits")
    assert words in message(f"{tmp_path}/a.fits{named}")


def test_brackets_may_belong_to_a_files_own_name(tmp_path):
    several(tmp_path / "a.fits")
    for name in ("a.fits[DQ]", "b[2].npy"):
        with open(tmp_path / name, "wb") as stream:
            np.save(stream, np.full((5, 6), 7.0))
        assert read(tmp_path / name).data.max() == 7.0
    with pytest.raises(InputError, match=r"gone\.fits does not exist"):
        read(tmp_path / "gone.fits[DQ]")
    assert "only FITS has extensions; leave [1] out" in message(tmp_path / "b[2].npy[1]")
    with pytest.raises(InputError, match="same file as the input"):
        check_output(tmp_path / "a.fits", inputs=[tmp_path / "a.fits[1]"])


@pytest.mark.parametrize("bits", [16, 32])
def test_blank_pixels_of_unsigned_fits_are_missing(tmp_path, bits):
    fits = pytest.importorskip("astropy.io.fits")
    blank, zero = -(2 ** (bits - 1)), 2.0 ** (bits - 1)  # how cameras write unsigned values
    stored = np.arange(30, dtype=f"i{bits // 8}").reshape(5, 6)
    stored[2, 3] = blank
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BLANK"] = blank
    hdu.writeto(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits", mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BZERO"], hdus[0].header["BSCALE"] = zero, 1.0
    data = read(tmp_path / "a.fits").data
    expected = np.arange(30.0).reshape(5, 6) + zero
    expected[2, 3] = np.nan
    np.testing.assert_array_equal(data, expected)
