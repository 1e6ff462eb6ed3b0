"""Classes of label maps: the values that occur, counted, become class numbers."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset, IterableDataset

from ...models.image_processing_array import Pictures
from ...models.image_processing_pictures import channels_of, check_class_ids, read_picture
from ..tables.caching import cached_map
from ..tables.columns import undecoded
from ..tables.labels import LabelSpace
from ..tables.pictures import read_map
from ..tables.raw_files import with_files
from ..tables.rows import Rows
from ..tables.sources import AnyDataset
from ..text.texts import row_place
from .arguments import MultimodalArguments

CLASSES_VERSION = 1
# More values than any scheme of classes has: a depth map, or classes blurred by JPEG.
MOST_CLASSES = 10_000
NAMED_CLASSES = 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapLabels(LabelSpace):
    """Label space of class maps.

    Attributes:
        map_values: Value in the files of each class, ascending, as `names`.
    """

    map_values: tuple[int, ...] = ()

    def numbers(self, values: np.ndarray, ignore_index: int, column: str) -> np.ndarray:
        """Class numbers of a map's values; `ignore_index` stays where it is no class.

        Args:
            values: (H, W) int64.
            ignore_index: Value of pixels without a class.
            column: Name of the column, for the error.

        Raises:
            ValueError: A value that is no class.
        """
        known = np.asarray(self.map_values, dtype=np.int64)
        places = np.minimum(np.searchsorted(known, values), len(known) - 1)
        is_known = known[places] == values
        is_wrong = ~is_known & (values != ignore_index)
        if is_wrong.any():
            raise ValueError(unknown_class(column, int(values[is_wrong][0]), self.map_values, ignore_index))
        return np.where(is_known, places, ignore_index)


@dataclass(frozen=True)
class ValueLabels(LabelSpace):
    """Label space of maps of values.

    Attributes:
        channels: Number of values of a pixel.
    """

    channels: int = 1

    @property
    def num_labels(self) -> int:
        """Number of outputs of a head for each pixel."""
        return self.channels


def unknown_class(column: str, value: int, known: Sequence[int], ignore_index: int) -> str:
    """The words for a value of a map that is no class."""
    is_dense = list(known) == list(range(len(known)))
    listed = f"0..{len(known) - 1}" if is_dense else f"one of the training split's {list(known)[:NAMED_CLASSES]}"
    return (
        f"the class map {column!r} holds the class {value}, expected {listed} or {ignore_index} for none (data.label_names, "
        "semantic_loss_ignore_index)"
    )


def ids_of_map(value: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """The values of a class map, ascending, and how many pixels have each, both int64.

    Raises:
        ValueError: No class map, or values that are no whole numbers.
    """
    ids = np.asarray(read_picture(value, None))
    if ids.dtype == np.uint8:
        counts = np.bincount(ids.ravel(), minlength=256)
        found = np.flatnonzero(counts)
        return found, counts[found]
    check_class_ids(ids)
    found, counts = np.unique(ids, return_counts=True)
    return found.astype(np.int64), counts.astype(np.int64)


@dataclass(frozen=True)
class ClassesOfMaps:
    """Maps a batch of class maps to the values of each and their pixels."""

    column: str

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[list[int]]]:
        values, pixels = [], []
        for index, value in zip(indices, batch[self.column], strict=True):
            try:
                found, counts = ids_of_map(read_map(value))
            except ValueError as error:
                raise ValueError(f"{row_place('train', index, self.column)}: {with_files(error, [value])}") from error
            if len(found) > MOST_CLASSES:
                raise ValueError(
                    f"{row_place('train', index, self.column)}: {len(found)} different values, which are no classes: expected "
                    "a class map"
                )
            values.append(found.tolist())
            pixels.append(counts.tolist())
        return {"values": values, "pixels": pixels}

    def description(self) -> str:
        """All that decides the result."""
        return f"{CLASSES_VERSION} {self.column}"


def measure_label_maps(args: MultimodalArguments, ignore_index: int, train_split: AnyDataset) -> LabelSpace:
    """The label space of a dense task; classes are the values that occur in the training split's maps.

    `data.label_names` names them: by their numbers where all are below the number of names, else in ascending order where
    there are as many. `ignore_index` is no class, unless it and one other value are all that occurs, as in masks of 0 and 255.

    Raises:
        ValueError: No classes, values that the names do not reach, or a stream, whose classes cannot be counted.
    """
    if args.task == "depth_estimation":
        return LabelSpace("depth_estimation")
    column = str(args.label_column)
    if args.task == "dense_regression":
        return ValueLabels("dense_regression", channels=args.label_channels or _channels(column, train_split))
    known = None if args.builtin is None else args.builtin.class_names.get(column)
    if args.label_names is None and known is not None:
        return _named(known)
    if isinstance(train_split, IterableDataset):
        if args.label_names is None:
            raise ValueError("data.label_names: a stream's classes cannot be counted beforehand; name them")
        return _named(args.label_names)
    pixels, rows = _counted(args, column, train_split)
    values = sorted(set(pixels) - {ignore_index})
    is_binary = _is_binary(values, ignore_index in pixels, args.label_names)
    if is_binary:
        values = sorted([*values, ignore_index])
    if not values:
        raise ValueError(f"data.label_column {column!r}: no pixel of the training split has a class")
    if values[0] < 0:
        raise ValueError(
            f"{row_place('train', rows[values[0]], column)}: the class map holds the class {values[0]}: if that means none, set "
            f"model.semantic_loss_ignore_index to it; it is {ignore_index}"
        )
    space = _space(args.label_names, values, ignore_index, column, rows)
    if 0 <= ignore_index < space.num_labels:
        raise ValueError(
            f"model.semantic_loss_ignore_index {ignore_index} is also the number of one of the {space.num_labels} classes of "
            f"{column!r}: set it to -1"
        )
    _tell(column, pixels, space, ignore_index, is_binary)
    return space


def _channels(column: str, train_split: AnyDataset) -> int:
    """Channels of the first map of a split.

    Raises:
        ValueError: It cannot be read, or a stream, whose first row is not to be taken from it.
    """
    if isinstance(train_split, IterableDataset):
        raise ValueError(
            "data.label_channels: a stream's first map is not read beforehand; say how many channels maps have"
        )
    value = train_split[0][column]
    try:
        return channels_of(read_map(value))
    except ValueError as error:
        raise ValueError(f"{row_place('train', 0, column)}: {with_files(error, [value])}") from error


def _named(names: Sequence[str]) -> MapLabels:
    return MapLabels("semantic_segmentation", tuple(names), map_values=tuple(range(len(names))))


def _is_binary(values: Sequence[int], has_ignored: bool, names: Sequence[str] | None) -> bool:
    """Whether what marks no class elsewhere is the foreground here."""
    if not has_ignored or len(values) != 1:
        return False
    return names is None or (len(names) == 2 and values[0] == 0)


def _space(
    names: Sequence[str] | None, values: Sequence[int], ignore_index: int, column: str, rows: dict[int, int]
) -> MapLabels:
    if names is None:
        return MapLabels("semantic_segmentation", tuple(map(str, values)), map_values=tuple(values))
    if values[-1] < len(names):
        return _named(names)
    if len(values) == len(names):
        return MapLabels("semantic_segmentation", tuple(names), map_values=tuple(values))
    wrong = next(value for value in values if value >= len(names))
    words = unknown_class(column, wrong, range(len(names)), ignore_index)
    raise ValueError(f"{row_place('train', rows[wrong], column)}: {words}")


def _counted(args: MultimodalArguments, column: str, train_split: Dataset) -> tuple[Counter[int], dict[int, int]]:
    """Pixels of every value, and the first row that has it."""
    measure = ClassesOfMaps(column)
    rows = undecoded(train_split.select_columns([column]), [column])
    found = cached_map(rows, measure, measure.description(), args.num_proc).with_format(None)
    pixels: Counter[int] = Counter()
    first: dict[int, int] = {}
    for row, entry in enumerate(found):
        for value, count in zip(entry["values"], entry["pixels"], strict=True):
            pixels[value] += count
            first.setdefault(value, row)
        if len(pixels) > MOST_CLASSES:
            raise ValueError(
                f"data.label_column {column!r}: more than {MOST_CLASSES} different values, which are no classes: expected "
                "class maps"
            )
    return pixels, first


def _tell(column: str, pixels: Counter[int], space: MapLabels, ignore_index: int, is_binary: bool) -> None:
    total = sum(pixels.values())
    shares = [
        f"{name!r} ({value}): {pixels[value] / total:.1%}"
        for name, value in zip(space.names, space.map_values, strict=True)
    ]
    listed = ", ".join(shares[:NAMED_CLASSES]) + (", ..." if len(shares) > NAMED_CLASSES else "")
    logger.info("train split, column %r: %d classes, name (value): share of pixels: %s", column, len(shares), listed)
    if is_binary:
        logger.warning(
            "train split, column %r: the values %s are all that occurs, so %d is taken for a class of its own, %r, and not for "
            "pixels without one (model.semantic_loss_ignore_index)",
            *(column, list(space.map_values), ignore_index, space.names[space.map_values.index(ignore_index)]),
        )
    elif pixels[ignore_index]:
        logger.warning(
            "train split, column %r: %.1f %% of the pixels are %d (model.semantic_loss_ignore_index): no class, neither "
            "learnt nor scored",
            *(column, 100 * pixels[ignore_index] / total, ignore_index),
        )
    absent = [name for name, value in zip(space.names, space.map_values, strict=True) if not pixels[value]]
    if absent:
        named = f"{absent[:NAMED_CLASSES]}{', ...' if len(absent) > NAMED_CLASSES else ''}"
        logger.warning(
            "train split, column %r: %d of %d classes do not occur: %s", column, len(absent), len(shares), named
        )
