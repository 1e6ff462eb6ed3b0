"""Pictures and outliers of fine-tuning runs, made from stored results: a later call can make them again."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedConfig

from ...data.arguments import DENSE_TASKS, DataArguments
from ...data.preparation import PreparedData
from ...data.tables.splits import load_splits
from ...evaluation.outliers import RULE, Outliers, find_outliers
from ...files import JsonObject, JsonView
from ...pictures.finetuning import (
    Curve,
    MapSample,
    draw_agreement,
    draw_class_maps,
    draw_confusion,
    draw_depth_maps,
    draw_validation,
    draw_value_maps,
)
from ...pictures.modalities import Painter, Samples
from .predictions import Predictions, confusion_of, load_predictions, predictions_path
from .results import Run, outliers_sentence
from .scores import FinetuningRows, rows_of
from .windows import row_numbers

PICTURES = "pictures"  # folder of the output_dir
COUNTED = {"classification": "rows", "token_classification": "tokens", "semantic_segmentation": "pixels"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawing:
    """The stored results of some runs, and the pictures made from them.

    Attributes:
        folder: The `output_dir`.
        data: Prepared data, for row numbers and the inputs of maps.
        data_args: The recipe's data section, for the text of outliers.
        config: Configuration of the model.
        results: Results in the form of results.json; of the baselines only the runs without pre-training are drawn.
        compared: Name -> `output_dir` of other runs on the same rows, whose maps are drawn beside.
    """

    folder: Path
    data: PreparedData
    data_args: DataArguments
    config: PreTrainedConfig
    results: JsonView
    compared: Mapping[str, Path] = field(default_factory=dict)

    def draw(self) -> JsonObject:
        """Draw every picture that the stored runs allow, into `output_dir`/pictures, and name a regression's outliers.

        Runs of earlier versions, which did not store scores or predictions, are left out, and the log says how many.

        Returns:
            {"pictures": {name: path below `output_dir`}}, and for a regression with stored predictions "outliers".
        """
        drawn = {"Validation scores": self._draw_validation()}
        stored = self._stored()
        found: JsonObject = {}
        if stored:
            task = self.results["task"]
            if task == "regression" and stored[0].true.ndim == 1:
                outliers = find_outliers(stored[0].true, _mean_of_runs(stored))
                drawn["Predicted against true values"] = self._draw_agreement(stored, outliers)
                found["outliers"] = self._describe_outliers(stored, outliers)
                logger.info("%s", outliers_sentence(found["outliers"]))
            if task in COUNTED:
                drawn["Confusion matrix"] = self._draw_confusion(task, stored)
            if task in DENSE_TASKS:
                drawn["Maps"] = self._draw_maps(task)
        shown = {what: path.relative_to(self.folder).as_posix() for what, path in drawn.items() if path is not None}
        return {"pictures": shown} | found

    # Stored results.

    def _reported(self) -> list[JsonObject]:
        """The records of the runs that are reported."""
        chosen = self.results["learning_rate"]
        return [record for record in self.results["runs"] if record["learning_rate"] == chosen]

    def _stored(self) -> list[Predictions]:
        """The stored predictions of the runs that are reported."""
        records = self._reported()
        runs = [Run(record["learning_rate"], record["seed"]) for record in records]
        found = [load_predictions(predictions_path(self.folder, run)) for run in runs]
        stored = [predictions for predictions in found if predictions is not None]
        if len(stored) < len(found):
            logger.warning(
                "Pictures leave out %d of %d runs, whose predictions are not stored (an earlier version wrote them); "
                "finetuning.overwrite does those runs anew.",
                len(found) - len(stored),
                len(found),
            )
        return stored

    def _split(self, predictions: Predictions) -> FinetuningRows:
        split = self.data.test if predictions.split == "test" else self.data.validation
        assert split is not None, "only an existing split has predictions"
        return rows_of(split)

    def _numbers(self, predictions: Predictions) -> np.ndarray:
        """The rows' numbers in their split as it was read, before any rows were left out."""
        return row_numbers(self._split(predictions), predictions.rows.tolist())

    # Pictures.

    def _draw_validation(self) -> Path | None:
        chosen = self.results["learning_rate"]
        curves = []
        for record in self.results["runs"]:
            is_reported = record["learning_rate"] == chosen
            curves.append(
                Curve(
                    f"seed {record['seed']}" if is_reported else "other learning rates",
                    record.get("history") or [],
                    record["epoch"] if is_reported else None,
                    "run" if is_reported else "other",
                )
            )
        for baseline in self.results.get("baselines", {}).get("models", []):
            curves += [
                Curve(baseline["title"], run["history"], kind="baseline")
                for run in baseline["runs"]
                if run.get("history")
            ]
        if not any(curve.points for curve in curves):
            return None
        title = f"{self._title()}, learning rate {chosen:g}"
        return draw_validation(curves, self.results["metric"], self._path("validation.png"), title)

    def _draw_confusion(self, task: str, stored: Sequence[Predictions]) -> Path:
        names = self.data.label_names or [str(number) for number in range(self.results["num_labels"])]
        counts = confusion_of(task, stored, len(names))
        title = f"{self._title()}: {stored[0].split} {COUNTED[task]}"
        if len(stored) > 1:
            title += f",\n{len(stored)} runs together"
        return draw_confusion(counts, names, self._path("confusion_matrix.png"), title, len(stored))

    def _draw_agreement(self, stored: Sequence[Predictions], outliers: Outliers) -> Path:
        said, label = np.stack([predictions.said for predictions in stored]), str(self.data_args.label_column)
        title = f"{self._title()}: {outliers.total:,} {stored[0].split} rows"
        path, rows = self._path("predicted_against_true.png"), self._numbers(stored[0])
        return draw_agreement(stored[0].true, said, path, title, label, outliers, rows)

    def _draw_maps(self, task: str) -> Path | None:
        """Maps of the run whose model is kept, or else of the first one."""
        kept = self.results.get("model") or self._reported()[0]
        run = Run(kept["learning_rate"], kept["seed"])
        predictions = load_predictions(predictions_path(self.folder, run))
        if predictions is None:
            return None
        split = self._split(predictions)
        batch: JsonObject = self.data.collator([split[int(place)] for place in predictions.rows])
        painter = Painter(
            self.config, Samples(batch["inputs"], batch.get("presence") or {}), self.data.processor, None
        )
        others = self._compared_maps(predictions)
        samples = []
        for place, number in enumerate(self._numbers(predictions)):
            cells = {name: painter.target(name, place).pixels for name in batch["inputs"]}
            # A modality that the row lacks is not shown.
            blank = np.ones((*predictions.true.shape[-2:], 3))
            inputs = {name: blank if pixels is None else pixels for name, pixels in cells.items()}
            beside = {name: maps[place] for name, maps in others.items()}
            samples.append(
                MapSample(f"row {number}", inputs, predictions.true[place], predictions.said[place], beside)
            )
        title = f"{self._title()}: {predictions.split} rows, seed {run.seed}"
        path = self._path("maps.png")
        if task == "depth_estimation":
            return draw_depth_maps(samples, path, title, "depth, in the labels' unit")
        if task == "dense_regression":
            return draw_value_maps(samples, path, title, f"{self.data_args.label_column}, in the labels' unit")
        names = self.data.label_names or [str(number) for number in range(self.results["num_labels"])]
        return draw_class_maps(samples, names, path, title, self.config.semantic_loss_ignore_index)

    def _compared_maps(self, own: Predictions) -> dict[str, np.ndarray]:
        """The maps that other runs predict for the same rows; a warning names runs that have none."""
        found: dict[str, np.ndarray] = {}
        for name, folder in self.compared.items():
            results = folder / "results.json"
            stored: JsonObject = json.loads(results.read_text(encoding="utf-8")) if results.is_file() else {"runs": []}
            kept = stored.get("model") or next(iter(stored["runs"]), None)
            run = None if kept is None else Run(kept["learning_rate"], kept["seed"])
            other = None if run is None else load_predictions(predictions_path(folder, run))
            if other is None or other.true.shape != own.true.shape or not _are_equal(other.true, own.true):
                logger.warning(
                    "finetuning.compare_with: %s (%s) holds no predictions of the rows that are drawn here, so it is left out",
                    folder,
                    name,
                )
                continue
            found[name] = other.said
        return found

    def _title(self) -> str:
        return self.folder.resolve().name

    def _path(self, name: str) -> Path:
        return self.folder / PICTURES / name

    # Outliers.

    def _describe_outliers(self, stored: Sequence[Predictions], outliers: Outliers) -> JsonObject:
        """The outliers in the form of results.json."""
        true, said, numbers = stored[0].true, _mean_of_runs(stored), self._numbers(stored[0])
        texts = self._texts(stored[0].split, [int(numbers[place]) for place in outliers.shown])
        return {
            "split": stored[0].split,
            "rule": RULE,
            "runs": len(stored),
            "rows": outliers.total,
            "median_residual": outliers.center,
            "robust_std": outliers.scale,
            "count": outliers.count,
            "shown": [
                {
                    "row": int(numbers[place]),
                    "input": text,
                    "true": float(f"{true[place]:.7g}"),  # labels are float32
                    "predicted": float(said[place]),
                    "residual": float(said[place] - true[place]),
                }
                for place, text in zip(outliers.shown, texts, strict=True)
            ],
        }

    def _texts(self, split: str, numbers: Sequence[int]) -> list[str | None]:
        """The rows' input columns that hold text, such as a SMILES; None where no column does."""
        if not numbers:
            return []
        rows: Any = load_splits(self.data_args)[split]
        named = self.data_args.columns_read()
        columns = [name for name in named if getattr(rows.features[name], "dtype", "") == "string"]
        if not columns:
            return [None] * len(numbers)
        chosen = rows.select(numbers).select_columns(columns)
        return [" / ".join(str(row[name]) for name in columns) for row in chosen]


def _are_equal(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(np.array_equal(np.nan_to_num(first, nan=-1.0), np.nan_to_num(second, nan=-1.0)))


def _mean_of_runs(stored: Sequence[Predictions]) -> np.ndarray:
    return np.mean([predictions.said for predictions in stored], axis=0)
