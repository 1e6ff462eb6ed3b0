"""Pictures of cells: the one way in which all kinds of data, and the makers of labels, open them."""

from types import ModuleType
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ...extras import missing_extra
from ...models.image_processing_array import ORIENTATION_TAG, Pictures, bit_depth_of, upright
from ...terminal import silenced
from .raw_files import Cell, Encoded, encoded, reading

NPY_START = b"\x93NUMPY"
PNG_START = b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_ENDINGS = (".tif", ".tiff")
BITS_OF_SAMPLES, GDAL_NODATA = 258, 42113  # tags of TIFF
PILLOW_OF_TIFF = "PIL.TiffImagePlugin"  # which logs an error for each file that tifffile reads here in its place
# Formats whose EXIF data stands in front of the pixels, so that it is read without them.
EXIF_IN_FRONT = ("JPEG", "MPO", "TIFF", "WEBP")
# Bits of the numbers of arrays that say what a full range is.
BITS_OF_TYPE = {"uint8": 8, "uint16": 16}


class OpenedPicture(NamedTuple):
    """A picture of a file, whole and upright; the file's format, and whether the picture had to be turned."""

    image: Image.Image
    format: str
    is_turned: bool


class PictureHeader(NamedTuple):
    """What the beginning of a file says: Pillow's mode, bits of a number, whether it holds more frames than the first, which
    alone is read (those of a photo of several shots are one), whether it is to be turned, and whether its colours have 16 bits,
    of which Pillow keeps 8."""

    mode: str
    bits: int
    has_more_frames: bool
    is_turned: bool
    has_deep_colours: bool


def open_picture(file: Encoded) -> OpenedPicture:
    """Decode a file whole and turn it as its EXIF orientation says.

    Raises:
        ValueError: It cannot be read, whatever Pillow raised, naming the file.
    """
    with reading("image", file.path), file.open() as stream, _identified(stream) as image:
        image.load()  # now, because only now the error has a name
        picture = upright(image)
        return OpenedPicture(picture, image.format or "", picture is not image)


def picture_header(file: Encoded) -> PictureHeader:
    """What a file says of itself, without decoding its pixels.

    Raises:
        ValueError: `open_picture` cannot read the picture.
    """
    with reading("image", file.path), file.open() as stream, _identified(stream) as image:
        is_turned = image.format in EXIF_IN_FRONT and image.getexif().get(ORIENTATION_TAG, 1) != 1
        mode, bits = image.mode, bit_depth_of(image)  # before another frame is looked for
        is_deep = mode in ("RGB", "RGBA") and _bits_in_file(image, file) > 8
        return PictureHeader(mode, bits, image.format != "MPO" and _has_second_frame(image), is_turned, is_deep)


def _bits_in_file(image: Image.Image, file: Encoded) -> int:
    """Bits of each colour as PNG and TIFF files have them; 8 of other formats."""
    if isinstance(image, TiffImageFile):
        return max(image.tag_v2.get(BITS_OF_SAMPLES, (8,)))
    if image.format != "PNG":
        return 8
    with file.open() as stream:
        beginning = stream.read(25)
    return beginning[24] if beginning.startswith(PNG_START) else 8


def _has_second_frame(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except EOFError:
        return False
    return True


def _identified(stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream)
    except UnidentifiedImageError as error:
        stream.seek(0)
        words = (
            "its bytes are of no picture format that Pillow reads" if stream.read(1) else "the file is empty (0 bytes)"
        )
        raise ValueError(words) from error


def read_image(value: Cell, with_bands: bool = False) -> Pictures:
    """A PIL image from encoded bytes or a path; anything else (PIL image, array) as it is.

    Args:
        value: Cell of a column of pictures.
        with_bands: Whether a TIFF of several frames holds bands, and not other pictures behind the first. One that Pillow does
            not read is always taken for such: both come as arrays (H, W, bands).

    Raises:
        ValueError: Missing, or bytes that are no image.
        ImportError: Bands without tifffile.
    """
    if value is None:
        raise ValueError("the image is missing")
    file = encoded(value, "image")
    if file is None:
        return value  # type: ignore[return-value]
    bands = _read_bands(file, with_bands)
    return open_picture(file).image if bands is None else bands


def read_map(value: Cell, with_bands: bool = False) -> Pictures:
    """A picture of a cell, as `read_image` gives it, or the array of a NumPy file.

    Raises:
        ValueError: Missing, or nothing that can be read.
        ImportError: Bands without tifffile.
    """
    file = encoded(value, "image")
    if file is not None and ((file.path or "").lower().endswith(".npy") or file.starts_with(NPY_START)):
        with reading("file", file.path), file.open() as stream:
            # Not `np.load`, which opens archives and knows of pickles.
            return np.lib.format.read_array(stream, allow_pickle=False)
    return read_image(value, with_bands)


def _read_bands(file: Encoded, with_bands: bool) -> np.ndarray | None:
    """(H, W, bands) of a TIFF that is no picture to Pillow; None of all other files."""
    if not any(map(file.starts_with, TIFF_STARTS)) and not (file.path or "").lower().endswith(TIFF_ENDINGS):
        return None
    with reading("image", file.path), file.open() as stream:
        if stream.read(4) not in TIFF_STARTS:
            return None
        stream.seek(0)
        try:
            with silenced(PILLOW_OF_TIFF), Image.open(stream) as image:
                if not with_bands or not _has_second_frame(image):
                    return None
        except UnidentifiedImageError:
            pass
        stream.seek(0)
        return bands_of_tiff(stream)


def bands_of_tiff(stream: BinaryIO) -> np.ndarray:
    """The bands of a TIFF, side by side or one behind the other, as an array (H, W, bands).

    Raises:
        ValueError: It holds something else.
        ImportError: tifffile is not installed.
    """
    with _tifffile().TiffFile(stream) as opened:
        first = opened.series[0]
        pixels, axes = np.asarray(first.asarray()), first.axes
    if len(axes) not in (2, 3) or not {"Y", "X"} <= set(axes):
        raise ValueError(f"expected bands of one picture, got axes {axes} of lengths {pixels.shape}")
    if len(axes) == 2:
        return pixels[..., None]
    return np.ascontiguousarray(np.moveaxis(pixels, 3 - axes.index("Y") - axes.index("X"), -1))


def tiff_header(file: Encoded) -> tuple[str, str | None] | None:
    """The type of the numbers of a TIFF, and the value that stands where nothing was measured (GDAL's tag); None of other files.

    Raises:
        ValueError: It cannot be read.
        ImportError: tifffile is not installed.
    """
    with reading("image", file.path), file.open() as stream:
        if stream.read(4) not in TIFF_STARTS:
            return None
        stream.seek(0)
        with _tifffile().TiffFile(stream) as opened:
            page = opened.pages[0]
            nothing = page.tags.get(GDAL_NODATA)
            return str(page.dtype), None if nothing is None else str(nothing.value).strip("\0 ")


def _tifffile() -> ModuleType:
    try:
        import tifffile
    except ImportError as error:
        raise missing_extra("Reading TIFF files of several bands", "prepare", error) from error
    return tifffile


def map_bits(picture: Pictures) -> int:
    """Bits of a number of a picture or array; 0 where its type says nothing of the range."""
    if isinstance(picture, Image.Image):
        return bit_depth_of(picture)
    return BITS_OF_TYPE.get(str(picture.dtype), 0) if isinstance(picture, np.ndarray) else 0
