"""Checks before anything is trained: pictures that cannot be opened, missing modalities, and classes of maps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset

from ..tables.caching import cached_map
from ..tables.columns import read_map, undecoded
from ..tables.labels import LabelSpace
from ..tables.preparing import RawSplit
from ..tables.rows import Rows
from ..tables.sources import AnyDataset
from ..text.texts import row_place
from .arguments import MultimodalArguments

# Part of every cache key: raise it when prepared values change, so that old caches are not taken for new ones.
MULTIMODAL_VERSION = 2
CHECK_ROWS = 32  # rows whose pictures are opened together
UNREADABLE_SHARE = 0.01
NAMED_ROWS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureCheck:
    """Maps a batch of raw rows to the problems of each: pictures that cannot be opened, and modalities that are missing.

    Attributes:
        columns: Modality -> column.
        files: Names of the columns whose files are opened.
    """

    columns: Mapping[str, str]
    files: tuple[str, ...]

    def __call__(self, batch: pa.Table, indices: Sequence[int]) -> dict[str, list[str]]:
        problems = [""] * len(indices)
        for column in self.files:
            for place, value in enumerate(batch.column(column).to_pylist()):
                try:
                    if value is not None and not problems[place]:
                        read_map(value)
                except ValueError as error:
                    problems[place] = f"column {column!r}: {error}"
        absent = {name: batch.column(column).is_null().to_pylist() for name, column in self.columns.items()}
        missing = [[name for name, flags in absent.items() if flags[place]] for place in range(len(indices))]
        return {"problem": problems, "missing": [",".join(names) for names in missing]}

    def description(self) -> str:
        """All that decides the result, as text."""
        return f"{MULTIMODAL_VERSION} {dict(self.columns)} {self.files}"


def readable_rows(dataset: AnyDataset, columns: Mapping[str, str], args: MultimodalArguments, split: str) -> RawSplit:
    """The rows whose pictures can all be opened; a warning names the others. Streams are left as they are.

    Args:
        dataset: Raw rows.
        columns: Modality -> column.
        args: `verify_images`, `allow_missing`, `label_column`, `task` and `num_proc` are read.
        split: Name of the split, for messages.

    Returns:
        The rows, with their numbers in `dataset` where some are left out.

    Raises:
        ValueError: More than 1 % of the rows cannot be opened, a row lacks a modality although none may, or lacks all.
    """
    if isinstance(dataset, IterableDataset) or not args.verify_images:
        return RawSplit(split, dataset)
    used = list(dict.fromkeys([*columns.values(), *args.label_maps]))
    is_rendered = args.builtin is not None and args.builtin.is_rendered
    files = () if is_rendered else tuple(name for name in used if _holds_files(dataset, name))
    check = PictureCheck(columns, files)
    if files:
        logger.info(
            "%s split: opening %d pictures once to see whether they can be read (a result of an earlier run is taken over); "
            "data.num_proc shares the work, data.verify_images: false leaves it out",
            split,
            len(dataset) * len(files),
        )
    rows = undecoded(dataset.select_columns(used), used).with_format("arrow")
    found = cached_map(rows, check, check.description(), args.num_proc, batch_rows=CHECK_ROWS).with_format(None)
    problems, missing = found["problem"][:], found["missing"][:]
    _check_missing([names.split(",") if names else [] for names in missing], columns, args.allow_missing, split)
    broken = [row for row, problem in enumerate(problems) if problem]
    if not broken:
        return RawSplit(split, dataset)
    words = [f"row {row}, {problems[row]}" for row in broken[:NAMED_ROWS]]
    listed = "; ".join(words) + ("; ..." if len(broken) > NAMED_ROWS else "")
    message = f"{split} split: {len(broken)} of {len(dataset)} rows have pictures that cannot be read: {listed}"
    if len(broken) > UNREADABLE_SHARE * len(dataset):
        raise ValueError(f"{message}; that is more than {UNREADABLE_SHARE:.0%}: repair or remove them")
    logger.warning("%s; these rows are left out", message)
    left = np.setdiff1d(np.arange(len(dataset)), broken)
    return RawSplit(split, dataset.select(left), left)


def _holds_files(dataset: Dataset, column: str) -> bool:
    """Whether a column holds images, or bytes or paths of files."""
    feature = dataset.features[column]
    if isinstance(feature, datasets.Value):
        return feature.dtype in ("string", "large_string", "binary", "large_binary")
    # Parquet files without the mark of datasets keep an image as its two fields.
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and {"bytes", "path"} <= set(feature))


def _check_missing(
    missing: Sequence[Sequence[str]], columns: Mapping[str, str], allow_missing: bool, split: str
) -> None:
    for row, names in enumerate(missing):
        if len(names) == len(columns):
            raise ValueError(f"{row_place(split, row, *columns.values())}: the row has no modality at all: drop it")
        if names and not allow_missing:
            count = sum(bool(some) for some in missing)
            where = row_place(split, row, columns[names[0]])
            raise ValueError(f"{missing_words(where, names[0])} ({count} of {len(missing)} rows lack some)")


def missing_words(where: str, name: str) -> str:
    return f"{where}: modality {name!r} is missing: fill it, drop the row, or set data.allow_missing to true"


def measure_label_maps(args: MultimodalArguments, ignore_index: int, train_split: AnyDataset) -> LabelSpace:
    """The label space of a dense task; classes are counted in the training split where nothing names them.

    Raises:
        ValueError: No classes, or a stream, whose classes cannot be counted.
    """
    if args.task == "depth_estimation":
        return LabelSpace("depth_estimation")
    names = args.label_names
    if names is None and args.builtin is not None:
        known = args.builtin.class_names.get(str(args.label_column))
        names = None if known is None else list(known)
    if names is not None:
        return LabelSpace("semantic_segmentation", tuple(names))
    if isinstance(train_split, IterableDataset):
        raise ValueError("data.label_names: a stream's classes cannot be counted beforehand; name them")
    column = str(args.label_column)
    largest = LargestClass(column, ignore_index)
    rows = undecoded(train_split.select_columns([column]), [column])
    found = cached_map(rows, largest, largest.description(), args.num_proc).with_format("numpy")["largest"]
    count = int(np.max(found)) + 1
    if count < 1:
        raise ValueError(f"data.label_column {column!r}: no pixel of the training split has a class")
    return LabelSpace("semantic_segmentation", tuple(str(number) for number in range(count)))


@dataclass(frozen=True)
class LargestClass:
    """Maps a batch of class maps to the largest id of each, -1 where there is none."""

    column: str
    ignore_index: int

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[int]]:
        largest = []
        for value in batch[self.column]:
            ids = np.asarray(read_map(value))
            ids = ids[ids != self.ignore_index]
            largest.append(int(ids.max()) if ids.size else -1)
        return {"largest": largest}

    def description(self) -> str:
        """All that decides the result, as text."""
        return f"{MULTIMODAL_VERSION} {self.column} {self.ignore_index}"
