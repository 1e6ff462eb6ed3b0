"""Pictures of a data set as files: their names in an output folder, and their content."""

import io
import os
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from PIL import Image

from ..data.tables.pictures import open_picture as decode_picture
from ..data.tables.raw_files import encoded

# Files of these formats are kept; others, and pictures that had to be turned or shrunk, become PNG.
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
COLOR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
NO_CLASS_FOLDER = "all"
NAMED_PICTURES = 5


class Picture(NamedTuple):
    """A row of the data set and its place in the output: <modality>/<folder>/<stem>.<suffix>."""

    row: int
    folder: str
    stem: str

    @property
    def name(self) -> str:
        return f"{self.folder}/{self.stem} (row {self.row})"


def name_pictures(rows: Dataset, input_column: str, label_column: str) -> list[Picture]:
    """Place every row in the output: the folder of its class, and its file's name or else its number.

    Pictures of one class with the same file name get a part of their path's digest as well, so that names depend on the
    data alone and are found again by every process and run.
    """
    folders = _folder_names(rows, label_column)
    paths = list(_paths(rows, input_column))
    width = len(str(len(paths) - 1))
    stems = [Path(path).stem if path else f"{row:0{width}d}" for row, path in enumerate(paths)]
    taken = Counter(zip(folders, stems, strict=True))
    pictures = []
    for row, (folder, stem, path) in enumerate(zip(folders, stems, paths, strict=True)):
        if taken[folder, stem] > 1:
            stem = f"{stem}-{sha256((path or '').encode()).hexdigest()[:12]}"
        pictures.append(Picture(row, folder, stem))
    repeated = [picture for picture, count in Counter(picture[1:] for picture in pictures).items() if count > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} names stand for several pictures each, such as {repeated[:NAMED_PICTURES]}")
    return pictures


def _folder_names(rows: Dataset, label_column: str) -> list[str]:
    if label_column not in rows.column_names:
        return [NO_CLASS_FOLDER] * len(rows)
    labels = rows[label_column][:]
    feature = rows.features[label_column]
    if isinstance(feature, datasets.ClassLabel):
        # Some test splits hide their labels as -1.
        labels = [None if label is None or label < 0 else feature.int2str(label) for label in labels]
    names = {label: NO_CLASS_FOLDER if label is None else _file_name(str(label)) for label in set(labels)}
    return [names[label] for label in labels]


def _file_name(text: str) -> str:
    """Text as the name of a folder: characters that could lead elsewhere or hide it become %XX."""
    name = quote(text, safe=" ,;'()&+=@!", encoding="utf-8")
    return "%2E" + name[1:] if name.startswith(".") else name or "%"


def _paths(rows: Dataset, column: str) -> Iterator[str | None]:
    """The source path of each picture, without reading it."""
    for table in rows.select_columns([column]).with_format("arrow").iter(batch_size=10_000):
        values = table[column]
        if pa.types.is_struct(values.type):
            values = pc.struct_field(values, "path")
        yield from values.to_pylist() if pa.types.is_string(values.type) else [None] * len(values)


def open_picture(value: object, max_side: int | None = None) -> tuple[Image.Image, Path | bytes, str]:
    """Decode a picture whole.

    Args:
        value: {"bytes", "path"} of an undecoded `datasets.Image`, a path, or 0..255 as (H, W) or (H, W, 3).
        max_side: Longer side to which a larger picture is shrunk.

    Returns:
        The upright RGB picture; the file that shows the same (its path, or its bytes); the file's suffix.

    Raises:
        ValueError: It cannot be read.
    """
    file = encoded(value, "picture")
    if file is None:
        return _as_png(_shrink(_from_numbers(value), max_side))
    opened = decode_picture(file)
    if opened.image.mode not in COLOR_MODES:
        raise ValueError(f"a picture of mode {opened.image.mode}, expected grey or colours of 8 bit")
    original: Path | bytes = Path(str(file.path)) if file.content is None else file.content
    suffix, upright = SUFFIXES.get(opened.format), opened.image.convert("RGB")
    image = _shrink(upright, max_side)
    if suffix is None or opened.is_turned or image is not upright:
        return _as_png(image)
    return image, original, suffix


def _from_numbers(value: object) -> Image.Image:
    numbers = np.asarray(value)
    is_picture = numbers.ndim == 2 or (numbers.ndim == 3 and numbers.shape[-1] == 3)
    if not is_picture or numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() > 255:
        raise ValueError(
            f"expected a picture or whole numbers 0..255 of shape (H, W) or (H, W, 3), got {numbers.dtype} of shape "
            f"{numbers.shape}"
        )
    return Image.fromarray(numbers.astype(np.uint8)).convert("RGB")


def _shrink(image: Image.Image, max_side: int | None) -> Image.Image:
    longer = max(image.size)
    if max_side is None or longer <= max_side:
        return image
    width, height = (max(1, round(side * max_side / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _as_png(image: Image.Image) -> tuple[Image.Image, bytes, str]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return image, buffer.getvalue(), ".png"


def put_file(source: Path | bytes, path: Path, copy: bool) -> None:
    """Make `path` the picture's file: a hard link, or a copy with `copy` or where the file system has no links."""
    if isinstance(source, Path) and not copy:
        try:
            os.link(source.resolve(), path)
            return
        except OSError:  # another file system, or one without hard links
            pass
    path.write_bytes(source.read_bytes() if isinstance(source, Path) else source)
