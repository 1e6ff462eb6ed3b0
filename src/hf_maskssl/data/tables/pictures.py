"""Pictures of cells: the one way in which all kinds of data, and the makers of labels, open them."""

from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...models.image_processing_array import ORIENTATION_TAG, Pictures, bit_depth_of, upright
from .raw_files import Cell, Encoded, encoded, reading

NPY_START = b"\x93NUMPY"
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
    alone is read (those of a photo of several shots are one), and whether it is to be turned."""

    mode: str
    bits: int
    has_more_frames: bool
    is_turned: bool


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
        return PictureHeader(mode, bits, image.format != "MPO" and _has_second_frame(image), is_turned)


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


def read_image(value: Cell) -> Pictures:
    """A PIL image from encoded bytes or a path; anything else (PIL image, array) as it is.

    Raises:
        ValueError: Missing, or bytes that are no image.
    """
    if value is None:
        raise ValueError("the image is missing")
    file = encoded(value, "image")
    return value if file is None else open_picture(file).image  # type: ignore[return-value]


def read_map(value: Cell) -> Pictures:
    """A picture of a cell, as `read_image` gives it, or the array of a NumPy file.

    Raises:
        ValueError: Missing, or nothing that can be read.
    """
    file = encoded(value, "image")
    if file is not None and ((file.path or "").lower().endswith(".npy") or file.starts_with(NPY_START)):
        with reading("file", file.path), file.open() as stream:
            # Not `np.load`, which opens archives and knows of pickles.
            return np.lib.format.read_array(stream, allow_pickle=False)
    return read_image(value)


def map_bits(picture: Pictures) -> int:
    """Bits of a number of a picture or array; 0 where its type says nothing of the range."""
    if isinstance(picture, Image.Image):
        return bit_depth_of(picture)
    return BITS_OF_TYPE.get(str(picture.dtype), 0) if isinstance(picture, np.ndarray) else 0
