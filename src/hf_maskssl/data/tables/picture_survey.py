"""A look at the beginnings of the training pictures: their depth, and what will be converted."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import IterableDataset

from ...models.image_processing_array import PILLOW_MODES
from ..arguments import DataArguments
from .caching import BATCH_ROWS, cached_map
from .columns import is_column_of_files, undecoded
from .pictures import PictureHeader, picture_header, tiff_header
from .raw_files import encoded, path_of
from .rows import Rows
from .sources import AnyDataset, choose_rows

SURVEY_VERSION = 2
SURVEY_ROWS = 10_000
STREAM_ROWS = BATCH_ROWS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeadersOfBatch:
    """Maps a batch of cells to the header of each; mode "" stands for a cell without a file that can be opened."""

    column: str

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[Any]]:
        headers = [_header(value) for value in batch[self.column]]
        found: dict[str, list[Any]] = {
            name: [header[place] for header in headers] for place, name in enumerate(PictureHeader._fields)
        }
        return {**found, "path": [path_of(value) for value in batch[self.column]]}

    def description(self) -> str:
        """All that decides the result."""
        return f"{SURVEY_VERSION} {self.column}"


def _header(value: object) -> PictureHeader:
    try:
        file = encoded(value, "image")
        return PictureHeader("", 0, False, False, False) if file is None else picture_header(file)
    except ValueError:  # preparing the row refuses it, with its number
        return PictureHeader("", 0, False, False, False)


@dataclass(frozen=True)
class BandsOfBatch:
    """Maps a batch of cells to the type of the numbers of each TIFF and to what it says of missing ones; "" of other files."""

    column: str

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[Any]]:
        headers = [_bands(value) for value in batch[self.column]]
        paths = [path_of(value) or "one without a file name" for value in batch[self.column]]
        return {"type": [kind for kind, _ in headers], "nothing": [nothing for _, nothing in headers], "path": paths}

    def description(self) -> str:
        """All that decides the result."""
        return f"bands {SURVEY_VERSION} {self.column}"


def _bands(value: object) -> tuple[str, str]:
    try:
        file = encoded(value, "image")
        header = None if file is None else tiff_header(file)
    except ValueError:  # preparing the row refuses it, with its number
        header = None
    return ("", "") if header is None else (header[0], header[1] or "")


def tell_of_bands(
    args: DataArguments, train_split: AnyDataset, column: str, channels: int, invalid_value: float | None
) -> None:
    """Warn of TIFF files of bands whose numbers are of several types, and of values that they name as not measured.

    Args:
        args, train_split, column, channels: Arguments of `surveyed_bit_depth`, which looks at pictures that are no bands.
        invalid_value: Value that the recipe names as not measured; None where it names none.
    """
    if channels in PILLOW_MODES or args.builtin is not None or not is_column_of_files(train_split, column):
        return
    seen = [row for row in _looked_at(args, train_split, BandsOfBatch(column)) if row["type"]]
    examples = {row["type"]: row["path"] for row in reversed(seen)}
    if len(examples) > 1:
        types = Counter(row["type"] for row in seen)
        counts = ", ".join(f"{count} of {kind} ({examples[kind]})" for kind, count in types.most_common())
        logger.warning(
            "train split, column %r: pictures hold numbers of several types, %s; all are read as they are",
            *(column, counts),
        )
    nothing = Counter(row["nothing"] for row in seen if row["nothing"].lower() not in ("", "nan"))
    unknown = {value: count for value, count in nothing.most_common() if not _is_number(value, invalid_value)}
    if unknown:
        counts = ", ".join(f"{value} ({count} of {len(seen)} pictures)" for value, count in unknown.items())
        logger.warning(
            "train split, column %r: files name values that stand where nothing was measured, %s, which are read as measured: "
            "set data.invalid_value to one",
            *(column, counts),
        )


def _is_number(text: str, number: float | None) -> bool:
    try:
        return number is not None and float(text) == number
    except ValueError:
        return False


def surveyed_bit_depth(args: DataArguments, train_split: AnyDataset, column: str, channels: int) -> int | None:
    """The depth that pictures of a column are to be brought to: of greys the one that most have, of colours 8.

    What is converted on the way is counted in the log, pictures of another depth and further frames in a warning.

    Args:
        args: `builtin` and `split_seed` are read.
        train_split: Raw rows; at most 10,000 of them are looked at (of a stream the first 256), of each its header alone.
        column: Column of the pictures.
        channels: Channels of the model.

    Returns:
        8, 16 or 32; None for columns of arrays, and for channels that no picture has.

    Raises:
        ValueError: Greys of 32 bit or floats among others, whose ranges cannot be brought together.
    """
    if channels not in PILLOW_MODES or args.builtin is not None or not is_column_of_files(train_split, column):
        return None
    seen = [row for row in _looked_at(args, train_split, HeadersOfBatch(column)) if row["mode"]]
    depths = Counter(row["bits"] for row in seen)
    if not depths:
        return None
    depth = min(depths, key=lambda bits: (-depths[bits], bits)) if channels == 1 else 8
    examples = {row["bits"]: row["path"] for row in reversed(seen)}
    if len(depths) > 1 and 32 in depths and channels == 1:
        counts = ", ".join(f"{count} of {bits} bit ({examples[bits]})" for bits, count in sorted(depths.items()))
        raise ValueError(
            f"data.input_column {column!r}: pictures of different depths, {counts}; the range of 32-bit and float pictures "
            "nothing tells: bring all to one depth"
        )
    _tell(seen, column, channels, depth, examples)
    return depth


def _looked_at(
    args: DataArguments, train_split: AnyDataset, look: HeadersOfBatch | BandsOfBatch
) -> list[dict[str, Any]]:
    column = look.column
    rows = undecoded(train_split.select_columns([column]), [column])
    if isinstance(rows, IterableDataset):
        columns: dict[str, list[Any]] = {}
        for batch in rows.take(STREAM_ROWS).iter(batch_size=STREAM_ROWS):
            columns = look(batch, range(len(batch[column])))
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if len(rows) > SURVEY_ROWS:
        rows = choose_rows(rows, SURVEY_ROWS, args.split_seed)
    return cached_map(rows, look, look.description(), args.num_proc).with_format(None).to_list()


def _tell(seen: list[dict[str, Any]], column: str, channels: int, depth: int, examples: dict[int, str]) -> None:
    mode = PILLOW_MODES[channels]
    others = Counter(row["mode"] for row in seen if row["mode"] != mode and row["bits"] == 8)
    turned = sum(row["is_turned"] for row in seen)
    if others or turned:
        counts = ", ".join(f"{count} of mode {name}" for name, count in others.most_common()) or "none"
        logger.info(
            "train split, column %r: of %d pictures looked at these are converted to %s (num_channels %d): %s; "
            "%d are turned upright",
            *(column, len(seen), mode, channels, counts, turned),
        )
    deep = Counter(row["bits"] for row in seen if row["bits"] != depth)
    for bits, count in deep.items():
        logger.warning(
            "train split, column %r: %d of %d pictures have %d bit, such as %s; they are brought to the range of %d bit",
            *(column, count, len(seen), bits, examples[bits] or "one without a file name", depth),
        )
    halved = [row["path"] for row in seen if row["has_deep_colours"]]
    if halved:
        logger.warning(
            "train split, column %r: %d of %d pictures have 16 bits a colour, such as %s; their upper 8 alone are read: arrays "
            "(.npy, Parquet) keep all",
            *(column, len(halved), len(seen), halved[0] or "one without a file name"),
        )
    frames = [row["path"] for row in seen if row["has_more_frames"]]
    if frames:
        logger.warning(
            "train split, column %r: %d of %d pictures hold several frames, such as %s; the first one alone is read",
            *(column, len(frames), len(seen), frames[0] or "one without a file name"),
        )
