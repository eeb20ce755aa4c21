"""Pictures: whatever a user calls a picture, read as one value.

Owns the way from files, PIL images, arrays and tensors to float32 planes in [0, 1]; the same picture gives the same
bits by every way. Reads one picture at a time and refuses, before decoding, what is larger than asked for. It does
not import torch: a tensor is known by its methods. Arrays are [height, width, channel] as in numpy and PIL, tensors
[channel, height, width] as in torchvision; channels are red, green, blue. Of an animation or a TIFF of many pages
the first picture is read.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import attrs
import numpy as np
from PIL import Image, TiffImagePlugin, WebPImagePlugin  # noqa: F401  registers the readers that preinit leaves out

from hydra_detect.errors import InputError, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_MAX_PIXELS = 50_000_000
"""Largest picture read unasked: as float32 RGB it takes 600 MB."""

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
"""Files of a folder with these endings, in either case, are its pictures."""

# A short list on purpose: other readers of Pillow start programs (EPS) or are rarely proven against hostile files.
_KINDS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_MAGIC_BYTES = 16
# What Pillow's readers raise on broken files; a Warning arrives here where the caller's filters make it an error.
_BROKEN = (
    OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError, Warning,
)  # fmt: skip
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_EXIF = (b"eXIf", b"XML:com.adobe.xmp", b"Raw profile type")
_GREY, _COLOUR, _WITH_ALPHA = 1, 3, 4
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's convert("L")
_LARGEST_BYTE, _LARGEST_SHORT = 255, 65535


def _check_planes(_instance: Any, _attribute: Any, pixels: Any) -> None:
    planes = isinstance(pixels, np.ndarray) and pixels.dtype == np.float32 and pixels.ndim == 3  # noqa: PLR2004  axes
    if not planes or pixels.shape[0] not in (_GREY, _COLOUR) or not pixels.size:
        what = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        remedy = "Give float32 [1 or 3, height, width], or use open_picture."
        raise InputError("make a Picture", f"its pixels are {what}", remedy)


@attrs.frozen
class Picture:
    """One upright picture.

    Args:
        pixels: [channels, height, width] float32 in [0, 1]; 3 channels are red, green, blue, 1 is grey.
        source: Path of the file, if it came from one.

    Raises:
        InputError: If the pixels have another shape or dtype.

    """

    pixels: NDArray[np.float32] = attrs.field(
        validator=_check_planes, eq=attrs.cmp_using(eq=np.array_equal), repr=lambda pixels: f"<{list(pixels.shape)}>"
    )
    source: str | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[2])


def is_single(x: Any) -> bool:
    """Tell whether `x` is one picture; a folder, a glob pattern and any other iterable are many (or none)."""
    if isinstance(x, str | os.PathLike):
        name = os.fsdecode(x)
        return not _is_folder(name) and not _is_pattern(name)
    return isinstance(x, Picture | Image.Image | np.ndarray) or _is_tensor(x)


def iter_pictures(x: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Iterator[Picture]:
    """Read pictures one by one; only the one last yielded is in memory.

    Args:
        x: One picture as for `open_picture`; a folder (its picture files by name, not those of folders within);
            a glob pattern (its files by name); or an iterable of any of these, read as it is consumed.
        max_pixels: Most pixels (height times width) a picture may have.

    Raises:
        InputError: If something is no picture, or a folder or pattern has none; the latter at once, the former
            when its turn comes.

    """
    if isinstance(x, str | os.PathLike):
        return (_from_file(name, max_pixels) for name in _files(os.fsdecode(x)))
    if is_single(x):
        return (open_picture(one, max_pixels=max_pixels) for one in (x,))
    if isinstance(x, bytes | bytearray | memoryview | Mapping) or hasattr(x, "read") or not isinstance(x, Iterable):
        raise _unusable(x)
    return _each(x, max_pixels)


def list_files(names: Iterable[str]) -> list[str]:
    """Return the picture files that names, folders and patterns stand for, without opening them.

    Raises:
        InputError: If a folder or pattern has none.

    """
    return [file for name in names for file in _files(name)]


def open_picture(x: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
    """Read one picture.

    Args:
        x: A path; a PIL image; a numpy array [height, width] or [height, width, 1, 3 or 4]; a torch tensor
            [height, width] or [1, 3 or 4, height, width]; or a Picture. Arrays and tensors are bool, uint8
            (0..255), uint16 (0..65535) or floating (0..1). A fourth channel is alpha and is dropped. Files and
            PIL images are turned upright by their EXIF orientation. A PIL image of mode "I", whose range Pillow
            does not tell, is read as 16 bits if any value is above 255, else as 8.
        max_pixels: Most pixels (height times width) it may have.

    Raises:
        InputError: If it is missing, broken, too large, no picture, or many.

    """
    if isinstance(x, str | os.PathLike):
        return _from_file(os.fsdecode(x), max_pixels)
    if isinstance(x, Picture):
        _check_size("use a Picture", x.image_size, max_pixels)
        return x
    if isinstance(x, Image.Image):
        return _from_image(x, max_pixels)
    if _is_tensor(x):
        return _from_tensor(x, max_pixels)
    if isinstance(x, np.ndarray):
        return Picture(_planes(x, layout="HWC", max_pixels=max_pixels))
    raise _unusable(x)


def image_size_of(path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> tuple[int, int]:
    """Return the (height, width) that `open_picture` would give a file, from its header alone.

    Raises:
        InputError: If it is missing, no picture, or too large.

    """
    with _opened(os.fsdecode(path)) as (image, asked):
        _check_size(asked, (image.height, image.width), max_pixels)
        # Pillow turns a TIFF by itself. For a PNG, which may tell its orientation last, it would decode the pixels.
        png = image.format == "PNG" and not any(mark in Path(path).read_bytes() for mark in _PNG_EXIF)
        silent = png or image.format == "TIFF"
        on_its_side = not silent and image.getexif().get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if on_its_side else (image.height, image.width)


def to_channels(picture: Picture, channels: int) -> Picture:
    """Return the picture with 1 or 3 channels: grey is repeated, colour is weighted as in ITU-R BT.601.

    Raises:
        InputError: For any other number.

    """
    present = picture.pixels.shape[0]
    if present == channels:
        return picture
    if (present, channels) == (_GREY, _COLOUR):
        return attrs.evolve(picture, pixels=np.repeat(picture.pixels, _COLOUR, axis=0))
    if (present, channels) == (_COLOUR, _GREY):
        grey = np.tensordot(_LUMA, picture.pixels, axes=1)[None]  # [1, height, width]
        return attrs.evolve(picture, pixels=np.clip(grey, 0, 1, dtype=np.float32))  # the rounded sum may pass 1
    asked = f"turn a picture of {present} channel(s) into one of {channels}"
    raise InputError(asked, "pictures here are grey (1) or colour (3)", "Use a backbone of 1 or 3 channels.")


def _each(items: Iterable[Any], max_pixels: int) -> Iterator[Picture]:
    for item in items:
        yield from iter_pictures(item, max_pixels=max_pixels)  # no name holds the picture while the next is read


# Names: what a string stands for.


def _mode_of(name: str) -> int:
    # One question to the file system; a name it cannot even hold (empty, too long, with NUL) is a missing file.
    if not name:
        return 0
    try:
        return Path(name).stat().st_mode
    except (OSError, ValueError):
        return 0


def _is_folder(name: str) -> bool:
    return stat.S_ISDIR(_mode_of(name))


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not _mode_of(name)


def _files(name: str) -> list[str]:
    if _is_folder(name):
        found = _pictures_in(name)
        problem = f"the folder has no file that ends in {listed(SUFFIXES)}"
    elif _is_pattern(name):
        found = sorted(path for path in glob.glob(name, recursive=True) if stat.S_ISREG(_mode_of(path)))  # noqa: PTH207  Path.glob refuses absolute patterns
        problem = "no file matches the pattern"
    else:
        return [name]
    if not found:
        raise InputError(f"read pictures from {name!r}", problem, "Name another folder, pattern or file.", source=name)
    return found


def _pictures_in(folder: str) -> list[str]:
    try:
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        found = error.strerror or "it cannot be listed"
        raise InputError(f"read pictures from {folder!r}", found, "Check its permissions.") from error
    return [os.path.join(folder, entry) for entry in entries if entry.lower().endswith(SUFFIXES)]  # noqa: PTH118  keeps the user's spelling of the folder


# Files and PIL images.


def _from_file(name: str, max_pixels: int) -> Picture:
    with _opened(name) as (image, asked):
        return Picture(_decode(image, asked, max_pixels), name)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[tuple[Image.Image, str]]:
    asked, mode = f"read the picture {name!r}", _mode_of(name)
    if not stat.S_ISREG(mode):  # also keeps us from waiting on a pipe
        found = "it is a folder" if stat.S_ISDIR(mode) else "it is no file" if mode else "there is no such file"
        remedy = "Name one file; folders are read by iter_pictures and predict." if mode else "Check the path."
        raise InputError(asked, found, remedy, source=name)
    with _explained(asked, name), Path(name).open("rb") as file:
        yield _header(file, name), asked


def _from_image(image: Image.Image, max_pixels: int) -> Picture:
    name = getattr(image, "filename", "")
    source = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) and name else None
    asked = f"use the PIL image {source or ''}".rstrip()
    with _explained(asked, source):
        return Picture(_decode(image, asked, max_pixels), source)


def _header(file: IO[bytes], name: str) -> Image.Image:
    # Image.open would judge the size by a limit of the whole process, with a warning that no thread can silence for
    # itself alone; its registered readers do not, and `_decode` judges by the caller's limit.
    Image.preinit()
    magic = file.read(_MAGIC_BYTES)
    for kind in _KINDS:
        reader, accepts = Image.OPEN[kind]
        if accepts is not None and accepts(magic) is True:
            file.seek(0)
            return reader(file, name)
    found = "it is empty" if not magic else "it is no picture of a known kind"
    remedy = f"Known are {', '.join(_KINDS)}; open others with PIL and pass the image."
    raise InputError(f"read the picture {name!r}", found, remedy, source=name)


@contextlib.contextmanager
def _explained(asked: str, source: str | None) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _BROKEN as error:
        found = f"it is truncated or corrupt ({type(error).__name__}: {str(error)[:120]})"
        raise InputError(asked, found, "Restore the file from a copy, or leave it out.", source=source) from error


def _decode(image: Image.Image, asked: str, max_pixels: int) -> NDArray[np.float32]:
    _check_size(asked, (image.height, image.width), max_pixels)
    image.load()
    turn = _TURNS.get(image.getexif().get(_ORIENTATION_TAG, 1))
    values = _values_of(image if turn is None else image.transpose(turn), asked)
    return _to_unit(_channels_first(values, layout="HWC", asked=asked), asked)


def _values_of(image: Image.Image, asked: str) -> NDArray[Any]:
    """Return [height, width] or [height, width, 3] uint8, uint16 or float32."""
    mode = image.mode
    if mode == "I":
        return _whole(np.asarray(image), asked)
    if mode == "F" or mode.startswith("I;16"):
        return np.asarray(image)
    if mode == "La":  # Pillow has no direct way from premultiplied grey
        image = image.convert("LA")
    if mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"))
    if "transparency" in image.info:  # Pillow warns of palettes with transparency that go straight to RGB
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _whole(values: NDArray[Any], asked: str) -> NDArray[Any]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _LARGEST_SHORT:
        found = f"its values run from {low} to {high}"
        raise InputError(asked, found, "Scale whole numbers to 0..65535, or give floating values in 0..1.")
    return values.astype(np.uint16 if high > _LARGEST_BYTE else np.uint8)


# Arrays and tensors.


def _is_tensor(x: Any) -> bool:
    return all(callable(getattr(x, name, None)) for name in ("detach", "cpu", "numpy", "is_floating_point"))


def _from_tensor(tensor: Any, max_pixels: int) -> Picture:
    at_hand = tensor.detach().cpu()
    if at_hand.is_floating_point():
        at_hand = at_hand.float()  # numpy has no bfloat16
    return Picture(_planes(at_hand.numpy(), layout="CHW", max_pixels=max_pixels))


def _planes(values: NDArray[Any], *, layout: str, max_pixels: int) -> NDArray[np.float32]:
    asked = f"use {'an array' if layout == 'HWC' else 'a tensor'} of shape {list(values.shape)} as a picture"
    planes = _channels_first(values, layout=layout, asked=asked)
    _check_size(asked, (planes.shape[1], planes.shape[2]), max_pixels)
    return _to_unit(planes, asked)


def _channels_first(values: NDArray[Any], *, layout: str, asked: str) -> NDArray[Any]:
    """Return a view [channels, height, width] without alpha."""
    if values.ndim == 2:  # noqa: PLR2004  axes: height, width
        return values[None]
    if values.ndim != 3:  # noqa: PLR2004  axes: height, width, channel in either order
        remedy = "Pass a batch as a list of pictures: list(batch)."
        raise InputError(asked, f"it has {values.ndim} axes and a picture has 2 or 3", remedy)
    planes = values.transpose(2, 0, 1) if layout == "HWC" else values
    if planes.shape[0] not in (_GREY, _COLOUR, _WITH_ALPHA):
        axes, turn = "arrays are [height, width, channel]", "array.transpose(1, 2, 0)"
        if layout == "CHW":
            axes, turn = "tensors are [channel, height, width]", "tensor.permute(2, 0, 1)"
        remedy = f"Bring the axes into order, as with {turn}, or pass a list of pictures."
        raise InputError(asked, f"{axes}, and {planes.shape[0]} is no number of channels (1, 3 or 4)", remedy)
    return planes[:_COLOUR]


def _to_unit(planes: NDArray[Any], asked: str) -> NDArray[np.float32]:
    """Return a new contiguous float32 array in [0, 1] of the same shape."""
    kind, width = planes.dtype.kind, planes.dtype.itemsize
    if kind == "f":
        low, high = float(planes.min()), float(planes.max())
        if not (low >= 0 and high <= 1):  # NaN fails too
            remedy = "Give finite values in 0..1; bytes as floats, 0..255, are to be divided by 255."
            raise InputError(asked, f"its values run from {low:g} to {high:g}", remedy)
    elif kind != "b" and (kind, width) not in (("u", 1), ("u", 2)):
        remedy = "Give bool, uint8 (0..255), uint16 (0..65535) or floating values (0..1)."
        raise InputError(asked, f"its values are of type {planes.dtype}", remedy)
    unit = np.array(planes, dtype=np.float32, order="C")
    if kind == "u":
        # Dividing in float32 is what torch does to a uint8 tensor: the same bits by every way in.
        unit /= np.float32(_LARGEST_BYTE if width == 1 else _LARGEST_SHORT)
    return unit


def _check_size(asked: str, image_size: tuple[int, int], max_pixels: int) -> None:
    height, width = image_size
    if height * width == 0:
        raise InputError(asked, f"it is {height} x {width} and has no pixel", "Leave it out.")
    if height * width > max_pixels:
        found = f"it is {height} x {width}, {height * width} pixels, and the limit is {max_pixels}"
        raise InputError(asked, found, "Make it smaller, cut it into tiles, or raise max_pixels.")


def _unusable(x: Any) -> InputError:
    remedy = "Pass a path, folder, glob pattern, PIL image, numpy array, torch tensor, or an iterable of these."
    if isinstance(x, bytes | bytearray | memoryview) or hasattr(x, "read"):
        remedy = "Open it first: PIL.Image.open(file), with io.BytesIO(data) for bytes."
    return InputError("read a picture", f"it is of type {type(x).__name__}", remedy)
