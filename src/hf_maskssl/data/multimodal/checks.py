"""Checks before anything is trained: pictures that cannot be opened or differ in depth, and missing modalities."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from datasets import Dataset, IterableDataset
from transformers import PreTrainedConfig

from ...models.image_processing_array import PILLOW_MODES
from ..tables.caching import cached_map
from ..tables.columns import undecoded
from ..tables.pictures import map_bits, read_map
from ..tables.preparing import RawSplit
from ..tables.presence import tell_presence
from ..tables.raw_files import holds_files, with_files
from ..tables.sources import AnyDataset
from ..text.texts import row_place
from .arguments import MultimodalArguments
from .classes import ids_of_map

# Part of every cache key: raise it when prepared values change, so that old caches are not taken for new ones.
MULTIMODAL_VERSION = 5
CHECK_ROWS = 32  # rows whose pictures are opened together
UNREADABLE_SHARE = 0.01
NAMED_ROWS = 5

# Said, because a batch without a class would not tell it.
CHECKED = pa.schema(
    {
        "present": pa.list_(pa.bool_()),
        "problem": pa.string(),
        "bits": pa.list_(pa.int64()),
        "classes": pa.list_(pa.list_(pa.int64())),
    }
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureCheck:
    """Maps a batch of raw rows to what its pictures are.

    `present` says which modalities a row has; `problem` which of its pictures cannot be opened, "" where all can; `bits` has
    the depth of each of `measured`, 0 where nothing tells it; `classes` the values of each of `categorical`.

    Attributes:
        columns: Modality -> column.
        files: Names of the columns whose files are opened.
        measured: Those of them whose pictures have one channel of measurements.
        categorical: Those of them that are class maps.
        banded: Those of them with other channels than pictures of Pillow have, as TIFF files of several bands.
    """

    columns: Mapping[str, str]
    files: tuple[str, ...]
    measured: tuple[str, ...]
    categorical: tuple[str, ...]
    banded: tuple[str, ...] = ()

    def __call__(self, batch: pa.Table, indices: Sequence[int]) -> pa.Table:
        present = [batch.column(column).is_valid().to_pylist() for column in self.columns.values()]
        columns = [batch.column(column).to_pylist() for column in self.files]
        rows = [self._row([cells[place] for cells in columns]) for place in range(len(indices))]
        found = {
            "present": [[flags[place] for flags in present] for place in range(len(indices))],
            "problem": [problem for problem, _, _ in rows],
            "bits": [[bits.get(name, 0) for name in self.measured] for _, bits, _ in rows],
            "classes": [[ids.get(name, []) for name in self.categorical] for _, _, ids in rows],
        }
        return pa.table(found, schema=CHECKED)

    def _row(self, cells: Sequence[object]) -> tuple[str, dict[str, int], dict[str, list[int]]]:
        bits: dict[str, int] = {}
        classes: dict[str, list[int]] = {}
        for column, value in zip(self.files, cells, strict=True):
            if value is None:
                continue
            try:
                picture = read_map(value, with_bands=column in self.banded)
            except ValueError as error:
                return f"column {column!r}: {with_files(error, [value])}", {}, {}
            if column in self.measured:
                bits[column] = map_bits(picture)
            if column in self.categorical:
                try:
                    classes[column] = ids_of_map(picture)[0].tolist()
                except ValueError:  # preparing the row refuses it, with its number
                    classes[column] = []
        return "", bits, classes

    def description(self) -> str:
        """All that decides the result, as text."""
        return (
            f"{MULTIMODAL_VERSION} {dict(self.columns)} {self.files} {self.measured} {self.categorical} {self.banded}"
        )


def readable_rows(
    dataset: AnyDataset, columns: Mapping[str, str], args: MultimodalArguments, split: str, config: PreTrainedConfig
) -> RawSplit:
    """The rows whose pictures can all be opened; a warning names the others. Streams are left as they are.

    Args:
        dataset: Raw rows.
        columns: Modality -> column.
        args: `verify_images`, `allow_missing`, `label_column`, `task` and `num_proc` are read.
        split: Name of the split, for messages.
        config: Model configuration, which says what the modalities are.

    Returns:
        The rows, with their numbers in `dataset` where some are left out.

    Raises:
        ValueError: More than 1 % of the rows cannot be opened, a row lacks a modality although none may, or lacks all, or
            pictures of measurements have different depths.
    """
    if isinstance(dataset, IterableDataset):
        return RawSplit(split, dataset)
    if not args.verify_images:
        return RawSplit(split, dataset)
    check = _picture_check(dataset, columns, args, config)
    if check.files:
        logger.info(
            "%s split: opening %d pictures once to see whether they can be read (a result of an earlier run is taken over); "
            "data.num_proc shares the work, data.verify_images: false leaves it out",
            split,
            len(dataset) * len(check.files),
        )
    used = list(dict.fromkeys([*columns.values(), *args.label_maps]))
    rows = undecoded(dataset.select_columns(used), used).with_format("arrow")
    found = cached_map(rows, check, check.description(), args.num_proc, batch_rows=CHECK_ROWS).with_format(None)
    present = np.asarray(found["present"][:], dtype=bool)
    is_present = {name: present[:, place] for place, name in enumerate(columns)}
    _check_missing(is_present, columns, args.allow_missing, split)
    if args.allow_missing and args.source != "multimodal_folder":  # reading a `multimodal_folder` says so itself
        tell_presence(is_present, f"{split} split")
    _check_depths(check.measured, found["bits"][:], dataset, split)
    if split == "train":
        _tell_classes(check.categorical, found["classes"][:], config.semantic_loss_ignore_index)
    return _without_broken(dataset, found["problem"][:], split)


def _picture_check(
    dataset: Dataset, columns: Mapping[str, str], args: MultimodalArguments, config: PreTrainedConfig
) -> PictureCheck:
    is_rendered = args.builtin is not None and args.builtin.is_rendered
    used = list(dict.fromkeys([*columns.values(), *args.label_maps]))
    files = () if is_rendered else tuple(name for name in used if holds_files(dataset.features[name]))
    kinds = {columns[one.name]: one for one in config.modality_table().values() if one.name in columns}
    measured = [column for column, one in kinds.items() if not one.is_categorical and one.num_channels == 1]
    categorical = [column for column, one in kinds.items() if one.is_categorical]
    banded = {
        column for column, one in kinds.items() if not one.is_categorical and one.num_channels not in PILLOW_MODES
    }
    measured += args.label_maps if args.task == "depth_estimation" else []
    return PictureCheck(
        columns,
        files,
        tuple(name for name in files if name in measured),
        tuple(name for name in files if name in categorical),
        tuple(name for name in files if name in banded),
    )


def _check_depths(columns: Sequence[str], bits: Sequence[Sequence[int]], dataset: Dataset, split: str) -> None:
    """Measurements of different depths are numbers of different units, which cannot be brought together."""
    for place, column in enumerate(columns):
        found = [row[place] for row in bits]
        counts = Counter(depth for depth in found if depth)
        if len(counts) < 2:
            continue
        rare = min(counts, key=lambda depth: (counts[depth], -depth))
        row = found.index(rare)
        cell = undecoded(dataset.select([row]).select_columns([column]), [column])[0][column]
        error = ValueError(
            f"the picture has {rare} bit; there are "
            + ", ".join(f"{count} pictures of {depth} bit" for depth, count in sorted(counts.items()))
            + ", whose numbers are of different ranges: bring all to one depth"
        )
        raise ValueError(f"{row_place(split, row, column)}: {with_files(error, [cell])}")


def _tell_classes(columns: Sequence[str], classes: Sequence[Sequence[Sequence[int]]], ignore_index: int) -> None:
    for place, column in enumerate(columns):
        rows = Counter(value for row in classes for value in row[place])
        ignored = rows.pop(ignore_index, 0)
        logger.info("train split, column %r: %d classes occur", column, len(rows))
        if ignored:
            logger.warning(
                "train split, column %r: %d of %d rows have pixels of %d (model.semantic_loss_ignore_index): no class, "
                "neither seen nor predicted; %d other values occur",
                *(column, ignored, len(classes), ignore_index, len(rows)),
            )


def _without_broken(dataset: Dataset, problems: Sequence[str], split: str) -> RawSplit:
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


def _check_missing(
    is_present: Mapping[str, np.ndarray], columns: Mapping[str, str], allow_missing: bool, split: str
) -> None:
    flags = np.stack(list(is_present.values()))
    lacking, empty = np.flatnonzero(~flags.all(axis=0)), np.flatnonzero(~flags.any(axis=0))
    if len(empty):
        raise ValueError(
            f"{row_place(split, int(empty[0]), *columns.values())}: the row has no modality at all: drop it"
        )
    if len(lacking) and not allow_missing:
        row = int(lacking[0])
        name = next(name for name, present in is_present.items() if not present[row])
        where = row_place(split, row, columns[name])
        raise ValueError(f"{missing_words(where, name)} ({len(lacking)} of {flags.shape[1]} rows lack some)")


def missing_words(where: str, name: str) -> str:
    return f"{where}: modality {name!r} is missing: fill it, drop the row, or set data.allow_missing to true"
