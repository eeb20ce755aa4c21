"""Pictures: every way in gives the same bits, and what is no picture is refused by name."""

import gc
import io
import os
import struct
import subprocess
import sys
import weakref
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from hydra_detect.errors import InputError
from hydra_detect.pictures import Picture, is_single, iter_pictures, open_picture, to_channels

BYTES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3)))


def colours(height=4, width=6):
    """Return an uneven RGB picture, uint8 [height, width, 3]."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three pictures, a text file and a folder within."""
    for number, name in enumerate(["c.png", "a.PNG", "b.jpg"]):
        Image.fromarray(colours(4 + number)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "inner.png").mkdir()
    return tmp_path


@given(BYTES)
def test_every_way_in_gives_the_same_bits(values):
    """File, PIL image, array and tensor, of bytes or floats, give identical float32 planes."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    tensor = torch.from_numpy(values.transpose(2, 0, 1).copy())
    ways = [Image.open(file), Image.fromarray(values), values, values / np.float32(255), tensor, tensor / 255]
    expected = (values.astype(np.float32) / np.float32(255)).transpose(2, 0, 1)
    for way in ways:
        pixels = open_picture(way).pixels
        assert pixels.dtype == np.float32
        assert pixels.flags.c_contiguous
        assert np.array_equal(pixels, expected)


def test_a_file_knows_its_source_and_size(folder):
    """The picture of a file keeps the path as given and tells (height, width)."""
    path = folder / "c.png"
    for given_path in (path, str(path)):
        picture = open_picture(given_path)
        assert picture == Picture(open_picture(colours()).pixels, str(path))
        assert picture.image_size == (4, 6)
    with Image.open(path) as image:
        assert open_picture(image).source == str(path)
    assert open_picture(colours()).source is None


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp", "ppm", "gif", "jpg"])
def test_usual_formats_are_read(tmp_path, ending):
    """Each of the usual file formats is read; an even picture survives even the lossy ones."""
    Image.new("RGB", (20, 10), (255, 255, 255)).save(tmp_path / f"a.{ending}")
    picture = open_picture(tmp_path / f"a.{ending}")
    assert picture.image_size == (10, 20)
    assert picture.pixels.min() > 0.98


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_orientation_is_applied(tmp_path, ending, orientation):
    """A picture stored turned, with the tag that says so, comes out upright from file and PIL image."""
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = 255
    # How a camera stores the upright picture under each orientation.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.ascontiguousarray(stored[orientation])).save(path, exif=exif)
    with Image.open(path) as image:
        ways = [open_picture(path), open_picture(image)]
    for picture in ways:
        assert picture.image_size == (16, 32)
        assert np.abs(picture.pixels - upright.transpose(2, 0, 1) / 255).max() < 0.1


# Modes and types


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [1]), ("L", 51, [0.2]), ("LA", (51, 7), [0.2]), ("La", (51, 255), [0.2]), ("P", 0, None),
        ("RGB", (51, 102, 255), [0.2, 0.4, 1]), ("RGBA", (51, 102, 255, 0), [0.2, 0.4, 1]),
        ("RGBX", (51, 102, 255, 0), [0.2, 0.4, 1]), ("CMYK", (255, 0, 0, 0), [0, 1, 1]),
        ("YCbCr", (255, 128, 128), [1, 1, 1]), ("HSV", (0, 0, 51), [0.2, 0.2, 0.2]),
        ("I;16", 13107, [0.2]), ("I;16B", 13107, [0.2]), ("I", 51, [0.2]), ("I", 13107, [0.2]), ("F", 0.2, [0.2]),
    ],
)  # fmt: skip
def test_modes_of_pil(mode, colour, expected):
    """Each mode gives grey or colour in [0, 1], without its alpha."""
    picture = open_picture(Image.new(mode, (3, 2), colour))
    assert picture.image_size == (2, 3)
    if expected is not None:
        np.testing.assert_allclose(picture.pixels[:, 0, 0], expected, atol=1e-6)
        assert picture.pixels.shape[0] == len(expected)


def test_palettes_with_transparency(tmp_path):
    """A palette picture with transparent entries gives its colours."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 51, 102, 255])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    np.testing.assert_allclose(open_picture(tmp_path / "a.png").pixels[:, 0, 0], [0.2, 0.4, 1], atol=1e-6)


@pytest.mark.parametrize("big", [False, True])
def test_sixteen_bits(tmp_path, big):
    """16-bit values are divided by 65535, from file, array and tensor, in either byte order."""
    values = np.array([[0, 65535, 13107]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    ways = [tmp_path / "a.png", values.astype(">u2") if big else values, torch.from_numpy(values)]
    for way in ways:
        np.testing.assert_allclose(open_picture(way).pixels, [[[0, 1, 0.2]]], rtol=1e-6)


TENSOR_TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", TENSOR_TYPES)
def test_types_of_tensors(dtype):
    """Floating and byte tensors are read as they are, gradients or not, and never share memory with the picture."""
    tensor = torch.ones(3, 2, 4).to(dtype)
    if dtype.is_floating_point:
        tensor.requires_grad_()
    picture = open_picture(tensor)
    assert picture.image_size == (2, 4)
    assert np.unique(picture.pixels).tolist() == [np.float32(1) / np.float32(255) if dtype == torch.uint8 else 1]
    tensor.detach().zero_()
    assert picture.pixels.all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 3), (5, 7, 4)])
def test_shapes_of_arrays(shape):
    """Arrays are [height, width] with 1, 3 or 4 channels behind; the fourth is dropped."""
    values = np.zeros(shape)
    values[..., -1:] = 1
    picture = open_picture(values if shape[-1] == 4 else np.zeros(shape))
    assert picture.image_size == (5, 7)
    assert picture.pixels.shape[0] == (1 if shape[-1] in (1, 7) else 3)
    assert not picture.pixels.any()
    assert open_picture(np.ones((1, 1), dtype=bool)).image_size == (1, 1)


@given(BYTES)
def test_channels(values):
    """Grey repeats to colour and comes back; colour is weighted as Pillow does, and stays in [0, 1]."""
    colour = open_picture(values)
    grey = to_channels(colour, 1)
    assert grey.pixels.shape == (1, *colour.image_size)
    assert grey.pixels.dtype == np.float32
    assert 0 <= grey.pixels.min() <= grey.pixels.max() <= 1
    np.testing.assert_allclose(grey.pixels[0] * 255, np.asarray(Image.fromarray(values).convert("L")), atol=1)
    again = to_channels(grey, 3)
    assert all(np.array_equal(plane, grey.pixels[0]) for plane in again.pixels)
    np.testing.assert_allclose(to_channels(again, 1).pixels, grey.pixels, atol=1e-6)
    assert to_channels(colour, 3) is colour


def test_other_channel_counts_are_refused():
    """The error says how many channels there are and how many were asked for."""
    with pytest.raises(InputError, match=r"a picture of 3 channel.* into one of 13"):
        to_channels(open_picture(colours()), 13)


# One or many


def test_one_or_many(folder):
    """A file, image, array or tensor is one; a folder, a pattern and an iterable are many."""
    ones = [folder / "c.png", str(folder / "none.png"), Image.new("L", (1, 1)), colours(), torch.zeros(3, 2, 2)]
    assert all(map(is_single, [*ones, open_picture(colours())]))
    assert not any(map(is_single, [folder, str(folder), f"{folder}/*.png", [], (colours(),), iter([])]))


def test_folders_patterns_and_lists(folder):
    """A folder gives its pictures by name, a pattern its files by name, and lists nest."""
    paths = [os.fspath(folder / name) for name in ("a.PNG", "b.jpg", "c.png")]
    assert [picture.source for picture in iter_pictures(folder)] == paths
    assert [picture.source for picture in iter_pictures(f"{folder}/*.[pj][np]g")] == paths[1:]
    mixed = [str(folder), (colours(), torch.zeros(1, 2, 2)), Image.new("L", (1, 1)), iter([folder / "c.png"])]
    assert [picture.source for picture in iter_pictures(mixed)] == [*paths, None, None, None, paths[2]]
    assert list(iter_pictures([])) == []
    assert len(list(iter_pictures(colours()))) == 1


def test_a_file_with_pattern_characters_is_a_file(tmp_path):
    """A file whose name holds [ and ] is opened as it is called."""
    path = tmp_path / "a[1].png"
    Image.fromarray(colours()).save(path)
    assert is_single(path)
    assert open_picture(path).source == str(path)
    assert [picture.source for picture in iter_pictures(str(path))] == [str(path)]


def test_one_picture_at_a_time():
    """Reading on lets go of the picture before: never are two in memory, and nothing is read ahead."""
    asked, alive = [], []

    def inputs():
        for number in range(4):
            asked.append(number)
            gc.collect()
            assert not any(pixels() is not None for pixels in alive)
            yield colours()

    for picture in iter_pictures([inputs(), [colours()]]):
        assert asked[-1] == min(len(alive), 3)
        alive.append(weakref.ref(picture.pixels))
        del picture
    assert len(alive) == 5


def test_nothing_to_read_is_told_at_once(folder, tmp_path):
    """A folder without pictures and a pattern without files are errors before the first picture is asked for."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"the folder has no file that ends in \.bmp"):
        iter_pictures(tmp_path / "empty")
    with pytest.raises(InputError, match="no file matches the pattern") as caught:
        iter_pictures(f"{folder}/*.tiff")
    assert caught.value.facts["source"] == f"{folder}/*.tiff"


# Refusals


def png_of_size(width, height):
    """Return a PNG that claims a size and holds hardly any data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
def test_too_large_is_told_before_decoding(tmp_path, side):
    """A file that claims too many pixels is refused by its header, without Pillow's own warning or error."""
    (tmp_path / "bomb.png").write_bytes(png_of_size(side, side))
    with pytest.raises(InputError, match=f"{side} x {side}, {side * side} pixels, and the limit is 50000000"):
        open_picture(tmp_path / "bomb.png")


def test_a_raised_limit_is_honoured(tmp_path):
    """A size that Pillow would warn of is decoded where the caller allows it."""
    (tmp_path / "large.png").write_bytes(png_of_size(95_000, 1_000))
    with pytest.raises(InputError, match="truncated or corrupt"):  # got past the limit, and found no data
        open_picture(tmp_path / "large.png", max_pixels=95_000_000)


def test_the_limit_holds_for_every_way(tmp_path):
    """Files, images, arrays, tensors and Pictures above the limit are refused; at the limit they are read."""
    Image.fromarray(colours()).save(tmp_path / "a.png")
    ways = [tmp_path / "a.png", Image.fromarray(colours()), colours(), torch.zeros(3, 4, 6), open_picture(colours())]
    for way in ways:
        assert open_picture(way, max_pixels=24).image_size == (4, 6)
        with pytest.raises(InputError, match="4 x 6, 24 pixels, and the limit is 23"):
            open_picture(way, max_pixels=23)
        with pytest.raises(InputError, match="limit is 23"):
            list(iter_pictures([way], max_pixels=23))


def test_missing_files_are_named(tmp_path):
    """A path that is nothing, a folder, or no regular file is named in the error."""
    for name in (str(tmp_path / "none.png"), "", "a\0b.png", "x" * 5000):
        with pytest.raises(InputError, match="there is no such file"):
            open_picture(name)
    with pytest.raises(InputError, match="it is a folder"):
        open_picture(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="it is no file"):
        open_picture(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"none\.png"):
        list(iter_pictures([colours(), tmp_path / "none.png"]))


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "tif", "webp"])
def test_broken_files_are_named(tmp_path, ending):
    """Truncated, empty and foreign files are refused with their path."""
    path = tmp_path / f"a.{ending}"
    Image.fromarray(colours(64, 64)).save(path)
    whole = path.read_bytes()
    for length, found in (
        (len(whole) // 2, "truncated or corrupt"),
        (20, "truncated or corrupt|no picture"),
        (0, "empty"),
    ):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=found) as caught:
            open_picture(path)
        assert caught.value.facts["source"] == str(path)
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0 no picture")
    with pytest.raises(InputError, match="no picture of a known kind"):
        open_picture(path)


@given(st.data())
def test_damaged_files_never_raise_anything_else(tmp_path_factory, data):
    """Whatever byte of a file is changed, the outcome is a picture or an InputError."""
    ending = data.draw(st.sampled_from(["png", "jpg", "bmp", "gif", "tif", "webp"]))
    file = io.BytesIO()
    Image.fromarray(colours(8, 8)).save(file, Image.registered_extensions()[f".{ending}"])
    damaged = bytearray(file.getvalue())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = Path(tmp_path_factory.getbasetemp()) / f"damaged.{ending}"
    path.write_bytes(damaged)
    try:
        assert open_picture(path).pixels.size
    except InputError as error:
        assert error.facts.get("source", str(path)) == str(path)  # noqa: PT017  some damage is harmless


def test_a_truncated_pil_image_is_named(tmp_path):
    """A PIL image that cannot be decoded, or was closed, is an InputError."""
    Image.fromarray(colours(64, 64)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    with pytest.raises(InputError, match="truncated or corrupt"):
        open_picture(Image.open(io.BytesIO(whole[: len(whole) // 2])))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.zeros((2, 4, 4, 3)), r"it has 4 axes .*list\(batch\)"),
        (np.zeros(5), "it has 1 axes"),
        (np.zeros((3, 8, 8)), r"arrays are \[height, width, channel\], and 8 .*transpose"),
        (torch.zeros(8, 8, 3), r"tensors are \[channel, height, width\], and 8 .*permute"),
        (torch.zeros(2, 3, 8, 8), r"it has 4 axes .*list\(batch\)"),
        (np.zeros((0, 5, 3)), "0 x 5 and has no pixel"),
        (torch.zeros(3, 5, 0), "5 x 0 and has no pixel"),
        (np.full((2, 2), 255.0), "values run from 255 to 255"),
        (np.array([[0, np.nan]]), "values run from nan to nan"),
        (np.array([[0, np.inf]]), "values run from 0 to inf"),
        (np.array([[-0.5, 1]]), "values run from -0.5 to 1"),
        (np.zeros((2, 2), dtype=np.int64), "of type int64"),
        (torch.zeros(2, 2, dtype=torch.int32), "of type int32"),
        (np.array([["a"]]), "of type <U1"),
        (Image.new("F", (1, 1), 3.5), "values run from 3.5"),
        (Image.new("I", (1, 1), 70_000), "values run from 70000"),
        (Image.new("I", (1, 1), -1), "values run from -1"),
        (Image.new("RGB", (0, 3)), "has no pixel"),
    ],
)
def test_unfit_values_are_explained(values, found):
    """A wrong shape, range or type is refused with what was found and what to do."""
    with pytest.raises(InputError, match=found) as caught:
        open_picture(values)
    assert caught.value.remedy


@pytest.mark.parametrize("x", [None, 5, b"\x89PNG", io.BytesIO(), {"a": 1}, object()])
def test_what_is_no_picture_is_refused(x):
    """Other types are refused by name; bytes and open files are told how to become a picture."""
    remedy = "PIL.Image.open" if isinstance(x, bytes | io.BytesIO) else "Pass a path"
    for read in (open_picture, iter_pictures, lambda x: list(iter_pictures([x]))):
        with pytest.raises(InputError, match=f"of type {type(x).__name__}.*{remedy}"):
            read(x)
    assert not is_single(x)


def test_a_picture_has_planes():
    """A Picture made by hand needs float32 [1 or 3, height, width]."""
    for pixels in (np.zeros((3, 2, 2)), np.zeros((2, 2, 2), np.float32), np.zeros((1, 0, 2), np.float32), 5):
        with pytest.raises(InputError, match="its pixels are"):
            Picture(pixels)


def test_torch_is_not_imported():
    """Reading pictures does without torch."""
    script = "import sys, hydra_detect.pictures, hydra_detect.drawing; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
        == "False"
    )
