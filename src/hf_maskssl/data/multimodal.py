"""Rows of several aligned pictures: checked once, cropped and mirrored together, stacked into batches."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset

from ..models.image_processing_multimae import MultiMAEImageProcessor
from .arguments import DENSE_TASKS, DataArguments
from .builtin.scenes import CLASSES, LAYOUT
from .collators import BatchCollator, collate_labels
from .tables.caching import cached_map
from .tables.columns import path_of, read_map, undecoded
from .tables.draws import RowDraws
from .tables.labels import LabelSpace
from .tables.rows import Column, Rows
from .tables.sources import AnyDataset
from .text.texts import row_place

# Part of every cache key: raise it when prepared values change, so that old caches are not taken for new ones.
MULTIMODAL_VERSION = 2
CHECK_ROWS = 32  # rows whose pictures are opened together
UNREADABLE_SHARE = 0.01
NAMED_ROWS = 5
# What keys of a prepared row begin with.
INPUT, PRESENCE = "inputs.", "presence."
LABEL_MAPS = {"semantic_segmentation": "classes", "depth_estimation": "depth"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MultimodalPreparer:
    """Callable that turns a batch of raw columns and its row numbers into prepared columns, as `RowPreparer` does.

    Attributes:
        columns: Modality -> column.
        processor: What is done to the pictures.
        label_column: None leaves labels out.
        labels: How labels become numbers.
        label_scale: Depth maps to learn are multiplied by this.
        label_invalid_value: Pixels of this raw value have no known depth.
        allow_missing: Rows may lack modalities.
        augmentation: Draws views; None: all rows are seen as `processor.fixed_view` says.
        split: For errors.
        row_numbers: For errors, the number that each row had before some were left out; None: none were.
    """

    columns: Mapping[str, str]
    processor: MultiMAEImageProcessor
    label_column: str | None = None
    labels: LabelSpace | None = None
    label_scale: float = 1.0
    label_invalid_value: float | None = None
    allow_missing: bool = False
    augmentation: RowDraws | None = None
    split: str = "train"
    row_numbers: np.ndarray | None = None

    kind = "multimodal"
    tokenizer = None

    @property
    def used_columns(self) -> list[str]:
        """Every raw column read."""
        return list(dict.fromkeys([*self.columns.values(), *([self.label_column] if self.label_column else [])]))

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        """Prepare a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            `inputs.<modality>`: (n, C, h, w) float32 or (n, h, w) int32 class ids; `presence.<modality>` (n,) int8 where
            rows may lack some; `labels` (n,) or (n, H, W), int64 or float32; `index` (n,) int64.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """
        rows = [self._row(batch, place, index) for place, index in enumerate(indices)]
        prepared: dict[str, Column] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        prepared["index"] = np.asarray(indices, dtype=np.int64)
        return prepared

    def pixels(self, name: str, batch: Rows, indices: Sequence[int]) -> np.ndarray:
        """All valid pixels of a modality, scaled and not yet standardised, (C, n) float64.

        Raises:
            ValueError: A value that cannot be prepared, naming split, row and column.
        """
        column = self.columns[name]
        parts = [np.zeros((self.processor.pictures()[name].channels or 1, 0))]
        for index, value in zip(indices, batch[column], strict=True):
            if value is None:
                continue
            try:
                parts.append(self.processor.scaled_values(name, read_map(value)))
            except ValueError as error:
                raise ValueError(f"{self._where(index, column)}: {_with_files(error, [value])}") from error
        return np.concatenate(parts, axis=1)

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """From now on views are those of this epoch of a run with this seed, in worker processes as well."""
        if self.augmentation is not None:
            self.augmentation.set_epoch(epoch, seed)

    def _row(self, batch: Rows, place: int, index: int) -> dict[str, Any]:
        sample = {}
        for name, column in self.columns.items():
            value = batch[column][place]
            if value is not None:
                sample[name] = self._read(value, index, column)
            elif not self.allow_missing:
                raise ValueError(_missing_words(self._where(index, column), name))
        if not sample:
            raise ValueError(f"{self._where(index, *self.columns.values())}: the row has no modality at all: drop it")
        task = "classification" if self.labels is None else self.labels.task
        maps = {}
        if self.label_column is not None and task in LABEL_MAPS:
            maps[LABEL_MAPS[task]] = self._read(batch[self.label_column][place], index, self.label_column)
        generator = None if self.augmentation is None else self.augmentation.generator(index)
        try:
            inputs, label_maps = self.processor.prepare_row(sample, generator=generator, labels=maps)
            labels = self._labels(batch, place, label_maps)
        except ValueError as error:
            values = [batch[column][place] for column in self.used_columns]
            raise ValueError(f"{self._where(index, *self.used_columns)}: {_with_files(error, values)}") from error
        row: dict[str, Any] = {}
        for name in self.columns:
            row[INPUT + name] = self._stored(inputs[name]) if name in inputs else self._absent(name)
        if self.allow_missing:
            row |= {PRESENCE + name: np.int8(name in inputs) for name in self.columns}
        return row | labels

    def _read(self, value: Any, index: int, column: str) -> Any:
        try:
            return read_map(value)
        except ValueError as error:
            raise ValueError(f"{self._where(index, column)}: {_with_files(error, [value])}") from error

    def _labels(self, batch: Rows, place: int, maps: Mapping[str, np.ndarray]) -> dict[str, Any]:
        if self.labels is None or self.label_column is None:
            return {}
        if "depth" in maps:
            depth = maps["depth"]
            if self.label_invalid_value is not None:
                depth = np.where(depth == np.float32(self.label_invalid_value), np.float32(0.0), depth)
            return {"labels": depth * np.float32(self.label_scale)}
        if "classes" in maps:
            ids, count = maps["classes"], self.labels.num_labels
            is_outside = (ids != self.processor.ignore_index) & ((ids < 0) | (ids >= count))
            if is_outside.any():
                raise ValueError(
                    f"the class map {self.label_column!r} holds the class {ids[is_outside][0]}, expected 0..{count - 1} "
                    f"or {self.processor.ignore_index} for none (data.label_names, semantic_loss_ignore_index)"
                )
            return {"labels": ids}
        dtype = np.float32 if self.labels.task == "regression" else np.int64
        return {"labels": np.asarray(self.labels.encode(batch[self.label_column][place]), dtype=dtype)}

    @staticmethod
    def _stored(values: np.ndarray) -> np.ndarray:
        return values.astype(np.int32) if values.dtype == np.int64 else values

    def _absent(self, name: str) -> np.ndarray:
        """What stands where a modality is missing."""
        picture = self.processor.pictures()[name]
        size = [length // picture.stride for length in self.processor.image_size]
        if picture.channels is None:
            return np.full(size, self.processor.ignore_index, dtype=np.int32)
        return np.zeros([picture.channels, *size], dtype=np.float32)

    def _where(self, index: int, *columns: str) -> str:
        number = index if self.row_numbers is None else int(self.row_numbers[index])
        return row_place(self.split, number, *columns)

    def description(self) -> str:
        """All that decides the result, as text."""
        return json.dumps(
            {
                "version": MULTIMODAL_VERSION,
                "columns": [dict(self.columns), self.label_column, self.allow_missing],
                "depth_labels": [self.label_scale, self.label_invalid_value],
                "processor": self.processor.to_json_string(),
                "labels": None if self.labels is None else [self.labels.task, self.labels.names],
                "seed": None if self.augmentation is None else self.augmentation.seed,
            },
            sort_keys=True,
        )


class MultimodalCollator(BatchCollator):
    """Stacks rows of several modalities and checks values while they are on the CPU.

    Args:
        columns: Modality -> the raw column, for errors.
        num_classes: Modality -> classes, of class maps alone.
        ignore_index: Class id of pixels without a class.
    """

    def __init__(self, columns: Mapping[str, str], num_classes: Mapping[str, int], ignore_index: int) -> None:
        super().__init__(columns)
        self.num_classes = dict(num_classes)
        self.ignore_index = ignore_index

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Make a batch.

        Args:
            rows: Prepared rows with equal keys, as `MultimodalPreparer` gives them.

        Returns:
            `inputs`, {modality: (B, C, h, w) float32, or (B, h, w) int64}; `presence`, {modality: (B,) bool}, where some
            row lacks one; `labels` and `index` where rows have them.

        Raises:
            ValueError: No rows, values that are not finite, classes out of range, shapes that differ, or a row without any
                modality; named by row index and column.
        """
        if not rows:
            raise ValueError("cannot make a batch of no rows")
        batch: dict[str, Any] = {"inputs": {}}
        for key in rows[0]:
            if key.startswith(INPUT):
                name = key[len(INPUT) :]
                is_map = name in self.num_classes
                batch["inputs"][name] = self._classes(rows, key, name) if is_map else self.stack(rows, key, name)
        presence = self._presence(rows)
        if presence is not None:
            batch["presence"] = presence
        if "labels" in rows[0]:
            batch["labels"] = collate_labels(rows)
        if "index" in rows[0]:
            batch["index"] = torch.tensor([int(row["index"]) for row in rows])
        return batch

    def _classes(self, rows: Sequence[Mapping[str, Any]], key: str, name: str) -> torch.Tensor:
        ids = np.stack([np.asarray(row[key]) for row in rows]).astype(np.int64)
        is_outside = (ids != self.ignore_index) & ((ids < 0) | (ids >= self.num_classes[name]))
        if is_outside.any():
            place = int(is_outside.any(axis=(1, 2)).argmax())
            raise ValueError(
                f"{self.where(rows[place], name)} holds the class {ids[place][is_outside[place]][0]}, expected "
                f"0..{self.num_classes[name] - 1} or {self.ignore_index} for none"
            )
        return torch.from_numpy(ids)

    def _presence(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor] | None:
        names = [key[len(PRESENCE) :] for key in rows[0] if key.startswith(PRESENCE)]
        presence = {name: torch.tensor([bool(row[PRESENCE + name]) for row in rows]) for name in names}
        if not presence:
            return None
        there = torch.stack(list(presence.values()))
        if not there.any(dim=0).all():
            row = rows[int((~there.any(dim=0)).nonzero()[0])]
            raise ValueError(f"row {row.get('index', '?')} has none of the modalities {names}: drop it")
        return None if there.all() else presence


def modality_columns(args: DataArguments, config: Any) -> dict[str, str]:
    """Modality -> column, of all that the model reads or predicts unless the recipe names fewer.

    Raises:
        ValueError: A modality that the model does not have, or a label among the inputs.
    """
    known = _sources(config)
    if isinstance(args.input_column, dict):
        columns = dict(args.input_column)
    else:
        columns = {"rgb": args.input_column} if isinstance(args.input_column, str) else {name: name for name in known}
    for name in columns:
        if name not in known:
            raise ValueError(f"data.input_column: the model has no modality {name!r}; model.modalities has {known}")
    if args.label_column in columns.values():
        raise ValueError(
            f"data.label_column: {args.label_column!r} is also an input ({columns}), so the model would read the answer: "
            "name the inputs without it in data.input_column"
        )
    return columns


def check_complete(args: DataArguments, config: Any) -> None:
    """Refuse a recipe of pre-training without a column for some modality; under `allow_missing` a warning says so.

    Raises:
        ValueError: Naming the modalities.
    """
    columns = modality_columns(args, config)
    missing = [name for name in _sources(config) if name not in columns]
    if not missing:
        return
    message = (
        f"data.input_column {columns} names no column of {missing}, which model.modalities has: its layers would never be "
        f"trained; take {missing[0]!r} out of model.modalities, or name its column"
    )
    if not args.allow_missing:
        raise ValueError(message)
    logger.warning("%s", message)


def _sources(config: Any) -> list[str]:
    """Modalities with pictures of their own."""
    return [modality.name for modality in config.modality_table().values() if modality.source == modality.name]


def _with_files(error: ValueError, values: Sequence[Any]) -> str:
    """An error's words and, where they do not name them, the files that the values come from."""
    paths = [path for path in map(path_of, values) if path and path not in str(error)]
    return f"{error} ({', '.join(dict.fromkeys(paths))})" if paths else str(error)


def build_multimodal_processor(args: DataArguments, config: Any) -> MultiMAEImageProcessor:
    """The processor of a recipe; what `standardize: dataset` lacks is still to be measured.

    Raises:
        ValueError: Options of a modality that the model does not have, or that cannot be.
    """
    _check_options(args, config)
    entries: dict[str, dict[str, Any]] = {}
    for modality in config.modality_table().values():
        if modality.source == modality.name:
            count = (
                {"num_classes": modality.num_classes}
                if modality.is_categorical
                else {"num_channels": modality.num_channels}
            )
            entries[modality.name] = {"kind": modality.kind, **count, "stride": modality.stride}
    for name, fields in (args.modality_options or {}).items():
        entries[name] |= fields
    processor = MultiMAEImageProcessor(entries)
    for entry in processor.modalities.values():
        if entry["kind"] == "continuous":
            # Numbers of unknown range: raw ones would be learnt badly, and without a word.
            entry.setdefault("standardize", "dataset")
    return fitted_processor(processor, args, config)


def fitted_processor(processor: MultiMAEImageProcessor, args: DataArguments, config: Any) -> MultiMAEImageProcessor:
    """A copy that makes pictures of the model's size, cropped as the recipe says, with its `modality_options`.

    Where these ask for another standardisation than the processor has, mean and standard deviation are theirs or still to
    be measured; elsewhere the processor's hold.

    Raises:
        ValueError: The model has modalities that the processor does not know, or knows otherwise; options of a modality
            that the model does not have, or that cannot be.
    """
    _check_options(args, config)
    modalities = {name: dict(fields) for name, fields in processor.modalities.items()}
    for name, options in (args.modality_options or {}).items():
        modalities[name] = _with_options(name, modalities.get(name, {}), options)
    for modality in config.modality_table().values():
        entry = modalities.get(modality.source, {})
        count = entry.get("num_classes" if modality.is_categorical else "num_channels")
        wanted = modality.num_classes if modality.is_categorical else modality.num_channels
        if (entry.get("kind"), count, entry.get("stride", 1)) != (modality.kind, wanted, modality.stride):
            raise ValueError(
                f"the checkpoint's processor does not fit the model's modality {modality.source!r}: it has {entry}, the model "
                f"{modality.kind} with {wanted} channels or classes and stride {modality.stride}"
            )
    size = config.image_size
    return MultiMAEImageProcessor(
        modalities=modalities,
        image_size=size if isinstance(size, int) else list(size),
        ignore_index=config.semantic_loss_ignore_index,
        crop_fraction=args.crop_fraction,
        crop_scale=args.crop_scale,
        crop_ratio=args.crop_ratio,
        flip_probability=args.flip_probability,
    )


def _check_options(args: DataArguments, config: Any) -> None:
    known = _sources(config)
    for name in args.modality_options or {}:
        if name not in known:
            raise ValueError(f"data.modality_options: the model has no modality {name!r}; it has {known}")


def _with_options(name: str, entry: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    changed = {field: value for field, value in options.items() if field not in entry or entry[field] != value}
    if not changed:
        return dict(entry)
    logger.info("data.modality_options: modality %r gets %s instead of the processor's own", name, changed)
    kept = dict(entry)
    if "standardize" in changed:
        kept = {field: value for field, value in entry.items() if field not in ("mean", "std")}
    return {**kept, **options}


def measure_label_maps(args: DataArguments, ignore_index: int, train_split: AnyDataset) -> LabelSpace:
    """The label space of a dense task; classes are counted in the training split where nothing names them.

    Raises:
        ValueError: No classes, or a stream, whose classes cannot be counted.
    """
    if args.task == "depth_estimation":
        return LabelSpace("depth_estimation")
    names = args.label_names
    if names is None and args.source == "scenes":
        names = list(LAYOUT if args.label_column == "layout" else CLASSES)
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
        """All that decides the result."""
        return f"{MULTIMODAL_VERSION} {self.column} {self.ignore_index}"


@dataclass(frozen=True)
class PictureCheck:
    """Maps a batch of raw rows to what is wrong with each: pictures that cannot be opened, and modalities not there.

    Attributes:
        columns: Modality -> column.
        files: Columns of files, which are opened.
    """

    columns: Mapping[str, str]
    files: tuple[str, ...]

    def __call__(self, batch: pa.Table, indices: Sequence[int]) -> dict[str, list[Any]]:
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
        """All that decides the result."""
        return f"{MULTIMODAL_VERSION} {dict(self.columns)} {self.files}"


def readable_rows(
    dataset: AnyDataset, columns: Mapping[str, str], args: DataArguments, split: str
) -> tuple[AnyDataset, np.ndarray | None]:
    """The rows whose pictures can all be opened; a warning names the others. Streams are left as they are.

    Args:
        dataset: Raw rows.
        columns: Modality -> column.
        args: `verify_images`, `allow_missing`, `label_column`, `task` and `num_proc` are read.
        split: For messages.

    Returns:
        The rows, and their numbers in `dataset` (n,) int64, None where all are left.

    Raises:
        ValueError: More than 1 % of the rows cannot be opened, a row lacks a modality although none may, or lacks all.
    """
    if isinstance(dataset, IterableDataset) or not args.verify_images:
        return dataset, None
    label_maps = [args.label_column] if args.task in DENSE_TASKS and args.label_column is not None else []
    used = list(dict.fromkeys([*columns.values(), *label_maps]))
    # Scenes were rendered here.
    files = () if args.source == "scenes" else tuple(name for name in used if _holds_files(dataset, name))
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
        return dataset, None
    words = [f"row {row}, {problems[row]}" for row in broken[:NAMED_ROWS]]
    listed = "; ".join(words) + ("; ..." if len(broken) > NAMED_ROWS else "")
    message = f"{split} split: {len(broken)} of {len(dataset)} rows have pictures that cannot be read: {listed}"
    if len(broken) > UNREADABLE_SHARE * len(dataset):
        raise ValueError(f"{message}; that is more than {UNREADABLE_SHARE:.0%}: repair or remove them")
    logger.warning("%s; these rows are left out", message)
    left = np.setdiff1d(np.arange(len(dataset)), broken)
    return dataset.select(left), left


def array_columns(dataset: Dataset) -> Dataset:
    """Columns of arrays read as NumPy arrays rather than nested lists, where no row is null; all others as they are."""
    arrays = (datasets.Array2D, datasets.Array3D)
    names = [name for name, feature in dataset.features.items() if isinstance(feature, arrays)]
    names = [name for name in names if not dataset.data.column(name).null_count]
    return dataset.with_format("numpy", columns=names, output_all_columns=True) if names else dataset


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
            raise ValueError(f"{_missing_words(where, names[0])} ({count} of {len(missing)} rows lack some)")


def _missing_words(where: str, name: str) -> str:
    return f"{where}: modality {name!r} is missing: fill it, drop the row, or set data.allow_missing to true"


@dataclass(frozen=True)
class ModalityMoments:
    """Maps a batch of raw rows to one row: how many pixels there are, their mean and their spread, by channel.

    Attributes:
        prepare: Of the one modality that is measured.
        name: Its name.
    """

    prepare: MultimodalPreparer
    name: str

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, list[Any]]:
        values = self.prepare.pixels(self.name, batch, indices)
        mean = values.mean(axis=1) if values.size else np.zeros(len(values))
        squares = ((values - mean[:, None]) ** 2).sum(axis=1)
        return {"count": [values.shape[1]], "mean": [mean.tolist()], "squares": [squares.tolist()]}

    def description(self) -> str:
        """All that decides the result."""
        return f"{self.prepare.description()} {self.name}"
