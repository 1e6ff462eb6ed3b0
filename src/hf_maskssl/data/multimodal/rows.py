"""Rows of several aligned pictures, cropped and mirrored together."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from datasets import Dataset

from ...models.image_processing_array import PILLOW_MODES, Pictures
from ...models.image_processing_multimae import MultiMAEImageProcessor
from ..augmentation.arguments import Augmentation
from ..augmentation.rows import draw_changes
from ..tables.draws import RowDraws
from ..tables.labels import LabelSpace
from ..tables.pictures import read_map
from ..tables.preparing import Preparer
from ..tables.raw_files import with_files
from ..tables.rows import Column, Rows
from ..tables.sources import AnyDataset
from ..text.texts import row_place
from .checks import MULTIMODAL_VERSION, missing_words
from .classes import MapLabels, ValueLabels

# Beginnings of the keys of a prepared row.
INPUT, PRESENCE = "inputs.", "presence."
LABEL_MAPS = {"semantic_segmentation": "classes", "depth_estimation": "depth", "dense_regression": "values"}


@dataclass(frozen=True)
class MultimodalPreparer(Preparer):
    """A `Preparer` of several pictures: it turns a batch of raw columns and its row numbers into prepared columns.

    Attributes:
        columns: Modality -> column.
        processor: Processor of the pictures.
        label_column: Name of the column that holds the label, or names of several; None leaves labels out.
        labels: Label space, which makes numbers of labels.
        label_scale: Factor that depth maps or values to learn are multiplied by.
        label_invalid_value: Raw value of pixels whose depth or values are not known.
        label_clip: Lowest and highest of the values to learn, to which scaled ones are clipped; None clips none.
        label_flips_x: Whether mirroring turns the first channel of the values to learn round.
        allow_missing: Whether rows may lack modalities.
        augmentation: Random numbers of the views; None gives all rows `processor.fixed_view`.
        entries: What else changes rows that are augmented.
        split: Name of the split, for errors.
        row_numbers: Number that each row had before some were left out, for errors; None where none were.
    """

    columns: Mapping[str, str]
    processor: MultiMAEImageProcessor
    label_column: str | list[str] | None = None
    labels: LabelSpace | None = None
    label_scale: float = 1.0
    label_invalid_value: float | None = None
    label_clip: tuple[float, ...] | None = None
    label_flips_x: bool = False
    allow_missing: bool = False
    augmentation: RowDraws | None = None
    entries: Augmentation = Augmentation()
    split: str = "train"
    row_numbers: np.ndarray | None = None

    @property
    def used_columns(self) -> list[str]:
        """Every raw column read."""
        labels = self.label_column if isinstance(self.label_column, list) else [self.label_column or ""]
        return list(dict.fromkeys([*self.columns.values(), *filter(None, labels)]))

    def __call__(self, batch: Rows, indices: Sequence[int]) -> dict[str, Column]:
        """Prepare a batch.

        Args:
            batch: Raw column name -> one value per row.
            indices: Row numbers.

        Returns:
            `inputs.<modality>`: (n, C, h, w) float32, NaN where a pixel is invalid, or (n, h, w) int32 class ids;
            `presence.<modality>` (n,) int8 where rows may lack some; `labels` (n,), (n, columns) or (n, H, W), int64 or float32;
            `index` (n,) int64.

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
                parts.append(self.processor.scaled_values(name, self._opened(name, value)))
            except ValueError as error:
                raise ValueError(f"{self._where(index, column)}: {with_files(error, [value])}") from error
        return np.concatenate(parts, axis=1)

    def opened(self, dataset: AnyDataset) -> AnyDataset:
        """Columns of arrays as NumPy arrays rather than nested lists, where no row is null; all others unchanged."""
        if not isinstance(dataset, Dataset):
            return dataset
        arrays = (datasets.Array2D, datasets.Array3D)
        names = [name for name, feature in dataset.features.items() if isinstance(feature, arrays)]
        names = [name for name in names if not dataset.data.column(name).null_count]
        return dataset.with_format("numpy", columns=names, output_all_columns=True) if names else dataset

    @property
    def is_drawn(self) -> bool:
        return self.augmentation is not None

    def fixed(self) -> "MultimodalPreparer":
        return dataclasses.replace(self, augmentation=None)

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Draw from now on the views of this epoch, in worker processes as well."""
        if self.augmentation is not None:
            self.augmentation.set_epoch(epoch, seed)

    def _row(self, batch: Rows, place: int, index: int) -> dict[str, Any]:
        sample = {}
        for name, column in self.columns.items():
            value = batch[column][place]
            if value is not None:
                sample[name] = self._read(value, index, column, name)
            elif not self.allow_missing:
                raise ValueError(missing_words(self._where(index, column), name))
        if not sample:
            raise ValueError(f"{self._where(index, *self.columns.values())}: the row has no modality at all: drop it")
        task = "classification" if self.labels is None else self.labels.task
        maps = {}
        if isinstance(self.label_column, str) and task in LABEL_MAPS:
            name = "normals" if self.label_flips_x else LABEL_MAPS[task]
            maps[name] = self._read(batch[self.label_column][place], index, self.label_column)
        generator = None
        if self.augmentation is not None:
            content = map(np.asarray, sample.values()) if self.augmentation.is_stream else ()
            generator = self.augmentation.generator(index, *content)
        changes = None
        if generator is not None and self.entries.changes_rows:
            changes = draw_changes(self.entries, generator.spawn(1)[0])  # views are drawn as without changes
        try:
            inputs, label_maps = self.processor.prepare_row(
                sample, None, generator, maps, np.nan, changes, self.label_invalid_value
            )
            labels = self._labels(batch, place, label_maps)
        except ValueError as error:
            values = [batch[column][place] for column in self.used_columns]
            raise ValueError(f"{self._where(index, *self.used_columns)}: {with_files(error, values)}") from error
        row: dict[str, Any] = {}
        for name in self.columns:
            row[INPUT + name] = self._stored(inputs[name]) if name in inputs else self._absent(name)
        if self.allow_missing:
            row |= {PRESENCE + name: np.int8(name in inputs) for name in self.columns}
        return row | labels

    def _opened(self, name: str, value: object) -> Pictures:
        """A picture of a modality; of one with other channels than pictures of Pillow have, a TIFF of several bands."""
        return read_map(value, with_bands=self.processor.pictures()[name].channels not in (None, *PILLOW_MODES))

    def _read(self, value: object, index: int, column: str, name: str | None = None) -> Pictures:
        try:
            return read_map(value) if name is None else self._opened(name, value)
        except ValueError as error:
            raise ValueError(f"{self._where(index, column)}: {with_files(error, [value])}") from error

    def _labels(self, batch: Rows, place: int, maps: Mapping[str, np.ndarray]) -> dict[str, Any]:
        if self.labels is None or self.label_column is None:
            return {}
        if isinstance(self.label_column, list):
            cells = {name: [batch[name][place]] for name in self.label_column}
            return {"labels": self.labels.encode_columns(cells, lambda _, column: f"column {column!r}")[0]}
        if "depth" in maps:
            return {"labels": maps["depth"] * np.float32(self.label_scale)}
        if isinstance(self.labels, ValueLabels):
            (values,) = maps.values()
            return {"labels": self._values(values, self.labels.channels)}
        if "classes" in maps:
            assert isinstance(self.labels, MapLabels)  # `measure_label_maps` gives these
            return {"labels": self.labels.numbers(maps["classes"], self.processor.ignore_index, self.label_column)}
        dtype = np.float32 if self.labels.task == "regression" else np.int64
        return {"labels": np.asarray(self.labels.encode(batch[self.label_column][place]), dtype=dtype)}

    def _values(self, values: np.ndarray, channels: int) -> np.ndarray:
        """(C, H, W) raw values -> (channels, H, W) float32 in the labels' unit, NaN where they are not known."""
        if len(values) < channels:
            raise ValueError(f"the map {self.label_column!r} has {len(values)} channels, expected {channels}")
        values = values[:channels] * np.float32(self.label_scale)
        if self.label_clip is not None:
            values = np.clip(values, np.float32(self.label_clip[0]), np.float32(self.label_clip[1]))
        return np.where(np.isfinite(values), values, np.float32(np.nan))

    @staticmethod
    def _stored(values: np.ndarray) -> np.ndarray:
        return values.astype(np.int32) if values.dtype == np.int64 else values

    def _absent(self, name: str) -> np.ndarray:
        """The values that stand for a missing modality."""
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
                "value_labels": [
                    self.label_clip,
                    self.label_flips_x,
                    self.labels.channels if isinstance(self.labels, ValueLabels) else None,
                ],
                "processor": self.processor.to_json_string(),
                "labels": None if self.labels is None else [self.labels.task, self.labels.names],
                "map_values": self.labels.map_values if isinstance(self.labels, MapLabels) else None,
                "entries": None if self.augmentation is None else dataclasses.asdict(self.entries),
                "seed": None if self.augmentation is None else self.augmentation.seed,
            },
            sort_keys=True,
        )
